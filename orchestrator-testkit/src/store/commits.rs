//! What a commit does, and what one does not do that is refused.

use std::sync::Arc;

use bytes::Bytes;
use orchestrator_core::{
    env::Env,
    store::{Batch, Operation, Precondition, Revision, Store, StoreError},
};

use super::{changes, commit, contents, delete, key, put, revision, told, value, watch};
use crate::harness::Outcome;

/// An entry knows when it was made and when it was written last; one that is made again is new.
pub async fn entries_come_and_go(store: &Arc<dyn Store>, _env: &Env) -> Outcome {
    assert_eq!(store.get(&key("/a")).await.unwrap(), None);
    let created = commit(store, Batch::create(key("/a"), value("1"))).await;
    let entry = store.get(&key("/a")).await.unwrap().expect("it was made");
    assert_eq!((entry.created, entry.modified, &entry.value), (created, created, &value("1")));

    let replaced = commit(store, Batch::replace(key("/a"), created, value("2"))).await;
    assert!(replaced > created);
    let entry = store.get(&key("/a")).await.unwrap().expect("it was replaced");
    assert_eq!((entry.created, entry.modified, &entry.value), (created, replaced, &value("2")));

    commit(store, Batch::delete(key("/a"), replaced)).await;
    assert_eq!(store.get(&key("/a")).await.unwrap(), None);
    let again = commit(store, Batch::create(key("/a"), value("3"))).await;
    let entry = store.get(&key("/a")).await.unwrap().expect("it was made again");
    assert_eq!((entry.created, entry.modified), (again, again));
    Outcome::Held
}

/// A precondition that does not hold is answered with what is there, and nothing has changed.
pub async fn conflicts_change_nothing(store: &Arc<dyn Store>, _env: &Env) -> Outcome {
    let first = commit(store, put("/a", "1")).await;
    let second = commit(store, put("/a", "2")).await;
    let refused = [
        Batch::create(key("/a"), value("x")),
        Batch::replace(key("/a"), first, value("x")),
        Batch::delete(key("/a"), first),
        Batch::replace(key("/a"), Revision(second.0 + 1), value("x")),
    ];
    for batch in refused {
        match store.commit(batch.clone()).await {
            Err(StoreError::Conflict { key: conflicting, current }) => {
                assert_eq!(conflicting, key("/a"));
                assert_eq!(current.expect("it is there").modified, second);
            }
            other => panic!("{batch:?} gave {other:?}"),
        }
    }
    for batch in [Batch::replace(key("/b"), first, value("x")), Batch::delete(key("/b"), first)] {
        match store.commit(batch).await {
            Err(StoreError::Conflict { key: conflicting, current: None }) => assert_eq!(conflicting, key("/b")),
            other => panic!("a key that is not there gave {other:?}"),
        }
    }
    assert_eq!(revision(store).await, second);
    assert_eq!(contents(store, "/", None).await, [("/a".to_owned(), "2".to_owned())]);
    Outcome::Held
}

/// All operations of a batch happen at one revision and are told together, or none happens.
pub async fn batches_are_all_or_nothing(store: &Arc<dyn Store>, env: &Env) -> Outcome {
    let before = commit(store, put("/old", "1")).await;
    let mut events = watch(store, "/", Some(before)).await;
    let operation = |name: &str, text: &str| Operation::Put { key: key(name), value: value(text), time_to_live: None };
    let batch = |expected: Revision| Batch {
        preconditions: vec![
            Precondition::Absent { key: key("/new") },
            Precondition::AtRevision { key: key("/old"), revision: expected },
        ],
        operations: vec![operation("/new", "2"), Operation::Delete { key: key("/old") }, operation("/also", "3")],
    };
    let refused = store.commit(batch(Revision(before.0 + 7))).await;
    assert!(matches!(refused, Err(StoreError::Conflict { .. })), "{refused:?}");
    assert_eq!(contents(store, "/", None).await, [("/old".to_owned(), "1".to_owned())]);

    let at = commit(store, batch(before)).await;
    let expected = [("/also".to_owned(), "3".to_owned()), ("/new".to_owned(), "2".to_owned())];
    assert_eq!(contents(store, "/", None).await, expected);
    for name in ["/new", "/also"] {
        assert_eq!(store.get(&key(name)).await.unwrap().map(|entry| entry.modified), Some(at));
    }
    let (revision, told_changes) = changes(env, &mut events).await;
    assert_eq!(revision, at);
    assert_eq!(told_changes.iter().map(told).collect::<Vec<_>>(), ["/new=2", "/old gone", "/also=3"]);
    Outcome::Held
}

/// A batch that names a key twice says two things at once, and is refused whole.
pub async fn odd_batches_are_refused(store: &Arc<dyn Store>, _env: &Env) -> Outcome {
    let before = revision(store).await;
    let mut twice = put("/a", "1");
    twice.operations.extend(delete("/a").operations);
    let refused = store.commit(twice).await;
    assert!(matches!(refused, Err(StoreError::Refused(_))), "{refused:?}");
    assert_eq!(store.get(&key("/a")).await.unwrap(), None);
    assert_eq!(revision(store).await, before);
    Outcome::Held
}

/// One counter for all keys, that never stands still on a change and never goes back.
pub async fn revisions_only_rise(store: &Arc<dyn Store>, _env: &Env) -> Outcome {
    let mut newest = revision(store).await;
    for round in 0..20 {
        let batch = match round % 3 {
            0 => put("/a", &round.to_string()),
            1 => put(&format!("/b/{round}"), ""),
            _ => delete("/a"),
        };
        let revision_now = commit(store, batch).await;
        assert!(revision_now > newest, "{revision_now} after {newest}");
        assert_eq!(revision(store).await, revision_now);
        newest = revision_now;
    }
    let same = commit(store, delete("/never")).await;
    assert_eq!((same, revision(store).await), (newest, newest), "what changes nothing has no revision of its own");
    Outcome::Held
}

/// Values of any bytes and keys of any letters come back as they were.
pub async fn unusual_keys_and_values_come_back(store: &Arc<dyn Store>, _env: &Env) -> Outcome {
    let long = format!("/{}", "x".repeat(512));
    let keys = ["/", "/ü/名", "/a b", "/a\"b\\c", "/%2e%2e/..", &long];
    let values = [Bytes::new(), Bytes::from_static(&[0, 255, 10, 13, 34]), Bytes::from(vec![7; 1 << 20])];
    for (index, name) in keys.iter().enumerate() {
        let written = &values[index % values.len()];
        commit(store, Batch::create(key(name), written.clone())).await;
        let entry = store.get(&key(name)).await.unwrap().expect("it was written");
        assert_eq!((&entry.key, &entry.value), (&key(name), written));
    }
    Outcome::Held
}
