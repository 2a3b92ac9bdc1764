//! The descriptor set, and what is ours in it.

use std::sync::LazyLock;

use prost_reflect::{
    DescriptorPool, EnumDescriptor, FieldDescriptor, FileDescriptor, MessageDescriptor, MethodDescriptor,
    ServiceDescriptor, Value,
};

/// The root package of the contract.
pub(crate) const ROOT: &str = "lockstep";

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(lockstep_proto::DESCRIPTOR_SET).expect("the embedded set is whole")
});

/// The whole set, imports included.
pub(crate) fn pool() -> &'static DescriptorPool {
    &POOL
}

fn ours(package: &str) -> bool {
    package.split('.').next() == Some(ROOT)
}

/// Our files.
pub(crate) fn files() -> Vec<FileDescriptor> {
    pool().files().filter(|file| ours(file.package_name())).collect()
}

/// Our messages, nested ones too, without the entries of maps.
pub(crate) fn messages() -> Vec<MessageDescriptor> {
    pool().all_messages().filter(|message| ours(message.package_name()) && !message.is_map_entry()).collect()
}

/// All fields of our messages.
pub(crate) fn fields() -> Vec<FieldDescriptor> {
    messages().iter().flat_map(|message| message.fields().collect::<Vec<_>>()).collect()
}

/// Our enums, nested ones too.
pub(crate) fn enums() -> Vec<EnumDescriptor> {
    pool().all_enums().filter(|found| ours(found.package_name())).collect()
}

/// Our services.
pub(crate) fn services() -> Vec<ServiceDescriptor> {
    pool().services().filter(|service| ours(service.package_name())).collect()
}

/// All our RPCs.
pub(crate) fn methods() -> Vec<MethodDescriptor> {
    services().iter().flat_map(|service| service.methods().collect::<Vec<_>>()).collect()
}

/// The word of the service that a package belongs to: `filesync` of `lockstep.filesync.v1`.
pub(crate) fn service_word(package: &str) -> &str {
    package.split('.').nth(1).unwrap_or_default()
}

/// Whether the RPC declares its idempotency, and whether that is `NO_SIDE_EFFECTS`.
pub(crate) fn idempotency(method: &MethodDescriptor) -> Option<String> {
    let options = method.options();
    if !options.has_field_by_name("idempotency_level") {
        return None;
    }
    let number = options.get_field_by_name("idempotency_level")?.as_enum_number()?;
    let levels = pool().get_enum_by_name("google.protobuf.MethodOptions.IdempotencyLevel")?;
    Some(levels.get_value(number)?.name().to_owned())
}

/// The right that stands next to an RPC.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rights {
    /// The number of the least role, 0 for none.
    pub(crate) role: i32,
    /// The services that may call on their own behalf.
    pub(crate) services: Vec<String>,
}

/// The right of an RPC; `None` if it has none.
pub(crate) fn rights(method: &MethodDescriptor) -> Option<Rights> {
    let extension = pool().get_extension_by_name("lockstep.shared.v1.rights").expect("the option is ours");
    let options = method.options();
    if !options.has_extension(&extension) {
        return None;
    }
    let value = options.get_extension(&extension);
    let rights = value.as_message()?;
    let role = rights.get_field_by_name("role")?.as_enum_number()?;
    let services = rights.get_field_by_name("services")?;
    let services = services.as_list()?.iter().filter_map(Value::as_str).map(ToOwned::to_owned).collect();
    Some(Rights { role, services })
}

/// The words of a name in `CamelCase`, `snake_case` or `UPPER_SNAKE`, in lower case.
pub(crate) fn words(name: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut previous = '_';
    for c in name.chars() {
        if !c.is_alphanumeric() {
            previous = '_';
            continue;
        }
        let begins = previous == '_' || (c.is_uppercase() && !previous.is_uppercase());
        if begins {
            words.push(String::new());
        }
        words.last_mut().expect("the first character begins a word").extend(c.to_lowercase());
        previous = c;
    }
    words
}

/// `snake_case` of a name.
pub(crate) fn snake(name: &str) -> String {
    words(name).join("_")
}

/// H1: names are taken apart where a reader would.
#[test]
fn names_have_words() {
    assert_eq!(snake("FileService"), "file_service");
    assert_eq!(snake("STATE_IN_SYNC"), "state_in_sync");
    assert_eq!(words("md5"), ["md5"]);
}
