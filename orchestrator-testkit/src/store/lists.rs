//! Lists: snapshots of a range, in order, now and in the past.

use std::sync::Arc;

use orchestrator_core::{
    env::Env,
    store::{KeyRange, ListOptions, Revision, Store, StoreError},
};

use super::{commit, contents, delete, key, put, revision};
use crate::harness::Outcome;

/// A list holds the keys of its range and no other, in the order of their bytes.
pub async fn lists_are_ordered_snapshots(store: &Arc<dyn Store>, _env: &Env) -> Outcome {
    for name in ["/b/2", "/b/10", "/a", "/b", "/b0", "/b/ü", "/c/1"] {
        commit(store, put(name, name)).await;
    }
    let names = async |prefix: &str| -> Vec<String> {
        contents(store, prefix, None).await.into_iter().map(|(name, _)| name).collect()
    };
    assert_eq!(names("/b/").await, ["/b/10", "/b/2", "/b/ü"]);
    assert_eq!(names("/b").await, ["/b", "/b/10", "/b/2", "/b/ü", "/b0"]);
    assert_eq!(names("").await.len(), 7);
    assert_eq!(names("/d").await, Vec::<String>::new());

    let options = ListOptions { limit: Some(2), after: Some(key("/b")), ..ListOptions::default() };
    let listing = store.list(&KeyRange::prefix("/b"), options).await.unwrap();
    let found: Vec<_> = listing.entries.iter().map(|entry| entry.key.to_string()).collect();
    assert_eq!((found, listing.remaining), (vec!["/b/10".to_owned(), "/b/2".to_owned()], 2));
    assert_eq!(listing.revision, revision(store).await);

    let options = ListOptions { after: Some(key("/zzz")), ..ListOptions::default() };
    let listing = store.list(&KeyRange::prefix("/b"), options).await.unwrap();
    assert_eq!((listing.entries.len(), listing.remaining), (0, 0));
    Outcome::Held
}

/// Whoever reads page by page at one revision reads one state, whatever others write meanwhile.
pub async fn pages_are_of_one_snapshot(store: &Arc<dyn Store>, _env: &Env) -> Outcome {
    if !store.capabilities().snapshots {
        return Outcome::Skipped("listing at an older revision");
    }
    for index in 0..40 {
        commit(store, put(&format!("/page/{index:02}"), "before")).await;
    }
    let expected = contents(store, "/page/", None).await;
    let at = revision(store).await;
    let (mut found, mut after) = (Vec::new(), None);
    for round in 0.. {
        let options = ListOptions { revision: Some(at), limit: Some(7), after: after.clone() };
        let page = store.list(&KeyRange::prefix("/page/"), options).await.unwrap();
        assert_eq!(page.revision, at);
        found.extend(page.entries.iter().map(|entry| (entry.key.to_string(), super::text(&entry.value))));
        assert_eq!(page.remaining, 40 - found.len() as u64);
        // Before, on and behind the page that was just read.
        commit(store, put(&format!("/page/{:02}x", round * 7), "later")).await;
        commit(store, put(&format!("/page/{:02}", 39 - round), "later")).await;
        commit(store, delete(&format!("/page/{:02}", (round * 11) % 40))).await;
        match page.entries.last() {
            Some(last) if page.remaining > 0 => after = Some(last.key.clone()),
            _ => break,
        }
    }
    assert_eq!(found, expected);
    assert_ne!(contents(store, "/page/", None).await, expected, "the present has moved on");
    assert_eq!(contents(store, "/page/", Some(at)).await, expected, "and the past has not");
    Outcome::Held
}

/// What lies ahead and what was forgotten are errors that say so.
pub async fn past_and_future_are_refused(store: &Arc<dyn Store>, _env: &Env) -> Outcome {
    for round in 0..5 {
        commit(store, put("/a", &round.to_string())).await;
    }
    let current = revision(store).await;
    let list = async |at: Revision| {
        store.list(&KeyRange::prefix("/"), ListOptions { revision: Some(at), ..ListOptions::default() }).await
    };
    let ahead = list(Revision(current.0 + 1)).await;
    assert!(matches!(ahead, Err(StoreError::Future { current: told, .. }) if told == current), "{ahead:?}");
    assert!(store.compact(Revision(current.0 + 1)).await.is_err(), "the future cannot be compacted");
    if !store.capabilities().snapshots {
        return Outcome::Held;
    }
    let kept = Revision(current.0 - 2);
    store.compact(kept).await.unwrap();
    assert_eq!(store.status().await.unwrap().compacted, kept);
    let gone = list(Revision(kept.0 - 1)).await;
    assert!(matches!(gone, Err(StoreError::Compacted { oldest, .. }) if oldest == kept), "{gone:?}");
    assert_eq!(list(kept).await.unwrap().entries.len(), 1, "the oldest revision that is left can be read");
    Outcome::Held
}

/// Compaction forgets the past and changes nothing else; doing it twice is an error or changes nothing.
pub async fn compaction_keeps_the_present(store: &Arc<dyn Store>, _env: &Env) -> Outcome {
    for round in 0..10 {
        commit(store, put(&format!("/{}", round % 3), &round.to_string())).await;
    }
    commit(store, delete("/1")).await;
    let (before, at) = (contents(store, "/", None).await, revision(store).await);
    store.compact(at).await.unwrap();
    // etcd refuses what was compacted before, others pass it over.
    if let Err(error) = store.compact(at).await {
        assert!(matches!(error, StoreError::Compacted { .. }), "{error:?}");
    }
    assert_eq!((contents(store, "/", None).await, revision(store).await), (before, at));
    let next = commit(store, put("/1", "again")).await;
    assert!(next > at, "revisions are not used again");
    let entry = store.get(&key("/1")).await.unwrap().expect("it was made again");
    assert_eq!((entry.created, entry.modified), (next, next));
    Outcome::Held
}
