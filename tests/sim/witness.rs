//! Those who only watch: what the matrix and the servers tell is held against what is on the disks.

use std::{cell::RefCell, rc::Rc, time::Duration};

use lockstep_model::{Digest, Epoch, Position, Revision};
use lockstep_proto::{gateway::v1::Row, shared::v1 as shared};
use tokio::time::sleep;

use crate::{mesh::Mesh, operator::Operator};

/// What was told since the judge looked last. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Testimony {
    told: Rc<RefCell<Told>>,
}

#[derive(Default)]
struct Told {
    rows: Vec<Row>,
    positions: Vec<(usize, Position)>,
    messages: usize,
}

impl Testimony {
    /// Has everything watched, for as long as the world lasts.
    pub(crate) fn begin(mesh: &mut Mesh) -> Self {
        let testimony = Self::default();
        let sink = testimony.clone();
        mesh.begin(async move |operator: Operator| {
            loop {
                // A watch that broke is begun anew.
                let _ = operator.watch_rows(|message| sink.told.borrow_mut().add(message.rows, None)).await;
                sleep(Duration::from_millis(300)).await;
            }
        });
        for (server, at) in mesh.from(0).into_iter().zip(0..) {
            let sink = testimony.clone();
            mesh.begin(async move |operator: Operator| {
                let door = operator.directly(&server);
                loop {
                    let watched = door.watch_replicas(|message| {
                        let position = message.position.as_ref().map(position_from);
                        sink.told.borrow_mut().add(Vec::new(), position.map(|position| (at, position)));
                    });
                    let _ = watched.await;
                    sleep(Duration::from_millis(300)).await;
                }
            });
        }
        testimony
    }

    /// Gives what was told to the judge.
    ///
    /// # Errors
    /// The first thing that is not true.
    pub(crate) fn examine(&self, mesh: &mut Mesh) -> Result<(), String> {
        let (rows, positions) = {
            let mut told = self.told.borrow_mut();
            (std::mem::take(&mut told.rows), std::mem::take(&mut told.positions))
        };
        rows.iter().try_for_each(|row| mesh.judge.examine_row(row, &mesh.servers))?;
        positions.iter().try_for_each(|(server, position)| mesh.judge.examine_position(*server, *position))
    }

    /// How much was told in all.
    pub(crate) fn messages(&self) -> usize {
        self.told.borrow().messages
    }
}

impl Told {
    fn add(&mut self, rows: Vec<Row>, position: Option<(usize, Position)>) {
        self.rows.extend(rows);
        self.positions.extend(position);
        self.messages += 1;
    }
}

fn position_from(wire: &shared::Position) -> Position {
    let revision = Revision(u64::try_from(wire.revision).expect("revisions are not negative"));
    let chain: Digest = wire.chain.parse().expect("a chain is a digest");
    Position { epoch: Epoch(wire.epoch.parse().expect("an epoch is a UUID")), revision, chain }
}
