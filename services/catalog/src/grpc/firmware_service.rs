//! FirmwareService: what is offered, and what became of it here.

use lockstep_chassis::{
    Drain, Fields, OrStatus as _, caller,
    paging::{PageToken, page_size},
    watch::BoxStream,
};
use lockstep_model::{FirmwareId, RequestId};
use lockstep_proto::catalog::v1::{
    CancelDownloadRequest, CancelDownloadResponse, DeleteFirmwareRequest, DeleteFirmwareResponse,
    DeleteUnusedFirmwareRequest, DeleteUnusedFirmwareResponse, Firmware, GetFirmwareRequest,
    GetFirmwareResponse, ListFirmwareRequest, ListFirmwareResponse, ListOffersRequest, ListOffersResponse,
    Offer, RefreshOffersRequest, RefreshOffersResponse, RestoreDownloadRequest, RestoreDownloadResponse,
    StartDownloadRequest, StartDownloadResponse, UpdateFirmwareRequest, UpdateFirmwareResponse,
    WatchFirmwareRequest, WatchFirmwareResponse, WriteFirmwareRequest, WriteFirmwareResponse,
    firmware_service_server::FirmwareService,
};
use tonic::{Request, Response, Streaming};

use crate::{
    domain::offers::place,
    engine::{Ask, EditAsk, Engine, Shown, Start, Update},
    grpc::{firmware_stream, firmware_upload, wire},
    ports::Ports,
};

/// The names that bind tokens to the call that made them.
const OFFERS: &str = "offers";
const FIRMWARE: &str = "firmware";
/// Bytes of the updates in one answer: a client takes 4 MiB.
pub(super) const ANSWER_BYTES_MAX: usize = 3 << 20;
/// The longest names of a feed.
const NAME_BYTES_MAX: usize = 256;

/// The service on top of the engine.
pub struct FirmwareOf<P: Ports> {
    engine: Engine<P>,
    drain: Drain,
}

impl<P: Ports> FirmwareOf<P> {
    /// Serves `engine`.
    pub fn new(engine: Engine<P>, drain: Drain) -> Self {
        Self { engine, drain }
    }

    async fn shown(&self, update: Update) -> tonic::Result<Option<Firmware>> {
        Ok(Some(self.engine.show(update).await.or_status()?.into_wire()))
    }
}

/// The two fields of a call about one update.
fn named<T>(
    mut fields: Fields<T>,
    of: impl Fn(&T) -> (&str, &str),
) -> tonic::Result<(FirmwareId, RequestId)> {
    let id = fields.parse("firmware_id", |request| of(request).0);
    let request_id = fields.parse("request_id", |request| of(request).1);
    fields.finish(id.zip(request_id))
}

/// How many of the first fit into one answer: at least one.
pub(super) fn fitting<M: prost::Message>(items: &[M], count_max: usize) -> usize {
    let mut bytes = 0;
    let fits = |item: &&M| {
        bytes += item.encoded_len();
        bytes <= ANSWER_BYTES_MAX
    };
    items.iter().take(count_max).take_while(fits).count().max(1).min(items.len())
}

#[tonic::async_trait]
impl<P: Ports> FirmwareService for FirmwareOf<P> {
    async fn refresh_offers(
        &self,
        request: Request<RefreshOffersRequest>,
    ) -> tonic::Result<Response<RefreshOffersResponse>> {
        let mut fields = Fields::of(request.into_inner());
        fields.check("source_id", |r| r.source_id.len() <= NAME_BYTES_MAX, "has at most 256 bytes");
        let request_id: Option<RequestId> = fields.parse("request_id", |r| &r.request_id);
        let source_id = fields.request().source_id.clone();
        fields.finish(request_id)?;

        let answers = self.engine.refresh(&source_id).await.or_status()?;
        let answers = answers.into_iter().map(crate::domain::offers::Answer::into_wire).collect();
        Ok(Response::new(RefreshOffersResponse { answers }))
    }

    async fn list_offers(
        &self,
        request: Request<ListOffersRequest>,
    ) -> tonic::Result<Response<ListOffersResponse>> {
        let mut fields = Fields::of(request.into_inner());
        let size = fields.take(page_size(fields.request().page_size));
        fields.check("source_id", |r| r.source_id.len() <= NAME_BYTES_MAX, "has at most 256 bytes");
        fields.check("model", |r| r.model.len() <= NAME_BYTES_MAX, "has at most 256 bytes");
        let ListOffersRequest { source_id, model, page_token, .. } = fields.request().clone();
        let size = fields.finish(size)?;
        let bound = [OFFERS, source_id.as_str(), model.as_str()];
        let after = if page_token.is_empty() {
            None
        } else {
            Some(PageToken::open(&page_token, &bound).or_status()?)
        };

        let mut offers = self.engine.list_offers(&source_id, &model).await.or_status()?;
        if let Some(after) = after {
            offers.retain(|offer| place(offer) > after);
        }
        let states = self.engine.states().await.or_status()?;
        let count = offers.len();
        offers.truncate(size);
        let places: Vec<String> = offers.iter().map(place).collect();
        let shown = |offer: crate::domain::offers::Offer| {
            let state = states.get(&offer.firmware_id).copied();
            offer.into_wire(state)
        };
        let mut offers: Vec<Offer> = offers.into_iter().map(shown).collect();
        offers.truncate(fitting(&offers, size));
        let last = offers.len().checked_sub(1).and_then(|last| places.get(last));
        let next_page_token = match last {
            Some(last) if offers.len() < count => PageToken::seal(last, &bound),
            _ => String::new(),
        };
        Ok(Response::new(ListOffersResponse { offers, next_page_token }))
    }

    async fn start_download(
        &self,
        request: Request<StartDownloadRequest>,
    ) -> tonic::Result<Response<StartDownloadResponse>> {
        let caller = caller(&request).principal.to_string();
        let mut fields = Fields::of(request.into_inner());
        let StartDownloadRequest { source_id, offer_id, server_id, target_path, protocol, .. } =
            fields.request().clone();
        for (name, text) in [("source_id", &source_id), ("offer_id", &offer_id)] {
            fields.check(name, |_| (1..=NAME_BYTES_MAX).contains(&text.len()), "has 1 to 256 bytes");
        }
        let wish = wire::wish_from_wire(&mut fields, "", &server_id, &target_path, protocol);
        let request_id: Option<RequestId> = fields.parse("request_id", |r| &r.request_id);
        let (wish, request_id) = fields.finish(wish.zip(request_id))?;

        let start = Start { source_id, offer_id, wish };
        let update = self.engine.start(Ask::new(caller, request_id), start).await.or_status()?;
        Ok(Response::new(StartDownloadResponse { firmware: self.shown(update).await? }))
    }

    async fn cancel_download(
        &self,
        request: Request<CancelDownloadRequest>,
    ) -> tonic::Result<Response<CancelDownloadResponse>> {
        let caller = caller(&request).principal.to_string();
        let (id, request_id) = named(Fields::of(request.into_inner()), |r| (&r.firmware_id, &r.request_id))?;

        let update = self.engine.cancel(Ask::new(caller, request_id), id).await.or_status()?;
        Ok(Response::new(CancelDownloadResponse { firmware: self.shown(update).await? }))
    }

    async fn restore_download(
        &self,
        request: Request<RestoreDownloadRequest>,
    ) -> tonic::Result<Response<RestoreDownloadResponse>> {
        let caller = caller(&request).principal.to_string();
        let (id, request_id) = named(Fields::of(request.into_inner()), |r| (&r.firmware_id, &r.request_id))?;

        let update = self.engine.restore(Ask::new(caller, request_id), id).await.or_status()?;
        Ok(Response::new(RestoreDownloadResponse { firmware: self.shown(update).await? }))
    }

    async fn write_firmware(
        &self,
        request: Request<Streaming<WriteFirmwareRequest>>,
    ) -> tonic::Result<Response<WriteFirmwareResponse>> {
        let caller = caller(&request).principal.to_string();
        let mut parts = request.into_inner();
        let (request_id, import) = firmware_upload::begin(&mut parts).await?;

        let archive = firmware_upload::archive(parts, import.size_bytes);
        let update = self.engine.import(Ask::new(caller, request_id), import, archive).await.or_status()?;
        Ok(Response::new(WriteFirmwareResponse { firmware: self.shown(update).await? }))
    }

    async fn get_firmware(
        &self,
        request: Request<GetFirmwareRequest>,
    ) -> tonic::Result<Response<GetFirmwareResponse>> {
        let mut fields = Fields::of(request.into_inner());
        let id = fields.parse("firmware_id", |r| &r.firmware_id);
        let id = fields.finish(id)?;

        let shown = self.engine.shown(id).await.or_status()?;
        Ok(Response::new(GetFirmwareResponse { firmware: Some(shown.into_wire()) }))
    }

    async fn list_firmware(
        &self,
        request: Request<ListFirmwareRequest>,
    ) -> tonic::Result<Response<ListFirmwareResponse>> {
        let mut fields = Fields::of(request.into_inner());
        let size = fields.take(page_size(fields.request().page_size));
        let page_token = fields.request().page_token.clone();
        let size = fields.finish(size)?;
        let after = if page_token.is_empty() {
            None
        } else {
            Some(PageToken::open(&page_token, &[FIRMWARE]).or_status()?)
        };

        let mut updates = self.engine.updates().await.or_status()?;
        if let Some(after) = after {
            updates.retain(|update| position(update) > after);
        }
        let places: Vec<String> = updates.iter().take(size).map(position).collect();
        let count = updates.len();
        updates.truncate(size);
        let shown = self.engine.show_all(updates).await.or_status()?;
        let mut firmware: Vec<Firmware> = shown.into_iter().map(Shown::into_wire).collect();
        firmware.truncate(fitting(&firmware, size));
        let last = firmware.len().checked_sub(1).and_then(|last| places.get(last));
        let next_page_token = match last {
            Some(last) if firmware.len() < count => PageToken::seal(last, &[FIRMWARE]),
            _ => String::new(),
        };
        Ok(Response::new(ListFirmwareResponse { firmware, next_page_token }))
    }

    type WatchFirmwareStream = BoxStream<WatchFirmwareResponse>;

    async fn watch_firmware(
        &self,
        request: Request<WatchFirmwareRequest>,
    ) -> tonic::Result<Response<Self::WatchFirmwareStream>> {
        let mut fields = Fields::of(request.into_inner());
        let WatchFirmwareRequest { firmware_id, resume_token } = fields.request().clone();
        let id: Option<FirmwareId> =
            if firmware_id.is_empty() { None } else { fields.parse("firmware_id", |r| &r.firmware_id) };
        fields.finish(Some(()))?;
        firmware_stream::check_token(&resume_token, id)?;
        if let Some(id) = id {
            self.engine.shown(id).await.or_status()?;
        }
        Ok(Response::new(firmware_stream::start(self.engine.clone(), &self.drain, id)))
    }

    async fn update_firmware(
        &self,
        request: Request<UpdateFirmwareRequest>,
    ) -> tonic::Result<Response<UpdateFirmwareResponse>> {
        let caller = caller(&request).principal.to_string();
        let mut fields = Fields::of(request.into_inner());
        let UpdateFirmwareRequest { firmware, update_mask, password, expected_revision, .. } =
            fields.request().clone();
        let firmware = fields.required("firmware", firmware).unwrap_or_default();
        let id = fields.parse_text("firmware.firmware_id", &firmware.firmware_id);
        let edit = wire::edit_from_wire(&mut fields, &firmware, update_mask.as_ref(), &password);
        let expected = wire::seen_from_wire(&mut fields, expected_revision);
        let request_id: Option<RequestId> = fields.parse("request_id", |r| &r.request_id);
        let (((id, edit), expected), request_id) =
            fields.finish(id.zip(edit).zip(expected).zip(request_id))?;

        let edited = self.engine.edit(Ask::new(caller, request_id), EditAsk { id, expected, edit });
        let update = edited.await.or_status()?;
        Ok(Response::new(UpdateFirmwareResponse { firmware: self.shown(update).await? }))
    }

    async fn delete_firmware(
        &self,
        request: Request<DeleteFirmwareRequest>,
    ) -> tonic::Result<Response<DeleteFirmwareResponse>> {
        let caller = caller(&request).principal.to_string();
        let mut fields = Fields::of(request.into_inner());
        let expected_revision = fields.request().expected_revision;
        let expected = wire::seen_from_wire(&mut fields, expected_revision);
        let id = fields.parse("firmware_id", |r| &r.firmware_id);
        let request_id: Option<RequestId> = fields.parse("request_id", |r| &r.request_id);
        let ((id, expected), request_id) = fields.finish(id.zip(expected).zip(request_id))?;

        let update = self.engine.delete(Ask::new(caller, request_id), id, expected).await.or_status()?;
        Ok(Response::new(DeleteFirmwareResponse { firmware: self.shown(update).await? }))
    }

    async fn delete_unused_firmware(
        &self,
        request: Request<DeleteUnusedFirmwareRequest>,
    ) -> tonic::Result<Response<DeleteUnusedFirmwareResponse>> {
        let caller = caller(&request).principal.to_string();
        let mut fields = Fields::of(request.into_inner());
        let DeleteUnusedFirmwareRequest { dry_run, expected_count, .. } = fields.request().clone();
        let expected = u64::try_from(expected_count).ok();
        if expected.is_none() {
            fields.violation("expected_count", "must not be negative");
        }
        let updates = if dry_run {
            fields.finish(Some(()))?;
            self.engine.unused().await.or_status()?
        } else {
            let request_id: Option<RequestId> = fields.parse("request_id", |r| &r.request_id);
            let (expected, request_id) = fields.finish(expected.zip(request_id))?;
            self.engine.delete_unused(Ask::new(caller, request_id), expected).await.or_status()?
        };
        let shown = self.engine.show_all(updates).await.or_status()?;
        let mut firmware: Vec<Firmware> = shown.into_iter().map(Shown::into_wire).collect();
        if fitting(&firmware, firmware.len()) < firmware.len() {
            // Which ones they were is what counts; the rest of so many fits into no message.
            firmware.iter_mut().for_each(|update| {
                update.files.clear();
                update.release_notes.clear();
            });
        }
        Ok(Response::new(DeleteUnusedFirmwareResponse { firmware }))
    }
}

/// Where an update is in the list, as text that is compared bytewise.
fn position(update: &Update) -> String {
    format!("{}\0{}\0{}", update.record.model, update.record.version, update.id)
}
