//! SettingsService: the settings that govern firmware.

use lockstep_chassis::{Fields, OrStatus as _, caller};
use lockstep_model::RequestId;
use lockstep_proto::catalog::v1::{
    GetSettingsRequest, GetSettingsResponse, UpdateSettingsRequest, UpdateSettingsResponse,
    settings_service_server::SettingsService,
};
use tonic::{Request, Response};

use crate::{
    engine::{Ask, Engine},
    grpc::wire,
    ports::Ports,
};

/// The service on top of the engine.
pub struct SettingsOf<P: Ports> {
    engine: Engine<P>,
}

impl<P: Ports> SettingsOf<P> {
    /// Serves `engine`.
    pub fn new(engine: Engine<P>) -> Self {
        Self { engine }
    }
}

#[tonic::async_trait]
impl<P: Ports> SettingsService for SettingsOf<P> {
    async fn get_settings(
        &self,
        _: Request<GetSettingsRequest>,
    ) -> tonic::Result<Response<GetSettingsResponse>> {
        let settings = self.engine.current_settings().await.or_status()?;
        Ok(Response::new(GetSettingsResponse { settings: Some(wire::settings_into_wire(settings)) }))
    }

    async fn update_settings(
        &self,
        request: Request<UpdateSettingsRequest>,
    ) -> tonic::Result<Response<UpdateSettingsResponse>> {
        let caller = caller(&request).principal.to_string();
        let mut fields = Fields::of(request.into_inner());
        let UpdateSettingsRequest { settings, update_mask, expected_revision, .. } = fields.request().clone();
        let settings = fields.required("settings", settings).unwrap_or_default();
        let edit = wire::settings_from_wire(&mut fields, &settings, update_mask.as_ref(), expected_revision);
        let request_id: Option<RequestId> = fields.parse("request_id", |r| &r.request_id);
        let (edit, request_id) = fields.finish(edit.zip(request_id))?;

        let settings = self.engine.edit_settings(Ask::new(caller, request_id), edit).await.or_status()?;
        Ok(Response::new(UpdateSettingsResponse { settings: Some(wire::settings_into_wire(settings)) }))
    }
}
