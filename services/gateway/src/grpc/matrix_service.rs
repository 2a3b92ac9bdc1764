//! MatrixService: who has what and why, listed and live (R41, R42, R43).

use lockstep_chassis::{
    drain::Drain,
    fields::Fields,
    paging::{PageToken, page_size},
    status::{self, OrStatus as _},
    watch::BoxStream,
};
use lockstep_clocks::ClockBoard;
use lockstep_model::{FirmwareId, Incarnation};
use lockstep_proto::gateway::v1::{
    ExplainFileRequest, ExplainFileResponse, ListFirmwareRowsRequest, ListFirmwareRowsResponse,
    ListRowsRequest, ListRowsResponse, ListServersRequest, ListServersResponse, WatchRowsRequest,
    WatchRowsResponse, list_servers_response::Scheduling, matrix_service_server::MatrixService,
};
use lockstep_registry::Registry;
use tonic::{Request, Response};

use crate::{
    domain::{
        cursor::Cursor,
        error::MatrixError,
        filter::Filter,
        firmware::FirmwareRow,
        view::{Row, View},
    },
    engine::{Board, explain::explain},
    grpc::{
        filter_fields::{filter, servers},
        row_stream, wire,
    },
    ports::Replicas,
};

/// The names that bind tokens to the call that made them.
const ROWS: &str = "rows";
const FIRMWARE: &str = "firmware";
const SERVERS: &str = "servers";
const WATCH: &str = "watch";

/// The matrix over the view.
#[derive(Clone, Debug)]
pub struct Matrix<R, P> {
    board: Board,
    clocks: ClockBoard,
    drain: Drain,
    tokens: Tokens,
    registry: R,
    replicas: P,
}

/// Makes and reads the tokens of watches; valid only within one life of one gateway, since cursors count its changes.
#[derive(Clone, Debug)]
pub(crate) struct Tokens {
    incarnation: String,
}

impl Tokens {
    /// The token that resumes after `cursor`.
    pub(crate) fn seal(&self, cursor: &Cursor, filter: &Filter) -> String {
        PageToken::seal(&cursor.to_text(), &[WATCH, &self.incarnation, &filter.to_text()])
    }

    /// A token that is longer than any key may be does not open; then the watch starts over, which is never wrong.
    fn open(&self, token: &str, filter: &Filter) -> Result<Cursor, MatrixError> {
        let opened = PageToken::open(token, &[WATCH, &self.incarnation, &filter.to_text()]);
        Cursor::parse(&opened.map_err(|_| MatrixError::Expired)?).ok_or(MatrixError::Expired)
    }
}

impl<R: Registry, P: Replicas> Matrix<R, P> {
    /// The matrix of one life of the gateway.
    pub fn new(
        (board, clocks): (Board, ClockBoard),
        drain: Drain,
        incarnation: Incarnation,
        registry: R,
        replicas: P,
    ) -> Self {
        let tokens = Tokens { incarnation: incarnation.to_string() };
        Self { board, clocks, drain, tokens, registry, replicas }
    }

    fn cursor(&self, token: &str, filter: &Filter) -> Result<Cursor, MatrixError> {
        self.board.read(|view| {
            view.knows(filter.servers())?;
            let cursor = if token.is_empty() { view.watch() } else { self.tokens.open(token, filter)? };
            view.next(&mut cursor.clone(), filter, self.board.now())?;
            Ok(cursor)
        })
    }
}

#[tonic::async_trait]
impl<R: Registry, P: Replicas> MatrixService for Matrix<R, P> {
    async fn list_rows(
        &self,
        request: Request<ListRowsRequest>,
    ) -> tonic::Result<Response<ListRowsResponse>> {
        let mut fields = Fields::of(request.into_inner());
        let ListRowsRequest { path_prefix, path, server_ids, states, page_size: size, page_token } =
            fields.request().clone();
        let filter = filter(&mut fields, &path_prefix, &path, &server_ids, &states);
        let size = fields.take(page_size(size));
        let (filter, size) = fields.finish(filter.zip(size))?;
        let bound = filter.to_text();
        let after = opened(&page_token, &[ROWS, &bound])?;

        let list = |view: &View| {
            view.knows(filter.servers())?;
            let position = view.position().ok_or(MatrixError::Unread)?;
            Ok::<_, MatrixError>((view.list(&filter, &after, size, self.board.now()), position))
        };
        let (page, position) = self.board.read(list).or_status()?;

        let next_page_token =
            page.next.map_or_else(String::new, |path| PageToken::seal(&path, &[ROWS, &bound]));
        let rows = page.rows.into_iter().map(Row::into_wire).collect();
        let position = Some(wire::position(position));
        Ok(Response::new(ListRowsResponse { rows, next_page_token, position }))
    }

    type WatchRowsStream = BoxStream<WatchRowsResponse>;

    async fn watch_rows(
        &self,
        request: Request<WatchRowsRequest>,
    ) -> tonic::Result<Response<Self::WatchRowsStream>> {
        let mut fields = Fields::of(request.into_inner());
        let WatchRowsRequest { path_prefix, path, server_ids, states, resume_token } =
            fields.request().clone();
        let filter = filter(&mut fields, &path_prefix, &path, &server_ids, &states);
        let filter = fields.finish(filter)?;

        let cursor = self.cursor(&resume_token, &filter).or_status()?;
        let (board, tokens) = (self.board.clone(), self.tokens.clone());
        Ok(Response::new(row_stream::start(board, &self.drain, tokens, cursor, filter)))
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
            let summaries = view.summaries(&after, size, |id| self.clocks.report(id), self.board.now());
            Ok::<_, MatrixError>((summaries, position, view.member_count()))
        };
        let ((servers, more), position, members) = self.board.read(list).or_status()?;

        let last = servers.last().filter(|_| more);
        let next_page_token =
            last.map_or_else(String::new, |server| PageToken::seal(server.id.as_str(), &[SERVERS]));
        let servers = servers.into_iter().map(crate::domain::summary::Summary::into_wire).collect();
        let scheduling = if members < 2 { Scheduling::Alone } else { Scheduling::Active };
        Ok(Response::new(ListServersResponse {
            servers,
            next_page_token,
            position: Some(wire::position(position)),
            scheduling: scheduling.into(),
        }))
    }

    async fn list_firmware_rows(
        &self,
        request: Request<ListFirmwareRowsRequest>,
    ) -> tonic::Result<Response<ListFirmwareRowsResponse>> {
        let mut fields = Fields::of(request.into_inner());
        let ListFirmwareRowsRequest { firmware_id, page_size: size, page_token } = fields.request().clone();
        let size = fields.take(page_size(size));
        let only = match firmware_id.is_empty() {
            true => Some(None),
            false => fields.parse::<FirmwareId>("firmware_id", |r| &r.firmware_id).map(Some),
        };
        let (only, size) = fields.finish(only.zip(size))?;
        let after = opened(&page_token, &[FIRMWARE, &firmware_id])?.parse().ok();

        let ((rows, more), position) = self
            .board
            .read(|view| {
                let position = view.position().ok_or(MatrixError::Unread)?;
                Ok::<_, MatrixError>((view.firmware_rows(only, after, size, self.board.now())?, position))
            })
            .or_status()?;

        let last = rows.last().filter(|_| more);
        let next_page_token = last
            .map_or_else(String::new, |row| PageToken::seal(&row.id.to_string(), &[FIRMWARE, &firmware_id]));
        let rows = rows.into_iter().map(FirmwareRow::into_wire).collect();
        Ok(Response::new(ListFirmwareRowsResponse {
            rows,
            next_page_token,
            position: Some(wire::position(position)),
        }))
    }

    async fn explain_file(
        &self,
        request: Request<ExplainFileRequest>,
    ) -> tonic::Result<Response<ExplainFileResponse>> {
        let mut fields = Fields::of(request.into_inner());
        let server_ids = fields.request().server_ids.clone();
        let path = fields.parse("path", |r| &r.path);
        let servers = servers(&mut fields, &server_ids);
        let (path, servers) = fields.finish(path.zip(servers))?;

        let explained = explain(&self.board, &self.registry, &self.replicas, path, &servers).await;
        let (explanation, position) = explained.or_status()?;
        Ok(Response::new(ExplainFileResponse {
            explanation: Some(explanation.into_wire()),
            position: Some(wire::position(position)),
        }))
    }
}

/// The key after which a page begins.
#[allow(clippy::result_large_err, reason = "the type that tonic wants")]
pub(super) fn opened(token: &str, parameters: &[&str]) -> tonic::Result<String> {
    if token.is_empty() {
        return Ok(String::new());
    }
    PageToken::open(token, parameters).map_err(|invalid| status::of(&invalid))
}
