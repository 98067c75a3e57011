//! Bounds: of messages, of commits, and leases that are shared and lost.

use std::time::Duration;

use bytes::Bytes;
use etcd_client::Client;
use orchestrator_core::store::{Batch, Key, KeyRange, ListOptions, Operation, Store, StoreError};
use orchestrator_store_etcd::{EtcdStore, Limits};

use crate::support::{cause, config, etcd::Cluster, run};

fn put(key: String, bytes: usize, time_to_live: Option<Duration>) -> Operation {
    Operation::Put { key: Key::new(key), value: Bytes::from(vec![7; bytes]), time_to_live }
}

fn batch(operations: Vec<Operation>) -> Batch {
    Batch { preconditions: Vec::new(), operations }
}

#[test]
fn large_lists_come_in_pages() {
    run(|env| async move {
        const KEYS: usize = 2_500;
        let cluster = Cluster::single();
        let limits = Limits { answer_bytes: 64 << 10, ..Limits::default() };
        let store = EtcdStore::connect(&env, config(&cluster, limits)).await.unwrap();
        let keys: Vec<usize> = (0..KEYS).collect();
        for some in keys.chunks(100) {
            store.commit(batch(some.iter().map(|key| put(format!("/{key:04}"), 1_000, None)).collect())).await.unwrap();
        }
        for (limit, remaining) in [(None, 0), (Some(2_400), 100), (Some(5_000), 0)] {
            let options = ListOptions { limit, ..ListOptions::default() };
            let listing = store.list(&KeyRange::prefix("/"), options).await.unwrap();
            assert_eq!(listing.remaining, remaining);
            assert_eq!(listing.entries.len() as u64 + remaining, KEYS as u64);
            assert!(listing.entries.iter().map(|entry| entry.key.as_str()).is_sorted());
        }
        store.commit(batch(vec![put("/0000".to_owned(), 100_000, None)])).await.unwrap();
        let refused = store.list(&KeyRange::prefix("/"), ListOptions::default()).await.unwrap_err();
        assert!(cause(&refused).to_string().contains("too large"), "{refused:?}");
    });
}

#[test]
fn what_etcd_refuses_is_refused() {
    run(|env| async move {
        let cluster = Cluster::single();
        let wide =
            Limits { batch_operations: 1_000, value_bytes: 8 << 20, request_bytes: 8 << 20, ..Limits::default() };
        let before = EtcdStore::connect(&env, config(&cluster, Limits::default())).await.unwrap();
        let after = EtcdStore::connect(&env, config(&cluster, wide)).await.unwrap();
        for store in [before, after] {
            for operations in [
                (0..129).map(|key| put(format!("/{key}"), 1, None)).collect(),
                vec![put("/a".to_owned(), 1_600_000, None)],
                vec![put("/a".to_owned(), 4 << 20, None)],
            ] {
                let refused = store.commit(batch(operations)).await;
                assert!(matches!(refused, Err(StoreError::Refused(_))), "{refused:?}");
            }
            assert_eq!(store.status().await.unwrap().keys, 0);
        }
    });
}

#[test]
fn a_lease_is_shared_and_replaced_when_it_is_gone() {
    run(|env| async move {
        let cluster = Cluster::single();
        let store = EtcdStore::connect(&env, config(&cluster, Limits::default())).await.unwrap();
        let mortal = |key: &str| batch(vec![put(key.to_owned(), 1, Some(Duration::from_secs(1_000)))]);
        store.commit(mortal("/a")).await.unwrap();
        store.commit(mortal("/b")).await.unwrap();
        let mut client = Client::connect(cluster.urls(), None).await.unwrap();
        let leases = client.leases().await.unwrap();
        let [lease] = leases.leases() else { panic!("{leases:?}") };
        client.lease_revoke(lease.id()).await.unwrap();
        assert_eq!(store.status().await.unwrap().keys, 0, "keys go with their lease");
        store.commit(mortal("/c")).await.unwrap();
        assert_eq!(client.leases().await.unwrap().leases().len(), 1);
        assert!(store.get(&Key::new("/c")).await.unwrap().is_some());
    });
}
