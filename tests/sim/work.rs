//! What people do meanwhile: fifty registrations and ten deletions, replacements, moves, and directories that move and go, in
//! three hands, on all servers.

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
/// Files whose bytes are replaced, one of them a large one.
pub(crate) const REPLACEMENTS: usize = 10;
/// Files that get another path, some of them twice.
pub(crate) const MOVES: usize = 10;
/// Files in the directory that each hand has for itself.
pub(crate) const IN_DIRECTORY: usize = 3;
/// Directories that get another path: each hand moves its own once, to where it is in the way of nobody.
pub(crate) const DIRECTORIES: usize = HANDS;
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
    /// A file of this hand, by the path that it was registered at, gets other bytes.
    Replace(String, Bytes),
    /// A file of this hand gets another path.
    Move(String, String),
    /// A directory of this hand, with all that is registered below it, gets another path.
    MoveDirectory(String, String),
    /// A directory of this hand goes.
    DeleteDirectory(String),
    /// A path that another hand wants as well: whoever is told that it is taken lets it be.
    Contest(New),
}

fn path_of(at: usize) -> String {
    match at % 4 {
        0 => format!("os/{at}.img"),
        1 => format!("os/Größe {at}/teil/{at}.bin"),
        2 => format!("updates/{}/файл-{at}", at % 5),
        _ => format!("{at}"),
    }
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
    let mut hands: Vec<Vec<Task>> = vec![Vec::new(); HANDS];
    let mut files: Vec<New> =
        (0..REGISTRATIONS - AGAIN).map(|at| New::at(path_of(at), content(at))).collect();
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
    let changed = |count: usize| chance.shuffled(files.len()).into_iter().take(count).collect::<Vec<_>>();
    for (count, at) in changed(REPLACEMENTS - 1).into_iter().chain([0]).enumerate() {
        let size = if at == 0 { 1_300_000 } else { 50 + count };
        let task = Task::Replace(files[at].path.clone(), chance.bytes(size).into());
        while_it_lives(&mut hands, &files[at].path, task, chance);
    }
    for (count, at) in changed(MOVES).into_iter().enumerate() {
        let to = match count % 3 {
            0 => format!("moved/{count}/{at}.img"),
            1 => format!("os/neu {count}"),
            _ => format!("{count}-{at}"),
        };
        while_it_lives(&mut hands, &files[at].path, Task::Move(files[at].path.clone(), to), chance);
    }
    for (number, hand) in hands.iter_mut().enumerate() {
        let (from, to) = (format!("hand{number}/a"), format!("hand{number}/b/c"));
        let inside = |at| New::at(format!("{from}/{at}/file"), chance.bytes(64 + at));
        let steps = [
            Task::Register((0..IN_DIRECTORY).map(inside).collect()),
            Task::MoveDirectory(from.clone(), to.clone()),
            Task::DeleteDirectory(to),
        ];
        let mut place = 0;
        for step in steps {
            place += chance.below(hand.len() - place + 1);
            hand.insert(place, step);
            place += 1;
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

/// Puts a task between the registration of a file and its deletion.
fn while_it_lives(hands: &mut [Vec<Task>], path: &str, task: Task, chance: &Chance) {
    let registers =
        |task: &Task| matches!(task, Task::Register(files) if files.iter().any(|f| f.path == path));
    let hand = hands.iter_mut().find(|tasks| tasks.iter().any(registers)).expect("every file is registered");
    let after = hand.iter().position(registers).expect("found just now") + 1;
    let end = hand.iter().position(|task| matches!(task, Task::Delete(doomed) if doomed == path));
    let place = after + chance.below(end.unwrap_or(hand.len()) - after + 1);
    hand.insert(place, task);
}

/// How it went.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Done {
    pub(crate) registered: usize,
    pub(crate) deleted: usize,
    pub(crate) replaced: usize,
    pub(crate) moved: usize,
    /// Directories that moved.
    pub(crate) directories: usize,
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
                let deleted = operator.delete(&servers, &file.path, file.revision).await;
                deleted.unwrap_or_else(|failure| panic!("deletion of {path}: {failure}"));
                done.deleted += 1;
            }
            Task::Replace(path, content) => {
                let file = mine.get_mut(&path).expect("it was registered before");
                let new = New::at(file.path.clone(), content);
                let replaced = operator.replace(&servers, &new, file.revision).await;
                let replaced = replaced.unwrap_or_else(|failure| panic!("replacement of {path}: {failure}"));
                *file = File { revision: replaced.revision, digest: replaced.digest, ..file.clone() };
                done.replaced += 1;
            }
            Task::Move(path, to) => {
                let file = mine.get_mut(&path).expect("it was registered before");
                let moved = operator.move_file(&servers, file, &to).await;
                *file = moved.unwrap_or_else(|failure| panic!("move of {path} to {to}: {failure}"));
                done.moved += 1;
            }
            Task::MoveDirectory(from, to) => {
                let files = take_below(&mut mine, &from);
                let moved = operator.move_directory(&servers, &from, &files, &to).await;
                let moved = moved.unwrap_or_else(|failure| panic!("move of {from} to {to}: {failure}"));
                mine.extend(moved.into_iter().map(|file| (file.path.clone(), file)));
                done.directories += 1;
            }
            Task::DeleteDirectory(path) => {
                let files = take_below(&mut mine, &path);
                let deleted = operator.delete_directory(&servers, &path, &files).await;
                deleted.unwrap_or_else(|failure| panic!("deletion of {path}: {failure}"));
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

fn take_below(mine: &mut BTreeMap<String, File>, directory: &str) -> Vec<File> {
    let prefix = format!("{directory}/");
    let below: Vec<String> = mine.keys().filter(|path| path.starts_with(&prefix)).cloned().collect();
    below.iter().filter_map(|path| mine.remove(path)).collect()
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
            replaced: sum.replaced + done.replaced,
            moved: sum.moved + done.moved,
            directories: sum.directories + done.directories,
            won: sum.won + done.won,
        })
    }

    /// A path that is registered by somebody.
    pub(crate) fn some_path(chance: &Chance) -> String {
        path_of(chance.below(REGISTRATIONS - AGAIN))
    }

    /// Contested paths.
    pub(crate) const fn contested() -> usize {
        CONTESTED
    }
}
