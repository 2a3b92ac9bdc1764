//! The last report of each server, and for how long it counts.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use lockstep_model::ServerId;

use crate::domain::{Moment, report::Report};

/// A clock of which nothing was heard for this long is not known: it may have been set since. Six times what lies between
/// two reports.
pub const FORGOTTEN_AFTER: Duration = Duration::from_secs(30);

/// The last report of each server.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    reports: BTreeMap<ServerId, (Arc<Report>, Moment)>,
}

impl Heard {
    /// A timeguard spoke.
    pub fn hear(&mut self, id: &ServerId, report: Report, now: Moment) {
        self.reports.insert(id.clone(), (Arc::new(report), now));
    }

    /// A server takes part no more, or its timeguard is elsewhere now.
    pub fn forget(&mut self, id: &ServerId) {
        self.reports.remove(id);
    }

    /// The last words of the timeguard of a server; `None` if they are too old, or there were none.
    pub fn report(&self, id: &ServerId, now: Moment) -> Option<&Arc<Report>> {
        let (report, at) = self.reports.get(id)?;
        (now.saturating_sub(*at) < FORGOTTEN_AFTER).then_some(report)
    }

    /// Whether any server was said to be fenced, as far as that is remembered.
    pub fn is_any_fenced(&self) -> bool {
        self.reports.values().any(|(report, _)| report.fenced().is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::report::{Fence, Verdict};

    /// R62, R65: what was not heard for 30 s of monotonic time is not known any more, and is known again with the next word.
    #[test]
    fn what_was_not_heard_for_long_is_not_known() {
        let id: ServerId = "s1".parse().expect("a server id");
        let report =
            Report { verdict: Verdict::Trusted, offset: None, uncertainty: None, fence: Fence::Open };
        let at = Duration::from_secs;
        let mut heard = Heard::default();
        assert!(heard.report(&id, at(0)).is_none());
        heard.hear(&id, report.clone(), at(5));
        assert!(heard.report(&id, at(34)).is_some());
        assert!(heard.report(&id, at(35)).is_none());
        heard.hear(&id, report, at(40));
        assert!(heard.report(&id, at(41)).is_some());
        heard.forget(&id);
        assert!(heard.report(&id, at(41)).is_none());
    }
}
