//! Editing, placing, moving and deleting.

use std::time::Duration;

use lockstep_model::{
    Fault as _, FirmwareId, Reason, Revision,
    firmware::{FirmwareState, Protocol, firmware_key},
    record::Placement,
};
use lockstep_registry::Registry as _;

use super::{Instance, World, ask, fakes::until, start};
use crate::{
    domain::edit::{Edit, Secret},
    engine::{EditAsk, SettingsEdit},
};

const SOON: Duration = Duration::from_secs(120);

/// A published update with two files below `target`.
async fn published(world: &World, one: &Instance, offer_id: &str, target: &str) -> FirmwareId {
    world.vendor.offers(offer_id, &[("a", vec![1; 10]), ("d/b", vec![2; 20])]);
    one.engine.refresh("").await.expect("asked");
    let id = one.engine.start(ask(offer_id), start(offer_id, target)).await.expect("begun").id;
    one.reaches(id, FirmwareState::Published).await;
    id
}

async fn edit(one: &Instance, id: FirmwareId, edit: Edit) -> Result<(), crate::domain::error::CatalogError> {
    let expected = one.get(id).await.revision;
    let name = format!("edit-{expected}");
    one.engine.edit(ask(&name), EditAsk { id, expected, edit }).await.map(drop)
}

async fn switch(one: &Instance, on: bool, directories: &[&str]) {
    let (expected, _) = one.engine.current_settings().await.expect("settings");
    let webdav_directories = Some(directories.iter().map(|text| (*text).to_owned()).collect());
    let edit = SettingsEdit { synchronize_firmware: Some(on), webdav_directories, expected };
    one.engine.edit_settings(ask(&format!("s-{expected}")), edit).await.expect("changed");
}

async fn is_placed(world: &World, path: &str, placement: Placement) {
    until(&format!("{path} {placement:?}"), SOON, async || {
        world.servers.registered(path).await.is_some_and(|(_, record)| record.placement == placement)
    })
    .await;
}

const fn only(reason: Reason) -> Placement {
    Placement::OriginOnly { reason }
}

/// R7 to R10, R12, R36: placement follows the option, the protocol and the target, back and forth, whoever notices.
#[tokio::test(start_paused = true)]
async fn placement_follows_the_settings_and_the_update() {
    let world = World::new().await;
    let (one, two) = (world.instance(1), world.instance(2));
    let id = published(&world, &one, "os", "ums/fw").await;
    is_placed(&world, "ums/fw/a", only(Reason::OptionOff)).await;
    switch(&one, true, &["ums"]).await;
    is_placed(&world, "ums/fw/a", Placement::All).await;
    is_placed(&world, "ums/fw/d/b", Placement::All).await;
    edit(&one, id, Edit { protocol: Some(Protocol::Sftp), ..Edit::default() }).await.expect("edited");
    is_placed(&world, "ums/fw/a", only(Reason::ProtocolNotWebdav)).await;
    edit(&two, id, Edit { protocol: Some(Protocol::HttpWebdav), ..Edit::default() }).await.expect("edited");
    is_placed(&world, "ums/fw/a", Placement::All).await;
    switch(&two, true, &["other"]).await;
    is_placed(&world, "ums/fw/d/b", only(Reason::TargetNotWebdav)).await;
    switch(&two, false, &[""]).await;
    is_placed(&world, "ums/fw/d/b", only(Reason::OptionOff)).await;
    // A server that is away is asked again, and people are told.
    world.servers.now(|house| house.is_away = true);
    switch(&two, true, &[""]).await;
    let trouble = async || {
        let note = one.engine.shown(id).await.expect("there").note;
        note.and_then(|note| note.failure).map(|failure| failure.reason)
    };
    until("it is told", SOON, async || trouble().await == Some(Reason::PeerUnreachable)).await;
    world.servers.now(|house| house.is_away = false);
    is_placed(&world, "ums/fw/d/b", Placement::All).await;
    until("it is over", SOON, async || trouble().await.is_none()).await;
    one.ends().await;
    two.ends().await;
}

/// R53: a new target moves the files of the update, and nothing else; a taken one is refused.
#[tokio::test(start_paused = true)]
async fn a_new_target_moves_its_files() {
    let world = World::new().await;
    let one = world.instance(1);
    let id = published(&world, &one, "os", "fw").await;
    let ids: Vec<_> = one.get(id).await.record.files.iter().map(|file| file.file_id).collect();
    world.servers.register_other("taken/a").await;
    world.servers.register_other("fw/other").await;
    let to = |target: &str| Edit {
        target: Some((!target.is_empty()).then(|| target.parse().expect("a path"))),
        ..Edit::default()
    };
    let error = edit(&one, id, to("taken")).await.expect_err("refused");
    assert_eq!(error.reason(), Reason::FileExists);
    edit(&one, id, to("new")).await.expect("edited");
    until("they are moved", SOON, async || {
        one.get(id).await.record.files.iter().all(|file| file.new_path.is_none())
    })
    .await;
    let record = one.get(id).await.record;
    let paths: Vec<&str> = record.files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(paths, ["new/a", "new/d/b"]);
    assert_eq!(record.files.iter().map(|file| file.file_id).collect::<Vec<_>>(), ids);
    assert!(
        world.servers.registered("fw/a").await.is_none() && world.servers.registered("new/a").await.is_some()
    );
    assert!(world.servers.registered("fw/other").await.is_some());

    // Deleted in the middle of a move, it takes its files from both places.
    world.servers.now(|house| house.is_away = true);
    edit(&one, id, to("third")).await.expect("edited");
    let seen = one.get(id).await.revision;
    one.engine.delete(ask("d"), id, seen).await.expect("deleted");
    world.servers.now(|house| house.is_away = false);
    until("it is gone", SOON, async || one.is_gone(id).await).await;
    for path in ["new/a", "new/d/b", "third/a", "third/d/b"] {
        assert!(world.servers.registered(path).await.is_none(), "{path}");
    }
    one.ends().await;
}

/// R35: a deletion takes the update's own files, and nothing else: not what lies beside them, not what was registered anew at
/// one of their paths, also not in the root.
#[tokio::test(start_paused = true)]
async fn a_deletion_takes_its_own_files_only() {
    for target in ["", "fw"] {
        let world = World::new().await;
        let one = world.instance(1);
        let id = published(&world, &one, "os", target).await;
        let at = |name: &str| if target.is_empty() { name.to_owned() } else { format!("{target}/{name}") };
        let beside = world.servers.register_other(&at("d/other")).await;
        let anew = world.servers.register_other(&at("a")).await;
        let seen = one.get(id).await.revision;
        let changed = one.engine.delete(ask("d0"), id, Revision(1)).await.expect_err("not seen");
        assert_eq!(changed.reason(), Reason::RevisionChanged);
        let deleted = one.engine.delete(ask("d"), id, seen).await.expect("deleted");
        assert!(one.is_gone(id).await);
        assert!(world.servers.registered(&at("d/b")).await.is_none());
        for (path, id) in [("d/other", beside), ("a", anew)] {
            let (_, record) = world.servers.registered(&at(path)).await.expect("still there");
            assert_eq!(record.file_id, id);
        }
        let again = one.engine.delete(ask("d"), id, seen).await.expect("the first answer");
        assert_eq!(again.revision, deleted.revision);
        one.ends().await;
    }
}

/// R60: the clean-up takes what came from a feed and is not in use, and only what the caller saw.
#[tokio::test(start_paused = true)]
async fn the_clean_up_takes_what_is_unused() {
    let world = World::new().await;
    let one = world.instance(1);
    let used = published(&world, &one, "used", "one").await;
    let unused = published(&world, &one, "unused", "two").await;
    edit(&one, used, Edit { in_use: Some(true), ..Edit::default() }).await.expect("edited");
    let would: Vec<_> = one.engine.unused().await.expect("a list").iter().map(|update| update.id).collect();
    assert_eq!(would, [unused]);
    let error = one.engine.delete_unused(ask("u0"), 2).await.expect_err("another number");
    assert_eq!(error.reason(), Reason::RevisionChanged);
    let gone = one.engine.delete_unused(ask("u"), 1).await.expect("deleted");
    assert_eq!(gone.len(), 1);
    until("it is gone", SOON, async || one.is_gone(unused).await).await;
    let again = one.engine.delete_unused(ask("u"), 1).await.expect("the first answer");
    assert_eq!(again.iter().map(|update| update.id).collect::<Vec<_>>(), [unused]);
    assert!(!one.is_gone(used).await);
    one.ends().await;
}

/// R53: a password is stored sealed for its update; nothing shows it, and an empty one removes it.
#[tokio::test(start_paused = true)]
async fn passwords_are_stored_sealed() {
    let world = World::new().await;
    let one = world.instance(1);
    let id = published(&world, &one, "os", "fw").await;
    let secret = |text: &str| Edit { password: Some(Secret(text.into())), ..Edit::default() };
    edit(&one, id, secret("canary-7")).await.expect("edited");
    let stored =
        world.registry.get(vec![firmware_key(&id)]).await.expect("answers").remove(0).expect("there");
    assert!(stored.body.contains("sealed_password") && !stored.body.contains("canary"), "{}", stored.body);
    let record = one.get(id).await.record;
    let key = lockstep_chassis::SealKey::parse(&"ab".repeat(32)).expect("a key");
    assert_eq!(key.open(&record.sealed_password, &firmware_key(&id)).as_deref(), Ok("canary-7"));
    edit(&one, id, secret("")).await.expect("edited");
    assert_eq!(one.get(id).await.record.sealed_password, "");
    let stale = EditAsk { id, expected: Revision(1), edit: secret("canary-8") };
    let error = one.engine.edit(ask("stale"), stale).await.expect_err("not seen");
    assert_eq!(error.reason(), Reason::RevisionChanged);
    assert!(!format!("{error:?}{error}").contains("canary"));
    one.ends().await;
}

/// R7: the option is off by default; settings are changed by who saw them as they are.
#[tokio::test(start_paused = true)]
async fn settings_are_changed_by_who_saw_them() {
    let world = World::new().await;
    let one = world.instance(1);
    let (revision, settings) = one.engine.current_settings().await.expect("settings");
    assert!(revision == Revision::ZERO && !settings.synchronize_firmware);
    let on =
        |expected| SettingsEdit { synchronize_firmware: Some(true), expected, ..SettingsEdit::default() };
    let first = one.engine.edit_settings(ask("a"), on(Revision::ZERO)).await.expect("changed");
    assert!(first.1.synchronize_firmware && first.0 > Revision::ZERO);
    assert_eq!(one.engine.edit_settings(ask("a"), on(Revision::ZERO)).await.expect("repeated"), first);
    let stale = one.engine.edit_settings(ask("b"), on(Revision::ZERO)).await.expect_err("changed meanwhile");
    assert_eq!(stale.reason(), Reason::RevisionChanged);
    one.ends().await;
}
