//! What the contract says about each RPC: who may call it, and of which kind it is. Read once from the raw descriptor
//! set, because the typed one loses custom options.

use std::{collections::BTreeMap, sync::LazyLock};

use lockstep_model::Role;
use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor, Value};

/// The extension next to each RPC.
const EXTENSION: &str = "lockstep.shared.v1.rights";

/// What may be repeated, as the contract declares it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idempotency {
    /// Nothing is declared.
    Unknown,
    /// The call changes nothing.
    NoSideEffects,
    /// Repeating the call has the effect of calling once.
    Idempotent,
}

/// The right that a call needs; whoever matches one of the two may call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rights {
    /// The least role of an operator; `None`: no operator may.
    pub role: Option<Role>,
    /// The services that may call on their own behalf; `own/<service>` is that service of the same server.
    pub services: Vec<String>,
    /// Whether any ready server gives the same answer.
    pub any_server: bool,
}

/// One RPC of the contract.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Method {
    /// `package.Service/Method`, as in the path of a call without its leading slash.
    pub name: String,
    /// The right it needs; `None` where the contract states none.
    pub rights: Option<Rights>,
    /// What may be repeated.
    pub idempotency: Idempotency,
    /// Whether the caller sends a stream.
    pub client_streaming: bool,
    /// Whether the answer is a stream.
    pub server_streaming: bool,
}

impl Method {
    /// Whether it takes one message and gives one.
    pub fn is_unary(&self) -> bool {
        !self.client_streaming && !self.server_streaming
    }

    /// Health and reflection: open to every identity of the installation, and never dependent on the registry.
    pub(crate) fn is_open(&self) -> bool {
        self.name.starts_with("grpc.health.") || self.name.starts_with("grpc.reflection.")
    }
}

/// RPCs by their name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Methods {
    methods: BTreeMap<String, Method>,
}

/// A descriptor set cannot be read.
#[derive(Debug, Clone, thiserror::Error)]
#[error("a descriptor set cannot be read: {0}")]
pub struct InvalidDescriptors(String);

impl Methods {
    /// All RPCs of one descriptor set.
    ///
    /// # Errors
    /// [`InvalidDescriptors`] if it is no complete descriptor set.
    pub fn read(descriptors: &[u8]) -> Result<Self, InvalidDescriptors> {
        let pool =
            DescriptorPool::decode(descriptors).map_err(|error| InvalidDescriptors(error.to_string()))?;
        let mut methods = BTreeMap::new();
        for service in pool.services() {
            for method in service.methods() {
                let method = read(&pool, &method);
                methods.insert(method.name.clone(), method);
            }
        }
        Ok(Self { methods })
    }

    /// The contract of Lockstep, with health and reflection.
    pub fn contract() -> &'static Self {
        static CONTRACT: LazyLock<Methods> = LazyLock::new(|| {
            let mut all = Methods::default();
            let sets = [
                lockstep_proto::DESCRIPTOR_SET,
                tonic_health::pb::FILE_DESCRIPTOR_SET,
                tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
                tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
            ];
            for set in sets {
                all.extend(
                    Methods::read(set).expect("descriptor sets are made by the build of their crates"),
                );
            }
            all
        });
        &CONTRACT
    }

    /// Adds the RPCs of another set.
    pub fn extend(&mut self, other: Self) {
        self.methods.extend(other.methods);
    }

    /// The RPC `package.Service/Method`.
    pub fn get(&self, name: &str) -> Option<&Method> {
        self.methods.get(name)
    }

    /// The RPCs of one service.
    pub fn of_service<'a>(&'a self, service: &'a str) -> impl Iterator<Item = &'a Method> {
        self.methods.values().filter(move |m| m.name.rsplit_once('/').is_some_and(|(of, _)| of == service))
    }

    /// What keeps `services` from being served: an RPC without a right, or a service that no set describes.
    pub(crate) fn missing_rights(&self, services: &[String]) -> Vec<String> {
        let mut missing = Vec::new();
        for service in services {
            let mut methods = self.of_service(service).peekable();
            if methods.peek().is_none() {
                missing.push(format!("{service} is in no descriptor set"));
            }
            let without = methods.filter(|method| method.rights.is_none() && !method.is_open());
            missing.extend(without.map(|method| format!("{} has no rights option", method.name)));
        }
        missing
    }
}

fn read(pool: &DescriptorPool, method: &MethodDescriptor) -> Method {
    let options = method.options();
    let idempotency = options.get_field_by_name("idempotency_level").and_then(|level| level.as_enum_number());
    Method {
        name: format!("{}/{}", method.parent_service().full_name(), method.name()),
        rights: read_rights(pool, &options),
        idempotency: match idempotency {
            Some(1) => Idempotency::NoSideEffects,
            Some(2) => Idempotency::Idempotent,
            _ => Idempotency::Unknown,
        },
        client_streaming: method.is_client_streaming(),
        server_streaming: method.is_server_streaming(),
    }
}

fn read_rights(pool: &DescriptorPool, options: &DynamicMessage) -> Option<Rights> {
    let extension = pool.get_extension_by_name(EXTENSION)?;
    if !options.has_extension(&extension) {
        return None;
    }
    let value = options.get_extension(&extension);
    let rights = value.as_message()?;
    let number = |field: &str| rights.get_field_by_name(field).and_then(|value| value.as_enum_number());
    let services = rights.get_field_by_name("services");
    let services = services.iter().filter_map(|value| value.as_list()).flatten();
    Some(Rights {
        role: match number("role") {
            Some(1) => Some(Role::Viewer),
            Some(2) => Some(Role::Publisher),
            Some(3) => Some(Role::Operator),
            // A role that this version does not know is above those it knows.
            Some(n) if n >= 4 => Some(Role::Admin),
            _ => None,
        },
        services: services.filter_map(Value::as_str).map(str::to_owned).collect(),
        any_server: number("routing") == Some(1),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_read_from_the_contract() {
        let contract = Methods::contract();
        let get = contract.get("lockstep.filesync.v1.FileService/GetFile").expect("in the contract");
        let rights = get.rights.clone().expect("it has rights");
        assert_eq!((rights.role, rights.any_server), (Some(Role::Viewer), true));
        assert_eq!(rights.services, ["gateway", "catalog", "resolver"]);
        assert_eq!((get.idempotency, get.is_unary()), (Idempotency::NoSideEffects, true));
        let health = contract.get("grpc.health.v1.Health/Watch").expect("in the contract");
        assert!(health.is_open() && health.server_streaming && health.rights.is_none());
    }

    /// I13: nothing in the contract is open by omission.
    #[test]
    fn every_rpc_of_the_contract_has_rights() {
        let services: Vec<String> = DescriptorPool::decode(lockstep_proto::DESCRIPTOR_SET)
            .expect("valid")
            .services()
            .map(|service| service.full_name().to_owned())
            .collect();
        assert!(!services.is_empty());
        assert_eq!(Methods::contract().missing_rights(&services), Vec::<String>::new());
        assert_eq!(Methods::contract().missing_rights(&["x.Y".to_owned()]), ["x.Y is in no descriptor set"]);
    }
}
