//! The end of a cluster in every phase, in virtual time: no task, no container and no store is left.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use futures::StreamExt;
use kube::api::{ListParams, WatchParams};
use orchestrator::{
    Cluster,
    client::Api,
    core::runtime::RuntimeError,
    env::{Env, Simulation},
    k8s_openapi::api::core::v1::Pod,
    runtime_sim::{Matcher, OnStop, Script, SimMachine, Verb},
    store::Store,
    store_mem::MemStore,
};
use orchestrator_testkit::wrap::{FaultRates, FaultyStore, SlowStore};

use crate::{all_had_their_turn, deployment, machines, nodes_are_ready, on_machines, running};

/// What has to be gone afterwards.
struct Watched {
    store: Weak<MemStore>,
    machines: Vec<SimMachine>,
}

/// Runs a story in virtual time, which takes a cluster's parts and ends the cluster, and counts what is left.
fn ends<F: Future<Output = ()>>(
    seed: u64,
    containers_stay: bool,
    story: impl FnOnce(Env, Arc<MemStore>, Vec<SimMachine>) -> F,
) {
    let simulation = Simulation::new(seed);
    let env = simulation.env();
    let watched = simulation.run(async {
        let (store, machines) = (Arc::new(MemStore::new(&env)), machines(&env, 2));
        let watched = Watched { store: Arc::downgrade(&store), machines: machines.clone() };
        story(env.clone(), store, machines).await;
        watched
    });
    let watched = watched.unwrap_or_else(|stuck| panic!("seed {seed}: {stuck}"));
    simulation.run(all_had_their_turn(&env)).unwrap();
    assert_eq!(simulation.tasks(), 0, "seed {seed}: tasks are left");
    assert_eq!(watched.store.strong_count(), 0, "seed {seed}: somebody holds the store");
    let left: usize = watched.machines.iter().map(|machine| machine.sandboxes().len()).sum();
    assert_eq!(left > 0, containers_stay, "seed {seed}: {left} sandboxes are left");
}

async fn start(env: &Env, store: Arc<MemStore>, machines: &[SimMachine]) -> Cluster {
    on_machines(env, machines).store(store).start().await.unwrap()
}

#[test]
fn a_start_that_is_given_up_leaves_nothing() {
    for millis in 0..60 {
        ends(millis, false, |env, store, machines| async move {
            let slow: Arc<dyn Store> = Arc::new(SlowStore::new(store, &env, Duration::from_millis(4)));
            let start = on_machines(&env, &machines).store(slow).start();
            let started = env.timeout(Duration::from_millis(millis * 4), start).await;
            drop(started);
        });
    }
}

#[test]
fn a_start_that_fails_leaves_nothing() {
    for seed in 0..20 {
        ends(seed, false, |env, store, machines| async move {
            store.close();
            assert!(on_machines(&env, &machines).store(store).start().await.is_err());
        });
        ends(seed, false, |env, store, machines| async move {
            let unknown = on_machines(&env, &machines).store(store).controllers(&["nothing of this name"]);
            assert!(unknown.start().await.is_err());
        });
    }
}

#[test]
fn a_shutdown_right_after_the_start_leaves_nothing() {
    for seed in 0..20 {
        ends(seed, false, |env, store, machines| async move {
            start(&env, store, &machines).await.shutdown().await;
        });
    }
}

#[test]
fn a_shutdown_of_a_busy_cluster_leaves_nothing() {
    for seed in 0..30 {
        ends(seed, false, |env, store, machines| async move {
            let cluster = start(&env, store, &machines).await;
            cluster.apply(&deployment("busy", 40)).await.unwrap();
            env.sleep(Duration::from_millis(env.random_below(8_000))).await;
            cluster.apply(&deployment("busy", 5)).await.unwrap();
            env.sleep(Duration::from_millis(env.random_below(200))).await;
            cluster.shutdown().await;
        });
    }
}

#[test]
fn containers_that_do_not_listen_are_ended_with_the_cluster() {
    ends(1, false, |env, store, machines| async move {
        for machine in &machines {
            machine.script(Matcher::Any, Script::forever().on_stop(OnStop::Ignore));
        }
        let cluster = start(&env, store, &machines).await;
        cluster.apply(&deployment("deaf", 4)).await.unwrap();
        running(&cluster, 4).await;
        ends_in_time(&env, cluster).await;
    });
}

#[test]
fn a_shutdown_of_a_half_dead_cluster_leaves_nothing() {
    for seed in 0..10 {
        // The store is gone: nothing can be written any more.
        ends(seed, false, |env, store, machines| async move {
            let cluster = start(&env, store.clone(), &machines).await;
            cluster.apply(&deployment("orphan", 6)).await.unwrap();
            running(&cluster, 6).await;
            store.close();
            drop(store);
            env.sleep(Duration::from_secs(env.random_below(60))).await;
            ends_in_time(&env, cluster).await;
        });
        // Most calls of the store fail.
        ends(seed, false, |env, store, machines| async move {
            let faulty = FaultyStore::new(store, &env, FaultRates::default());
            let cluster = on_machines(&env, &machines).store(Arc::new(faulty.clone())).start().await.unwrap();
            cluster.apply(&deployment("unlucky", 6)).await.unwrap();
            faulty.set_rates(FaultRates { refused_per_mille: 800, watch_ends_per_mille: 300, ..Default::default() });
            env.sleep(Duration::from_secs(env.random_below(60))).await;
            ends_in_time(&env, cluster).await;
        });
        // Nothing is answered any more, before the nodes have heard of anything.
        ends(seed, false, |env, store, machines| async move {
            let faulty = FaultyStore::new(store, &env, FaultRates::default());
            let cluster = on_machines(&env, &machines).store(Arc::new(faulty.clone())).start().await.unwrap();
            faulty.set_rates(FaultRates { refused_per_mille: 1000, ..Default::default() });
            ends_in_time(&env, cluster).await;
        });
    }
}

#[test]
fn a_machine_that_fails_does_not_hold_up_the_end() {
    for seed in 0..10 {
        ends(seed, true, |env, store, machines| async move {
            let mut cluster = start(&env, store, &machines).await;
            // Pods go to both machines only if both are there before them.
            nodes_are_ready(&cluster, 2).await;
            cluster.apply(&deployment("half", 8)).await.unwrap();
            running(&cluster, 8).await;
            assert!(machines.iter().all(|machine| !machine.sandboxes().is_empty()), "each machine has a part");
            // One agent is gone with its machine, and the runtime of the other is out of order for a while.
            cluster.kill_node("node-0").await;
            machines[1].set_not_ready(Some("out of order".to_owned()));
            for verb in [Verb::StopContainer, Verb::StopSandbox, Verb::ListSandboxes, Verb::RemoveSandbox] {
                machines[1].fail_next(verb, RuntimeError::Missing("power".to_owned()));
            }
            env.sleep(Duration::from_secs(env.random_below(120))).await;
            ends_in_time(&env, cluster).await;
            assert!(machines[1].sandboxes().is_empty(), "what could be reached is gone");
        });
    }
}

#[test]
fn dropping_or_detaching_leaves_containers_and_nothing_else() {
    for seed in 0..10 {
        for detach in [true, false] {
            ends(seed, true, |env, store, machines| async move {
                let cluster = start(&env, store, &machines).await;
                cluster.apply(&deployment("staying", 6)).await.unwrap();
                running(&cluster, 6).await;
                if detach {
                    cluster.detach().await;
                } else {
                    drop(cluster);
                }
            });
        }
    }
}

#[test]
fn watches_that_are_open_do_not_keep_a_dropped_cluster() {
    ends(1, false, |env, store, machines| async move {
        let cluster = start(&env, store, &machines).await;
        let pods: Api<Pod> = Api::all(&cluster.client());
        let version = pods.list(&ListParams::default()).await.unwrap().resource_version;
        let watch = pods.watch(&WatchParams::default(), &version).await.unwrap();
        drop((pods, cluster));
        drop(watch);
    });
}

#[test]
fn clients_of_a_cluster_that_has_ended_are_told_so() {
    ends(1, false, |env, store, machines| async move {
        let cluster = start(&env, store, &machines).await;
        let pods: Api<Pod> = Api::all(&cluster.client());
        let version = pods.list(&ListParams::default()).await.unwrap().resource_version;
        let watch = pods.watch(&WatchParams::default(), &version).await.unwrap();
        cluster.shutdown().await;
        let error = pods.list(&ListParams::default()).await.unwrap_err();
        assert_eq!(error.code(), 503, "{error}");
        let end = watch.for_each(|_| async {});
        env.timeout(Duration::from_secs(1), end).await.expect("the watch has ended");
    });
}

/// The end comes, however bad things are.
async fn ends_in_time(env: &Env, cluster: Cluster) {
    let bound = Duration::from_secs(120);
    env.timeout(bound, cluster.shutdown()).await.unwrap_or_else(|_| panic!("no end within {bound:?}"));
}
