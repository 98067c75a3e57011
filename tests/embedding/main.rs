//! Clusters as parts of a host program: many at once, ended in every phase, dropped, and with parts that panic.

mod census;
mod endings;
mod neighbours;
mod panics;
mod planes;

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use orchestrator::{
    Cluster, ClusterBuilder, NodeSpec,
    env::Env,
    k8s_openapi::api::core::v1::{Node, Pod},
    runtime_sim::{MachineConfig, SimMachine},
};

/// How long anything may take that is bound to happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// A cluster of some simulated machines.
fn on_machines(env: &Env, machines: &[SimMachine]) -> ClusterBuilder {
    let mut builder = Cluster::builder().env(env);
    for (index, machine) in machines.iter().enumerate() {
        builder = builder.node(NodeSpec::new(format!("node-{index}"), Arc::new(machine.runtime())));
    }
    builder
}

fn machines(env: &Env, count: usize) -> Vec<SimMachine> {
    (0..count).map(|_| SimMachine::new(env, MachineConfig::default())).collect()
}

/// A deployment of this many pods.
fn deployment(name: &str, replicas: usize) -> String {
    format!(
        "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: {name}}}, spec: {{replicas: {replicas},
          selector: {{matchLabels: {{app: {name}}}}}, template: {{metadata: {{labels: {{app: {name}}}}},
          spec: {{containers: [{{name: main, image: {name}}}]}}}}}}}}"
    )
}

/// Waits until so many pods of the namespace `default` run.
async fn running(cluster: &Cluster, count: usize) -> Vec<Arc<Pod>> {
    let runs = |pod: &&Arc<Pod>| pod.status.as_ref().and_then(|it| it.phase.as_deref()) == Some("Running");
    cluster.wait_until("default", PATIENCE, |pods| pods.iter().filter(runs).count() == count).await.unwrap()
}

/// Waits until so many nodes are ready, and nothing keeps pods from them any more.
async fn nodes_are_ready(cluster: &Cluster, count: usize) {
    let is_ready = |node: &&Arc<Node>| {
        let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        let tainted = node.spec.as_ref().and_then(|spec| spec.taints.as_ref()).is_some_and(|taints| !taints.is_empty());
        !tainted && conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
    };
    cluster.wait_until("", PATIENCE, |nodes| nodes.iter().filter(is_ready).count() == count).await.unwrap();
}

/// In virtual time: resolves when no task has anything to do any more. Those that were cancelled are gone by then.
async fn all_had_their_turn(env: &Env) {
    env.sleep(Duration::from_nanos(1)).await;
}

async fn shut_down(clusters: Vec<Cluster>) {
    join_all(clusters.into_iter().map(Cluster::shutdown)).await;
}
