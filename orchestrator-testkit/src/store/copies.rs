//! What was in a store comes back from its snapshot.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::join;
use orchestrator_core::{
    env::Env,
    store::{
        Batch, KeyRange, ListOptions, Revision, Store,
        snapshot::{self, SnapshotError},
    },
};

use super::{commit, delete, key, put};
use crate::harness::Outcome;

/// A snapshot has one revision of everything, whatever is written meanwhile, and an empty store that is filled from it has the
/// same.
pub async fn snapshots_come_back(store: &Arc<dyn Store>, env: &Env) -> Outcome {
    if !store.capabilities().snapshots {
        return Outcome::Skipped("listing at an older revision");
    }
    for index in 0..230 {
        commit(store, put(&format!("/many/{index:03}"), &index.to_string())).await;
    }
    commit(store, Batch::create(key("/ü/名"), Bytes::new())).await;
    commit(store, Batch::create(key("/large"), Bytes::from(vec![7; 700 << 10]))).await;

    let mut bytes = Vec::new();
    let others = async {
        for index in 0..60 {
            commit(store, delete(&format!("/many/{:03}", index * 3))).await;
            commit(store, put(&format!("/many/{:03}x", 229 - index * 3), "later")).await;
            env.sleep(std::time::Duration::from_micros(10)).await;
        }
    };
    let (written, ()) = join(snapshot::write(&**store, &mut bytes), others).await;
    let written = written.expect("a snapshot");
    let expected = values(store, Some(written.revision)).await;
    assert_eq!(written.entries, expected.len() as u64);
    assert_eq!(snapshot::verify(&bytes[..]).await.expect("it is whole"), written);

    let refused = snapshot::restore(&bytes[..], &**store).await;
    assert!(matches!(refused, Err(SnapshotError::NotEmpty { .. })), "{refused:?}");
    for (name, _) in values(store, None).await {
        commit(store, delete(&name)).await;
    }
    assert_eq!(snapshot::restore(&bytes[..], &**store).await.expect("it is restored"), written);
    assert!(values(store, None).await == expected, "what came back is not what was there");
    Outcome::Held
}

async fn values(store: &Arc<dyn Store>, at: Option<Revision>) -> Vec<(String, Bytes)> {
    let options = ListOptions { revision: at, ..ListOptions::default() };
    let listing = store.list(&KeyRange::prefix(""), options).await.expect("a listing");
    listing.entries.into_iter().map(|entry| (entry.key.to_string(), entry.value)).collect()
}
