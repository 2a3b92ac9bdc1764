//! MatrixService: who has what, listed and live (R41, R42, R43).

use std::time::Duration;

use lockstep_chassis::{
    drain::Drain,
    fields::Fields,
    paging::{PageToken, page_size},
    status::{self, OrStatus as _},
    watch::BoxStream,
};
use lockstep_model::{Fault, Incarnation, Reason, path::PATH_BYTES_MAX};
use lockstep_proto::gateway::v1::{
    ListRowsRequest, ListRowsResponse, ListServersRequest, ListServersResponse, WatchRowsRequest,
    WatchRowsResponse, matrix_service_server::MatrixService,
};
use tonic::{Request, Response};

use crate::{
    domain::{
        cursor::Cursor,
        view::{Expired, Row, View},
    },
    engine::board::Board,
    grpc::{row_stream, wire},
};

/// The names that bind tokens to the call that made them.
const ROWS: &str = "rows";
const SERVERS: &str = "servers";
const WATCH: &str = "watch";

/// The matrix over the view.
#[derive(Clone, Debug)]
pub struct Matrix {
    board: Board,
    drain: Drain,
    incarnation: String,
}

/// Why the matrix does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MatrixError {
    /// The registry was not read yet.
    #[error("the registry was not read yet, so nothing is known of files and servers")]
    Unread,
    /// The token is from another life of the gateway or another call, or what came after it is forgotten.
    #[error("the watch cannot go on from this token")]
    Expired,
}

impl Fault for MatrixError {
    fn reason(&self) -> Reason {
        match self {
            Self::Unread => Reason::RegistryUnavailable,
            Self::Expired => Reason::ResumeTokenExpired,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        matches!(self, Self::Unread).then_some(Duration::from_secs(1))
    }
}

impl From<Expired> for MatrixError {
    fn from(_: Expired) -> Self {
        Self::Expired
    }
}

impl Matrix {
    /// The matrix of one life of the gateway.
    pub fn new(board: Board, drain: Drain, incarnation: Incarnation) -> Self {
        Self { board, drain, incarnation: incarnation.to_string() }
    }

    /// The token that resumes after `cursor`; only within this life, since cursors count its changes.
    pub(crate) fn seal(&self, cursor: &Cursor, prefix: &str) -> String {
        PageToken::seal(&cursor.to_text(), &[WATCH, &self.incarnation, prefix])
    }

    /// A token that is longer than any key may be does not open; then the watch starts over, which is never wrong.
    fn open(&self, token: &str, prefix: &str) -> Result<Cursor, MatrixError> {
        let text =
            PageToken::open(token, &[WATCH, &self.incarnation, prefix]).map_err(|_| MatrixError::Expired)?;
        Cursor::parse(&text).ok_or(MatrixError::Expired)
    }

    fn cursor(&self, token: &str, prefix: &str) -> Result<Cursor, MatrixError> {
        self.board.read(|view| {
            view.position().ok_or(MatrixError::Unread)?;
            let cursor = if token.is_empty() { view.watch() } else { self.open(token, prefix)? };
            view.next(&mut cursor.clone(), prefix, self.board.now())?;
            Ok(cursor)
        })
    }
}

#[tonic::async_trait]
impl MatrixService for Matrix {
    async fn list_rows(
        &self,
        request: Request<ListRowsRequest>,
    ) -> tonic::Result<Response<ListRowsResponse>> {
        let mut fields = Fields::of(request.into_inner());
        fields.check(
            "path_prefix",
            |r| r.path_prefix.len() <= PATH_BYTES_MAX,
            "must not be longer than a path",
        );
        let size = fields.take(page_size(fields.request().page_size));
        let ListRowsRequest { path_prefix, page_token, .. } = fields.request().clone();
        let size = fields.finish(size)?;
        let after = opened(&page_token, &[ROWS, &path_prefix])?;

        let list = |view: &View| {
            let position = view.position().ok_or(MatrixError::Unread)?;
            Ok::<_, MatrixError>((view.list(&path_prefix, &after, size, self.board.now()), position))
        };
        let ((rows, more), position) = self.board.read(list).or_status()?;

        let last = rows.last().filter(|_| more);
        let next_page_token =
            last.map_or_else(String::new, |row| PageToken::seal(&row.path, &[ROWS, &path_prefix]));
        let rows = rows.into_iter().map(Row::into_wire).collect();
        Ok(Response::new(ListRowsResponse {
            rows,
            next_page_token,
            position: Some(wire::position(position)),
        }))
    }

    type WatchRowsStream = BoxStream<WatchRowsResponse>;

    async fn watch_rows(
        &self,
        request: Request<WatchRowsRequest>,
    ) -> tonic::Result<Response<Self::WatchRowsStream>> {
        let mut fields = Fields::of(request.into_inner());
        fields.check(
            "path_prefix",
            |r| r.path_prefix.len() <= PATH_BYTES_MAX,
            "must not be longer than a path",
        );
        let WatchRowsRequest { path_prefix, resume_token } = fields.request().clone();
        fields.finish(Some(()))?;

        let cursor = self.cursor(&resume_token, &path_prefix).or_status()?;
        Ok(Response::new(row_stream::start(self.clone(), cursor, path_prefix)))
    }

    async fn list_servers(
        &self,
        request: Request<ListServersRequest>,
    ) -> tonic::Result<Response<ListServersResponse>> {
        let mut fields = Fields::of(request.into_inner());
        let size = fields.take(page_size(fields.request().page_size));
        let page_token = fields.request().page_token.clone();
        let size = fields.finish(size)?;
        let after = opened(&page_token, &[SERVERS])?;

        let list = |view: &View| {
            let position = view.position().ok_or(MatrixError::Unread)?;
            Ok::<_, MatrixError>((view.summaries(&after, size, self.board.now()), position))
        };
        let ((servers, more), position) = self.board.read(list).or_status()?;

        let last = servers.last().filter(|_| more);
        let next_page_token =
            last.map_or_else(String::new, |server| PageToken::seal(server.id.as_str(), &[SERVERS]));
        let servers = servers.into_iter().map(crate::domain::summary::Summary::into_wire).collect();
        Ok(Response::new(ListServersResponse {
            servers,
            next_page_token,
            position: Some(wire::position(position)),
        }))
    }
}

impl Matrix {
    pub(crate) fn board(&self) -> &Board {
        &self.board
    }

    pub(crate) fn drain(&self) -> &Drain {
        &self.drain
    }
}

/// The key after which a page begins.
#[allow(clippy::result_large_err, reason = "the type that tonic wants")]
fn opened(token: &str, parameters: &[&str]) -> tonic::Result<String> {
    if token.is_empty() {
        return Ok(String::new());
    }
    PageToken::open(token, parameters).map_err(|invalid| status::of(&invalid))
}
