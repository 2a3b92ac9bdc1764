//! The details of a status in one order. The generated type keeps metadata in a hash map, whose order is another one in
//! each run; a simulation that is to run the same twice needs the same bytes twice.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message as _;
use tonic_types::pb;

/// `google.rpc.ErrorInfo`, with its metadata ordered by key.
#[derive(Clone, PartialEq, prost::Message)]
struct OrderedInfo {
    #[prost(string, tag = "1")]
    reason: String,
    #[prost(string, tag = "2")]
    domain: String,
    #[prost(btree_map = "string, string", tag = "3")]
    metadata: BTreeMap<String, String>,
}

/// Encoded details with the metadata of reasons ordered by key; whatever else they hold stays as it is.
pub(crate) fn ordered(details: &[u8]) -> Bytes {
    let Ok(mut status) = pb::Status::decode(details) else { return Bytes::copy_from_slice(details) };
    for detail in
        status.details.iter_mut().filter(|detail| detail.type_url.ends_with("/google.rpc.ErrorInfo"))
    {
        if let Ok(info) = OrderedInfo::decode(detail.value.as_slice()) {
            detail.value = info.encode_to_vec();
        }
    }
    status.encode_to_vec().into()
}

#[cfg(test)]
mod tests {
    use tonic_types::{ErrorDetails, StatusExt as _};

    use super::*;

    #[test]
    #[allow(
        clippy::disallowed_methods,
        reason = "a status with the order of a hash map is what is put in order"
    )]
    fn details_have_one_order_and_lose_nothing() {
        let encoded = || {
            let metadata: Vec<(String, String)> =
                (0..20).map(|n| (format!("key{n}"), n.to_string())).collect();
            let mut details = ErrorDetails::with_error_info(
                "REASON",
                "domain",
                metadata.into_iter().collect::<std::collections::HashMap<_, _>>(),
            );
            details.add_bad_request_violation("field", "description");
            tonic::Status::with_error_details(tonic::Code::Aborted, "message", details)
        };
        let (one, other) = (encoded(), encoded());
        assert_eq!(ordered(one.details()), ordered(other.details()));
        let status = tonic::Status::with_details(one.code(), "message", ordered(one.details()));
        let told = |status: &tonic::Status| {
            let details = status.get_error_details();
            let info = details.error_info().expect("it has one");
            let rest = format!("{:?}", details.bad_request());
            (info.reason.clone(), info.domain.clone(), info.metadata.clone(), rest)
        };
        assert_eq!(told(&status), told(&one));
        assert_eq!(ordered(b"\xff no details"), Bytes::from_static(b"\xff no details"));
    }
}
