//! What happens to the processes meanwhile.

use std::{fs, time::Duration};

use lockstep_chassis::status;
use lockstep_model::Reason;
use lockstep_tests::harness::wait;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{
    OPERATIONS, Round,
    caller::{Caller, Door},
    plan::Operation,
    settled,
};

/// Until a process has reached a point, on a machine that does other things too.
const REACHED_MAX: Duration = Duration::from_secs(60);
/// How long an operation is tried while a process is stopped.
const LOCKED_MAX: Duration = Duration::from_secs(15);
/// Operations while a process is stopped.
const MEANWHILE: usize = 3;
/// The longest wait before a kill: about as long as an operation takes, so that it meets any moment of it.
const KILL_MILLIS_MAX: u64 = 40;

/// The point at which a stopped process holds the lock of the registry.
const IN_A_TRANSACTION: &str = "registry.commit.inside";

/// Where a process is stopped.
pub(super) struct Point {
    pub(super) name: &'static str,
    /// Who reaches it.
    who: Who,
    /// In the course of what.
    work: Work,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    /// The server that is asked.
    Asked,
    /// Another server, which learns of it.
    Other,
    Gateway,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Register,
    Replace,
    Move,
    Delete,
    InPlace,
}

/// Ten points; one of them inside a transaction of the registry.
pub(super) const POINTS: &[Point] = &[
    Point { name: IN_A_TRANSACTION, who: Who::Asked, work: Work::Register },
    Point { name: "filesync.register.intended", who: Who::Asked, work: Work::Register },
    Point { name: "filesync.register.committed", who: Who::Asked, work: Work::Register },
    Point { name: "filesync.exchange.intended", who: Who::Asked, work: Work::Replace },
    Point { name: "filesync.register.published", who: Who::Asked, work: Work::Replace },
    Point { name: "filesync.fetch.staged", who: Who::Other, work: Work::Replace },
    Point { name: "filesync.delete.withdrawn", who: Who::Asked, work: Work::Delete },
    Point { name: "filesync.move.renamed", who: Who::Other, work: Work::Move },
    Point { name: "filesync.in_place.committed", who: Who::Asked, work: Work::InPlace },
    Point { name: "gateway.fanout.before", who: Who::Gateway, work: Work::Register },
];

impl Round<'_> {
    /// An operation during which a process is stopped at a point; the others go on; then it is continued or killed.
    pub(super) async fn stopped(&mut self, point: &Point) {
        let (servers, installation) = (self.servers(), self.installation);
        let order = self.chance.shuffled(servers.len());
        let (asked, other) = (servers[order[0]].clone(), servers[order[1]].clone());
        let (child, able) = match point.who {
            Who::Asked => (format!("{asked}.filesync"), without(&servers, &asked)),
            Who::Other => (format!("{other}.filesync"), without(&servers, &other)),
            Who::Gateway => ("gateway".to_owned(), servers.clone()),
        };
        let operation = self.prepared(point.work, &asked).await;
        installation.restart(&child, &[("LOCKSTEP_STOP", point.name)]).await;
        let process = installation.process(&child).await;
        eprintln!("  {operation:?} while {child} is stopped at {}", point.name);
        let name = self.planner.fresh();
        let caller = Caller::new(installation, Door::Server);
        let insist = caller.insist(&operation, &name);
        tokio::pin!(insist);
        let mut answer = None;
        {
            let reached = wait::until(format!("{child} is at {}", point.name), REACHED_MAX, || async {
                if is_stopped(process) { Ok(()) } else { Err("not yet") }
            });
            tokio::pin!(reached);
            loop {
                tokio::select! {
                    biased;
                    () = &mut reached => break,
                    // It is another process that is about to stop.
                    done = &mut insist, if answer.is_none() => answer = Some(done),
                }
            }
        }
        match answer {
            Some(answer) => {
                self.check(&operation, answer);
                self.meanwhile(point, process, &able, None).await;
                self.thaw(&child, process).await;
            }
            None if point.name == IN_A_TRANSACTION => {
                let waiting = self.refused_by_the_frozen(&able, &operation, process).await;
                self.thaw(&child, process).await;
                let answer = insist.await;
                self.check(&operation, answer);
                let (operation, name) = waiting;
                let answer = caller.insist(&operation, &name).await;
                self.check(&operation, answer);
            }
            // Whether it is committed is open: the others leave its paths alone.
            None => {
                self.meanwhile(point, process, &able, Some(&operation)).await;
                self.thaw(&child, process).await;
                let answer = insist.await;
                self.check(&operation, answer);
            }
        }
    }

    /// An operation of the kind that is certain to be carried out, on an installation at rest.
    async fn prepared(&mut self, work: Work, server: &str) -> Operation {
        match work {
            Work::Register => {
                let path = self.certain_path(server);
                self.small_registration(server, path, 0)
            }
            Work::InPlace => {
                let path = format!("stopped/{}", self.planner.fresh());
                self.plant_at(server, path.clone());
                Operation::InPlace { server: server.to_owned(), path }
            }
            Work::Replace | Work::Move | Work::Delete => {
                let path = match self.planner.sound(self.world, &self.touched) {
                    Some(path) => path,
                    None => self.new_everywhere(server).await,
                };
                let (seen, server) = (self.world.seen(&path).revision, server.to_owned());
                match work {
                    Work::Replace => self.small_registration(&server, path, seen),
                    Work::Move => Operation::Move { to: self.certain_path(&server), server, path, seen },
                    _ => Operation::Delete { server, path, seen },
                }
            }
        }
    }

    fn small_registration(&mut self, server: &str, path: String, replaces: i64) -> Operation {
        let mut operation = self.planner.register(server, path, replaces);
        if let Operation::Register { size, .. } = &mut operation {
            *size = (*size).min(900_000);
        }
        operation
    }

    /// A path that nothing is in the way of on the server.
    fn certain_path(&mut self, server: &str) -> String {
        let free = self.planner.free_path(self.world, server);
        free.filter(|path| self.world.obstacle(server, path).is_none())
            .unwrap_or_else(|| format!("stopped/{}", self.planner.fresh()))
    }

    /// A new file that every server holds.
    async fn new_everywhere(&mut self, server: &str) -> String {
        let path = self.certain_path(server);
        let operation = self.small_registration(server, path.clone(), 0);
        let name = self.planner.fresh();
        let answer = Caller::new(self.installation, Door::Server).insist(&operation, &name).await;
        self.check(&operation, answer);
        settled(self.installation, self.world).await;
        path
    }

    /// What the others are asked for while a process is stopped, none of which has to do with `open`.
    async fn meanwhile(&mut self, point: &Point, process: i32, able: &[String], open: Option<&Operation>) {
        for _ in 0..MEANWHILE {
            let door = if point.who == Who::Gateway { Door::Server } else { self.door() };
            let (operation, name) = self.next_apart_from(able, open);
            let carry_out = self.carry_out(&operation, &name, door);
            tokio::pin!(carry_out);
            if tokio::time::timeout(LOCKED_MAX, &mut carry_out).await.is_err() {
                // It was frozen while another of its threads wrote to the registry, which it may do at any time.
                eprintln!("  {process} has the registry: it goes on");
                kill(Pid::from_raw(process), Signal::SIGCONT).expect("it is there");
                carry_out.await;
            }
        }
    }

    fn next_apart_from(&mut self, able: &[String], open: Option<&Operation>) -> (Operation, String) {
        loop {
            let (operation, name) = self.next(able);
            if open.is_none_or(|open| operation.is_apart_from(open)) {
                return (operation, name);
            }
        }
    }

    /// R23, the exception to it: while the registry is locked by a process that is frozen, others are told so, and by whom.
    async fn refused_by_the_frozen(
        &mut self,
        able: &[String],
        open: &Operation,
        process: i32,
    ) -> (Operation, String) {
        let (operation, name) = loop {
            let (operation, name) = self.next_apart_from(able, Some(open));
            if self.world.refusal(&operation).is_none() && operation.writes() {
                break (operation, name);
            }
        };
        eprintln!("  {operation:?} meets the frozen transaction");
        let caller = Caller::new(self.installation, Door::Server);
        let asked = tokio::time::timeout(REACHED_MAX, caller.ask_patiently(&operation, &name)).await;
        let failure = status::read(&asked.expect("an answer in time").expect_err("the registry is locked"));
        assert_eq!(failure.reason, Reason::RegistryUnavailable, "{failure:?}");
        assert!(failure.message.contains(&process.to_string()), "{failure:?} does not name {process}");
        (operation, name)
    }

    async fn thaw(&mut self, child: &str, process: i32) {
        let signal = if self.chance.once_in(2) { Signal::SIGKILL } else { Signal::SIGCONT };
        eprintln!("  {child} gets {signal}");
        kill(Pid::from_raw(process), signal).expect("it is there");
        if signal == Signal::SIGKILL {
            self.installation.reborn(child, process).await;
        }
    }

    /// Operations, with kills, stops and absences at any moment of them.
    pub(super) async fn disturbed(&mut self) {
        let (servers, installation) = (self.servers(), self.installation);
        for _ in 0..OPERATIONS {
            let victim = &servers[self.chance.below(servers.len())];
            let (child, others) = (format!("{victim}.filesync"), without(&servers, victim));
            let moment = self.chance.millis(0..=KILL_MILLIS_MAX);
            match self.chance.below(8) {
                0..=2 => {
                    let child = if self.chance.once_in(4) { "gateway".to_owned() } else { child };
                    let signal = if self.chance.once_in(3) { Signal::SIGTERM } else { Signal::SIGKILL };
                    let disturb = async {
                        tokio::time::sleep(moment).await;
                        eprintln!("  {child} gets {signal}");
                        let process = installation.process(&child).await;
                        // It may be dying already.
                        let _ = kill(Pid::from_raw(process), signal);
                        installation.reborn(&child, process).await;
                    };
                    tokio::join!(self.any(&servers), disturb);
                }
                3 => {
                    let disturb = async {
                        tokio::time::sleep(moment).await;
                        eprintln!("  {child} is stopped for a while");
                        installation.signal(&child, Signal::SIGSTOP).await;
                        tokio::time::sleep(moment * 30).await;
                        installation.signal(&child, Signal::SIGCONT).await;
                    };
                    tokio::join!(self.any(&others), disturb);
                }
                4 => {
                    eprintln!("  {child} is away");
                    installation.take_down(&child).await;
                    self.any(&others).await;
                    self.any(&others).await;
                    installation.bring_up(&child, &[]).await;
                }
                5 => self.race(&servers).await,
                _ => self.any(&servers).await,
            }
        }
    }

    /// R37: of two who want the same name, another spelling of it, or to replace the same version, on two servers at once,
    /// one wins, and the other is told.
    async fn race(&mut self, servers: &[String]) {
        let order = self.chance.shuffled(servers.len());
        let (one, two) = (&servers[order[0]], &servers[order[1]]);
        let sound = self.planner.sound(self.world, &self.touched).filter(|_| self.chance.once_in(2));
        let path = match &sound {
            Some(path) => path.clone(),
            None => format!("race/{}", self.planner.fresh()),
        };
        let seen = sound.as_ref().map_or(0, |path| self.world.seen(path).revision);
        let spelled = if seen == 0 && self.chance.once_in(2) { path.to_uppercase() } else { path.clone() };
        let (first, second) =
            (self.small_registration(one, path, seen), self.small_registration(two, spelled, seen));
        let (first_name, second_name) = (self.planner.fresh(), self.planner.fresh());
        eprintln!("  {first:?} and {second:?} at once");
        let (one, two) =
            (Caller::new(self.installation, self.door()), Caller::new(self.installation, self.door()));
        let answers = tokio::join!(one.insist(&first, &first_name), two.insist(&second, &second_name));
        match answers {
            (first_answer @ Ok(_), second_answer) => {
                self.check(&first, first_answer);
                self.check(&second, second_answer);
            }
            (first_answer, second_answer) => {
                self.check(&second, second_answer);
                self.check(&first, first_answer);
            }
        }
    }

    async fn any(&mut self, servers: &[String]) {
        let ((operation, name), door) = (self.next(servers), self.door());
        self.carry_out(&operation, &name, door).await;
    }
}

fn without(servers: &[String], server: &str) -> Vec<String> {
    servers.iter().filter(|id| *id != server).cloned().collect()
}

/// Whether every thread of a process is stopped.
fn is_stopped(process: i32) -> bool {
    fs::read_to_string(format!("/proc/{process}/stat"))
        .is_ok_and(|stat| stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T')))
}
