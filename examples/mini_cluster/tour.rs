//! The tour: what the manifests ask for becomes true, and stays true whatever happens to it.

use std::{cell::RefCell, collections::BTreeMap, sync::Arc, time::Duration};

use orchestrator::{
    Cluster,
    client::Api,
    k8s_openapi::api::{
        apps::v1::{Deployment, ReplicaSet},
        core::v1::{Node, Pod},
    },
    kube::api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::{
    Failure,
    nodes::Nodes,
    table::{self, is_ready, name, node, restarts},
};

const PATIENCE: Duration = Duration::from_secs(120);
const DEPLOYMENT: &str = "my-first-deployment";

const MANIFESTS: [(&str, &str); 7] = [
    ("pod.yaml", include_str!("../manifests/pod.yaml")),
    ("namespace.yaml", include_str!("../manifests/namespace.yaml")),
    ("pod-in-namespace.yaml", include_str!("../manifests/pod-in-namespace.yaml")),
    ("replicaset.yaml", include_str!("../manifests/replicaset.yaml")),
    ("deployment.yaml", include_str!("../manifests/deployment.yaml")),
    ("services.yaml", include_str!("../manifests/services.yaml")),
    ("statefulset.yaml", include_str!("../manifests/statefulset.yaml")),
];

pub(crate) async fn run(cluster: &mut Cluster, nodes: &Nodes) -> Result<(), Failure> {
    apply_manifests(cluster).await?;
    watch_pods(cluster, |pods| ready(pods, "") == 11 && pods.len() == 11).await?;
    self_healing(cluster, nodes).await?;
    lost_node(cluster, nodes).await?;
    scaling(cluster).await?;
    rolling_update(cluster).await?;
    let pods = cluster.wait_until::<Pod>("", PATIENCE, |pods| ready(pods, "") == 13 && pods.len() == 13).await?;
    table::print(&pods);
    Ok(())
}

async fn apply_manifests(cluster: &Cluster) -> Result<(), Failure> {
    for (file, text) in MANIFESTS {
        for object in cluster.apply(text).await? {
            let tree = object.to_tree()?;
            println!("{file}: {} {} created", tree["kind"].as_str().unwrap_or_default(), tree["metadata"]["name"]);
        }
    }
    Ok(())
}

async fn self_healing(cluster: &Cluster, nodes: &Nodes) -> Result<(), Failure> {
    println!("\n== self-healing: a container is killed behind the cluster's back, and started again");
    let api: Api<Pod> = Api::namespaced(&cluster.client(), "default");
    let pod = api.get("my-first-pod").await?;
    let index = Nodes::index(node(&pod)).ok_or("the pod is on no node")?;
    let runtime = nodes.runtime(index);
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    let sandboxes = runtime.list_sandboxes().await?;
    let sandbox = sandboxes.iter().find(|sandbox| sandbox.key.pod_uid == uid).ok_or("the pod has no sandbox")?;
    let containers = runtime.list_containers().await?;
    let container = containers.iter().find(|it| it.sandbox == sandbox.id).ok_or("the pod has no container")?;
    runtime.stop_container(&container.id, Duration::ZERO).await?;
    watch_pods(cluster, |pods| {
        pods.iter().any(|pod| name(pod) == "my-first-pod" && restarts(pod) == 1 && is_ready(pod))
    })
    .await?;

    println!("\n== self-healing: a pod is deleted, and its ReplicaSet makes another");
    let pods = cluster.wait_until::<Pod>("default", PATIENCE, |pods| ready(pods, "high-available-hello") == 3).await?;
    let victim = pods.iter().map(|pod| name(pod)).find(|name| name.starts_with("high-available-hello"));
    let victim = victim.ok_or("no pod of the ReplicaSet")?;
    api.delete(victim, &DeleteParams::default()).await?;
    watch_pods(cluster, |pods| pods.iter().all(|pod| name(pod) != victim) && ready(pods, "high-available-hello") == 3)
        .await
}

async fn lost_node(cluster: &mut Cluster, nodes: &Nodes) -> Result<(), Failure> {
    println!("\n== high availability: a node stops, and its pods move to the others");
    let lost = nodes.specs().pop().ok_or("no node")?;
    let lost_name = lost.name().to_owned();
    cluster.kill_node(&lost_name).await;
    cluster
        .wait_until::<Node>("", PATIENCE, |nodes| nodes.iter().filter(|node| node_is_ready(node)).count() == 2)
        .await?;
    println!("{lost_name} is NotReady");
    let elsewhere = |pods: &[Arc<Pod>], prefix: &str| {
        let pods = pods.iter().filter(|pod| name(pod).starts_with(prefix) && is_ready(pod));
        pods.filter(|pod| node(pod) != lost_name && pod.metadata.deletion_timestamp.is_none()).count()
    };
    watch_pods(cluster, |pods| elsewhere(pods, "high-available-hello") == 3 && elsewhere(pods, DEPLOYMENT) == 3)
        .await?;

    println!("\n== the node comes back, and ends what is no longer wanted of it");
    cluster.add_node(lost).await;
    // A Pod without a controller that was evicted is gone for good.
    watch_pods(cluster, |pods| {
        pods.iter().all(|pod| is_ready(pod) && pod.metadata.deletion_timestamp.is_none())
            && ready(pods, "my-first-statefulset") == 3
    })
    .await?;
    for file in ["pod.yaml", "pod-in-namespace.yaml"] {
        if let Some((_, text)) = MANIFESTS.iter().find(|(known, _)| *known == file) {
            cluster.apply(text).await?;
        }
    }
    Ok(())
}

async fn scaling(cluster: &Cluster) -> Result<(), Failure> {
    println!("\n== scaling: the Deployment from 3 to 5");
    patch_deployment(cluster, json!({"spec": {"replicas": 5}})).await?;
    rolled_out(cluster, 5).await
}

async fn rolling_update(cluster: &Cluster) -> Result<(), Failure> {
    println!("\n== rolling update: nginx:1.7.9 to nginx:1.9.1");
    let first = active_set(cluster).await?;
    let template = first.spec.as_ref().and_then(|spec| spec.template.clone());
    let update = json!({"spec": {"template": {"spec": {"containers": [{"name": "nginx", "image": "nginx:1.9.1"}]}}}});
    patch_deployment(cluster, update).await?;
    rolled_out(cluster, 5).await?;

    println!("\n== undo: the template of the revision before, as `kubectl rollout undo` takes it");
    let mut template = serde_json::to_value(template)?;
    if let Some(labels) = template["metadata"]["labels"].as_object_mut() {
        labels.remove("pod-template-hash");
    }
    let undo = json!([{"op": "replace", "path": "/spec/template", "value": template}]);
    let patch = Patch::<()>::Json(serde_json::from_value(undo)?);
    deployments(cluster).patch(DEPLOYMENT, &PatchParams::default(), &patch).await?;
    rolled_out(cluster, 5).await?;
    if active_set(cluster).await?.metadata.name != first.metadata.name {
        return Err("the undo did not bring the first ReplicaSet back".into());
    }
    println!("the ReplicaSet {} serves again", first.metadata.name.as_deref().unwrap_or_default());
    Ok(())
}

/// Prints each pod's row whenever it changes, until the pods of all namespaces are as the condition says.
async fn watch_pods(cluster: &Cluster, done: impl Fn(&[Arc<Pod>]) -> bool) -> Result<(), Failure> {
    table::header();
    let shown = RefCell::new(BTreeMap::new());
    let look = |pods: &[Arc<Pod>]| {
        for pod in pods {
            let row = table::row(pod);
            if shown.borrow_mut().insert(pod.metadata.uid.clone(), row.clone()).as_ref() != Some(&row) {
                println!("{row}");
            }
        }
        done(pods)
    };
    cluster.wait_until::<Pod>("", PATIENCE, look).await?;
    Ok(())
}

fn ready(pods: &[Arc<Pod>], prefix: &str) -> usize {
    pods.iter().filter(|pod| name(pod).starts_with(prefix) && is_ready(pod)).count()
}

fn node_is_ready(node: &Node) -> bool {
    let mut conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn deployments(cluster: &Cluster) -> Api<Deployment> {
    Api::namespaced(&cluster.client(), "default")
}

async fn patch_deployment(cluster: &Cluster, patch: Value) -> Result<(), Failure> {
    deployments(cluster).patch(DEPLOYMENT, &PatchParams::default(), &Patch::Strategic(patch)).await?;
    Ok(())
}

/// Waits until a rollout is complete, as `kubectl rollout status` sees it.
async fn rolled_out(cluster: &Cluster, replicas: i32) -> Result<(), Failure> {
    let complete = |deployment: &Arc<Deployment>| {
        let Some(status) = &deployment.status else { return false };
        status.observed_generation == deployment.metadata.generation
            && status.replicas == Some(replicas)
            && status.updated_replicas == Some(replicas)
            && status.available_replicas == Some(replicas)
    };
    cluster.wait_until::<Deployment>("default", PATIENCE, |deployments| deployments.iter().all(complete)).await?;
    println!("{replicas} of {replicas} replicas are up to date and available");
    Ok(())
}

/// The Deployment's ReplicaSet that has pods.
async fn active_set(cluster: &Cluster) -> Result<Arc<ReplicaSet>, Failure> {
    let api: Api<ReplicaSet> = Api::namespaced(&cluster.client(), "default");
    let sets = api.list(&Default::default()).await?.items;
    let active = |set: &Arc<ReplicaSet>| {
        let replicas = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0);
        replicas > 0 && set.metadata.name.as_ref().is_some_and(|name| name.starts_with(DEPLOYMENT))
    };
    Ok(sets.into_iter().find(active).ok_or("the Deployment has no active ReplicaSet")?)
}
