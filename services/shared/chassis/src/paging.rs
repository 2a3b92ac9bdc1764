//! Pages: their size, and the tokens that continue them.

use lockstep_model::{Digest, Fault, Reason, Violation};

/// The page size when a caller states none.
pub const PAGE_SIZE_DEFAULT: usize = 50;
/// The largest page; more is lowered to it.
pub const PAGE_SIZE_MAX: usize = 500;

/// Bytes of the digest that binds a token to the parameters of its listing. It guards against mistakes, not against
/// forgery: a token grants nothing that the caller may not list anyway.
const BINDING_BYTES: usize = 8;
/// The longest token: the longest path and its binding in hexadecimal, with room to grow.
const TOKEN_BYTES_MAX: usize = 2 * (BINDING_BYTES + 4_200);

/// The size of a page: 0 means 50, above 500 is lowered.
///
/// # Errors
/// A violation of `page_size` if it is negative.
pub fn page_size(size: i32) -> Result<usize, Violation> {
    match usize::try_from(size) {
        Ok(0) => Ok(PAGE_SIZE_DEFAULT),
        Ok(size) => Ok(size.min(PAGE_SIZE_MAX)),
        Err(_) => {
            Err(Violation { field: "page_size".to_owned(), description: "must not be negative".to_owned() })
        }
    }
}

/// Opaque tokens that say where the next page begins.
#[derive(Debug)]
pub struct PageToken;

/// The token was not made by this call with these parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the page token was not made by this listing with these parameters")]
pub struct PageTokenInvalid;

impl Fault for PageTokenInvalid {
    fn reason(&self) -> Reason {
        Reason::PageTokenInvalid
    }
}

impl PageToken {
    /// A token for the page after `after_key` of the listing with these parameters.
    pub fn seal(after_key: &str, parameters: &[&str]) -> String {
        let mut bytes = binding(parameters).to_vec();
        bytes.extend_from_slice(after_key.as_bytes());
        hex::encode(bytes)
    }

    /// The key after which the next page begins.
    ///
    /// # Errors
    /// [`PageTokenInvalid`] for a token of another listing, or none at all.
    pub fn open(token: &str, parameters: &[&str]) -> Result<String, PageTokenInvalid> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(PageTokenInvalid);
        }
        let bytes = hex::decode(token).map_err(|_| PageTokenInvalid)?;
        let key = bytes.strip_prefix(&binding(parameters)).ok_or(PageTokenInvalid)?;
        String::from_utf8(key.to_vec()).map_err(|_| PageTokenInvalid)
    }
}

/// Length-prefixed, so that `["a", "b"]` and `["ab"]` differ.
fn binding(parameters: &[&str]) -> [u8; BINDING_BYTES] {
    let mut bytes = Vec::new();
    for parameter in parameters {
        bytes.extend_from_slice(&(parameter.len() as u64).to_le_bytes());
        bytes.extend_from_slice(parameter.as_bytes());
    }
    let mut binding = [0; BINDING_BYTES];
    binding.copy_from_slice(&Digest::of(&bytes).as_bytes()[..BINDING_BYTES]);
    binding
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_bound_to_its_listing() {
        for key in ["", "a", "ä/ö ü", "os/base.img"] {
            let token = PageToken::seal(key, &["os/", "x"]);
            assert_eq!(PageToken::open(&token, &["os/", "x"]).as_deref(), Ok(key));
            assert_eq!(PageToken::open(&token, &["os/x"]), Err(PageTokenInvalid));
        }
        for bad in ["", "zz", "00", &"ab".repeat(100_000)] {
            assert_eq!(PageToken::open(bad, &["os/"]), Err(PageTokenInvalid));
        }
    }

    #[test]
    fn page_sizes_are_bounded() {
        assert_eq!([0, 1, 500, 501, i32::MAX].map(|n| page_size(n).ok()), [50, 1, 500, 500, 500].map(Some));
        assert!(page_size(-1).is_err());
    }
}
