//! One watch of updates: all of them, then those that change.

use std::{collections::BTreeMap, time::Duration};

use lockstep_chassis::{
    Drain, OrStatus as _,
    paging::PageToken,
    status,
    watch::{self, BoxStream, HEARTBEAT},
};
use lockstep_model::{Fault, FirmwareId, Reason};
use lockstep_proto::catalog::v1::{Firmware, WatchFirmwareResponse};
use tokio::{sync::mpsc, time::Instant};

use crate::{
    domain::error::CatalogError,
    engine::{Engine, Shown},
    grpc::firmware_service::fitting,
    ports::Ports,
};

/// Batches that wait for a slow reader.
const BATCHES_WAITING: usize = 1;
/// The time between two looks.
const PACE: Duration = Duration::from_millis(500);
/// Updates in one message.
const BATCH_MAX: usize = 500;
/// The name that binds tokens to the call that made them.
const WATCH: &str = "watch firmware";

/// The token was not made by this watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the watch cannot go on from this token")]
struct Expired;

impl Fault for Expired {
    fn reason(&self) -> Reason {
        Reason::ResumeTokenExpired
    }
}

/// The token of every message of a watch of this update, or of all: a watch that is resumed begins with all again.
fn token(id: Option<FirmwareId>) -> String {
    PageToken::seal("", &[WATCH, &id.map_or_else(String::new, |id| id.to_string())])
}

/// That a token belongs to this watch.
#[allow(clippy::result_large_err, reason = "the type that tonic wants")]
pub(super) fn check_token(resume_token: &str, id: Option<FirmwareId>) -> tonic::Result<()> {
    let is_known = resume_token.is_empty() || resume_token == token(id);
    is_known.then_some(()).ok_or(Expired).or_status()
}

pub(super) fn start<P: Ports>(
    engine: Engine<P>,
    drain: &Drain,
    id: Option<FirmwareId>,
) -> BoxStream<WatchFirmwareResponse> {
    let (batches, receiver) = mpsc::channel(BATCHES_WAITING);
    let stream = watch::stream(drain, receiver);
    let begun = drain.clone();
    drain.spawn("watch firmware", async move {
        tokio::select! {
            biased;
            () = begun.started() => {}
            () = batches.closed() => {}
            () = run(&engine, id, &batches) => {}
        }
    });
    stream
}

async fn seen<P: Ports>(engine: &Engine<P>, id: Option<FirmwareId>) -> Result<Vec<Shown>, CatalogError> {
    match id {
        None => engine.shown_all().await,
        Some(id) => match engine.shown(id).await {
            Err(CatalogError::NotFound { .. }) => Ok(Vec::new()),
            shown => shown.map(|shown| vec![shown]),
        },
    }
}

async fn run<P: Ports>(
    engine: &Engine<P>,
    id: Option<FirmwareId>,
    batches: &mpsc::Sender<tonic::Result<WatchFirmwareResponse>>,
) {
    let mut told: BTreeMap<String, Firmware> = BTreeMap::new();
    let mut heard = Instant::now();
    let mut is_first = true;
    loop {
        let all = match seen(engine, id).await {
            Ok(all) => all,
            // What is known goes on to be true; the reader hears when there is news.
            Err(error) if error.reason() == Reason::RegistryUnavailable && !is_first => {
                tokio::time::sleep(PACE).await;
                continue;
            }
            Err(error) => {
                let _ = batches.send(Err(status::of(&error))).await;
                return;
            }
        };
        let all: Vec<Firmware> = all.into_iter().map(Shown::into_wire).collect();
        let mut removed: Vec<String> =
            told.keys().filter(|id| !all.iter().any(|now| now.firmware_id == **id)).cloned().collect();
        removed.iter().for_each(|id| drop(told.remove(id)));
        let is_gone = id.is_some() && all.is_empty();
        let mut changed: Vec<Firmware> =
            all.into_iter().filter(|now| told.get(&now.firmware_id) != Some(now)).collect();
        told.extend(changed.iter().map(|now| (now.firmware_id.clone(), now.clone())));
        while is_first || !changed.is_empty() || !removed.is_empty() || heard.elapsed() >= HEARTBEAT {
            let rest = changed.split_off(fitting(&changed, BATCH_MAX));
            let batch = WatchFirmwareResponse {
                firmware: std::mem::replace(&mut changed, rest),
                caught_up: !is_first || changed.is_empty(),
                resume_token: token(id),
                removed_firmware_ids: std::mem::take(&mut removed),
            };
            is_first &= !batch.caught_up;
            if batches.send(Ok(batch)).await.is_err() {
                return;
            }
            heard = Instant::now();
        }
        if is_gone {
            return;
        }
        tokio::time::sleep(PACE).await;
    }
}
