//! One watch of rows: batches while there is something to tell, a heartbeat while there is not.

use std::time::Duration;

use lockstep_chassis::{
    drain::Drain,
    status,
    watch::{self, BoxStream, HEARTBEAT},
};
use lockstep_proto::gateway::v1::WatchRowsResponse;
use tokio::sync::mpsc;

use crate::{
    domain::{
        cursor::Cursor,
        error::MatrixError,
        filter::Filter,
        view::{Row, Rows},
    },
    engine::Board,
    grpc::{matrix_service::Tokens, wire},
};

/// Batches that wait for a slow reader. What changes meanwhile is joined in the view, so more would only be older.
const BATCHES_WAITING: usize = 1;
/// The least time between two batches while rows change all the time: what changes within it is told once. Far below the
/// second of R41.
const PACE: Duration = Duration::from_millis(50);

pub(crate) fn start(
    board: Board,
    drain: &Drain,
    tokens: Tokens,
    cursor: Cursor,
    filter: Filter,
) -> BoxStream<WatchRowsResponse> {
    let (batches, receiver) = mpsc::channel(BATCHES_WAITING);
    let stream = watch::stream(drain, receiver);
    let begun = drain.clone();
    drain.spawn("watch rows", async move {
        tokio::select! {
            biased;
            () = begun.started() => {}
            () = batches.closed() => {}
            () = run(&board, &tokens, cursor, &filter, &batches) => {}
        }
    });
    stream
}

async fn run(
    board: &Board,
    tokens: &Tokens,
    mut cursor: Cursor,
    filter: &Filter,
    batches: &mpsc::Sender<tonic::Result<WatchRowsResponse>>,
) {
    let mut changes = board.changes();
    let mut told_caught_up = false;
    loop {
        changes.borrow_and_update();
        let next = board.read(|view| (view.next(&mut cursor, filter, board.now()), view.position()));
        let (Ok(rows), Some(position)) = next else {
            // The reader is told, unless it is gone.
            let _ = batches.send(Err(status::of(&MatrixError::Expired))).await;
            return;
        };
        let Rows { rows, removed } = rows;
        let idle = rows.is_empty() && removed.is_empty() && cursor.walk.is_none();
        if idle && told_caught_up {
            // Whatever comes first: news, or the time for a heartbeat.
            if let Ok(changed) = tokio::time::timeout(HEARTBEAT, changes.changed()).await {
                match changed {
                    Ok(()) => continue,
                    Err(_) => return,
                }
            }
        }
        told_caught_up |= cursor.caught_up;
        let batch = WatchRowsResponse {
            rows: rows.into_iter().map(Row::into_wire).collect(),
            removed_paths: removed.iter().map(ToString::to_string).collect(),
            caught_up: cursor.caught_up,
            resume_token: tokens.seal(&cursor, filter),
            position: Some(wire::position(position)),
        };
        if batches.send(Ok(batch)).await.is_err() {
            return;
        }
        if cursor.walk.is_none() {
            tokio::time::sleep(PACE).await;
        }
    }
}
