//! The memory store, bare and wrapped, keeps the contract of a store.

use std::{sync::Arc, time::Duration};

use orchestrator_core::{
    env::Env,
    store::{Batch, Key, KeyRange, Revision, Store, StoreError, WatchOptions},
};
use orchestrator_store_mem::{Limits, MemStore};
use orchestrator_testkit::{
    store_contract,
    wrap::{FaultRates, FaultyStore, MeteredStore, PrefixedStore, SlowStore},
};

fn memory(env: &Env) -> Arc<dyn Store> {
    Arc::new(MemStore::new(env))
}

store_contract!(bare, simulated, memory);
store_contract!(bare_on_threads, real, |env: &Env| -> Arc<dyn Store> {
    let limits = Limits { bookmark_interval: Duration::from_millis(20), ..Limits::default() };
    Arc::new(MemStore::with_limits(env, limits))
});
store_contract!(slow, simulated, |env: &Env| -> Arc<dyn Store> {
    Arc::new(SlowStore::new(memory(env), env, Duration::from_millis(3)))
});
store_contract!(faultless, simulated, |env: &Env| -> Arc<dyn Store> {
    Arc::new(FaultyStore::new(memory(env), env, FaultRates::default()))
});
store_contract!(prefixed, simulated, |env: &Env| -> Arc<dyn Store> {
    Arc::new(PrefixedStore::new(memory(env), "/clusters/a"))
});
store_contract!(metered, simulated, |env: &Env| -> Arc<dyn Store> { Arc::new(MeteredStore::new(memory(env), env)) });

/// Faults are errors, and after an answer that was lost the store has the commit or has it not.
#[test]
fn faults_leave_the_store_whole() {
    let simulation = orchestrator_core::env::Simulation::new(1);
    let env = simulation.env();
    let inner = memory(&env);
    let rates = FaultRates {
        refused_per_mille: 200,
        answer_lost_per_mille: 200,
        watch_ends_per_mille: 100,
        watch_lags_per_mille: 100,
    };
    let store = FaultyStore::new(inner.clone(), &env, rates);
    let run = simulation.run(async {
        let (mut refused, mut lost, mut ended) = (0, 0, 0);
        for round in 0..500_u32 {
            let key = Key::new(format!("/{round}"));
            let before = inner.status().await.unwrap().revision;
            match store.commit(Batch::create(key.clone(), round.to_string().into())).await {
                Ok(revision) => assert_eq!(revision, Revision(before.0 + 1)),
                Err(StoreError::Unavailable { .. }) => match inner.get(&key).await.unwrap() {
                    Some(_) => lost += 1,
                    None => refused += 1,
                },
                Err(other) => panic!("{other}"),
            }
            let options = WatchOptions { after: Some(before), bookmarks: false };
            if let Ok(mut watch) = store.watch(KeyRange::prefix("/"), options).await {
                let told = futures::FutureExt::now_or_never(futures::StreamExt::next(&mut watch));
                ended += u32::from(matches!(told, Some(None | Some(Err(StoreError::Lagged)))));
            }
        }
        (refused, lost, ended)
    });
    let (refused, lost, ended) = run.unwrap();
    assert!(refused > 50 && lost > 50 && ended > 20, "{refused} refused, {lost} lost, {ended} ended");
}
