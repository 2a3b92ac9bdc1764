//! The filters of several calls, decoded in one place.

use std::collections::BTreeSet;

use lockstep_chassis::fields::Fields;
use lockstep_model::{ServerId, path::PATH_BYTES_MAX};

use crate::{
    domain::{cell::CellState, filter::Filter},
    grpc::wire,
};

/// The most servers that a call may name.
const SERVERS_MAX: usize = 200;
/// The most states that a filter may name: there are fewer.
const STATES_MAX: usize = 20;

/// Which rows; what is wrong goes to `fields`.
pub(super) fn filter<T>(
    fields: &mut Fields<T>,
    prefix: &str,
    path: &str,
    server_ids: &[String],
    states: &[i32],
) -> Option<Filter> {
    within_a_path(fields, "path_prefix", prefix);
    within_a_path(fields, "path", path);
    if !prefix.is_empty() && !path.is_empty() {
        fields.violation("path", "must not be given together with path_prefix");
    }
    let place = if path.is_empty() { Filter::below(prefix) } else { Filter::at(path) };
    let servers = servers(fields, server_ids);
    let states = self::states(fields, states);
    Some(place.of_servers(servers?).in_states(states?))
}

/// A prefix of paths is not longer than a path.
pub(super) fn within_a_path<T>(fields: &mut Fields<T>, name: &str, text: &str) {
    fields.check(name, |_| text.len() <= PATH_BYTES_MAX, "must not be longer than a path");
}

/// The servers that are named.
pub(super) fn servers<T>(fields: &mut Fields<T>, ids: &[String]) -> Option<BTreeSet<ServerId>> {
    if ids.len() > SERVERS_MAX {
        fields.violation("server_ids", format!("may have at most {SERVERS_MAX} servers"));
        return None;
    }
    let parsed = ids.iter().enumerate();
    let parsed: Vec<Option<ServerId>> =
        parsed.map(|(index, id)| fields.parse_text(format!("server_ids[{index}]"), id)).collect();
    parsed.into_iter().collect()
}

fn states<T>(fields: &mut Fields<T>, states: &[i32]) -> Option<BTreeSet<CellState>> {
    if states.len() > STATES_MAX {
        fields.violation("states", format!("may have at most {STATES_MAX} states"));
        return None;
    }
    let parsed: Vec<Option<CellState>> = states
        .iter()
        .enumerate()
        .map(|(index, state)| {
            let known = wire::state_from(*state);
            if known.is_none() {
                fields.violation(format!("states[{index}]"), "must be a state that this gateway knows");
            }
            known
        })
        .collect();
    parsed.into_iter().collect()
}
