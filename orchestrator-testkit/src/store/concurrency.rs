//! Many callers at once.

use std::{
    collections::BTreeMap,
    pin::pin,
    sync::Arc,
    task::{Context, Waker},
    time::Duration,
};

use futures::{future::join_all, stream::FuturesUnordered};
use orchestrator_core::{
    env::{Env, TaskEnd},
    store::{Batch, Store, StoreError},
};

use super::{PATIENCE, changes, commit, contents, key, put, revision, text, value, watch};
use crate::harness::Outcome;

const WRITERS: usize = 8;
const INCREMENTS: usize = 50;

/// Adds one to a counter by compare-and-swap, as often as it takes.
async fn increment(store: &Arc<dyn Store>, name: &str) {
    loop {
        let batch = match store.get(&key(name)).await.unwrap() {
            None => Batch::create(key(name), value("1")),
            Some(entry) => {
                let number: usize = text(&entry.value).parse().unwrap();
                Batch::replace(key(name), entry.modified, value(&(number + 1).to_string()))
            }
        };
        match store.commit(batch).await {
            Ok(_) => return,
            Err(StoreError::Conflict { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// Runs writers side by side, as tasks of their own.
async fn at_once<F>(env: &Env, count: usize, make: impl Fn(usize) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let tasks: Vec<_> = (0..count).map(|index| env.spawn("writer", make(index))).collect();
    for task in tasks {
        assert_eq!(task.join().await, TaskEnd::Completed);
    }
}

/// Increments by compare-and-swap are never lost, however many callers there are.
pub async fn concurrent_increments_lose_none(store: &Arc<dyn Store>, env: &Env) -> Outcome {
    at_once(env, WRITERS, |_| {
        let (store, env) = (store.clone(), env.clone());
        async move {
            for _ in 0..INCREMENTS {
                increment(&store, "/counter").await;
                env.sleep(Duration::from_micros(env.random_below(50))).await;
            }
        }
    })
    .await;
    let total = store.get(&key("/counter")).await.unwrap().expect("it was counted");
    assert_eq!(text(&total.value), (WRITERS * INCREMENTS).to_string());
    Outcome::Held
}

/// What a watch tells, applied in order, is what the store holds, with a revision of its own for each commit.
pub async fn a_watch_agrees_with_concurrent_writes(store: &Arc<dyn Store>, env: &Env) -> Outcome {
    let mut events = watch(store, "/", None).await;
    let begin = revision(store).await;
    at_once(env, WRITERS, |writer| {
        let (store, env) = (store.clone(), env.clone());
        async move {
            for round in 0..INCREMENTS {
                let name = format!("/{}", env.random_below(5));
                let batch =
                    if round % 4 == 3 { super::delete(&name) } else { put(&name, &format!("{writer}.{round}")) };
                commit(&store, batch).await;
            }
        }
    })
    .await;
    let end = revision(store).await;
    let mut model = BTreeMap::new();
    let mut seen = begin;
    while seen < end {
        let (revision, told) = changes(env, &mut events).await;
        assert!(revision > seen, "{revision} came after {seen}");
        seen = revision;
        for change in told.iter() {
            let before = change.previous.as_ref().map(|entry| text(&entry.value));
            let known = match &change.entry {
                Some(entry) => model.insert(change.key.to_string(), text(&entry.value)),
                None => model.remove(change.key.as_str()),
            };
            assert_eq!(known, before, "what was there before {revision}");
        }
    }
    assert_eq!(model.into_iter().collect::<Vec<_>>(), contents(store, "/", None).await);
    Outcome::Held
}

/// Thousands of watchers see the same change.
pub async fn thousands_of_watchers_see_a_change(store: &Arc<dyn Store>, env: &Env) -> Outcome {
    const WATCHERS: usize = 3_000;
    let mut watchers = Vec::new();
    for index in 0..WATCHERS {
        watchers.push(watch(store, if index % 2 == 0 { "/" } else { "/a" }, None).await);
    }
    let at = commit(store, put("/a", "1")).await;
    let told = join_all(watchers.iter_mut().map(|events| changes(env, events))).await;
    assert!(told.iter().all(|(revision, _)| *revision == at));
    Outcome::Held
}

/// A call may be dropped at any point: it happened or it did not, and the store goes on.
pub async fn a_call_that_is_dropped_leaves_the_store_whole(store: &Arc<dyn Store>, env: &Env) -> Outcome {
    for round in 0..20 {
        let mut call = pin!(store.commit(put(&format!("/{round}"), "x")));
        // Asked once, or asked for a while, then dropped.
        let asked = call.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        if asked.is_pending() && round % 2 == 0 {
            let _ = env.timeout(Duration::from_micros(round), call).await;
        }
    }
    let dropped_watch = watch(store, "/", None).await;
    drop(dropped_watch);
    let before = revision(store).await;
    let mut events = watch(store, "/", Some(before)).await;
    let after = key("/after");
    let pending: FuturesUnordered<_> = (0..10).map(|_| store.get(&after)).collect();
    drop(pending);
    let done = env.timeout(PATIENCE, store.commit(put("/after", "1"))).await.expect("the store still answers").unwrap();
    // What was dropped may still happen now, but each change once and in order.
    let mut newest = before;
    while newest < done {
        let (revision, _) = changes(env, &mut events).await;
        assert!(revision > newest);
        newest = revision;
    }
    assert_eq!(text(&store.get(&key("/after")).await.unwrap().expect("written").value), "1");
    Outcome::Held
}
