//! Where pods are: one node each, one of each identity, within what nodes have.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Node, Pod};
use orchestrator_core::{meta, scheduler::Resources};

use crate::snapshot::{Snapshot, Typed};

/// Pods with running containers on more than one machine.
pub(super) fn pods_on_two_nodes(snapshot: &Snapshot) -> Vec<String> {
    let mut places: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (node, pod) in running(snapshot) {
        places.entry(&pod.uid).or_default().insert(node);
    }
    let doubled = places.into_iter().filter(|(_, nodes)| nodes.len() > 1);
    doubled.map(|(uid, nodes)| format!("pod {uid} runs on {nodes:?}")).collect()
}

/// Names under which two pods run at the same time.
pub(super) fn doubled_identities(snapshot: &Snapshot) -> Vec<String> {
    let mut holders: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
    for (_, pod) in running(snapshot) {
        holders.entry((&pod.namespace, &pod.name)).or_default().insert(&pod.uid);
    }
    let doubled = holders.into_iter().filter(|(_, uids)| uids.len() > 1);
    doubled.map(|((namespace, name), uids)| format!("{namespace}/{name} runs as {uids:?}")).collect()
}

/// Nodes whose pods ask for more than the node has.
pub(super) fn overcommitted_nodes(snapshot: &Snapshot) -> Vec<String> {
    let mut asked: BTreeMap<&str, Resources> = BTreeMap::new();
    for object in snapshot.objects.values() {
        let Typed::Pod(pod) = &object.typed else { continue };
        if let Some(node) = node_of(pod).filter(|_| !is_terminal(pod)) {
            let asked = asked.entry(node).or_default();
            asked.add(object.requests());
            asked.pods += 1;
        }
    }
    let mut found = Vec::new();
    for node in snapshot.nodes() {
        let Some(asked) = asked.get(meta::name(&node.metadata)) else { continue };
        let has = allocatable(node);
        let names = ["cpu", "memory", "ephemeral-storage", "pods"].into_iter();
        for name in names.chain(asked.scalar.keys().map(String::as_str)) {
            if asked.get(name) > has.get(name) {
                let (name, node) = (name, meta::name(&node.metadata));
                found.push(format!("{node} has {} {name}, its pods ask for {}", has.get(name), asked.get(name)));
            }
        }
    }
    found
}

/// Pods whose containers run on another machine than the API says.
pub(super) fn misplaced_pods(snapshot: &Snapshot) -> Vec<String> {
    let bound: BTreeMap<&str, Option<&str>> =
        snapshot.pods().map(|pod| (meta::uid(&pod.metadata), node_of(pod))).collect();
    let misplaced = running(snapshot).filter(|(node, pod)| bound.get(&*pod.uid).is_some_and(|at| *at != Some(*node)));
    misplaced.map(|(node, pod)| format!("{}/{} runs on {node}", pod.namespace, pod.name)).collect()
}

/// Nodes that are not ready, or that still carry a taint of a time when they were not.
pub(super) fn unready_nodes(snapshot: &Snapshot) -> Vec<String> {
    let mut found = Vec::new();
    for node in snapshot.nodes() {
        let name = meta::name(&node.metadata);
        let mut conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
        if !conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True") {
            found.push(format!("{name} is not ready"));
        }
        let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
        let trouble = taints.filter(|taint| taint.key.starts_with("node.kubernetes.io/"));
        found.extend(trouble.map(|taint| format!("{name} has the taint {}:{}", taint.key, taint.effect)));
    }
    found
}

/// Pods that are not ready, or bound to no node that exists.
pub(super) fn unready_pods(snapshot: &Snapshot) -> Vec<String> {
    let nodes: BTreeSet<&str> = snapshot.nodes().map(|node| meta::name(&node.metadata)).collect();
    let mut found = Vec::new();
    for pod in snapshot.pods() {
        let key = orchestrator_core::object::ObjectKey::of(&pod.metadata);
        match node_of(pod) {
            Some(node) if nodes.contains(node) => {}
            other => found.push(format!("{key} is bound to {other:?}")),
        }
        if !is_ready(pod) {
            let phase = pod.status.as_ref().and_then(|status| status.phase.clone());
            found.push(format!("{key} is {phase:?} and not ready"));
        }
    }
    found
}

/// What runs though no pod is bound there, and pods that do not run where they are bound.
pub(super) fn strays(snapshot: &Snapshot) -> Vec<String> {
    let mut wanted: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
    for pod in snapshot.pods() {
        let containers = pod.spec.iter().flat_map(|spec| spec.containers.iter().map(|container| &*container.name));
        if let Some(node) = node_of(pod) {
            wanted.insert((node, meta::uid(&pod.metadata)), containers.collect());
        }
    }
    let mut found = Vec::new();
    for (node, pods) in &snapshot.machines {
        for pod in pods {
            let running: BTreeSet<&str> = pod.running.iter().map(String::as_str).collect();
            match wanted.remove(&(&**node, &*pod.uid)) {
                Some(wanted) if wanted == running => {}
                Some(wanted) => found.push(format!("{}/{} runs {running:?} of {wanted:?}", pod.namespace, pod.name)),
                None => found.push(format!("{}/{} is still on {node}", pod.namespace, pod.name)),
            }
        }
    }
    found.extend(wanted.keys().map(|(node, uid)| format!("pod {uid} is not on {node}")));
    found
}

fn running(snapshot: &Snapshot) -> impl Iterator<Item = (&str, &crate::snapshot::PodOnMachine)> {
    snapshot
        .machines
        .iter()
        .flat_map(|(node, pods)| pods.iter().map(move |pod| (node.as_str(), pod)))
        .filter(|(_, pod)| !pod.running.is_empty())
}

fn allocatable(node: &Node) -> Resources {
    let status = node.status.as_ref();
    let written = status.and_then(|status| status.allocatable.as_ref().or(status.capacity.as_ref()));
    written.map(Resources::from_written).unwrap_or_default()
}

pub(super) fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}

pub(super) fn is_terminal(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

pub(super) fn is_ready(pod: &Pod) -> bool {
    let mut conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
