//! `ConnectionService`: where a device gets what it wants.

use lockstep_chassis::{Fields, OrStatus as _};
use lockstep_model::ServerId;
use lockstep_proto::resolver::v1::{
    ResolveConnectionRequest, ResolveConnectionResponse,
    connection_service_server::ConnectionService,
    resolve_connection_request::{self, Detail},
};
use tonic::{Request, Response};

use crate::{
    domain::{
        device::DeviceId,
        edit::{SITE_CHARACTERS_MAX, is_fit},
        resolve::{Question, Subject},
    },
    engine::resolver::Resolver,
    ports::Clocks,
};

/// The choice, for the contract.
#[derive(Clone, Debug)]
pub struct Connections<C> {
    resolver: Resolver<C>,
}

impl<C: Clocks> Connections<C> {
    /// Serves `resolver`.
    pub fn new(resolver: Resolver<C>) -> Self {
        Self { resolver }
    }
}

#[tonic::async_trait]
impl<C: Clocks> ConnectionService for Connections<C> {
    async fn resolve_connection(
        &self,
        request: Request<ResolveConnectionRequest>,
    ) -> tonic::Result<Response<ResolveConnectionResponse>> {
        let mut fields = Fields::of(request.into_inner());
        let question = question(&mut fields);
        let question = fields.finish(question)?;

        let answer = self.resolver.resolve(&question).or_status()?;
        Ok(Response::new(answer.into_wire()))
    }
}

fn question(fields: &mut Fields<ResolveConnectionRequest>) -> Option<Question> {
    use resolve_connection_request::Subject as Wire;
    let subject = match fields.request().subject.clone() {
        Some(Wire::FirmwareId(id)) => fields.parse_text("firmware_id", &id).map(Subject::Firmware),
        Some(Wire::Path(path)) => fields.parse_text("path", &path).map(Subject::File),
        None => fields.required("subject", None),
    };
    let current = fields.parse::<ServerId>("current_server_id", |r| &r.current_server_id);
    let device = fields.parse::<DeviceId>("device_id", |r| &r.device_id);
    let site = fields.request().device_site.clone();
    if !is_fit(&site, SITE_CHARACTERS_MAX) {
        let must = "characters, without spaces around it, and none that control a terminal";
        fields.violation("device_site", format!("must have at most {SITE_CHARACTERS_MAX} {must}"));
    }
    let detail = Detail::try_from(fields.request().detail);
    if detail.is_err() {
        fields.violation("detail", "must be one of the values of the contract");
    }
    let is_explained = detail == Ok(Detail::Explained);
    Some(Question { subject: subject?, current: current?, device: device?, site, is_explained })
}
