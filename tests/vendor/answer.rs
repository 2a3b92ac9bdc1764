//! The answer to one request, byte by byte: no library of HTTP would lie like this.

use std::{
    fs::File,
    io,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use sha2::{Digest as _, Sha256};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt as _},
    time::{Instant, sleep_until},
};

use crate::{Request, Server, plan::Plan};

/// Written at once, where nothing is slow.
const PIECE_BYTES: u64 = 256 << 10;
/// Pieces in a second, where something is.
const PIECES_A_SECOND: u64 = 20;
/// What no caller of ours should ever see.
const SECRET: &str = "the-inside-of-the-vendor";

/// Answers, and leaves the connection to be closed.
pub(crate) async fn answer(
    stream: &mut (impl AsyncWrite + Unpin),
    server: &Server,
    request: &Request,
) -> io::Result<()> {
    let Some(plan) = Plan::parse(&request.path) else { return refuse(stream, 400).await };
    if plan.silent {
        return std::future::pending().await;
    }
    if let Some(code) = plan.status {
        return refuse(stream, code).await;
    }
    if let Some(location) = redirection(&plan, &request.path) {
        let head = format!("HTTP/1.1 302 {SECRET}\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        return stream.shutdown().await;
    }
    let relative: PathBuf = plan.file.split('/').filter(|part| !part.starts_with('.')).collect();
    let is_later = (plan.changing.is_some() || plan.growing.is_some()) && server.count(&request.path) > 0;
    let Ok(mut content) = Content::open(&server.directory.join(relative), &plan, is_later) else {
        return refuse(stream, 404).await;
    };
    let digest = content.version.clone();
    let (tag, date) = (format!("\"{digest}\""), date_of(&digest));
    if is_unchanged(request, &plan, &tag, &date) {
        let head = format!("HTTP/1.1 304 {SECRET}\r\netag: {tag}\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        return stream.shutdown().await;
    }
    let start = range(request, &plan, &tag, &date);
    let total = content.length;
    if start.is_some_and(|start| start >= total) {
        return refuse(stream, 416).await;
    }
    let start = start.map(|start| start.saturating_sub(u64::from(plan.shifted)));
    content.at = start.unwrap_or(0);
    content.length = total.saturating_sub(plan.short.unwrap_or(0)) + plan.long.unwrap_or(0);
    let mut head = match start {
        None => format!("HTTP/1.1 200 {SECRET}\r\n"),
        Some(start) => {
            format!("HTTP/1.1 206 {SECRET}\r\ncontent-range: bytes {start}-{}/{total}\r\n", total - 1)
        }
    };
    if plan.weak {
        head.push_str(&format!("etag: W/{tag}\r\n"));
    } else if !plan.no_tag {
        head.push_str(&format!("etag: {tag}\r\nlast-modified: {date}\r\n"));
    }
    if plan.gzip {
        head.push_str("content-encoding: gzip\r\n");
    }
    if plan.chunked {
        head.push_str("transfer-encoding: chunked\r\n");
    } else if !plan.no_length && !plan.endless {
        head.push_str(&format!("content-length: {}\r\n", content.length.saturating_sub(content.at)));
    }
    head.push_str("connection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    if request.method == "HEAD" {
        return stream.shutdown().await;
    }
    let first = plan.changing.or(plan.growing).filter(|_| !is_later);
    send(stream, &mut content, &plan, plan.cut.or(first)).await
}

async fn refuse(stream: &mut (impl AsyncWrite + Unpin), code: u16) -> io::Result<()> {
    let length = SECRET.len();
    let text = format!("HTTP/1.1 {code} {SECRET}\r\ncontent-length: {length}\r\n\r\n{SECRET}");
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await
}

fn redirection(plan: &Plan, path: &str) -> Option<String> {
    if let Some(location) = &plan.redirect_to {
        return Some(location.clone());
    }
    let left = plan.redirect.filter(|left| *left > 0)?;
    Some(path.replacen(&format!("redirect/{left}"), &format!("redirect/{}", left - 1), 1))
}

/// Another version has another date, too.
fn date_of(digest: &str) -> String {
    let number = u64::from_str_radix(&digest[..4], 16).expect("hexadecimal");
    format!("Mon, 02 Nov 2026 {:02}:{:02}:{:02} GMT", number % 24, number % 60, number % 59)
}

fn is_unchanged(request: &Request, plan: &Plan, tag: &str, date: &str) -> bool {
    let given = |name: &str| request.headers.get(name).map(String::as_str);
    let tag_given = given("if-none-match").map(|given| given.trim_start_matches("W/"));
    !plan.no_tag
        && (tag_given == Some(tag) || tag_given.is_none() && given("if-modified-since") == Some(date))
}

/// Where the asked range begins, if one is asked for, and is given.
fn range(request: &Request, plan: &Plan, tag: &str, date: &str) -> Option<u64> {
    let text = request.headers.get("range").filter(|_| !plan.no_range)?;
    let is_same =
        request.headers.get("if-range").is_none_or(|given| (given == tag || given == date) && !plan.weak);
    text.strip_prefix("bytes=")?.split('-').next()?.parse().ok().filter(|_| is_same || plan.stubborn)
}

/// The bytes of a file from somewhere on, as the plan wants them.
struct Content {
    file: File,
    /// Bytes of the file; zeros follow.
    size: u64,
    /// Every byte is inverted.
    is_inverted: bool,
    /// Another one for another version.
    version: String,
    /// The next byte.
    at: u64,
    /// Where it ends.
    length: u64,
}

impl Content {
    fn open(path: &Path, plan: &Plan, is_later: bool) -> io::Result<Self> {
        let file = File::open(path)?;
        let about = file.metadata()?;
        let size = about.len();
        let named = format!("{} {} {} {size} {is_later}", about.ino(), about.mtime(), about.mtime_nsec());
        let version = hex::encode(&Sha256::digest(named)[..8]);
        let length = size + u64::from(is_later && plan.growing.is_some());
        let is_inverted = is_later && plan.changing.is_some();
        Ok(Self { file, size, is_inverted, version, at: 0, length })
    }

    /// The next bytes, at most so many; none at the end.
    fn read(&mut self, at_most: u64) -> io::Result<Vec<u8>> {
        let count = at_most.min(self.length.saturating_sub(self.at));
        let of_file = count.min(self.size.saturating_sub(self.at));
        let mut bytes = vec![0; usize::try_from(of_file).expect("a piece")];
        self.file.read_exact_at(&mut bytes, self.at)?;
        if self.is_inverted {
            bytes.iter_mut().for_each(|byte| *byte = !*byte);
        }
        bytes.resize(usize::try_from(count).expect("a piece"), 0);
        self.at += count;
        Ok(bytes)
    }
}

async fn send(
    stream: &mut (impl AsyncWrite + Unpin),
    content: &mut Content,
    plan: &Plan,
    cut: Option<u64>,
) -> io::Result<()> {
    let limit = cut.unwrap_or(u64::MAX).min(plan.stall.unwrap_or(u64::MAX));
    let piece = plan.slow.map_or(PIECE_BYTES, |rate| (rate / PIECES_A_SECOND).max(1));
    let begun = Instant::now();
    let mut sent = 0;
    loop {
        let bytes = content.read(piece.min(limit - sent))?;
        if bytes.is_empty() {
            break;
        }
        if let Some(rate) = plan.slow {
            sleep_until(begun + Duration::from_millis(sent * 1_000 / rate.max(1))).await;
        }
        write(stream, &bytes, plan).await?;
        sent += bytes.len() as u64;
    }
    stream.flush().await?;
    if plan.stall.is_some() {
        return std::future::pending().await;
    }
    if cut.is_some() {
        // Dropped without a word: neither the end of TLS nor of HTTP.
        return Ok(());
    }
    if plan.endless {
        let zeros = vec![0; 64 << 10];
        loop {
            write(stream, &zeros, plan).await?;
        }
    }
    if plan.chunked {
        stream.write_all(b"0\r\n\r\n").await?;
    }
    stream.shutdown().await
}

async fn write(stream: &mut (impl AsyncWrite + Unpin), piece: &[u8], plan: &Plan) -> io::Result<()> {
    if !plan.chunked {
        stream.write_all(piece).await?;
        return if plan.slow.is_some() { stream.flush().await } else { Ok(()) };
    }
    stream.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).await?;
    stream.write_all(piece).await?;
    stream.write_all(b"\r\n").await?;
    stream.flush().await
}
