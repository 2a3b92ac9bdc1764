//! A position that waits, because too much is missing: deletions are carried out all the same, so that a full disk can
//! empty itself.

use std::time::Duration;

use lockstep_model::Reason;
use lockstep_proto::filesync::v1::File;

use crate::{
    mesh::{Mesh, Options},
    operator::New,
    poison::{delete, exception, move_to, position, register, settled},
    seeds,
};

const SOON: Duration = Duration::from_secs(5);
const CYCLE: Duration = Duration::from_secs(30);
const MINUTE: Duration = Duration::from_secs(60);
/// Beyond so many exceptions a position waits.
const EXCEPTIONS_MAX: usize = 5;
const SIZE: usize = 100_000;

fn replace(mesh: &mut Mesh, file: &File, content: &[u8]) -> File {
    let (new, seen) = (New::at(file.path.clone(), content.to_vec()), file.revision);
    let replaced =
        mesh.ask(MINUTE, async move |operator| operator.replace(&["s1".to_owned()], &new, seen).await);
    replaced.unwrap_or_else(|failure| panic!("{failure}"))
}

fn is_there(mesh: &Mesh, path: &str) -> bool {
    mesh.published(1).iter().any(|(there, _)| there == path)
}

/// I3, I4, I6, R32, R38: with the disk of one server full and its exceptions at their bound, its position waits. What is
/// deleted meanwhile goes at once, what waits for bytes that nobody wants any more is given up or waits for the right ones;
/// a file that moves keeps its bytes, a path that is taken again gets the new ones. A restart in between changes nothing, and
/// with room everything becomes equal.
#[test]
fn a_full_disk_empties_itself_while_its_position_waits() {
    for is_killed in [false, true] {
        seeds::show_log();
        let options = Options {
            servers: 2,
            cycle: CYCLE,
            exceptions_max: EXCEPTIONS_MAX,
            relay_bytes_min: u64::MAX,
            ..Options::default()
        };
        let mut mesh = Mesh::new(13, options);
        let files = |mesh: &mut Mesh, kind: &str, count: usize| -> Vec<File> {
            let register = |at| {
                let content = mesh.chance.bytes(SIZE);
                register(mesh, "s1", &format!("{kind}/{at}"), &content)
            };
            (0..count).map(register).collect()
        };
        let old = files(&mut mesh, "old", 8);
        mesh.converge(SOON);
        let room = (old.len() * SIZE) as u64;
        mesh.servers[1].store.inner.resize(room + 100);
        let new = files(&mut mesh, "new", 9);
        mesh.until(SOON, |mesh| {
            let full = |at: &usize| {
                let why = exception(mesh, 1, &format!("new/{at}")).and_then(|known| known.obstacle);
                why.is_some_and(|why| why.reason == Reason::DiskFull)
            };
            let count = (0..new.len()).filter(full).count();
            (count < EXCEPTIONS_MAX).then(|| format!("{count} are told"))
        });
        mesh.pass(CYCLE);
        let waits_at = position(&mesh, 1);
        assert!(waits_at < mesh.judge.head().revision.0, "the position waits");
        // Whatever goes, there is no room for anything that comes.
        mesh.servers[1].store.inner.resize(1);
        let content = mesh.chance.bytes(SIZE);
        let replaced = replace(&mut mesh, &new[0], &content);
        delete(&mut mesh, "s1", &new[1]);
        move_to(&mut mesh, "s1", &new[2], "moved/2");
        delete(&mut mesh, "s1", &old[0]);
        let again = mesh.chance.bytes(SIZE);
        register(&mut mesh, "s1", "old/0", &again);
        move_to(&mut mesh, "s1", &old[1], "kept/1");
        old[2..].iter().for_each(|file| delete(&mut mesh, "s1", file));
        mesh.until(SOON, |mesh| {
            let left =
                old.iter().map(|file| &file.path).find(|path| *path != "old/1" && is_there(mesh, path));
            left.map(|path| format!("{path} is there"))
        });
        if is_killed {
            mesh.kill("s2");
            mesh.start("s2");
        }
        mesh.pass(SOON);
        assert_eq!(position(&mesh, 1), waits_at, "the position waits");
        assert!(is_there(&mesh, "old/1"), "a file that moves is left alone until the position comes to it");
        let wanted = exception(&mesh, 1, "new/0").expect("it waits").wanted;
        assert_eq!(i64::try_from(wanted.revision.0), Ok(replaced.revision));
        for gone in ["new/1", "new/2"] {
            assert_eq!(exception(&mesh, 1, gone), None, "{gone}");
        }
        assert!(exception(&mesh, 1, "moved/2").is_some());
        mesh.servers[1].store.inner.resize(1 << 30);
        settled(&mut mesh);
        assert!(mesh.has(1, "old/0", &again) && is_there(&mesh, "kept/1"));
    }
}
