//! How long the store takes: a store around the store.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Arc, OnceLock},
    time::Duration,
};

use async_trait::async_trait;
use orchestrator_core::{
    env::Env,
    metrics::{Exposition, Histogram, MetricType},
    store::{
        Batch, Capabilities, Entry, Key, KeyRange, ListOptions, Listing, Operation, Precondition, Revision, Store,
        StoreError, StoreStatus, WatchOptions, WatchStream,
    },
};

use super::TIMES;
use crate::registry::Kind;

/// What is done to a store.
#[derive(Clone, Copy, Debug)]
enum Action {
    Get,
    List,
    Create,
    Update,
    Delete,
    Status,
}

/// The actions in upstream's words, in the order of [`Action`].
const ACTIONS: [&str; 6] = ["get", "list", "create", "update", "delete", "getCurrentResourceVersion"];

/// How the keys of all kinds begin.
const REGISTRY: &str = "/registry/";

/// What all custom kinds are called: there may be any number of them, and they come and go.
const CUSTOM: &str = "customresources";

/// Times of a kind's actions; a histogram is made when the first one is seen.
#[derive(Debug, Default)]
struct Times([OnceLock<Histogram>; ACTIONS.len()]);

/// Times by kind.
#[derive(Debug)]
pub(crate) struct StoreTimes {
    /// By the beginning of the kind's keys: group, resource and times.
    kinds: BTreeMap<String, (String, String, Times)>,
    custom: Times,
    /// Of no kind, such as the store's own state.
    other: Times,
}

impl StoreTimes {
    pub(crate) fn new(kinds: &[Arc<Kind>]) -> Self {
        let row = |kind: &Arc<Kind>| {
            let (group, plural) = (kind.resource.group.to_string(), kind.resource.plural.to_string());
            (kind.prefix.clone(), (group, plural, Times::default()))
        };
        Self { kinds: kinds.iter().rev().map(row).collect(), custom: Times::default(), other: Times::default() }
    }

    fn of(&self, key: &str) -> &Times {
        let before = self.kinds.range::<str, _>((Bound::Unbounded, Bound::Included(key))).next_back();
        let found = before.filter(|(prefix, _)| {
            key.strip_prefix(prefix.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        });
        match found {
            Some((_, (_, _, times))) => times,
            None if key.starts_with(REGISTRY) => &self.custom,
            None => &self.other,
        }
    }

    fn record(&self, key: &str, action: Action, time: Duration) {
        if let Some(histogram) = self.of(key).0.get(action as usize) {
            histogram.get_or_init(|| Histogram::new(TIMES)).observe_time(time);
        }
    }

    pub(super) fn write(&self, out: &mut Exposition) {
        let family = "etcd_request_duration_seconds";
        out.family(family, MetricType::Histogram, "Time that the store took, in seconds");
        let built_in = self.kinds.values().map(|(group, resource, times)| (group.as_str(), resource.as_str(), times));
        for (group, resource, times) in built_in.chain([("", CUSTOM, &self.custom), ("", "", &self.other)]) {
            for (action, histogram) in ACTIONS.iter().zip(&times.0) {
                let Some(histogram) = histogram.get() else { continue };
                let labels = [("group", group), ("operation", *action), ("resource", resource)];
                out.distribution(family, &labels, &histogram.distribution());
            }
        }
    }
}

/// A store that is looked at with a watch in hand.
#[derive(Debug)]
pub(crate) struct MeasuredStore {
    store: Arc<dyn Store>,
    env: Env,
    times: Arc<StoreTimes>,
}

impl MeasuredStore {
    pub(crate) fn new(store: Arc<dyn Store>, env: &Env, times: Arc<StoreTimes>) -> Self {
        Self { store, env: env.clone(), times }
    }

    async fn measure<T>(&self, key: &str, action: Action, call: impl Future<Output = T>) -> T {
        let started = self.env.monotonic();
        let result = call.await;
        self.times.record(key, action, self.env.monotonic().saturating_sub(started));
        result
    }
}

#[async_trait]
impl Store for MeasuredStore {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.measure(key.as_str(), Action::Get, self.store.get(key)).await
    }

    async fn list(&self, range: &KeyRange, options: ListOptions) -> Result<Listing, StoreError> {
        self.measure(range.as_prefix(), Action::List, self.store.list(range, options)).await
    }

    async fn commit(&self, batch: Batch) -> Result<Revision, StoreError> {
        // The object comes first, before the keys that it reserves.
        let (key, action) = match (batch.operations.first(), batch.preconditions.first()) {
            (Some(Operation::Delete { key }), _) => (Some(key.clone()), Action::Delete),
            (Some(Operation::Put { key, .. }), Some(Precondition::Absent { .. })) => {
                (Some(key.clone()), Action::Create)
            }
            (Some(Operation::Put { key, .. }), _) => (Some(key.clone()), Action::Update),
            (None, _) => (None, Action::Update),
        };
        let key = key.as_ref().map_or("", Key::as_str);
        self.measure(key, action, self.store.commit(batch)).await
    }

    async fn watch(&self, range: KeyRange, options: WatchOptions) -> Result<WatchStream, StoreError> {
        self.store.watch(range, options).await
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.store.compact(revision).await
    }

    async fn status(&self) -> Result<StoreStatus, StoreError> {
        self.measure("", Action::Status, self.store.status()).await
    }

    fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }
}

#[cfg(test)]
mod tests {
    use orchestrator_core::env::Simulation;
    use orchestrator_store_mem::MemStore;

    use super::*;
    use crate::registry::Registry;

    #[test]
    fn actions_are_timed_by_kind() {
        let simulation = Simulation::new(1);
        let env = simulation.env();
        let shown = simulation.run(async move {
            let times = Arc::new(StoreTimes::new(&Registry::new().kinds()));
            let store = MeasuredStore::new(Arc::new(MemStore::new(&env)), &env, times.clone());
            let key = |text: &str| Key::new(text);
            for text in ["/registry/pods/a/b", "/registry/minions/n", "/registry/example.com/widgets/a/b"] {
                let put = Operation::Put { key: key(text), value: Default::default(), time_to_live: None };
                let preconditions = vec![Precondition::Absent { key: key(text) }];
                store.commit(Batch { preconditions, operations: vec![put] }).await.unwrap();
            }
            store.list(&KeyRange::prefix("/registry/pods/"), ListOptions::default()).await.unwrap();
            store.get(&key("/registry/pods/a/b")).await.unwrap();
            store.status().await.unwrap();
            let mut out = Exposition::default();
            times.write(&mut out);
            out.into_text()
        });
        let shown = shown.unwrap();
        let counts: Vec<&str> = shown.lines().filter(|line| line.contains("_count{")).collect();
        let line = |group: &str, operation: &str, resource: &str| {
            format!(
                "etcd_request_duration_seconds_count{{group=\"{group}\",operation=\"{operation}\",resource=\"{resource}\"}} 1"
            )
        };
        let expected = [
            line("", "create", "nodes"),
            line("", "get", "pods"),
            line("", "list", "pods"),
            line("", "create", "pods"),
            line("", "create", CUSTOM),
            line("", "getCurrentResourceVersion", ""),
        ];
        assert_eq!(counts, expected);
    }
}
