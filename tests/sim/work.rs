//! What people do meanwhile: fifty registrations and ten deletions, in three hands, on all servers.

use std::collections::BTreeMap;

use bytes::Bytes;
use lockstep_model::Reason;
use lockstep_proto::filesync::v1::File;
use tokio::time::sleep;

use crate::{
    chance::Chance,
    mesh::{Asked, Mesh},
    operator::{New, Operator},
};

/// Files that are registered, each at a path of its own at that time.
pub(crate) const REGISTRATIONS: usize = 50;
/// Files that are deleted.
pub(crate) const DELETIONS: usize = 10;
/// People who work at the same time.
const HANDS: usize = 3;
/// Of the files, so many are of some mebibytes.
const LARGE: usize = 3;
/// Paths that are taken again after their deletion.
const AGAIN: usize = 3;
/// Paths that two people want at the same time.
const CONTESTED: usize = 3;

/// One thing to do.
#[derive(Clone, Debug)]
enum Task {
    /// Files that appear together.
    Register(Vec<New>),
    /// A file of this hand.
    Delete(String),
    /// A path that another hand wants as well: whoever is told that it is taken lets it be.
    Contest(New),
}

/// The work of each hand. A deletion follows its registration in the same hand.
fn plan(chance: &Chance) -> Vec<Vec<Task>> {
    let content = |at: usize| -> Bytes {
        let size = match at {
            _ if at < LARGE => chance.between(1_500_000..=3_000_000),
            _ if at == LARGE => 0,
            _ if at == LARGE + 1 => chance.between(100_000..=250_000),
            _ => chance.between(1..=4_096),
        };
        chance.bytes(usize::try_from(size).expect("small")).into()
    };
    let paths = |at: usize| match at % 4 {
        0 => format!("os/{at}.img"),
        1 => format!("os/Größe {at}/teil/{at}.bin"),
        2 => format!("updates/{}/файл-{at}", at % 5),
        _ => format!("{at}"),
    };
    let mut hands: Vec<Vec<Task>> = vec![Vec::new(); HANDS];
    let mut files: Vec<New> = (0..REGISTRATIONS - AGAIN).map(|at| New::at(paths(at), content(at))).collect();
    // The same bytes under two names.
    files[20].content = files[21].content.clone();
    let order = chance.shuffled(files.len());
    let mut order = order.into_iter().peekable();
    while let Some(at) = order.next() {
        let mut together = vec![files[at].clone()];
        if at >= LARGE && chance.once_in(6) {
            together.extend(order.next_if(|next| *next >= LARGE).map(|next| files[next].clone()));
        }
        hands[chance.below(HANDS)].push(Task::Register(together));
    }
    let doomed = chance.shuffled(files.len()).into_iter().filter(|at| *at >= 1).take(DELETIONS);
    for (count, at) in doomed.enumerate() {
        let path = files[at].path.clone();
        let registers =
            |task: &Task| matches!(task, Task::Register(files) if files.iter().any(|f| f.path == path));
        let hand =
            hands.iter_mut().find(|tasks| tasks.iter().any(registers)).expect("every file is registered");
        let after = hand.iter().position(registers).expect("found just now") + 1;
        let place = after + chance.below(hand.len() - after + 1);
        hand.insert(place, Task::Delete(path.clone()));
        if count < AGAIN {
            let again = place + 1 + chance.below(hand.len() - place);
            hand.insert(again, Task::Register(vec![New::at(path.clone(), chance.bytes(100 + count))]));
        }
    }
    for contest in 0..CONTESTED {
        for hand in hands.iter_mut().take(2) {
            let place = chance.below(hand.len() + 1);
            let file = New::at(format!("contested/{contest}"), chance.bytes(64));
            hand.insert(place, Task::Contest(file));
        }
    }
    hands
}

/// How it went.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Done {
    pub(crate) registered: usize,
    pub(crate) deleted: usize,
    /// Contested paths, and how many hands got them.
    pub(crate) won: usize,
}

async fn work(operator: Operator, servers: Vec<String>, tasks: Vec<Task>, haste: u64) -> Done {
    let mut mine: BTreeMap<String, File> = BTreeMap::new();
    let mut done = Done::default();
    for task in tasks {
        sleep(operator.chance.millis(0..=haste)).await;
        let mut servers = servers.clone();
        let first = operator.chance.below(servers.len());
        servers.rotate_left(first);
        match task {
            Task::Register(files) => {
                let registered = operator.register(&servers, &files).await;
                let registered = registered.unwrap_or_else(|failure| panic!("{files:?}: {failure}"));
                done.registered += registered.len();
                mine.extend(registered.into_iter().map(|file| (file.path.clone(), file)));
            }
            Task::Delete(path) => {
                let file = mine.remove(&path).expect("it was registered before");
                let deleted = operator.delete(&servers, &path, file.revision).await;
                deleted.unwrap_or_else(|failure| panic!("deletion of {path}: {failure}"));
                done.deleted += 1;
            }
            Task::Contest(file) => match operator.register(&servers, std::slice::from_ref(&file)).await {
                Ok(_) => done.won += 1,
                Err(failure) if failure.reason == Reason::FileExists => {}
                Err(failure) => panic!("{}: {failure}", file.path),
            },
        }
    }
    done
}

/// Everybody at work.
pub(crate) struct Work {
    hands: Vec<Asked<Done>>,
}

impl Work {
    /// Begins; each pause is up to `haste` milliseconds.
    pub(crate) fn begin(mesh: &mut Mesh, haste: u64) -> Self {
        let servers = mesh.from(0);
        let tasks = plan(&Chance::new(mesh.seed, "work"));
        let begin = |tasks: Vec<Task>| {
            let servers = servers.clone();
            mesh.begin(move |operator| work(operator, servers, tasks, haste))
        };
        Self { hands: tasks.into_iter().map(begin).collect() }
    }

    /// How many are not done yet.
    pub(crate) fn busy(&self) -> usize {
        self.hands.iter().filter(|hand| !hand.is_there()).count()
    }

    /// How it went.
    pub(crate) fn end(self) -> Done {
        self.hands.into_iter().map(Asked::take).fold(Done::default(), |sum, done| Done {
            registered: sum.registered + done.registered,
            deleted: sum.deleted + done.deleted,
            won: sum.won + done.won,
        })
    }

    /// Contested paths.
    pub(crate) const fn contested() -> usize {
        CONTESTED
    }
}
