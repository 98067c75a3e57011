//! The contract of a client and the server behind it, as plain functions: verbs, refusals, watches.
//!
//! [`client_contract!`](crate::client_contract) makes a test of each. A server under it runs without controllers, or with
//! controllers that leave alone what they did not make: deployments are used for what servers do with status and spec.

mod lists;
mod objects;
mod parts;
mod patches;
mod place;
mod refusals;
mod watches;

use async_trait::async_trait;
use orchestrator_core::client::Client;

pub use lists::{
    collections_are_deleted_by_selection, lists_are_of_one_namespace_or_of_all, lists_come_in_pages_of_one_snapshot,
    lists_show_the_past_when_asked, selectors_choose,
};
pub use objects::{
    concurrent_updates_lose_none, contents_come_back_as_they_were, dry_runs_change_nothing, finalizers_hold_objects,
    generated_names_are_unique, names_of_any_form_travel, objects_come_and_go, typed_objects_come_and_go,
};
pub use parts::{clients_speak_for_their_users, scale_is_a_part_of_its_own, status_and_spec_are_apart};
pub use patches::{
    concurrent_patches_lose_none, json_patches_apply_whole_or_not_at_all, merge_patches_remove_what_is_null,
    patches_need_their_object, strategic_patches_merge_lists_by_key,
};
pub use refusals::{
    odd_requests_are_refused, preconditions_guard_deletions, refusals_say_why, stale_writes_are_refused,
    unknown_fields_are_told,
};
pub use watches::{
    a_watch_begins_with_the_present_when_asked, a_watch_from_a_list_misses_nothing,
    a_watch_of_what_was_forgotten_is_told, bookmarks_say_how_far_a_watch_is, initial_events_have_an_end,
    selectors_make_objects_enter_and_leave, watches_end_at_their_time,
};

/// What is tested: a client, and what only its maker can do to the server behind it. A client alone will do.
#[async_trait]
pub trait Subject: Send + Sync {
    /// A client that may do everything.
    fn client(&self) -> &Client;

    /// Makes the server forget its history up to now, so that watches from before are refused. `false` where nobody can.
    async fn forget_history(&self) -> bool {
        false
    }
}

impl Subject for Client {
    fn client(&self) -> &Client {
        self
    }
}

/// A test for each promise of a client: name a module, a harness (`simulated` or `real`) and how to make a
/// [`Subject`](crate::client::Subject), with a server of its own or on a shared one.
///
/// ```
/// use async_trait::async_trait;
/// use orchestrator_core::{
///     client::{Backend, Client, Reply, Request, WatchRequest, WatchStream},
///     status::ApiError,
/// };
/// use orchestrator_testkit::harness::Env;
///
/// /// A backend of one's own.
/// #[derive(Debug)]
/// struct Mine;
///
/// #[async_trait]
/// impl Backend for Mine {
///     async fn request(&self, request: Request) -> Result<Reply, ApiError> {
///         # let _ = request;
///         Err(ApiError::unavailable("not built yet"))
///     }
///
///     async fn watch(&self, request: WatchRequest) -> Result<WatchStream, ApiError> {
///         # let _ = request;
///         Err(ApiError::unavailable("not built yet"))
///     }
/// }
///
/// // In a file of tests: each case fails until the backend does what it promises.
/// orchestrator_testkit::client_contract!(mine, simulated, async |_: &Env| Client::new(std::sync::Arc::new(Mine)));
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! client_contract {
    ($module:ident, $harness:ident, $make:expr) => {
        $crate::client_contract!(@cases $module, $harness, $make;
            objects_come_and_go, typed_objects_come_and_go, contents_come_back_as_they_were, names_of_any_form_travel,
            generated_names_are_unique, dry_runs_change_nothing, finalizers_hold_objects, concurrent_updates_lose_none,
            refusals_say_why, odd_requests_are_refused, stale_writes_are_refused, preconditions_guard_deletions,
            unknown_fields_are_told,
            json_patches_apply_whole_or_not_at_all, merge_patches_remove_what_is_null,
            strategic_patches_merge_lists_by_key, patches_need_their_object, concurrent_patches_lose_none,
            status_and_spec_are_apart, scale_is_a_part_of_its_own, clients_speak_for_their_users,
            selectors_choose, lists_are_of_one_namespace_or_of_all, lists_come_in_pages_of_one_snapshot,
            lists_show_the_past_when_asked, collections_are_deleted_by_selection,
            a_watch_from_a_list_misses_nothing, a_watch_begins_with_the_present_when_asked, initial_events_have_an_end,
            selectors_make_objects_enter_and_leave, bookmarks_say_how_far_a_watch_is,
            a_watch_of_what_was_forgotten_is_told, watches_end_at_their_time
        );
    };
    (@cases $module:ident, $harness:ident, $make:expr; $($case:ident),+) => {
        mod $module {
            #[allow(unused_imports, reason = "what makes a subject may need nothing of what is around")]
            use super::*;
            $(
                #[test]
                fn $case() {
                    $crate::harness::$harness(stringify!($case), $make, |subject, env| {
                        Box::pin($crate::client::$case(subject, env))
                    });
                }
            )+
        }
    };
}
