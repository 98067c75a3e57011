//! The client in process and the pipeline behind it keep the contract of a client; clients that lose something are found out.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use orchestrator_apiserver::ApiServer;
use orchestrator_core::{
    client::{
        Backend, Call, Client, FieldValidation, ListOptions, Reply, Request, WatchRequest, WatchStream, WriteOptions,
    },
    env::Env,
    object::Object,
    status::ApiError,
    store::Store,
};
use orchestrator_store_mem::MemStore;
use orchestrator_testkit::{
    client::{self, Subject},
    client_contract,
    harness::simulated,
    wrap::SlowStore,
};

struct InProcess {
    store: Arc<dyn Store>,
    client: Client,
}

#[async_trait]
impl Subject for InProcess {
    fn client(&self) -> &Client {
        &self.client
    }

    async fn forget_history(&self) -> bool {
        let now = self.store.status().await.unwrap().revision;
        self.store.compact(now).await.unwrap();
        true
    }
}

async fn in_process(env: &Env) -> InProcess {
    serving(env, Arc::new(MemStore::new(env))).await
}

/// Requests come in between the reads and the writes of others.
async fn over_a_slow_store(env: &Env) -> InProcess {
    let store = Arc::new(MemStore::new(env));
    serving(env, Arc::new(SlowStore::new(store, env, Duration::from_millis(5)))).await
}

async fn serving(env: &Env, store: Arc<dyn Store>) -> InProcess {
    let server = ApiServer::builder(env, store.clone()).build().await.unwrap();
    InProcess { store, client: server.client() }
}

client_contract!(in_virtual_time, simulated, in_process);
client_contract!(with_a_slow_store, simulated, over_a_slow_store);

/// A client that loses something of each request on its way.
#[derive(Debug)]
struct Lossy {
    inner: Arc<dyn Backend>,
    request: fn(&mut Request),
    watch: fn(&mut WatchRequest),
}

#[async_trait]
impl Backend for Lossy {
    async fn request(&self, mut request: Request) -> Result<Reply, ApiError> {
        (self.request)(&mut request);
        self.inner.request(request).await
    }

    async fn watch(&self, mut request: WatchRequest) -> Result<WatchStream, ApiError> {
        (self.watch)(&mut request);
        self.inner.watch(request).await
    }
}

/// Holds a case against a client that loses something. The loss has to be found.
macro_rules! is_found_out {
    ($case:ident, $request:expr, $watch:expr) => {
        let make = async |env: &Env| {
            let InProcess { store, client } = in_process(env).await;
            let inner = client.backend().clone();
            InProcess { store, client: Client::new(Arc::new(Lossy { inner, request: $request, watch: $watch })) }
        };
        let run = || simulated(stringify!($case), make, |subject, env| Box::pin(client::$case(subject, env)));
        assert!(catch_unwind(AssertUnwindSafe(run)).is_err(), "{} did not find the loss", stringify!($case));
    };
}

#[test]
fn what_requests_lose_is_found_out() {
    fn options(request: &mut Request) -> Option<&mut WriteOptions> {
        match &mut request.call {
            Call::Create { options, .. } | Call::Replace { options, .. } | Call::Patch { options, .. } => Some(options),
            _ => None,
        }
    }
    fn list(request: &mut Request) -> Option<&mut ListOptions> {
        match &mut request.call {
            Call::List(options) | Call::DeleteCollection(_, options) => Some(options),
            _ => None,
        }
    }
    let no_dry_run = |request: &mut Request| options(request).into_iter().for_each(|options| options.dry_run = false);
    is_found_out!(dry_runs_change_nothing, no_dry_run, |_| {});
    let lenient = |request: &mut Request| {
        options(request).into_iter().for_each(|options| options.field_validation = FieldValidation::Ignore);
    };
    is_found_out!(unknown_fields_are_told, lenient, |_| {});
    let unconditional = |request: &mut Request| {
        if let Call::Delete(options) = &mut request.call {
            options.preconditions = None;
        }
    };
    is_found_out!(preconditions_guard_deletions, unconditional, |_| {});
    let versionless = |request: &mut Request| {
        if let Call::Replace { object, .. } = &mut request.call {
            let mut tree = object.to_tree().unwrap();
            tree["metadata"].as_object_mut().unwrap().remove("resourceVersion");
            *object = Object::from_tree(tree);
        }
    };
    is_found_out!(stale_writes_are_refused, versionless, |_| {});
    is_found_out!(concurrent_updates_lose_none, versionless, |_| {});
    is_found_out!(clients_speak_for_their_users, |request| request.user = None, |_| {});
    is_found_out!(status_and_spec_are_apart, |request| request.subresource = None, |_| {});
    let everywhere = |request: &mut Request| {
        if let Call::List(_) = request.call {
            request.namespace = None;
        }
    };
    is_found_out!(lists_are_of_one_namespace_or_of_all, everywhere, |_| {});
    let unselected = |request: &mut Request| list(request).into_iter().for_each(|list| list.label_selector.clear());
    is_found_out!(selectors_choose, unselected, |_| {});
    is_found_out!(collections_are_deleted_by_selection, unselected, |_| {});
    let pageless = |request: &mut Request| list(request).into_iter().for_each(|list| list.limit = None);
    is_found_out!(lists_come_in_pages_of_one_snapshot, pageless, |_| {});
    let present = |request: &mut Request| list(request).into_iter().for_each(|list| list.resource_version = None);
    is_found_out!(lists_show_the_past_when_asked, present, |_| {});
}

#[test]
fn what_watches_lose_is_found_out() {
    is_found_out!(a_watch_from_a_list_misses_nothing, |_| {}, |watch| watch.resource_version = None);
    is_found_out!(a_watch_of_what_was_forgotten_is_told, |_| {}, |watch| watch.resource_version = None);
    is_found_out!(selectors_make_objects_enter_and_leave, |_| {}, |watch| watch.label_selector.clear());
    is_found_out!(selectors_make_objects_enter_and_leave, |_| {}, |watch| watch.field_selector.clear());
    is_found_out!(bookmarks_say_how_far_a_watch_is, |_| {}, |watch| watch.bookmarks = false);
    is_found_out!(initial_events_have_an_end, |_| {}, |watch| watch.send_initial_events = false);
    is_found_out!(watches_end_at_their_time, |_| {}, |watch| watch.timeout = None);
    is_found_out!(clients_speak_for_their_users, |_| {}, |watch| watch.user = None);
}
