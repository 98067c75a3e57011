//! Watches: all changes of a range after a revision, once each, in order.

use std::{sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt};
use orchestrator_core::{
    env::Env,
    store::{Batch, KeyRange, ListOptions, Operation, Revision, Store, StoreError, WatchItem, WatchOptions},
};

use super::{PATIENCE, changes, commit, delete, key, next, put, revision, text, told, value, watch};
use crate::harness::Outcome;

/// A list and a watch from its revision make the whole story: nothing is missing, nothing comes twice.
pub async fn a_watch_from_a_list_misses_nothing(store: &Arc<dyn Store>, env: &Env) -> Outcome {
    commit(store, put("/w/a", "0")).await;
    let listing = store.list(&KeyRange::prefix("/w/"), ListOptions::default()).await.unwrap();
    // Between the list and the watch.
    let mut expected = vec![(commit(store, put("/w/a", "1")).await, "/w/a=1")];
    expected.push((commit(store, put("/w/b", "1")).await, "/w/b=1"));
    let mut events = watch(store, "/w/", Some(listing.revision)).await;
    expected.push((commit(store, delete("/w/a")).await, "/w/a gone"));
    expected.push((commit(store, put("/w/a", "2")).await, "/w/a=2"));
    for (revision, change) in expected {
        let (told_revision, told_changes) = changes(env, &mut events).await;
        assert_eq!(
            (told_revision, told_changes.iter().map(told).collect::<Vec<_>>()),
            (revision, vec![change.to_owned()])
        );
    }
    Outcome::Held
}

/// Without a start a watch begins now; with one, right behind it.
pub async fn a_watch_begins_now_or_where_it_is_told(store: &Arc<dyn Store>, env: &Env) -> Outcome {
    let first = commit(store, put("/a", "1")).await;
    let second = commit(store, put("/a", "2")).await;
    let mut from_now = watch(store, "/", None).await;
    let mut from_first = watch(store, "/", Some(first)).await;
    let mut from_second = watch(store, "/", Some(second)).await;
    let third = commit(store, put("/a", "3")).await;
    assert_eq!(changes(env, &mut from_now).await.0, third);
    assert_eq!(changes(env, &mut from_first).await.0, second);
    assert_eq!(changes(env, &mut from_first).await.0, third);
    assert_eq!(changes(env, &mut from_second).await.0, third);
    Outcome::Held
}

/// A watch tells of its range, also where a commit touches others as well.
pub async fn watches_see_their_range_only(store: &Arc<dyn Store>, env: &Env) -> Outcome {
    let mut events = watch(store, "/in/", None).await;
    commit(store, put("/out/a", "1")).await;
    commit(store, put("/in", "1")).await;
    let mut both = put("/out/a", "2");
    both.operations.extend(put("/in/a", "2").operations);
    both.operations.extend(put("/in0", "2").operations);
    let at = commit(store, both).await;
    let (revision, told_changes) = changes(env, &mut events).await;
    assert_eq!((revision, told_changes.iter().map(told).collect::<Vec<_>>()), (at, vec!["/in/a=2".to_owned()]));
    Outcome::Held
}

/// A change carries the entry before and the entry after it.
pub async fn changes_tell_before_and_after(store: &Arc<dyn Store>, env: &Env) -> Outcome {
    let mut events = watch(store, "/", None).await;
    let made = commit(store, put("/a", "1")).await;
    let changed = commit(store, put("/a", "2")).await;
    commit(store, delete("/a")).await;
    let again = commit(store, put("/a", "3")).await;

    let (_, first) = changes(env, &mut events).await;
    assert_eq!(first[0].previous, None);
    assert_eq!(first[0].entry.as_ref().map(|entry| (entry.created, entry.modified)), Some((made, made)));
    let (_, second) = changes(env, &mut events).await;
    assert_eq!(second[0].previous, first[0].entry);
    assert_eq!(second[0].entry.as_ref().map(|entry| (entry.created, entry.modified)), Some((made, changed)));
    let (_, third) = changes(env, &mut events).await;
    assert_eq!((&third[0].previous, &third[0].entry), (&second[0].entry, &None));
    let (_, fourth) = changes(env, &mut events).await;
    assert_eq!(fourth[0].previous, None);
    assert_eq!(fourth[0].entry.as_ref().map(|entry| (entry.created, entry.modified)), Some((again, again)));
    Outcome::Held
}

/// A watch from before the compaction is told so; one from exactly there misses nothing, a deletion included.
pub async fn a_watch_of_what_was_compacted_is_told(store: &Arc<dyn Store>, env: &Env) -> Outcome {
    let first = commit(store, put("/a", "1")).await;
    let second = commit(store, put("/a", "2")).await;
    let third = commit(store, delete("/a")).await;
    let fourth = commit(store, put("/b", "1")).await;
    store.compact(second).await.unwrap();
    let options = WatchOptions { after: Some(first), bookmarks: false };
    // The answer may come with the call or with the first item.
    let answer = match store.watch(KeyRange::prefix("/"), options).await {
        Ok(mut events) => next(env, &mut events).await.expect("an error comes before the end").map(drop),
        Err(error) => Err(error),
    };
    assert!(matches!(answer, Err(StoreError::Compacted { .. })), "{answer:?}");
    let mut events = watch(store, "/", Some(second)).await;
    assert_eq!(changes(env, &mut events).await.0, third);
    assert_eq!(changes(env, &mut events).await.0, fourth);
    Outcome::Held
}

/// A watch from a revision that is not there yet gives nothing until that has passed.
pub async fn a_watch_from_the_future_waits(store: &Arc<dyn Store>, env: &Env) -> Outcome {
    let now = commit(store, put("/a", "0")).await;
    let mut events = watch(store, "/", Some(Revision(now.0 + 2))).await;
    for round in 1..=2 {
        commit(store, put("/a", &round.to_string())).await;
    }
    assert!(events.next().now_or_never().is_none(), "what came before its start is not told");
    let third = commit(store, put("/a", "3")).await;
    assert_eq!(changes(env, &mut events).await.0, third);
    Outcome::Held
}

/// A watcher that does not read gets everything in order for as far as the store remembers, and then an error: never
/// a gap.
pub async fn a_slow_watcher_never_has_a_gap(store: &Arc<dyn Store>, env: &Env) -> Outcome {
    const COMMITS: u64 = 30_000;
    let mut events = watch(store, "/", None).await;
    let mut written = Vec::new();
    for round in 0..COMMITS {
        written.push(commit(store, put(&format!("/{}", round % 10), &round.to_string())).await);
    }
    let mut expected = written.into_iter();
    loop {
        match next(env, &mut events).await {
            Some(Ok((revision, _))) => assert_eq!(Some(revision), expected.next(), "in order, without a gap"),
            Some(Err(StoreError::Lagged | StoreError::Compacted { .. })) => break,
            other => panic!("a watcher that fell behind is told so: {other:?}"),
        }
        if expected.len() == 0 {
            return Outcome::Held;
        }
    }
    // It was told; a new list and a new watch go on.
    let at = revision(store).await;
    let mut events = watch(store, "/", Some(at)).await;
    let last = commit(store, put("/0", "last")).await;
    assert_eq!(changes(env, &mut events).await.0, last);
    Outcome::Held
}

/// A bookmark says that everything up to it was given: nothing older comes after it.
pub async fn bookmarks_never_run_ahead(store: &Arc<dyn Store>, env: &Env) -> Outcome {
    if !store.capabilities().bookmarks {
        return Outcome::Skipped("bookmarks");
    }
    let options = WatchOptions { after: None, bookmarks: true };
    let mut events = store.watch(KeyRange::prefix("/in/"), options).await.unwrap();
    let mut highest = Revision(0);
    let mut bookmark = None;
    for round in 0..4 {
        let inside = commit(store, put("/in/a", &round.to_string())).await;
        let outside = commit(store, put("/out/a", &round.to_string())).await;
        while bookmark.is_none_or(|bookmark| bookmark < outside) {
            match env.timeout(PATIENCE, events.next()).await.expect("a bookmark comes").unwrap().unwrap() {
                WatchItem::Changes { revision, .. } => {
                    assert!(revision > highest, "{revision} came after {highest}");
                    assert_eq!(revision, inside);
                    highest = revision;
                }
                WatchItem::Bookmark(revision) => {
                    assert!(revision >= highest);
                    assert!(highest >= inside || revision < inside, "a bookmark ran ahead of a change");
                    (highest, bookmark) = (revision, Some(revision));
                }
            }
        }
    }
    Outcome::Held
}

/// A key with a time to live goes away at its time, as a deletion; writing it again begins anew.
pub async fn expired_keys_go_away(store: &Arc<dyn Store>, env: &Env) -> Outcome {
    if !store.capabilities().expiry {
        return Outcome::Skipped("keys with a time to live");
    }
    let mortal = |name: &str, seconds: u64| Batch {
        preconditions: Vec::new(),
        operations: vec![Operation::Put {
            key: key(name),
            value: value("1"),
            time_to_live: Some(Duration::from_secs(seconds)),
        }],
    };
    let mut events = watch(store, "/", None).await;
    for name in ["/short", "/saved"] {
        commit(store, mortal(name, 2)).await;
        changes(env, &mut events).await;
    }
    commit(store, put("/saved", "for good")).await;
    changes(env, &mut events).await;
    let begin = env.monotonic();
    let (at, gone) = changes(env, &mut events).await;
    assert_eq!(gone.iter().map(told).collect::<Vec<_>>(), ["/short gone"]);
    assert!(env.monotonic() - begin >= Duration::from_secs(1), "not before its time");
    assert_eq!(revision(store).await, at, "an expiry has a revision, as any change");
    assert_eq!(store.get(&key("/short")).await.unwrap(), None);
    env.sleep(Duration::from_secs(3)).await;
    let saved = store.get(&key("/saved")).await.unwrap().expect("it was written without a time");
    assert_eq!(text(&saved.value), "for good");
    Outcome::Held
}
