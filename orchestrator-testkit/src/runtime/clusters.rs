//! Many pods, and several clusters on one machine.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::future::join_all;
use orchestrator_core::{env::Env, runtime::SandboxState};

use super::{
    Program, Workbench,
    stage::{Stage, exit, sandbox},
};
use crate::harness::Outcome;

/// As many sandboxes as a node has, made at once, are all ready and have addresses of their own; they go at once, too.
pub async fn many_sandboxes_at_once(workbench: &dyn Workbench, env: &Env) -> Outcome {
    let stage = Stage::new(workbench, env);
    let configs: Vec<_> = (0..workbench.crowd()).map(|number| sandbox(&format!("pod-{number}"))).collect();
    let made = join_all(configs.iter().map(|config| stage.runtime.run_sandbox(config))).await;
    let pods: Vec<_> = made.into_iter().map(|pod| pod.expect("a sandbox")).collect();
    assert!(pods.iter().all(|pod| pod.state == SandboxState::Ready));
    let addresses: BTreeSet<_> = pods.iter().flat_map(|pod| pod.addresses.iter().copied()).collect();
    let given: usize = pods.iter().map(|pod| pod.addresses.len()).sum();
    assert_eq!(addresses.len(), given, "no address is given twice");
    let listed = stage.runtime.list_sandboxes().await.unwrap();
    assert!(listed.windows(2).all(|pair| pair[0].key < pair[1].key), "in order of their keys");
    assert_eq!(listed.len(), pods.len());

    let ends = join_all(pods.iter().zip((0..7).cycle()).map(async |(pod, code)| {
        let id = stage.start(pod, &format!("ends-with-{code}"), &exit(code)).await;
        (code, stage.ended(&id).await.exit_code())
    }));
    for (asked, told) in ends.await {
        assert_eq!(told, Some(asked));
    }
    for removed in join_all(pods.iter().map(|pod| stage.runtime.remove_sandbox(&pod.id))).await {
        removed.unwrap();
    }
    assert!(stage.runtime.list_sandboxes().await.unwrap().is_empty());
    assert!(stage.runtime.list_containers().await.unwrap().is_empty());
    Outcome::Held
}

/// Clusters on one machine do not see each other's pods, whatever their names are, nor remove them.
pub async fn clusters_never_meet(workbench: &dyn Workbench, env: &Env) -> Outcome {
    let Some(other) = workbench.neighbour() else { return Outcome::Skipped("several clusters on one machine") };
    let stage = Stage::new(workbench, env);
    let pod = stage.pod("a").await;
    let id = stage.ready(&pod, "main", &Program::Deaf).await;
    assert!(other.list_sandboxes().await.unwrap().is_empty());
    assert!(other.list_containers().await.unwrap().is_empty());

    // The same pod, to the last word, is another one there.
    let theirs = Stage { runtime: Arc::clone(&other), ..Stage::new(workbench, env) };
    let twin = theirs.pod("a").await;
    let twins = theirs.start(&twin, "main", &exit(3)).await;
    assert_eq!(theirs.ended(&twins).await.exit_code(), Some(3));
    assert_eq!(other.list_containers().await.unwrap().len(), 1);
    assert_eq!(stage.runtime.list_containers().await.unwrap().len(), 1);
    assert!(stage.state(&id).await.is_running());
    other.remove_sandbox(&twin.id).await.unwrap();
    assert!(other.list_sandboxes().await.unwrap().is_empty());
    assert!(stage.state(&id).await.is_running(), "what is another cluster's is left alone");
    stage.runtime.stop_container(&id, Duration::ZERO).await.unwrap();
    stage.runtime.remove_sandbox(&pod.id).await.unwrap();
    Outcome::Held
}
