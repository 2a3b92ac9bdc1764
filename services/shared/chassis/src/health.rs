//! Health: the empty name is readiness, `liveness` says that the runtime turns. Both start as not serving.
//!
//! ```text
//! ""          NOT_SERVING ──every condition met──▶ SERVING ──a condition lost, or draining──▶ NOT_SERVING
//! "liveness"  NOT_SERVING ──first beat──▶ SERVING ──no beat for 10 s, or it has to be started again──▶ NOT_SERVING
//! ```

use std::{collections::BTreeMap, pin::Pin, sync::Arc, time::Duration};

use futures::Stream;
use tokio::{sync::watch, time::Instant};
use tonic::{Request, Response, Status};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus, health_server,
};

use crate::{drain::Drain, status, watch::Draining};

/// The name whose health says whether the runtime turns.
pub const LIVENESS: &str = "liveness";
/// How often the runtime shows that it turns.
const BEAT: Duration = Duration::from_secs(1);
/// A runtime that did not turn for this long is not alive.
const BEAT_MAX: Duration = Duration::from_secs(10);

/// The health of a process. Clones share one state.
#[derive(Clone, Debug)]
pub struct Health {
    state: Arc<watch::Sender<State>>,
}

#[derive(Debug)]
struct State {
    conditions: BTreeMap<&'static str, bool>,
    draining: bool,
    beat: Option<Instant>,
    /// Why the process has to be started again, if it has to.
    restart: Option<&'static str>,
}

impl State {
    fn ready(&self) -> bool {
        !self.draining && self.conditions.values().all(|met| *met)
    }

    fn alive(&self) -> bool {
        self.restart.is_none() && self.beat.is_some_and(|beat| beat.elapsed() < BEAT_MAX)
    }
}

impl Health {
    /// A process that is ready once each of `conditions` is met.
    pub fn new(conditions: &[&'static str]) -> Self {
        let conditions = conditions.iter().map(|condition| (*condition, false)).collect();
        Self {
            state: Arc::new(watch::Sender::new(State {
                conditions,
                draining: false,
                beat: None,
                restart: None,
            })),
        }
    }

    /// Says whether a condition is met. A condition that was not announced counts from now on.
    pub fn set(&self, condition: &'static str, met: bool) {
        let changed =
            self.state.send_if_modified(|state| state.conditions.insert(condition, met) != Some(met));
        if changed {
            tracing::info!(condition, met, ready = self.is_ready(), "health changed");
        }
    }

    /// Whether every condition is met and the process does not drain.
    pub fn is_ready(&self) -> bool {
        self.state.borrow().ready()
    }

    /// The conditions that are not met, in the order of their names.
    pub fn unmet(&self) -> Vec<&'static str> {
        self.state.borrow().conditions.iter().filter(|(_, met)| !**met).map(|(name, _)| *name).collect()
    }

    /// Waits until the process is ready.
    pub async fn ready(&self) {
        // The sender lives in `self`, so the channel cannot close.
        let _ = self.state.subscribe().wait_for(State::ready).await;
    }

    /// From now on not ready, whatever the conditions say.
    pub fn draining(&self) {
        self.state.send_if_modified(|state| !std::mem::replace(&mut state.draining, true));
    }

    /// The process has to be started again: it serves as before, and its liveness fails from now on.
    pub fn require_restart(&self, why: &'static str) {
        self.state.send_if_modified(|state| state.restart.replace(why).is_none());
    }

    /// Waits until the process has to be started again; says why.
    pub async fn restart_required(&self) -> &'static str {
        let mut changes = self.state.subscribe();
        // The sender lives in `self`, so the channel cannot close.
        let found = changes.wait_for(|state| state.restart.is_some()).await;
        found.ok().and_then(|state| state.restart).unwrap_or_default()
    }

    /// Whether the runtime turns, and the process may go on.
    pub fn is_alive(&self) -> bool {
        self.state.borrow().alive()
    }

    /// Shows every second that the runtime turns, until the process drains.
    pub(crate) fn beat(&self, drain: &Drain) {
        let (health, begun) = (self.clone(), drain.clone());
        drain.spawn("health beat", async move {
            loop {
                health.state.send_modify(|state| state.beat = Some(Instant::now()));
                tokio::select! {
                    biased;
                    () = begun.started() => return health.draining(),
                    () = tokio::time::sleep(BEAT) => {}
                }
            }
        });
    }
}

/// `grpc.health.v1.Health` over a [`Health`].
#[derive(Clone, Debug)]
pub(crate) struct HealthRpc {
    health: Health,
    /// The services that are served; each is as ready as the process.
    services: Arc<[String]>,
    drain: Drain,
}

impl HealthRpc {
    /// Answers for the process and each of its services.
    pub(crate) fn new(health: Health, services: &[String], drain: &Drain) -> Self {
        Self { health, services: services.into(), drain: drain.clone() }
    }

    fn status_of(&self, service: &str) -> Option<ServingStatus> {
        let state = self.health.state.borrow();
        let serving = match service {
            LIVENESS => state.alive(),
            name if name.is_empty() || self.services.iter().any(|served| served == name) => state.ready(),
            _ => return None,
        };
        Some(if serving { ServingStatus::Serving } else { ServingStatus::NotServing })
    }
}

#[tonic::async_trait]
impl health_server::Health for HealthRpc {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> tonic::Result<Response<HealthCheckResponse>> {
        let service = request.into_inner().service;
        let serving = self.status_of(&service).ok_or_else(|| status::health_unknown(&service))?;
        Ok(Response::new(HealthCheckResponse { status: serving.into() }))
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> tonic::Result<Response<Self::WatchStream>> {
        let service = request.into_inner().service;
        let state = Some((self.clone(), self.health.state.subscribe(), None));
        let stream = futures::stream::unfold(state, move |state| {
            let service = service.clone();
            async move {
                let (rpc, mut changes, last) = state?;
                loop {
                    let draining = changes.borrow_and_update().draining;
                    let serving = rpc.status_of(&service).unwrap_or(ServingStatus::ServiceUnknown);
                    if last != Some(serving) {
                        let told = HealthCheckResponse { status: serving.into() };
                        return Some((Ok(told), Some((rpc, changes, Some(serving)))));
                    }
                    if draining {
                        return Some((Err(status::of(&Draining)), None));
                    }
                    // Looked at from time to time as well, since a runtime that stops turning changes nothing.
                    tokio::select! {
                        biased;
                        changed = changes.changed() => changed.ok()?,
                        () = tokio::time::sleep(BEAT_MAX) => {}
                        () = rpc.drain.started() => rpc.health.draining(),
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(stream)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn health_starts_as_not_serving_and_follows_its_conditions() {
        let (health, drain) = (Health::new(&["registry", "store"]), Drain::new());
        let rpc = HealthRpc::new(health.clone(), &["lockstep.x.v1.X".to_owned()], &drain);
        assert_eq!(rpc.status_of(""), Some(ServingStatus::NotServing));
        assert_eq!(rpc.status_of(LIVENESS), Some(ServingStatus::NotServing));
        assert_eq!(rpc.status_of("other"), None);
        health.beat(&drain);
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(rpc.status_of(LIVENESS), Some(ServingStatus::Serving));
        health.set("store", true);
        assert_eq!((health.is_ready(), health.unmet()), (false, vec!["registry"]));
        health.set("registry", true);
        health.ready().await;
        assert_eq!(rpc.status_of("lockstep.x.v1.X"), Some(ServingStatus::Serving));
        health.set("store", false);
        assert_eq!(rpc.status_of(""), Some(ServingStatus::NotServing));
        health.set("store", true);
        health.require_restart("the clock was set");
        assert_eq!(health.restart_required().await, "the clock was set");
        assert_eq!(rpc.status_of(LIVENESS), Some(ServingStatus::NotServing));
        assert_eq!(rpc.status_of(""), Some(ServingStatus::Serving));
        drain.begin();
        drain.finished().await;
        assert_eq!(rpc.status_of(""), Some(ServingStatus::NotServing));
    }
}
