//! A store that begins with what another one holds.

use std::time::Duration;

use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use orchestrator_core::{
    env::Simulation,
    store::{Batch, Key, KeyRange, ListOptions, Operation, Revision, Store, StoreError, WatchItem, WatchOptions},
};
use orchestrator_store_mem::MemStore;

fn put(key: &str, value: &'static str, time_to_live: Option<Duration>) -> Batch {
    let operation = Operation::Put { key: Key::new(key), value: Bytes::from_static(value.as_bytes()), time_to_live };
    Batch { preconditions: Vec::new(), operations: vec![operation] }
}

#[test]
fn a_fork_has_the_content_and_its_own_future() {
    let simulation = Simulation::new(1);
    let env = simulation.env();
    let store = MemStore::new(&env);
    let all = KeyRange::prefix("");
    let filled = simulation.run(async {
        store.commit(put("a", "1", None)).await?;
        store.commit(put("b", "1", Some(Duration::from_secs(60)))).await?;
        env.sleep(Duration::from_secs(20)).await;
        store.commit(put("a", "2", None)).await
    });
    let revision = filled.unwrap().unwrap();

    let later = Simulation::starting_at(2, Duration::from_secs(20));
    let env = later.env();
    let fork = store.fork(&env);
    later
        .run(async {
            let (ours, theirs) = (fork.list(&all, ListOptions::default()), store.list(&all, ListOptions::default()));
            assert_eq!(ours.await.unwrap(), theirs.await.unwrap(), "the same entries at the same revisions");
            let past = WatchOptions { after: Some(Revision(1)), bookmarks: false };
            assert!(matches!(fork.watch(all.clone(), past).await, Err(StoreError::Compacted { .. })));
            let mut changes = fork.watch(all.clone(), WatchOptions::default()).await.unwrap();

            assert_eq!(fork.commit(put("c", "1", None)).await.unwrap(), Revision(revision.0 + 1));
            assert!(store.get(&Key::new("c")).await.unwrap().is_none(), "the original goes its own way");
            assert!(matches!(changes.next().await, Some(Ok(WatchItem::Changes { .. }))));

            env.sleep(Duration::from_secs(39)).await;
            assert!(changes.next().now_or_never().is_none());
            env.sleep(Duration::from_secs(2)).await;
            assert!(fork.get(&Key::new("b")).await.unwrap().is_none(), "it expires at its time");
            let Some(Ok(WatchItem::Changes { changes, .. })) = changes.next().await else { panic!("a change") };
            assert_eq!((changes[0].key.as_str(), &changes[0].entry), ("b", &None));
        })
        .unwrap();
}
