//! Gathers what is known of one path: the view, the record, and what lies on the disks where nothing is registered.

use std::{collections::BTreeSet, time::Duration};

use futures::future::join_all;
use lockstep_chassis::deadline;
use lockstep_model::{
    Fault as _, FilePath, Position, Reason, ServerId,
    record::{FileRecord, file_key},
};
use lockstep_registry::{Record as Stored, Registry};

use crate::{
    domain::{
        cause::Cause,
        cell::Asked,
        error::MatrixError,
        explain::{Copy, Explanation, Loose, Record, Registered, explain_copy, explain_loose, explanation},
        view::View,
    },
    engine::Board,
    ports::{Address, Replicas},
};

/// How long the registry has to tell the record: after that the view alone explains what it knows.
const RECORD_MAX: Duration = Duration::from_secs(3);
/// How long a server has to tell what lies at a path.
const LOOSE_MAX: Duration = Duration::from_secs(2);
/// The most servers that are asked what lies at a path.
const ASKED_MAX: usize = 200;

/// Explains `path` on `servers`; on all, if there are none.
///
/// # Errors
/// [`MatrixError`] before the registry was read, for a server that is not known, and if a path that the view does not have
/// cannot be looked up: a look-up that failed is never reported as absent.
pub async fn explain<R: Registry, P: Replicas>(
    board: &Board,
    registry: &R,
    replicas: &P,
    path: FilePath,
    servers: &BTreeSet<ServerId>,
) -> Result<(Explanation, Position), MatrixError> {
    board.read(|view| view.knows(servers))?;
    let read = deadline::within(RECORD_MAX, registry.get_latest(vec![file_key(&path)])).await;
    let stored = match read {
        Ok(Ok(found)) => Ok(found.into_iter().next().flatten()),
        Ok(Err(error)) => Err(Cause::new(error.reason(), error.to_string())),
        Err(late) => Err(Cause::new(Reason::RegistryUnavailable, late.to_string())),
    };
    let (registered, position) = board.read(|view| {
        let position = view.position().ok_or(MatrixError::Unread)?;
        Ok::<_, MatrixError>((registered(view, &path, stored)?, position))
    })?;
    let copies = match &registered {
        Registered::Live(record) => board.read(|view| copies(view, &path, record, board.now())),
        _ => loose(board, replicas, &path, servers).await,
    };
    Ok((explanation(path.to_string(), registered, copies).about(servers), position))
}

/// The newer of what the view has and what the registry says; the record tells more.
fn registered(
    view: &View,
    path: &FilePath,
    stored: Result<Option<Stored>, Cause>,
) -> Result<Registered, MatrixError> {
    let seen = view.records().and_then(|(records, _)| records.file(path.as_str()));
    let seen = seen.map(|file| Record {
        revision: file.revision,
        size_bytes: file.size_bytes,
        origin: (*file.origin).clone(),
        placement: file.placement,
        digest: String::new(),
        registered: None,
        changed_by: String::new(),
    });
    match (stored, seen) {
        (Ok(None), None) => Ok(Registered::Never),
        (Ok(Some(stored)), seen) if seen.as_ref().is_none_or(|seen| seen.revision <= stored.revision) => {
            told(&stored)
        }
        (_, Some(seen)) => Ok(Registered::Live(seen)),
        (Err(cause), None) => Err(MatrixError::Unavailable { cause: cause.message }),
        (Ok(Some(stored)), None) => told(&stored),
    }
}

fn told(stored: &Stored) -> Result<Registered, MatrixError> {
    let body: FileRecord = serde_json::from_str(&stored.body).map_err(|error| {
        tracing::error!(key = stored.key, %error, "a record cannot be read");
        MatrixError::Unavailable { cause: format!("the record {} cannot be read", stored.key) }
    })?;
    let who = if stored.deleted { body.deleted_by.unwrap_or_default() } else { body.registered_by };
    let time = body.registered_time;
    let record = Record {
        revision: stored.revision,
        size_bytes: body.size_bytes,
        origin: body.origin,
        placement: body.placement,
        digest: body.digest.to_string(),
        registered: Some((time.as_second(), time.subsec_nanosecond())),
        // The caller; the id of its request says nothing to a person.
        changed_by: who.split_whitespace().next().unwrap_or_default().to_owned(),
    };
    Ok(match (stored.deleted, body.moved_to) {
        (false, _) => Registered::Live(record),
        (true, Some(to)) => Registered::Moved(record, to.to_string()),
        (true, None) => Registered::Deleted(record),
    })
}

/// All copies: the summary is about the file, whichever copies were asked about.
fn copies(view: &View, path: &FilePath, record: &Record, now: crate::domain::Moment) -> Vec<Copy> {
    let Some((_, learned)) = view.records() else { return Vec::new() };
    let alone = view.member_count() < 2;
    let asked = |id: &ServerId| Asked {
        path: path.as_str(),
        revision: record.revision,
        elsewhere: record.placement.excludes(id, &record.origin),
    };
    let explained =
        |(id, server)| explain_copy(id, server, (asked(id), record.size_bytes), learned, alone, now);
    view.servers().map(explained).collect()
}

/// What lies at the path on each server that can be asked; those with nothing are left out.
async fn loose<P: Replicas>(
    board: &Board,
    replicas: &P,
    path: &FilePath,
    servers: &BTreeSet<ServerId>,
) -> Vec<Copy> {
    let addresses: Vec<Address> = board.read(|view| {
        let asked = view.servers().filter(|(id, _)| servers.is_empty() || servers.contains(id));
        let heard = asked.filter(|(_, server)| server.reachable());
        heard
            .take(ASKED_MAX)
            .map(|(id, server)| Address { id: id.clone(), uri: server.record.filesync.clone() })
            .collect()
    });
    let asked = addresses.iter().map(|address| async move {
        let answer = deadline::within(LOOSE_MAX, replicas.has_loose(address, path)).await;
        match answer {
            Ok(Ok(true)) => Loose::Present,
            Ok(Ok(false)) => Loose::Absent,
            Ok(Err(cause)) => Loose::Unknown(cause),
            Err(late) => Loose::Unknown(Cause::new(late.reason(), late.to_string())),
        }
    });
    let answers = join_all(asked).await;
    let found = addresses.iter().zip(answers).filter(|(_, loose)| *loose != Loose::Absent);
    found.map(|(address, loose)| explain_loose(&address.id, loose)).collect()
}
