//! What every engine has to do, as functions that ask one engine. Each takes an empty registry of its own.
//!
//! An engine's tests say [`conformance_properties!`](crate::conformance_properties), which makes one test of each.

mod commits;
mod concurrency;
mod history;
mod records;
mod side;

pub use commits::*;
pub use concurrency::*;
pub use history::*;
pub use records::*;
pub use side::*;

use lockstep_model::Position;

use crate::{Commit, Committed, Precondition, Record, Registry, RegistryError, Request};

/// Makes tests of the properties (`tests(make)`), or calls them one after the other (`calls(make)`).
///
/// For tests, `make` is an expression that can be called without arguments for a future of a registry and a guard that
/// is dropped after the test; for calls it gives the registry only.
#[macro_export]
macro_rules! conformance_properties {
    (tests($make:expr)) => { $crate::conformance_properties! { @list tests ($make) } };
    (calls($make:expr)) => { $crate::conformance_properties! { @list calls ($make) } };
    (@list $mode:ident $make:tt) => {
        $crate::conformance_properties! { @$mode $make
            revisions_are_gap_free
            compare_and_set_lets_one_win
            absent_means_no_live_record
            prefix_empty_ignores_what_the_commit_changes
            prefix_empty_sees_nothing_beside_the_prefix
            a_refused_commit_changes_nothing
            a_repeated_request_has_no_second_effect
            another_request_under_one_id_is_refused
            too_large_is_refused_with_the_figures
            the_largest_transaction_is_one_transaction
            a_commit_without_changes_moves_no_head
            a_key_named_twice_counts_once
            get_hides_tombstones
            lists_are_ordered_bytewise_and_paged
            lists_show_tombstones_when_asked
            pages_of_changes_join_to_the_history
            a_page_of_changes_never_splits_a_transaction
            a_filter_moves_past_what_does_not_match
            a_transaction_can_be_read_alone
            the_chain_follows_from_the_changes
            another_epoch_is_a_fork
            another_chain_is_a_fork
            a_position_beyond_the_head_is_a_fork
            the_last_note_wins_and_no_head_moves
            an_acknowledgement_never_goes_back
            a_position_of_another_history_is_not_acknowledged
            compaction_waits_for_every_live_server
            below_the_floor_is_too_old
            compaction_forgets_tombstones_and_keeps_records
            sixteen_writers_lose_no_update
            a_waiter_wakes_when_the_head_moves
            a_waiter_returns_when_nothing_happens
        }
    };
    (@tests ($make:expr) $($name:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let (registry, _guard) = ($make)().await;
                $crate::conformance::$name(registry).await;
            }
        )*
    };
    (@calls ($make:expr) $($name:ident)*) => { $( $crate::conformance::$name(($make)().await).await; )* };
}

/// Every property, one after the other; `make` gives an empty registry each time.
pub async fn suite<R: Registry>(make: impl AsyncFn() -> R) {
    conformance_properties!(calls(make));
}

fn puts<const N: usize>(puts: [(&str, &str); N]) -> Commit {
    Commit { puts: puts.map(|(key, body)| (key.to_owned(), body.to_owned())).into(), ..Commit::default() }
}

fn deletes<const N: usize>(keys: [&str; N]) -> Commit {
    Commit { deletes: keys.map(|key| (key.to_owned(), "{}".to_owned())).into(), ..Commit::default() }
}

fn only_if(preconditions: impl Into<Vec<Precondition>>, commit: Commit) -> Commit {
    Commit { preconditions: preconditions.into(), ..commit }
}

fn requested(caller: &str, id: &str, fingerprint: &str, commit: Commit) -> Commit {
    Commit { request: Some(request(caller, id, fingerprint)), ..commit }
}

fn request(caller: &str, id: &str, fingerprint: &str) -> Request {
    Request { caller: caller.to_owned(), id: id.to_owned(), fingerprint: fingerprint.to_owned() }
}

async fn commit<R: Registry>(registry: &R, commit: Commit) -> Committed {
    registry.commit(commit).await.expect("the commit is in order")
}

async fn head<R: Registry>(registry: &R) -> Position {
    registry.head().await.expect("the registry answers")
}

/// Every change after `after`, read in pages of `limit`.
async fn all_changes<R: Registry>(registry: &R, after: Position, prefix: &str, limit: usize) -> Vec<Record> {
    let (mut changes, mut after) = (Vec::new(), after);
    loop {
        let page =
            registry.changes(after, prefix.to_owned(), limit).await.expect("the position is in the history");
        assert!(page.through.revision > after.revision || page.through == page.head, "a page moves on");
        changes.extend(page.changes);
        if page.through == page.head {
            return changes;
        }
        after = page.through;
    }
}

async fn is_forked<R: Registry>(registry: &R, asked: Position) {
    let head = head(registry).await;
    let error = registry.changes(asked, String::new(), 10).await.expect_err("the position is in no history");
    assert_eq!(error, RegistryError::Forked { asked, head });
}

fn keys(records: &[Record]) -> Vec<&str> {
    records.iter().map(|record| record.key.as_str()).collect()
}
