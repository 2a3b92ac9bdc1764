//! Between the contract and the domain. What both sides of a report say is in the shared library.

mod explain;
pub mod runs;

use std::{sync::Arc, time::Duration};

use lockstep_clocks::{Report as ClockReport, Verdict, wire::signed};
use lockstep_model::Revision;
use lockstep_proto::{
    filesync::v1 as filesync,
    gateway::v1::{self as gateway, cell, server_summary},
};
use lockstep_replicas::wire::{duration, failure, number};
pub use lockstep_replicas::wire::{position, position_from};

use crate::domain::{
    cell::{Cell, CellState, Copying},
    firmware::{FirmwareCell, FirmwareRow},
    report::{Condition, Transfer},
    summary::{ServerState, Summary},
    view::Row,
};

fn count(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

impl Row {
    /// For the contract.
    pub fn into_wire(self) -> gateway::Row {
        gateway::Row {
            path: self.path.to_string(),
            revision: number(self.revision.0),
            size_bytes: number(self.size_bytes),
            origin_server_id: self.origin.to_string(),
            cells: self.cells.into_iter().map(|(id, cell)| cell_into(id.into(), cell)).collect(),
        }
    }
}

impl FirmwareRow {
    /// For the contract.
    pub fn into_wire(self) -> gateway::FirmwareRow {
        gateway::FirmwareRow {
            firmware_id: self.id.to_string(),
            complete_server_ids: self.complete().map(ToString::to_string).collect(),
            model: self.model,
            version: self.version,
            file_count: count(self.file_count),
            total_bytes: number(self.total_bytes),
            cells: self.cells.into_iter().map(|(id, cell)| firmware_cell_into(id.into(), cell)).collect(),
        }
    }
}

fn firmware_cell_into(server_id: String, cell: FirmwareCell) -> gateway::FirmwareCell {
    gateway::FirmwareCell {
        server_id,
        state: state(cell.state).into(),
        failure: cell.cause.map(|(cause, retry_delay)| failure(cause, retry_delay)),
        verified_count: count(cell.verified_count),
        copied_bytes: number(cell.copied_bytes),
        time_left: cell.time_left.map(duration),
    }
}

pub(super) fn cell_into(server_id: String, cell: Cell) -> gateway::Cell {
    let copying = cell.copying;
    gateway::Cell {
        bytes_per_second: copying.as_ref().map_or(0, |copying| number(copying.bytes_per_second)),
        time_left: copying.as_ref().and_then(|copying| copying.time_left).map(duration),
        source_server_id: copying.map_or_else(String::new, |copying| copying.source),
        server_id,
        state: state(cell.state).into(),
        failure: cell.cause.map(|cause| failure(cause, cell.retry_delay)),
        last_known_state: cell.last_known.map_or(cell::State::Unspecified, state).into(),
        age: cell.age.map(duration),
        copied_bytes: number(cell.copied_bytes),
        retry_delay: cell.retry_delay.map(duration),
        kept_state: match cell.is_kept {
            None => cell::KeptState::Unspecified,
            Some(false) => cell::KeptState::Absent,
            Some(true) => cell::KeptState::Kept,
        }
        .into(),
    }
}

/// The state of a cell that a filter names; `None` if it is none.
pub fn state_from(state: i32) -> Option<CellState> {
    match cell::State::try_from(state).ok()? {
        cell::State::Unspecified => None,
        cell::State::NotEligible => Some(CellState::NotEligible),
        cell::State::Unknown => Some(CellState::Unknown),
        cell::State::Unreachable => Some(CellState::Unreachable),
        cell::State::Pending => Some(CellState::Pending),
        cell::State::Copying => Some(CellState::Copying),
        cell::State::Failed => Some(CellState::Failed),
        cell::State::InSync => Some(CellState::InSync),
    }
}

fn state(state: CellState) -> cell::State {
    match state {
        CellState::NotEligible => cell::State::NotEligible,
        CellState::Unknown => cell::State::Unknown,
        CellState::Unreachable => cell::State::Unreachable,
        CellState::Pending => cell::State::Pending,
        CellState::Copying => cell::State::Copying,
        CellState::Failed => cell::State::Failed,
        CellState::InSync => cell::State::InSync,
    }
}

fn clock_state(report: Option<&ClockReport>) -> server_summary::ClockState {
    match report.map(|report| report.verdict) {
        None => server_summary::ClockState::Unmeasured,
        Some(Verdict::Trusted) => server_summary::ClockState::Trusted,
        Some(Verdict::Doubtful) => server_summary::ClockState::Doubtful,
        Some(Verdict::Skewed) => server_summary::ClockState::Skewed,
        Some(Verdict::Unreachable) => server_summary::ClockState::Unreachable,
        Some(Verdict::Unconfirmed) => server_summary::ClockState::Unconfirmed,
    }
}

impl Summary {
    /// For the contract.
    pub fn into_wire(self) -> gateway::ServerSummary {
        let state = match self.state {
            ServerState::NotEligible => server_summary::State::NotEligible,
            ServerState::Unknown => server_summary::State::Unknown,
            ServerState::Unreachable => server_summary::State::Unreachable,
            ServerState::Ready => server_summary::State::Ready,
        };
        let condition = |condition: Condition| filesync::Condition {
            failure: Some(failure(condition.cause, None)),
            age: Some(duration(condition.age)),
        };
        let transfer = |(path, transfer, copying): (String, Transfer, Copying)| filesync::Transfer {
            path,
            source_server_id: transfer.source,
            copied_bytes: number(transfer.copied_bytes),
            total_bytes: number(transfer.total_bytes),
            bytes_per_second: number(copying.bytes_per_second),
            time_left: copying.time_left.map(duration),
        };
        let oldest = |(path, revision, age): (Arc<str>, Revision, Duration)| gateway::MissingChange {
            path: path.to_string(),
            revision: number(revision.0),
            age: Some(duration(age)),
        };
        let clock = self.clock.as_deref();
        gateway::ServerSummary {
            server_id: self.id.into(),
            state: state.into(),
            failure: self.cause.map(|cause| failure(cause, None)),
            position: self.position.map(position),
            lag_count: number(self.lag_count),
            exception_count: count(self.exception_count),
            in_sync_count: count(self.in_sync_count),
            file_count: count(self.file_count),
            conditions: self.conditions.into_iter().map(condition).collect(),
            transfers: self.transfers.into_iter().map(transfer).collect(),
            silent_age: self.silent_age.map(duration),
            clock_state: clock_state(clock).into(),
            version: self.version,
            mode: self.mode,
            filesync_uri: self.filesync_uri,
            oldest_missing: self.oldest.map(oldest),
            remaining_bytes: number(self.lack.remaining_bytes),
            bytes_per_second: number(self.bytes_per_second),
            time_left: self.time_left.map(duration),
            copying_count: count(self.lack.copying),
            failed_count: count(self.lack.failed),
            pending_count: count(self.lack.pending),
            compared_age: self.compared_age.map(duration),
            hashed_age: self.hashed_age.map(duration),
            membership: match self.is_orphan_candidate {
                true => server_summary::Membership::OrphanCandidate.into(),
                false => server_summary::Membership::Current.into(),
            },
            clock_offset: clock.and_then(|clock| clock.offset).map(signed),
            clock_uncertainty: clock.and_then(|clock| clock.uncertainty).map(duration),
            fence: clock.and_then(|clock| clock.fenced()).map(|cause| failure(cause.clone(), None)),
        }
    }
}
