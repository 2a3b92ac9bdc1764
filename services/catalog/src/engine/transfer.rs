//! One file from a vendor into staging of one server, in bounded memory, going on where it was.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use lockstep_model::{Reason, clock::Entropy as _, firmware::FirmwareFile};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};

use super::{
    Engine,
    download::upload,
    progress::Progress,
    work::{PAUSE_FIRST, PAUSE_MAX, Stop},
};
use crate::{
    domain::{error::Refusal, life::passes, offers::refusal},
    ports::{Body, FeedFile, Ports, Server, Servers as _, Vendor as _, VendorError},
};

/// Bytes of one chunk: what a server takes at most is 1 MiB.
const CHUNK_BYTES: usize = 256 << 10;
/// Chunks that wait for the connection to the server. With four files at a time that is 4 MiB.
const QUEUE_CHUNKS: usize = 4;
/// How long bytes wait for a chunk to be full.
const GATHER_MAX: Duration = Duration::from_secs(2);
/// How often it is asked how many bytes are safe.
const ASK_EVERY: Duration = Duration::from_secs(1);

impl<P: Ports> Engine<P> {
    /// Brings a file into staging, trying again what passes. The others go on meanwhile.
    pub(super) async fn transfer(
        &self,
        source_id: &str,
        server: &Server,
        place: usize,
        file: &FirmwareFile,
        progress: &Progress,
    ) -> Result<(), Stop> {
        let mut pause = PAUSE_FIRST;
        loop {
            let before = progress.bytes_of(place, file);
            let refusal = match self.try_transfer(source_id, server, place, file, progress).await {
                Ok(()) => return Ok(()),
                Err(refusal) if passes(refusal.reason) => refusal,
                Err(refusal) => return Err(Stop::Fatal(refusal)),
            };
            if progress.bytes_of(place, file) > before {
                pause = PAUSE_FIRST;
            }
            tracing::info!(
                path = %file.path, reason = %refusal.reason, error = %refusal,
                "the download of a file is tried again"
            );
            progress.troubled(Some(&refusal));
            tokio::time::sleep(self.entropy().jitter(pause)).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn try_transfer(
        &self,
        source_id: &str,
        server: &Server,
        place: usize,
        file: &FirmwareFile,
        progress: &Progress,
    ) -> Result<(), Refusal> {
        let size_bytes = file.size_bytes;
        let committed = self.servers().committed(server, upload(file)).await?;
        progress.reached(place, size_bytes, committed);
        if committed == Some(size_bytes) {
            return Ok(());
        }
        let mut offset = committed.unwrap_or(0);
        let asked = FeedFile {
            name: file.path.to_string(),
            uri: file.uri.clone(),
            size_bytes,
            sha256: file.sha256.clone(),
        };
        let body: Body = if size_bytes == 0 {
            Box::pin(futures::stream::empty())
        } else {
            let known = progress.validator(place);
            let vendor = &self.inner.outside.vendor;
            let fetched = vendor.fetch(source_id.to_owned(), asked, offset, known).await;
            let fetched = fetched.map_err(|error| refusal(&error))?;
            if fetched.offset_bytes != offset {
                // It changed, or gives no ranges: what is there is of no use.
                tracing::info!(path = %file.path, offset_bytes = offset, "the download of a file begins anew");
                self.drop_upload(server, file.upload_id).await?;
                progress.reached(place, size_bytes, None);
                offset = 0;
            }
            progress.validated(place, &fetched.validator);
            fetched.body
        };
        progress.troubled(None);
        let (chunks, queue) = mpsc::channel(QUEUE_CHUNKS);
        let fed = feed(body, size_bytes - offset, chunks);
        let written = self.servers().write(server, upload(file), offset, queue);
        let both = async { tokio::join!(fed, written) };
        let (fed, written) = tokio::select! {
            biased;
            ended = both => ended,
            () = self.ask_what_is_safe(server, place, file, progress) => return Ok(()),
        };
        if let Ok(bytes) = written {
            progress.reached(place, size_bytes, Some(bytes));
        }
        fed.map_err(|error| refusal(&error))?;
        match written? {
            bytes if bytes == size_bytes => Ok(()),
            bytes => {
                let message = format!("{} gave {bytes} of {size_bytes} bytes", file.uri);
                Err(Refusal::new(Reason::VendorUnreachable, message))
            }
        }
    }

    /// Looks how far it is until it is dropped.
    async fn ask_what_is_safe(
        &self,
        server: &Server,
        place: usize,
        file: &FirmwareFile,
        progress: &Progress,
    ) {
        loop {
            tokio::time::sleep(ASK_EVERY).await;
            match self.servers().committed(server, upload(file)).await {
                // That it is complete, the write itself says.
                Ok(Some(bytes)) if bytes < file.size_bytes => {
                    progress.reached(place, file.size_bytes, Some(bytes))
                }
                _ => {}
            }
        }
    }
}

/// Passes the bytes on in chunks, until there are no more or nobody takes them. What a slow vendor gave does not wait long
/// for a chunk to be full: the server gives up on a stream that stands still, and then it would be lost.
async fn feed(mut body: Body, left: u64, chunks: mpsc::Sender<Bytes>) -> Result<(), VendorError> {
    let mut gathered = BytesMut::new();
    let mut left = usize::try_from(left).unwrap_or(usize::MAX);
    let mut sent = Instant::now();
    loop {
        let next = timeout(GATHER_MAX, body.next()).await;
        let ended = match next {
            Ok(Some(Ok(mut bytes))) => {
                // No vendor writes more into a server than it declared.
                bytes.truncate(left);
                left -= bytes.len();
                gathered.extend_from_slice(&bytes);
                None
            }
            Ok(Some(Err(error))) => Some(Err(error)),
            Ok(None) => Some(Ok(())),
            Err(_) => None,
        };
        let is_due = ended.is_some() || sent.elapsed() >= GATHER_MAX;
        while gathered.len() >= CHUNK_BYTES || (is_due && !gathered.is_empty()) {
            let chunk = gathered.split_to(gathered.len().min(CHUNK_BYTES)).freeze();
            if chunks.send(chunk).await.is_err() {
                // Why, the server tells.
                return Ok(());
            }
            sent = Instant::now();
        }
        if let Some(ended) = ended {
            return ended;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R58: what a vendor gives byte by byte reaches the server long before it would call the stream stalled.
    #[tokio::test(start_paused = true)]
    async fn what_comes_slowly_does_not_wait_for_a_full_chunk() {
        let slow = futures::stream::iter(0..100_u8).then(|byte| async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok(Bytes::copy_from_slice(&[byte]))
        });
        let (chunks, mut queue) = mpsc::channel::<Bytes>(QUEUE_CHUNKS);
        let take = async {
            let (mut taken, mut last) = (Vec::new(), Instant::now());
            while let Some(chunk) = queue.recv().await {
                assert!(last.elapsed() <= Duration::from_secs(4), "{:?}", last.elapsed());
                last = Instant::now();
                taken.extend_from_slice(&chunk);
            }
            taken
        };
        // It has more than was declared.
        let (fed, taken) = tokio::join!(feed(Box::pin(slow), 90, chunks), take);
        fed.expect("no error");
        assert_eq!(taken, (0..90).collect::<Vec<u8>>());
    }
}
