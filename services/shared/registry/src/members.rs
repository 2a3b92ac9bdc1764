//! Who belongs to the installation, read from the registry and remembered for a while.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use lockstep_model::{
    Role, ServerId,
    identity::{Members, MembersUnavailable},
    record::{self, OperatorRecord},
};
use tokio::time::Instant;

use crate::{Registry, RegistryError};

/// How long an answer is used without asking: every call of every service asks.
const FRESH: Duration = Duration::from_secs(2);
/// How old an answer may be while the registry cannot be asked. Longer would let an operator keep a right that was taken
/// away; shorter would lock people out in the middle of an outage.
const REMEMBERED: Duration = Duration::from_secs(600);
/// How long a call waits for the registry when there is an answer to fall back on.
const PATIENCE: Duration = Duration::from_millis(500);
/// How many answers are remembered; names of callers without a valid certificate never come this far.
const ANSWERS_MAX: usize = 10_000;

/// [`Members`] over a registry. Clones share what is remembered.
#[derive(Clone, Debug)]
pub struct CachedMembers<R> {
    registry: R,
    answers: Arc<Mutex<BTreeMap<String, Answer>>>,
}

#[derive(Clone, Debug)]
struct Answer {
    /// The live record, if there is one.
    body: Option<String>,
    /// When the registry said so.
    since: Instant,
    /// Until when it is not asked again.
    until: Instant,
}

impl<R: Registry> CachedMembers<R> {
    /// Remembers nothing yet.
    pub fn new(registry: R) -> Self {
        Self { registry, answers: Arc::default() }
    }

    async fn body(&self, key: String) -> Result<Option<String>, MembersUnavailable> {
        let now = Instant::now();
        let remembered = self.answers().get(&key).filter(|answer| now - answer.since < REMEMBERED).cloned();
        let Some(answer) = remembered else {
            return self.ask(key).await.map_err(|error| MembersUnavailable { cause: error.to_string() });
        };
        if now < answer.until {
            return Ok(answer.body);
        }
        match tokio::time::timeout(PATIENCE, self.ask(key.clone())).await {
            Ok(Ok(body)) => Ok(body),
            Ok(Err(_)) | Err(_) => {
                tracing::debug!(key, age = ?answer.since.elapsed(), "registry not answering, membership from memory");
                let until = Instant::now() + FRESH;
                self.answers().insert(key, Answer { until, ..answer.clone() });
                Ok(answer.body)
            }
        }
    }

    async fn ask(&self, key: String) -> Result<Option<String>, RegistryError> {
        let found = self.registry.get(vec![key.clone()]).await?;
        let body = found.into_iter().next().flatten().map(|record| record.body);
        let now = Instant::now();
        let mut answers = self.answers();
        if answers.len() >= ANSWERS_MAX {
            answers.retain(|_, answer| now < answer.until);
        }
        if answers.len() < ANSWERS_MAX {
            answers.insert(key, Answer { body: body.clone(), since: now, until: now + FRESH });
        }
        Ok(body)
    }

    fn answers(&self) -> MutexGuard<'_, BTreeMap<String, Answer>> {
        // Every change is one call, so a panic of another holder leaves nothing half done.
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<R: Registry> Members for CachedMembers<R> {
    async fn role(&self, operator: &str) -> Result<Option<Role>, MembersUnavailable> {
        let key = record::operator_key(operator);
        let Some(body) = self.body(key.clone()).await? else { return Ok(None) };
        // What cannot be read is not "unknown": that would be an answer.
        let unreadable =
            |error| MembersUnavailable { cause: format!("the record {key} cannot be read: {error}") };
        let record: OperatorRecord = serde_json::from_str(&body).map_err(unreadable)?;
        Ok(Some(record.role))
    }

    async fn knows(&self, server: &ServerId) -> Result<bool, MembersUnavailable> {
        Ok(self.body(record::server_key(server)).await?.is_some())
    }
}
