//! What a path asks for.

/// How one answer is given. Each option is a component of the path, followed by its value where it has one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// `slow/<n>`: n bytes in a second.
    pub(crate) slow: Option<u64>,
    /// `cut/<n>`: the connection breaks after n bytes of the body.
    pub(crate) cut: Option<u64>,
    /// `stall/<n>`: nothing more comes after n bytes of the body, and the connection stays.
    pub(crate) stall: Option<u64>,
    /// `silent`: not even a head comes.
    pub(crate) silent: bool,
    /// `short/<n>`: n bytes fewer than the file has, in length and body.
    pub(crate) short: Option<u64>,
    /// `long/<n>`: n bytes more than the file has, in length and body.
    pub(crate) long: Option<u64>,
    /// `nolength`: no length; the end is the end of the connection.
    pub(crate) no_length: bool,
    /// `chunked`: no length; chunks with an end.
    pub(crate) chunked: bool,
    /// `endless`: no length, and no end: zeros without end after the file.
    pub(crate) endless: bool,
    /// `norange`: ranges are ignored.
    pub(crate) no_range: bool,
    /// `stubborn`: ranges are given whatever If-Range says.
    pub(crate) stubborn: bool,
    /// `notag`: no ETag, and no Last-Modified.
    pub(crate) no_tag: bool,
    /// `weak`: a weak ETag, and no Last-Modified.
    pub(crate) weak: bool,
    /// `shifted`: ranges begin one byte too early.
    pub(crate) shifted: bool,
    /// `changing/<n>`: the first answer breaks after n bytes; from then on it is another version: other ETag, the same size,
    /// every byte inverted.
    pub(crate) changing: Option<u64>,
    /// `growing/<n>`: like `changing`, but the other version is the same with one byte more.
    pub(crate) growing: Option<u64>,
    /// `gzip`: the body is called compressed.
    pub(crate) gzip: bool,
    /// `status/<code>`: an error with a text that nobody should pass on.
    pub(crate) status: Option<u16>,
    /// `redirect/<n>`: n redirects to the same server, then what follows.
    pub(crate) redirect: Option<u64>,
    /// `redirect-to/<hexadecimal digits of a URI>`: a redirect to that.
    pub(crate) redirect_to: Option<String>,
    /// The file, and what follows the last option.
    pub(crate) file: String,
}

impl Plan {
    /// What `path` asks for; `None` if an option has no proper value.
    pub(crate) fn parse(path: &str) -> Option<Self> {
        let mut plan = Self::default();
        let mut rest = path.split(['?', '#']).next()?.trim_start_matches('/');
        loop {
            let (word, after) = rest.split_once('/').unwrap_or((rest, ""));
            let flag = match word {
                "plain" => Some(&mut false),
                "silent" => Some(&mut plan.silent),
                "nolength" => Some(&mut plan.no_length),
                "chunked" => Some(&mut plan.chunked),
                "endless" => Some(&mut plan.endless),
                "norange" => Some(&mut plan.no_range),
                "stubborn" => Some(&mut plan.stubborn),
                "notag" => Some(&mut plan.no_tag),
                "weak" => Some(&mut plan.weak),
                "shifted" => Some(&mut plan.shifted),
                "gzip" => Some(&mut plan.gzip),
                _ => None,
            };
            if let Some(flag) = flag {
                *flag = true;
                rest = after;
                continue;
            }
            let (value, after) = after.split_once('/').unwrap_or((after, ""));
            let number = match word {
                "slow" => &mut plan.slow,
                "cut" => &mut plan.cut,
                "stall" => &mut plan.stall,
                "short" => &mut plan.short,
                "long" => &mut plan.long,
                "changing" => &mut plan.changing,
                "growing" => &mut plan.growing,
                "redirect" => &mut plan.redirect,
                "status" => {
                    plan.status = Some(value.parse().ok()?);
                    rest = after;
                    continue;
                }
                "redirect-to" => {
                    plan.redirect_to = Some(String::from_utf8(hex::decode(value).ok()?).ok()?);
                    rest = after;
                    continue;
                }
                _ => {
                    plan.file = rest.to_owned();
                    return Some(plan);
                }
            };
            *number = Some(value.parse().ok()?);
            rest = after;
        }
    }
}
