//! A view that a service makes of the copies, which is told of everything that changes.

use lockstep_model::{Position, Revision, ServerId};

use crate::domain::{
    Moment,
    cause::Cause,
    copies::{Copies, Touched},
    records::{Change, Records},
    report::Batch,
    server::Reading,
};

/// A record of another kind than files and servers; `None` if it was deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Further {
    /// The revision of the change.
    pub revision: Revision,
    /// Its key.
    pub key: String,
    /// Its body.
    pub body: Option<String>,
}

/// The view of one service: the copies, and what it makes of them.
pub trait Live: Default + Send + Sync + 'static {
    /// What the keys of further records begin with that the service wants.
    const FURTHER: &'static [&'static str] = &[];

    /// The copies.
    fn copies(&self) -> &Copies;

    /// The copies, to be changed.
    fn copies_mut(&mut self) -> &mut Copies;

    /// The copies changed; called after each change, also after one that touched nothing.
    fn touched(&mut self, touched: Vec<Touched>);

    /// A further record was read. It may be one that is known already, or older than that.
    fn further(&mut self, _record: Further) {}

    /// The registry was read up to `revision`.
    fn reached(&mut self, _revision: Revision, _now: Moment) {}

    /// The number of the last change that whoever watches the view should look at.
    fn sequence(&self) -> u64;

    /// Takes over what was read from the beginning; the further records follow one by one.
    fn adopt(&mut self, records: Records, now: Moment) {
        let revision = records.history.position().revision;
        let touched = self.copies_mut().adopt(records, now);
        self.touched(vec![touched]);
        self.reached(revision, now);
    }

    /// The registry was read from where it was up to `through`. `passed` are positions on the way.
    fn advance(
        &mut self,
        changes: Vec<(Revision, Change)>,
        passed: Vec<Position>,
        through: Position,
        now: Moment,
    ) {
        let touched = self.copies_mut().advance(changes, passed, through, now);
        self.touched(touched);
        self.reached(through.revision, now);
    }

    /// The head of the registry was read.
    fn read(&mut self, reading: Reading) {
        let touched = self.copies_mut().read(reading);
        self.touched(touched);
    }

    /// A server reported.
    fn receive(&mut self, id: &ServerId, batch: Batch) {
        let touched = self.copies_mut().receive(id, batch);
        self.touched(touched.into_iter().collect());
    }

    /// A server is not heard any more.
    fn lose(&mut self, id: &ServerId, cause: Cause) {
        let touched = self.copies_mut().lose(id, cause);
        self.touched(touched.into_iter().collect());
    }

    /// The registry said that `position` is in its history (`None`), or why not.
    fn rule(&mut self, id: &ServerId, position: Position, foreign: Option<Cause>) {
        let touched = self.copies_mut().rule(id, position, foreign);
        self.touched(touched.into_iter().collect());
    }
}
