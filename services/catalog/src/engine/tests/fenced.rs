//! A server that its time guard fences: nothing begins there, and what had begun waits (R62, R64).

use std::time::Duration;

use bytes::Bytes;
use lockstep_model::{Fault as _, FirmwareId, Reason, firmware::FirmwareState};

use super::{Instance, World, ask, fakes::until, start};
use crate::{
    domain::error::Refusal,
    engine::Import,
    ports::{ArchiveEntry, ArchiveError, ArchiveReader, ArchiveSummary},
};

const SOON: Duration = Duration::from_secs(120);
/// What a fence may be for.
const FENCES: [Reason; 2] = [Reason::ClockFenced, Reason::RestartRequired];

/// An archive that nobody may touch.
struct Untouched;

impl ArchiveReader for Untouched {
    type Broken = Refusal;

    async fn next_entry(&mut self) -> Result<Option<ArchiveEntry>, ArchiveError<Refusal>> {
        panic!("it is read although nothing can be imported")
    }

    async fn next_chunk(&mut self) -> Result<Option<Bytes>, ArchiveError<Refusal>> {
        panic!("it is read although nothing can be imported")
    }

    async fn finish(self) -> Result<ArchiveSummary, ArchiveError<Refusal>> {
        panic!("it is read although nothing can be imported")
    }
}

/// Waits until the work on an update waits for the fence, in the state that it is in.
async fn waits(one: &Instance, id: FirmwareId, state: FirmwareState, reason: Reason) {
    until(&format!("{state:?} waits for {reason}"), SOON, async || {
        let shown = one.engine.shown(id).await.expect("it is there");
        assert_ne!(shown.update.record.state, FirmwareState::Failed);
        let told = shown.note.and_then(|note| note.failure).map(|failure| failure.reason);
        shown.update.record.state == state && told == Some(reason)
    })
    .await;
}

/// R62: no download into a fenced server starts, and no import; they are refused with the reason of the fence, before
/// anything is written down or read.
#[tokio::test(start_paused = true)]
async fn nothing_starts_into_a_fenced_server() {
    let world = World::new().await;
    world.vendor.offers("os", &[("a", vec![1; 3_000])]);
    let one = world.instance(1);
    for reason in FENCES {
        world.servers.now(|house| house.fence = Some(reason));
        let refusal = one.engine.start(ask("r"), start("os", "fw")).await.expect_err("fenced");
        assert_eq!(refusal.reason(), reason);
        let (model, version) = ("UD3".to_owned(), "1".to_owned());
        let import = Import { model, version, wish: start("os", "fw").wish, size_bytes: 3_000 };
        let refusal = one.engine.import(ask("i"), import, Untouched).await.expect_err("fenced");
        assert_eq!(refusal.reason(), reason);
        assert!(one.engine.updates().await.expect("a list").is_empty());
    }
    assert!(world.servers.house().uploads.is_empty() && world.vendor.shop().given.is_empty());
    world.servers.now(|house| house.fence = None);
    let id = one.engine.start(ask("r"), start("os", "fw")).await.expect("the same request").id;
    one.reaches(id, FirmwareState::Published).await;
    one.ends().await;
}

/// R62, R64: a download that had begun waits while its server is fenced, shown as that, and never fails for it: not where
/// bytes are on their way, not where only the registration is left. It goes on by itself.
#[tokio::test(start_paused = true)]
async fn a_download_that_had_begun_waits_for_the_end_of_a_fence() {
    for reason in FENCES {
        let world = World::new().await;
        world.vendor.offers("os", &[("a", vec![1; 900_000]), ("b", vec![2; 900_000])]);
        world.vendor.now(|shop| shop.stands_at = Some(300_000));
        let one = world.instance(1);
        let id = one.engine.start(ask("r"), start("os", "fw")).await.expect("begun").id;
        let arrived =
            || world.servers.house().uploads.values().filter(|(bytes, _)| !bytes.is_empty()).count();
        until("some of each arrives", SOON, async || arrived() == 2).await;
        // One upload is lost, so that it would have to begin anew; the other may go on.
        world.servers.now(|house| {
            house.fence = Some(reason);
            let lost = *house.uploads.keys().next().expect("two");
            house.uploads.remove(&lost);
        });
        world.vendor.now(|shop| shop.stands_at = None);
        waits(&one, id, FirmwareState::Downloading, reason).await;
        tokio::time::sleep(SOON * 100).await;
        waits(&one, id, FirmwareState::Downloading, reason).await;
        assert_eq!(world.servers.house().uploads.len(), 1, "nothing begins");
        until("what had begun goes on", SOON, async || {
            world.servers.house().uploads.values().all(|(bytes, _)| bytes.len() == 900_000)
        })
        .await;
        world.servers.now(|house| house.fence = None);
        one.reaches(id, FirmwareState::Published).await;
        one.ends().await;
    }
}

/// R62: what is verified waits for its registration until the fence is lifted.
#[tokio::test(start_paused = true)]
async fn a_registration_waits_for_the_end_of_a_fence() {
    let world = World::new().await;
    world.vendor.offers("os", &[("a", vec![1; 900_000])]);
    world.vendor.now(|shop| shop.stands_at = Some(300_000));
    let one = world.instance(1);
    let id = one.engine.start(ask("r"), start("os", "fw")).await.expect("begun").id;
    let arrived = || world.servers.house().uploads.values().any(|(bytes, _)| !bytes.is_empty());
    until("some of it arrives", SOON, async || arrived()).await;
    world.servers.now(|house| house.fence = Some(Reason::ClockFenced));
    world.vendor.now(|shop| shop.stands_at = None);
    waits(&one, id, FirmwareState::Verifying, Reason::ClockFenced).await;
    assert_eq!(world.servers.house().registrations, 0);
    world.servers.now(|house| house.fence = None);
    one.reaches(id, FirmwareState::Published).await;
    assert_eq!(world.servers.house().registrations, 1);
    one.ends().await;
}
