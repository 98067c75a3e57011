//! The contract of a [`Store`], as plain functions: what etcd promises, and what everything else here relies on.
//!
//! [`store_contract!`](crate::store_contract) makes a test of each. Upstream:
//! <https://etcd.io/docs/v3.6/learning/api_guarantees/>.

mod commits;
mod concurrency;
mod copies;
mod lists;
pub mod properties;
mod story;
mod watches;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::StreamExt;
use orchestrator_core::{
    env::Env,
    store::{
        Batch, Change, Key, KeyRange, ListOptions, Revision, Store, StoreError, WatchItem, WatchOptions, WatchStream,
    },
};

use crate::harness::CaseFuture;

pub use commits::{
    batches_are_all_or_nothing, conflicts_change_nothing, entries_come_and_go, odd_batches_are_refused,
    revisions_only_rise, unusual_keys_and_values_come_back,
};
pub use concurrency::{
    a_call_that_is_dropped_leaves_the_store_whole, a_watch_agrees_with_concurrent_writes,
    concurrent_increments_lose_none, thousands_of_watchers_see_a_change,
};
pub use copies::snapshots_come_back;
pub use lists::{
    compaction_keeps_the_present, lists_are_ordered_snapshots, pages_are_of_one_snapshot, past_and_future_are_refused,
};
pub use story::{compaction_at_every_position, histories_are_linearizable, watches_tell_the_log};
pub use watches::{
    a_slow_watcher_never_has_a_gap, a_watch_begins_now_or_where_it_is_told, a_watch_from_a_list_misses_nothing,
    a_watch_from_the_future_waits, a_watch_of_what_was_compacted_is_told, bookmarks_never_run_ahead,
    changes_tell_before_and_after, expired_keys_go_away, watches_see_their_range_only,
};

/// A test for each promise of the [`Store`] contract: name a module, a harness (`simulated` or `real`) and how to make an
/// empty store.
///
/// ```ignore
/// orchestrator_testkit::store_contract!(memory, simulated, |env| Arc::new(MemStore::new(env)) as Arc<dyn Store>);
/// ```
#[macro_export]
macro_rules! store_contract {
    ($module:ident, $harness:ident, $make:expr) => {
        $crate::store_contract!(@all tests $module, $harness, $make);
    };
    // The one list of the contract's cases.
    (@all $what:ident $($arguments:tt)*) => {
        $crate::store_contract! { @$what [
            entries_come_and_go, conflicts_change_nothing, batches_are_all_or_nothing, odd_batches_are_refused,
            revisions_only_rise, unusual_keys_and_values_come_back,
            lists_are_ordered_snapshots, pages_are_of_one_snapshot, past_and_future_are_refused,
            compaction_keeps_the_present,
            a_watch_from_a_list_misses_nothing, a_watch_begins_now_or_where_it_is_told, watches_see_their_range_only,
            changes_tell_before_and_after, a_watch_of_what_was_compacted_is_told, a_watch_from_the_future_waits,
            a_slow_watcher_never_has_a_gap, bookmarks_never_run_ahead, expired_keys_go_away,
            concurrent_increments_lose_none, a_watch_agrees_with_concurrent_writes,
            thousands_of_watchers_see_a_change, a_call_that_is_dropped_leaves_the_store_whole,
            histories_are_linearizable, watches_tell_the_log, compaction_at_every_position,
            snapshots_come_back
        ] $($arguments)* }
    };
    (@table [$($case:ident),+]) => {
        &[$((stringify!($case), |store, env| Box::pin($case(store, env)))),+]
    };
    (@tests [$($case:ident),+] $module:ident, $harness:ident, $make:expr) => {
        mod $module {
            use super::*;
            $(
                #[test]
                fn $case() {
                    let make = async |env: &$crate::harness::Env| ($make)(env);
                    $crate::harness::$harness(stringify!($case), make, |store, env| {
                        Box::pin($crate::store::$case(store, env))
                    });
                }
            )+
        }
    };
}

/// A case of the contract.
pub type Case = for<'a> fn(&'a Arc<dyn Store>, &'a Env) -> CaseFuture<'a>;

/// All cases with their names, for those who run them without a test harness.
pub const CASES: &[(&str, Case)] = store_contract!(@all table);

/// How long something may take that is bound to happen.
const PATIENCE: Duration = Duration::from_secs(300);

fn key(text: &str) -> Key {
    Key::new(text)
}

fn value(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// Puts a key whatever is there.
fn put(name: &str, text: &str) -> Batch {
    use orchestrator_core::store::Operation;
    let operation = Operation::Put { key: key(name), value: value(text), time_to_live: None };
    Batch { preconditions: Vec::new(), operations: vec![operation] }
}

/// Deletes a key whatever is there.
fn delete(name: &str) -> Batch {
    use orchestrator_core::store::Operation;
    Batch { preconditions: Vec::new(), operations: vec![Operation::Delete { key: key(name) }] }
}

async fn commit(store: &Arc<dyn Store>, batch: Batch) -> Revision {
    store.commit(batch).await.expect("the commit is accepted")
}

async fn watch(store: &Arc<dyn Store>, prefix: &str, after: Option<Revision>) -> WatchStream {
    let options = WatchOptions { after, bookmarks: false };
    store.watch(KeyRange::prefix(prefix), options).await.expect("the watch begins")
}

async fn revision(store: &Arc<dyn Store>) -> Revision {
    store.status().await.expect("a status").revision
}

/// Keys and values of a range, now or at a revision.
async fn contents(store: &Arc<dyn Store>, prefix: &str, at: Option<Revision>) -> Vec<(String, String)> {
    let options = ListOptions { revision: at, ..ListOptions::default() };
    let listing = store.list(&KeyRange::prefix(prefix), options).await.expect("a listing");
    listing.entries.iter().map(|entry| (entry.key.to_string(), text(&entry.value))).collect()
}

fn text(value: &Bytes) -> String {
    String::from_utf8_lossy(value).into_owned()
}

/// The next commit of a watch, bookmarks passed over; `None` when the watch has ended.
async fn next(env: &Env, watch: &mut WatchStream) -> Option<Result<(Revision, Arc<[Change]>), StoreError>> {
    loop {
        match env.timeout(PATIENCE, watch.next()).await.expect("a watch that has something to say says it") {
            Some(Ok(WatchItem::Bookmark(_))) => {}
            Some(Ok(WatchItem::Changes { revision, changes })) => return Some(Ok((revision, changes))),
            Some(Err(error)) => return Some(Err(error)),
            None => return None,
        }
    }
}

/// The next commit of a watch that has not ended.
async fn changes(env: &Env, watch: &mut WatchStream) -> (Revision, Arc<[Change]>) {
    next(env, watch).await.expect("the watch goes on").expect("the watch has not failed")
}

/// A change as `key=value` or `key gone`.
fn told(change: &Change) -> String {
    match &change.entry {
        Some(entry) => format!("{}={}", change.key, text(&entry.value)),
        None => format!("{} gone", change.key),
    }
}
