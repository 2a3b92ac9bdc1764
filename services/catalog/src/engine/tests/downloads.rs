//! The life of a download.

use std::time::Duration;

use lockstep_model::{Fault as _, Reason, firmware::FirmwareState, record::Placement};
use lockstep_registry::Registry as _;

use super::{World, ask, fakes::until, start};
use crate::domain::{
    error::CatalogError,
    life::registered_by,
    note::{DOWNLOAD, DownloadNote},
};

const SOON: Duration = Duration::from_secs(120);

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from(at % 251).expect("small")).collect()
}

/// R55, R58: what is offered is downloaded, and all its files are registered in one change; a repeated request has the first
/// answer, and another one for the same offer is refused.
#[tokio::test(start_paused = true)]
async fn an_offer_becomes_registered_files() {
    let world = World::new().await;
    let files: Vec<(String, Vec<u8>)> = (0..10).map(|n| (format!("d/f{n}"), content(n * 700_000))).collect();
    let files: Vec<(&str, Vec<u8>)> =
        files.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect();
    world.vendor.offers("os", &files);
    let one = world.instance(1);
    let begun = one.engine.start(ask("r1"), start("os", "ums/fw")).await.expect("begun");
    assert_eq!(begun.record.state, FirmwareState::Downloading);
    let update = one.reaches(begun.id, FirmwareState::Published).await;
    assert!(update.record.files.iter().all(|file| file.file_id.is_some()));
    assert_eq!(world.servers.house().registrations, 1);
    let mut revisions = std::collections::BTreeSet::new();
    for (file, (_, bytes)) in update.record.files.iter().zip(&files) {
        let (revision, record) = world.servers.registered(file.path.as_str()).await.expect("registered");
        assert_eq!(record.size_bytes, bytes.len() as u64);
        assert_eq!(record.placement, Placement::OriginOnly { reason: Reason::OptionOff });
        assert_eq!(Some(record.file_id), file.file_id);
        revisions.insert(revision);
    }
    assert_eq!(revisions.len(), 1, "one change");
    let given: u64 = world.vendor.shop().given.values().sum();
    assert_eq!(given, files.iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>(), "each byte once");
    until("the note goes", SOON, async || {
        world.registry.notes(DOWNLOAD.into()).await.expect("notes").is_empty()
    })
    .await;

    let again = one.engine.start(ask("r1"), start("os", "ums/fw")).await.expect("repeated");
    assert_eq!((again.id, again.revision), (begun.id, begun.revision));
    let other = one.engine.start(ask("r2"), start("os", "elsewhere")).await.expect_err("taken");
    assert_eq!(other.reason(), Reason::FirmwareExists);
    let reused = one.engine.start(ask("r1"), start("os", "elsewhere")).await.expect_err("another request");
    assert_eq!(reused.reason(), Reason::RequestIdReused);
    one.ends().await;
}

/// R57, R58: what can be known before the first byte is refused before it, and nothing is written down.
#[tokio::test(start_paused = true)]
async fn what_cannot_succeed_is_refused_before_the_first_byte() {
    let world = World::new().await;
    world.vendor.offers("os", &[("a", content(3_000))]);
    let one = world.instance(1);
    let refused =
        async |begin: crate::engine::Start| one.engine.start(ask("r"), begin).await.expect_err("refused");
    let of = |server: &str| {
        let mut begin = start("os", "fw");
        begin.wish.server_id = server.parse().expect("an id");
        begin
    };
    assert_eq!(refused(start("none", "fw")).await.reason(), Reason::FirmwareNotFound);
    assert_eq!(refused(of("s9")).await.reason(), Reason::ServerUnknown);
    assert_eq!(refused(of("old")).await.reason(), Reason::ServerNotEligible);
    world.servers.now(|house| house.room_bytes = Some(2_999));
    let full = refused(start("os", "fw")).await;
    assert_eq!(full.reason(), Reason::DiskFull);
    assert!(full.metadata().contains(&("available_bytes", "2999".into())), "{:?}", full.metadata());
    world.servers.now(|house| house.room_bytes = None);
    world.servers.now(|house| house.is_away = true);
    assert_eq!(refused(start("os", "fw")).await.reason(), Reason::PeerUnreachable);
    world.servers.now(|house| house.is_away = false);
    world.servers.register_other("fw/a").await;
    assert_eq!(refused(start("os", "fw")).await.reason(), Reason::FileExists);
    world.vendor.now(|shop| shop.is_away = true);
    assert_eq!(refused(start("other", "fw")).await.reason(), Reason::VendorUnreachable);
    assert!(one.engine.updates().await.expect("a list").is_empty());
    assert!(world.servers.house().uploads.is_empty() && world.vendor.shop().given.is_empty());
    one.ends().await;
}

/// R58, R63: another instance takes over when it has seen nothing move for 30 s, and goes on where the bytes are.
#[tokio::test(start_paused = true)]
async fn another_instance_takes_over_where_the_bytes_are() {
    let world = World::new().await;
    world.vendor.offers("os", &[("a", content(3_000_000))]);
    world.vendor.now(|shop| shop.stands_at = Some(2_000_000));
    let (one, two) = (world.instance(1), world.instance(2));
    let id = one.engine.start(ask("r"), start("os", "fw")).await.expect("begun").id;
    let arrived = || world.servers.house().uploads.values().map(|(bytes, _)| bytes.len()).sum::<usize>();
    until("most of it arrives", SOON, async || arrived() >= 1_700_000).await;
    let noted = async || -> Option<DownloadNote> {
        let notes = world.registry.notes(DOWNLOAD.into()).await.expect("notes");
        notes.first().and_then(|note| serde_json::from_str(&note.body).ok())
    };
    until("progress is told", SOON, async || {
        noted().await.is_some_and(|note| note.partial.values().any(|partial| partial.bytes >= 1_700_000))
    })
    .await;
    // As long as it moves, nobody else works on it.
    tokio::time::sleep(Duration::from_secs(90)).await;
    assert_eq!((one.engine.working_count(), two.engine.working_count()), (1, 0));
    one.ends().await;
    let before = arrived();
    tokio::time::sleep(Duration::from_secs(25)).await;
    assert_eq!(two.engine.working_count(), 0, "not before 30 s");
    world.vendor.now(|shop| shop.stands_at = None);
    two.reaches(id, FirmwareState::Published).await;
    let given: u64 = world.vendor.shop().given.values().sum();
    // What was on its way when the first one ended is asked for again.
    assert!(given <= 3_000_000 + 2_000_000 - before as u64, "{given} bytes given, {before} had arrived");
    assert_eq!(world.servers.house().registrations, 1);
    two.ends().await;
}

/// R58: two instances that work on one update at once do no harm, and one of them leaves it to the other.
#[tokio::test(start_paused = true)]
async fn two_at_once_do_no_harm() {
    let world = World::new().await;
    let files: Vec<(String, Vec<u8>)> = (0..6).map(|n| (format!("f{n}"), content(900_000 + n))).collect();
    let files: Vec<(&str, Vec<u8>)> =
        files.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect();
    world.vendor.offers("os", &files);
    world.vendor.now(|shop| shop.stands_at = Some(500_000));
    let (one, two) = (world.instance(1), world.instance(2));
    let id = two.engine.start(ask("r"), start("os", "fw")).await.expect("begun").id;
    one.engine.work_on(id);
    until("the higher one leaves it", SOON, async || two.engine.working_count() == 0).await;
    assert_eq!(one.engine.working_count(), 1);
    two.engine.work_on(id);
    world.vendor.now(|shop| shop.stands_at = None);
    let update = one.reaches(id, FirmwareState::Published).await;
    for (file, (_, bytes)) in update.record.files.iter().zip(&files) {
        let (_, record) = world.servers.registered(file.path.as_str()).await.expect("registered");
        assert_eq!(record.digest, lockstep_model::Digest::of(bytes), "{}", file.path);
    }
    assert_eq!(world.servers.house().registrations, 1);
    one.ends().await;
    two.ends().await;
}

/// R58: a vendor or a server that is away, and a full disk, end nothing: it is told, and goes on by itself.
#[tokio::test(start_paused = true)]
async fn what_passes_is_told_and_goes_on_by_itself() {
    let world = World::new().await;
    world.vendor.offers("os", &[("a", content(2_000_000))]);
    let one = world.instance(1);
    world.vendor.now(|shop| shop.stands_at = Some(600_000));
    let id = one.engine.start(ask("r"), start("os", "fw")).await.expect("begun").id;
    let told = async |reason: Reason| {
        until(reason.as_str(), SOON, async || {
            let shown = one.engine.shown(id).await.expect("it is there");
            assert_eq!(shown.update.record.state, FirmwareState::Downloading);
            shown.note.and_then(|note| note.failure).is_some_and(|failure| failure.reason == reason)
        })
        .await;
    };
    world.vendor.now(|shop| shop.is_away = true);
    told(Reason::VendorUnreachable).await;
    world.servers.now(|house| house.is_away = true);
    world.vendor.now(|shop| shop.is_away = false);
    told(Reason::PeerUnreachable).await;
    world.servers.now(|house| house.is_away = false);
    world.vendor.now(|shop| shop.stands_at = None);
    let shown = one.reaches(id, FirmwareState::Published).await;
    assert_eq!(shown.record.failure, None);
    one.ends().await;
}

/// R58: bytes that are not those of the feed are registered by nobody; the update says so, and a new try begins anew.
#[tokio::test(start_paused = true)]
async fn other_bytes_than_the_feed_declares_are_registered_by_nobody() {
    let world = World::new().await;
    world.vendor.offers("os", &[("a", content(5_000)), ("b", content(6_000))]);
    let right = world.vendor.shop().files["https://v/os/b"].1.clone();
    let mut wrong = right.clone();
    wrong[17] ^= 1;
    world.vendor.now(|shop| drop(shop.files.insert("https://v/os/b".into(), ("v1".into(), wrong))));
    let one = world.instance(1);
    let id = one.engine.start(ask("r"), start("os", "fw")).await.expect("begun").id;
    let failed = one.reaches(id, FirmwareState::Failed).await;
    assert_eq!(failed.record.failure.map(|failure| failure.reason), Some(Reason::ContentDigestMismatch));
    assert!(
        world.servers.registered("fw/a").await.is_none() && world.servers.registered("fw/b").await.is_none()
    );
    assert!(world.servers.house().uploads.is_empty(), "no byte of it is of use");
    world.vendor.now(|shop| drop(shop.files.insert("https://v/os/b".into(), ("v2".into(), right))));
    one.engine.restore(ask("again"), id).await.expect("tried again");
    one.reaches(id, FirmwareState::Published).await;
    let busy = one.engine.restore(ask("again2"), id).await.expect_err("nothing to try");
    assert_eq!(busy.reason(), Reason::FirmwareBusy);
    one.ends().await;
}

/// R58: a file that changes at the vendor in the middle begins anew; nothing of two versions is mixed.
#[tokio::test(start_paused = true)]
async fn a_file_that_changes_at_the_vendor_begins_anew() {
    let world = World::new().await;
    let new = content(2_000_000);
    let mut old = new.clone();
    old[..400_000].fill(7);
    world.vendor.offers("os", &[("a", new.clone())]);
    world.vendor.now(|shop| {
        shop.files.insert("https://v/os/a".into(), ("old".into(), old));
        shop.stands_at = Some(1_000_000);
    });
    let one = world.instance(1);
    let id = one.engine.start(ask("r"), start("os", "fw")).await.expect("begun").id;
    let arrived = || world.servers.house().uploads.values().map(|(bytes, _)| bytes.len()).sum::<usize>();
    until("some of it arrives", SOON, async || arrived() >= 700_000).await;
    world.vendor.now(|shop| shop.is_away = true);
    until("it waits", SOON, async || world.servers.house().writers.is_empty()).await;
    world.vendor.now(|shop| {
        shop.files.insert("https://v/os/a".into(), ("new".into(), new.clone()));
        shop.stands_at = None;
        shop.is_away = false;
    });
    one.reaches(id, FirmwareState::Published).await;
    let (_, record) = world.servers.registered("fw/a").await.expect("registered");
    assert_eq!(record.digest, lockstep_model::Digest::of(&new));
    one.ends().await;
}

/// R58: a path that somebody takes meanwhile ends the download, with the reason; so does a server that is not one any more.
#[tokio::test(start_paused = true)]
async fn what_would_be_the_same_again_fails() {
    let world = World::new().await;
    world.vendor.offers("os", &[("a", content(5_000))]);
    world.vendor.offers("two", &[("b", content(5_000))]);
    world.vendor.now(|shop| shop.stands_at = Some(3_000));
    let one = world.instance(1);
    let id = one.engine.start(ask("r"), start("os", "fw")).await.expect("begun").id;
    world.servers.register_other("fw/a").await;
    world.vendor.now(|shop| shop.stands_at = None);
    let failed = one.reaches(id, FirmwareState::Failed).await;
    assert_eq!(failed.record.failure.map(|failure| failure.reason), Some(Reason::FileExists));
    one.engine.cancel(ask("c"), id).await.expect("forgotten");
    assert!(one.is_gone(id).await && world.servers.house().uploads.is_empty());
    assert!(world.servers.registered("fw/a").await.is_some(), "what is there belongs to somebody else");

    world.vendor.now(|shop| shop.stands_at = Some(3_000));
    let id = one.engine.start(ask("r2"), start("two", "fw")).await.expect("begun").id;
    let key = lockstep_model::record::server_key(&"s1".parse().expect("an id"));
    let deletes = vec![(key, "{}".to_owned())];
    let forget = lockstep_registry::Commit { deletes, ..lockstep_registry::Commit::default() };
    world.registry.commit(forget).await.expect("commits");
    world.vendor.now(|shop| shop.stands_at = None);
    let failed = one.reaches(id, FirmwareState::Failed).await;
    assert_eq!(failed.record.failure.map(|failure| failure.reason), Some(Reason::ServerUnknown));
    one.ends().await;
}

/// R58: a cancelled download leaves nothing, registers nothing, and its offer is available again.
#[tokio::test(start_paused = true)]
async fn a_cancelled_download_leaves_nothing() {
    let world = World::new().await;
    world.vendor.offers("os", &[("a", content(2_000_000)), ("b", content(10))]);
    world.vendor.now(|shop| shop.stands_at = Some(800_000));
    let one = world.instance(1);
    let id = one.engine.start(ask("r"), start("os", "fw")).await.expect("begun").id;
    until("some of it arrives", SOON, async || world.servers.house().uploads.len() == 2).await;
    let seen = one.get(id).await.revision;
    let busy = one.engine.delete(ask("d"), id, seen).await.expect_err("it is downloaded");
    assert_eq!(busy.reason(), Reason::FirmwareBusy);
    let cancelled = one.engine.cancel(ask("c"), id).await.expect("cancelled");
    assert!(one.is_gone(id).await);
    assert!(world.servers.house().uploads.is_empty());
    let again = one.engine.cancel(ask("c"), id).await.expect("the first answer");
    assert_eq!((again.id, again.revision), (cancelled.id, cancelled.revision));
    let other = one.engine.cancel(ask("c2"), id).await.expect_err("there is none");
    assert!(matches!(other, CatalogError::NotFound { .. }));
    world.vendor.now(|shop| shop.stands_at = None);
    let offers = one.engine.list_offers("", "").await.expect("offers");
    assert!(!one.engine.states().await.expect("states").contains_key(&offers[0].firmware_id));
    one.engine.start(ask("r2"), start("os", "fw")).await.expect("begun again");
    one.reaches(id, FirmwareState::Published).await;
    one.ends().await;
}

/// R58: a registration that is on its way when somebody cancels does not happen after the update is gone; the registry itself
/// refuses it.
#[tokio::test(start_paused = true)]
async fn a_registration_on_its_way_cannot_outlive_a_cancelled_update() {
    for is_quicker in [false, true] {
        let world = World::new().await;
        world.vendor.offers("os", &[("a", content(10))]);
        world.servers.now(|house| house.holds_registrations = true);
        let one = world.instance(1);
        let id = one.engine.start(ask("r"), start("os", "fw")).await.expect("begun").id;
        until("it is about to be registered", SOON, async || world.servers.house().waiting == 1).await;
        let record = one.get(id).await.record;
        if is_quicker {
            // Its answer is lost, and then somebody cancels.
            let registration = crate::ports::Registration {
                path: record.files[0].path.clone(),
                upload_id: record.files[0].upload_id,
                sha256: record.files[0].sha256.clone(),
            };
            let server = crate::ports::Server { id: record.server_id.clone(), uri: String::new() };
            let request = crate::domain::life::registration_of(&record).parse().expect("an id");
            let servers = world.servers.clone();
            world.servers.house().holds_registrations = false;
            use crate::ports::Servers as _;
            servers.register(&server, vec![registration], Placement::All, request).await.expect("registered");
            world.servers.house().holds_registrations = true;
            let (_, file) = world.servers.registered("fw/a").await.expect("registered");
            assert_eq!(file.registered_by, registered_by(&record));
        }
        one.engine.cancel(ask("c"), id).await.expect("cancelled");
        until("it is gone", SOON, async || one.is_gone(id).await).await;
        world.servers.now(|house| house.holds_registrations = false);
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(world.servers.registered("fw/a").await.is_none(), "quicker: {is_quicker}");
        one.ends().await;
    }
}
