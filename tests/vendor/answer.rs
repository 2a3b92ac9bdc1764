//! The answer to one request, byte by byte: no library of HTTP would lie like this.

use std::{io, time::Duration};

use sha2::{Digest as _, Sha256};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt as _},
    time::{Instant, sleep_until},
};

use crate::{Request, Server, plan::Plan};

/// Written at once, where nothing is slow.
const PIECE_BYTES: usize = 256 << 10;
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
    let relative: std::path::PathBuf = plan.file.split('/').filter(|part| !part.starts_with('.')).collect();
    let Ok(mut content) = std::fs::read(server.directory.join(relative)) else {
        return refuse(stream, 404).await;
    };
    let is_later = (plan.changing.is_some() || plan.growing.is_some()) && server.count(&request.path) > 0;
    if is_later && plan.changing.is_some() {
        content.iter_mut().for_each(|byte| *byte = !*byte);
    }
    if is_later && plan.growing.is_some() {
        content.push(0);
    }
    let digest = hex::encode(&Sha256::digest(&content)[..8]);
    let (tag, date) = (format!("\"{digest}\""), date_of(&digest));
    if is_unchanged(request, &plan, &tag, &date) {
        let head = format!("HTTP/1.1 304 {SECRET}\r\netag: {tag}\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        return stream.shutdown().await;
    }
    let start = range(request, &plan, &tag, &date);
    if start.is_some_and(|start| start >= content.len()) {
        return refuse(stream, 416).await;
    }
    let total = content.len();
    let mut body = content.split_off(start.unwrap_or(0).saturating_sub(usize::from(plan.shifted)));
    resize(&mut body, &plan);
    let mut head = match start {
        None => format!("HTTP/1.1 200 {SECRET}\r\n"),
        Some(start) => {
            let start = start.saturating_sub(usize::from(plan.shifted));
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
        head.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    head.push_str("connection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    if request.method == "HEAD" {
        return stream.shutdown().await;
    }
    let first = plan.changing.or(plan.growing).filter(|_| !is_later);
    send(stream, &body, &plan, plan.cut.or(first)).await
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
fn range(request: &Request, plan: &Plan, tag: &str, date: &str) -> Option<usize> {
    let text = request.headers.get("range").filter(|_| !plan.no_range)?;
    let is_same =
        request.headers.get("if-range").is_none_or(|given| (given == tag || given == date) && !plan.weak);
    text.strip_prefix("bytes=")?.split('-').next()?.parse().ok().filter(|_| is_same)
}

fn resize(body: &mut Vec<u8>, plan: &Plan) {
    let cut = |bytes: u64| usize::try_from(bytes).expect("a small number");
    if let Some(fewer) = plan.short {
        body.truncate(body.len().saturating_sub(cut(fewer)));
    }
    if let Some(more) = plan.long {
        body.resize(body.len() + cut(more), 0);
    }
}

async fn send(
    stream: &mut (impl AsyncWrite + Unpin),
    body: &[u8],
    plan: &Plan,
    cut: Option<u64>,
) -> io::Result<()> {
    let at_most =
        |bytes: Option<u64>| bytes.map_or(usize::MAX, |bytes| usize::try_from(bytes).expect("small"));
    let end = body.len().min(at_most(cut)).min(at_most(plan.stall));
    let piece = plan.slow.map_or(PIECE_BYTES, |rate| at_most(Some((rate / PIECES_A_SECOND).max(1))));
    let begun = Instant::now();
    for (index, piece_of) in body[..end].chunks(piece).enumerate() {
        if let Some(rate) = plan.slow {
            let sent = u64::try_from(index * piece).expect("it fits");
            sleep_until(begun + Duration::from_millis(sent * 1_000 / rate.max(1))).await;
        }
        write(stream, piece_of, plan).await?;
    }
    stream.flush().await?;
    if plan.stall.is_some() {
        return std::future::pending().await;
    }
    if cut.is_some() {
        // Dropped without a word: neither the end of TLS nor of HTTP.
        return Ok(());
    }
    let zeros = vec![0; PIECE_BYTES];
    if plan.endless {
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
