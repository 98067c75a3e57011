//! Pods as `kubectl get pods --all-namespaces -o wide` shows them.

use std::sync::Arc;

use orchestrator::k8s_openapi::api::core::v1::{ContainerStatus, Pod};

pub(crate) fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

pub(crate) fn node(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or("<none>")
}

pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

pub(crate) fn restarts(pod: &Pod) -> i32 {
    containers(pod).map(|container| container.restart_count).sum()
}

fn containers(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten())
}

/// What stands under STATUS: why a container does not run, or the phase.
fn status(pod: &Pod) -> String {
    if pod.metadata.deletion_timestamp.is_some() {
        return "Terminating".to_owned();
    }
    let waiting = containers(pod).find_map(|container| {
        let state = container.state.as_ref()?;
        let waiting = state.waiting.as_ref().and_then(|waiting| waiting.reason.clone());
        waiting.or_else(|| state.terminated.as_ref().and_then(|terminated| terminated.reason.clone()))
    });
    let phase = || pod.status.as_ref().and_then(|status| status.phase.clone());
    waiting.or_else(phase).unwrap_or_else(|| "Unknown".to_owned())
}

pub(crate) fn header() {
    let [namespace, name, ready, status, restarts, ip] = ["NAMESPACE", "NAME", "READY", "STATUS", "RESTARTS", "IP"];
    println!("\n{namespace:<10} {name:<38} {ready:<6} {status:<18} {restarts:<9} {ip:<13} NODE");
}

pub(crate) fn row(pod: &Pod) -> String {
    let wanted = pod.spec.as_ref().map_or(0, |spec| spec.containers.len());
    let ready = format!("{}/{wanted}", containers(pod).filter(|container| container.ready).count());
    let (name, status, restarts, node) = (name(pod), status(pod), restarts(pod), node(pod));
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let ip = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref()).unwrap_or("<none>");
    format!("{namespace:<10} {name:<38} {ready:<6} {status:<18} {restarts:<9} {ip:<13} {node}")
}

pub(crate) fn print(pods: &[Arc<Pod>]) {
    header();
    pods.iter().for_each(|pod| println!("{}", row(pod)));
}
