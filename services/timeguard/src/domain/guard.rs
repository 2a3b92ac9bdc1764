//! The guard of one clock: what all parts of the judgement know together, and what follows from it.

use std::collections::BTreeMap;

use lockstep_model::{Reason, ServerId};

use super::{
    Moment, Reading,
    estimate::{Estimator, Exchange, Invalid},
    fence::{Change, Fence, Override},
    interval::Interval,
    step::{Found, Return, Step, Steps, Stored},
    verdict::{Circumstances, Judgement, judge},
    witness::{Source, Witness},
};

/// The services of a server that have to be restarted after its clock was set.
pub const SERVICES: [&str; 2] = ["filesync", OWN];
const OWN: &str = "timeguard";

/// Why a witness was not heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missed {
    /// The stable reason.
    pub reason: Reason,
    /// One sentence.
    pub message: String,
    /// Its certificate is not valid now, by the own clock.
    pub is_out_of_date: bool,
}

/// What is known of one witness.
#[derive(Clone, Debug, Default)]
pub struct Known {
    estimator: Estimator,
    /// When it was heard last.
    pub heard: Option<Moment>,
    /// Why it was not heard at the last try.
    pub missed: Option<Missed>,
    /// Whether its kernel says that its clock is kept in time.
    is_kept_in_time: bool,
}

/// What a look at the own clock found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// The clock was set.
    pub found: Option<Found>,
    /// The fence went up, or came down.
    pub change: Option<Change>,
}

/// How a guard begins.
#[derive(Clone, Debug)]
pub struct Beginning {
    /// The server.
    pub own: ServerId,
    /// What is allowed.
    pub limit: std::time::Duration,
    /// What asks for a restart.
    pub step_min: std::time::Duration,
    /// Which start of the machine this is.
    pub boot: String,
    /// Now.
    pub now: Reading,
    /// Who should be heard.
    pub sources: Vec<Source>,
}

/// One clock, guarded.
#[derive(Clone, Debug)]
pub struct Guard {
    own: ServerId,
    limit: std::time::Duration,
    known: BTreeMap<Source, Known>,
    was_heard: bool,
    is_certified: bool,
    services: BTreeMap<&'static str, Reading>,
    steps: Steps,
    step_count: u64,
    last_step: Option<Step>,
    fence: Fence,
    judgement: Judgement,
}

impl Guard {
    /// From what an earlier process stored; says what happened to the clock meanwhile. It has judged nothing yet.
    pub fn begin(
        with: Beginning,
        stored: Option<&Stored>,
        overruled: Option<Override>,
    ) -> (Self, Option<Return>) {
        let Beginning { own, limit, step_min, boot, now, sources } = with;
        // Uptimes of another start of the machine mean nothing in this one.
        let overruled = overruled.filter(|_| stored.is_some_and(|stored| stored.boot == boot));
        let (steps, returned) = Steps::resume(step_min, boot, now, stored);
        let mut fence = Fence::new(now.since, !sources.is_empty());
        if let Some(by) = overruled {
            fence.overrule(now.since, by);
        }
        let last_step = steps.pending().copied();
        let guard = Self {
            own,
            limit,
            known: sources.into_iter().map(|source| (source, Known::default())).collect(),
            was_heard: false,
            is_certified: true,
            services: BTreeMap::from([(OWN, now)]),
            steps,
            step_count: u64::from(matches!(returned, Some(Return::Step(_)))),
            last_step,
            fence,
            judgement: judge(&[], limit, Circumstances::default()),
        };
        (guard, returned)
    }

    /// Who should be heard from now on; what is known of those who stay is kept.
    pub fn expect(&mut self, sources: Vec<Source>) {
        let mut known = std::mem::take(&mut self.known);
        self.known = sources
            .into_iter()
            .map(|source| {
                let known = known.remove(&source).unwrap_or_default();
                (source, known)
            })
            .collect();
    }

    /// Takes in what a witness said. One that nobody expects any more is not listened to.
    ///
    /// # Errors
    /// [`Invalid`] if it says nothing.
    pub fn note(
        &mut self,
        source: &Source,
        exchange: &Exchange,
        is_kept_in_time: bool,
    ) -> Result<(), Invalid> {
        let Some(known) = self.known.get_mut(source) else { return Ok(()) };
        (known.missed, known.is_kept_in_time) = (None, is_kept_in_time);
        known.estimator.note(exchange)?;
        known.heard = Some(exchange.arrived.since);
        self.was_heard = true;
        Ok(())
    }

    /// A witness was not heard.
    pub fn miss(&mut self, source: &Source, missed: Missed) {
        if let Some(known) = self.known.get_mut(source) {
            known.missed = Some(missed);
        }
    }

    /// Whether the own certificate is valid now, by the own clock.
    pub fn certify(&mut self, is_current: bool) {
        self.is_certified = is_current;
    }

    /// The own filesync began then, by its own clocks.
    pub fn started(&mut self, filesync: Reading) {
        self.services.insert(SERVICES[0], filesync);
    }

    /// Looks at the own clocks, and judges.
    pub fn look(&mut self, now: Reading) -> Looked {
        let found = self.steps.look(now);
        if let Some(found) = found {
            self.step_count += 1;
            if let Found::Step(step) = found {
                self.last_step = Some(step);
                self.known.values_mut().for_each(|known| known.estimator.forget());
            }
        }
        Looked { found, change: self.judge(now) }
    }

    /// Judges by what is known at a moment.
    pub fn judge(&mut self, now: Reading) -> Option<Change> {
        let began = SERVICES.map(|service| self.services.get(service).copied());
        let restart = self.steps.began(&began);
        let known = Circumstances { was_heard: self.was_heard, certificates_fail: self.certificates_fail() };
        self.judgement = judge(&self.witnesses(now), self.fence.limit(self.limit), known);
        self.fence.update(now.since, &self.judgement, restart)
    }

    /// Everybody who counts. The own kernel does not where that of a clock that contradicts it says the same of itself: two
    /// kernels that are both kept in time, and differ, say nothing.
    fn witnesses(&self, now: Reading) -> Vec<Witness> {
        let limit = self.fence.limit(self.limit);
        let contradicts = |known: &Known| {
            let offset = known.estimator.offset(now);
            known.is_kept_in_time && offset.is_some_and(|offset| offset.place(limit).is_beyond())
        };
        let is_kernel = |source: &Source| *source == Source::Kernel;
        let is_disputed = self.known.iter().any(|(source, known)| !is_kernel(source) && contradicts(known));
        let counted = self.known.iter().filter(|(source, _)| !(is_disputed && is_kernel(source)));
        counted
            .map(|(source, known)| Witness { source: source.clone(), offset: known.estimator.offset(now) })
            .collect()
    }

    /// The own certificate, or those of most peers, cannot be valid by the own clock.
    fn certificates_fail(&self) -> bool {
        let peers = self.known.iter().filter(|(source, _)| matches!(source, Source::Peer(_)));
        let (mut count, mut failing) = (0, 0);
        for (_, known) in peers {
            count += 1;
            failing += usize::from(known.missed.as_ref().is_some_and(|missed| missed.is_out_of_date));
        }
        !self.is_certified || 2 * failing > count
    }

    /// Somebody knows better. The same request again changes nothing.
    pub fn overrule(&mut self, now: Moment, by: Override) -> Option<Change> {
        if self.fence.overruled().is_some_and(|known| known.request_id == by.request_id) {
            return None;
        }
        self.fence.overrule(now, by)
    }

    /// Nobody knows better any more.
    pub fn stand(&mut self, now: Moment) -> Option<Change> {
        self.fence.stand(now)
    }

    /// The services that have to be restarted.
    pub fn services_to_restart(&self) -> impl Iterator<Item = &'static str> + '_ {
        SERVICES.into_iter().filter(|service| self.steps.outlived(self.services.get(service)))
    }

    /// Whether this process is one of them.
    pub fn has_to_restart(&self) -> bool {
        self.services_to_restart().any(|service| service == OWN)
    }

    /// Whose clock it is.
    pub fn own(&self) -> &ServerId {
        &self.own
    }

    /// How far clocks may be apart.
    pub fn limit(&self) -> std::time::Duration {
        self.limit
    }

    /// The last judgement.
    pub fn judgement(&self) -> &Judgement {
        &self.judgement
    }

    /// Whether the server may originate.
    pub fn fence(&self) -> &Fence {
        &self.fence
    }

    /// Everybody who should be heard, with what each says at a moment.
    pub fn known(&self, now: Reading) -> impl Iterator<Item = (&Source, &Known, Option<Interval>)> {
        self.known.iter().map(move |(source, known)| (source, known, known.estimator.offset(now)))
    }

    /// The last step since the machine started, as far as it is known.
    pub fn last_step(&self) -> Option<&Step> {
        self.last_step.as_ref()
    }

    /// How many steps were noticed, small ones included.
    pub fn step_count(&self) -> u64 {
        self.step_count
    }

    /// What to write down.
    pub fn stored(&self) -> Stored {
        self.steps.stored()
    }
}
