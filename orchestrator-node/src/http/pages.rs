//! The pages of a node, of what it knows. Pure.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use orchestrator_core::{
    metrics::{Exposition, MetricType},
    runtime::{ContainerState, ContainerStats, ContainerStatus},
};
use serde_json::{Value, json};

use crate::{
    config::NodeConfig,
    limits::{LEASE_DURATION_SECONDS, NODE_STATUS_REPORT},
    pod::{self, mailbox::Shown, observed::Observed},
};

/// A pod on the node.
pub(super) struct Held {
    pub(super) pod: Arc<Pod>,
    /// As the node last showed it.
    pub(super) status: Shown,
    pub(super) observed: Arc<Observed>,
}

/// What a container uses.
pub(super) struct Usage {
    pub(super) container: String,
    pub(super) started_at: Timestamp,
    pub(super) stats: ContainerStats,
}

impl Held {
    /// Its containers that run, and since when.
    pub(super) fn running(&self) -> impl Iterator<Item = (&ContainerStatus, Timestamp)> {
        self.observed.containers().iter().filter_map(|container| match container.state {
            ContainerState::Running { started_at } => Some((container, started_at)),
            _ => None,
        })
    }

    fn reference(&self) -> Value {
        let (name, namespace, uid) = (pod::name(&self.pod), pod::namespace(&self.pod), pod::uid(&self.pod));
        json!({"name": name, "namespace": namespace, "uid": uid})
    }
}

fn list(items: Vec<Value>) -> Value {
    json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})
}

/// `/pods`: all that the node looks after, with the statuses that it shows.
pub(super) fn pods(all: &[Held]) -> Value {
    list(all.iter().map(shown).collect())
}

fn shown(held: &Held) -> Value {
    let mut tree = serde_json::to_value(&*held.pod).unwrap_or_default();
    if let Some(members) = tree.as_object_mut() {
        // Items of lists do not say what they are.
        members.retain(|name, _| !matches!(name.as_str(), "kind" | "apiVersion"));
        members.insert("status".to_owned(), serde_json::to_value(&*held.status).unwrap_or_default());
    }
    tree
}

/// `/runningpods/`: what the runtime holds, whatever the API says.
pub(super) fn running_pods(all: &[Held]) -> Value {
    let of = |held: &Held| {
        let containers: Vec<Value> = held
            .running()
            .map(|(container, _)| json!({"name": container.key.name, "image": container.image, "resources": {}}))
            .collect();
        (!containers.is_empty())
            .then(|| json!({"metadata": held.reference(), "spec": {"containers": containers}, "status": {}}))
    };
    list(all.iter().filter_map(of).collect())
}

/// `/configz`: the settings that a node has, by the kubelet's names.
pub(super) fn configuration(config: &NodeConfig) -> Value {
    let most_pods = config.capacity.get("pods").and_then(|quantity| quantity.0.parse::<i64>().ok());
    json!({"kubeletconfig": {
        "kind": "KubeletConfiguration",
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "clusterDNS": config.cluster_dns,
        "clusterDomain": config.cluster_domain,
        "maxPods": most_pods,
        "podCIDR": config.pod_cidr,
        "providerID": config.provider_id,
        "registerWithTaints": config.taints,
        "nodeLeaseDurationSeconds": LEASE_DURATION_SECONDS,
        "nodeStatusReportFrequency": format!("{}s", NODE_STATUS_REPORT.as_secs()),
        "shutdownGracePeriod": format!("{}s", config.shutdown_grace.as_secs()),
    }})
}

/// `/metrics`, by the kubelet's names.
pub(super) fn metrics(node: &str, all: &[Held]) -> Exposition {
    let mut out = Exposition::default();
    out.family("kubelet_node_name", MetricType::Gauge, "The node's name. The count is always 1.");
    out.sample("kubelet_node_name", &[("node", node)], 1);
    out.family("kubelet_running_pods", MetricType::Gauge, "Number of pods that have a running pod sandbox");
    out.sample("kubelet_running_pods", &[], all.iter().filter(|held| held.observed.ready_sandbox().is_some()).count());
    out.family("kubelet_running_containers", MetricType::Gauge, "Number of containers, by what they do");
    for (name, is_meant) in STATES {
        let containers = all.iter().flat_map(|held| held.observed.containers());
        let count = containers.filter(|container| is_meant(&container.state)).count();
        out.sample("kubelet_running_containers", &[("container_state", name)], count);
    }
    out
}

type IsState = fn(&ContainerState) -> bool;

const STATES: [(&str, IsState); 4] = [
    ("created", |state| matches!(state, ContainerState::Created)),
    ("exited", |state| matches!(state, ContainerState::Exited { .. })),
    ("running", |state| matches!(state, ContainerState::Running { .. })),
    ("unknown", |state| matches!(state, ContainerState::Unknown)),
];

/// `/metrics/resource`, which the metrics server reads.
pub(super) fn resource_metrics(all: &[(Held, Vec<Usage>)]) -> Exposition {
    let mut out = Exposition::default();
    let mut family = |name: &str, of: MetricType, help: &str, value: &dyn Fn(&Usage) -> f64| {
        out.family(name, of, help);
        for (held, used) in all {
            let (namespace, pod) = (pod::namespace(&held.pod), pod::name(&held.pod));
            for usage in used {
                let labels = [("container", usage.container.as_str()), ("namespace", namespace), ("pod", pod)];
                out.sample(name, &labels, value(usage));
            }
        }
    };
    let cpu = "Cumulative cpu time consumed by the container in core-seconds";
    family("container_cpu_usage_seconds_total", MetricType::Counter, cpu, &|usage| {
        usage.stats.cpu_nanoseconds as f64 / 1e9
    });
    let memory = "Current working set of the container in bytes";
    family("container_memory_working_set_bytes", MetricType::Gauge, memory, &|usage| {
        usage.stats.memory_working_set_bytes as f64
    });
    let start = "Start time of the container since unix epoch in seconds";
    family("container_start_time_seconds", MetricType::Gauge, start, &|usage| usage.started_at.as_second() as f64);
    out
}

/// `/stats/summary`: what pods and their containers use.
pub(super) fn summary(node: &str, all: &[(Held, Vec<Usage>)]) -> Value {
    let pods: Vec<Value> = all.iter().map(|(held, used)| pod_summary(held, used)).collect();
    json!({"node": {"nodeName": node}, "pods": pods})
}

fn pod_summary(held: &Held, used: &[Usage]) -> Value {
    let cpu =
        |nanoseconds: u64, time: Timestamp| json!({"time": time.to_string(), "usageCoreNanoSeconds": nanoseconds});
    let memory = |bytes: u64, time: Timestamp| json!({"time": time.to_string(), "workingSetBytes": bytes});
    let containers: Vec<Value> = used
        .iter()
        .map(|Usage { container, started_at, stats }| {
            json!({
                "name": container,
                "startTime": started_at.to_string(),
                "cpu": cpu(stats.cpu_nanoseconds, stats.timestamp),
                "memory": memory(stats.memory_working_set_bytes, stats.timestamp),
            })
        })
        .collect();
    let mut summary = json!({"podRef": held.reference(), "containers": containers});
    if let Some(sandbox) = held.observed.newest_sandbox() {
        summary["startTime"] = sandbox.created_at.to_string().into();
    }
    if let Some(time) = used.iter().map(|usage| usage.stats.timestamp).max() {
        let sum = |of: fn(&ContainerStats) -> u64| used.iter().map(|usage| of(&usage.stats)).sum();
        summary["cpu"] = cpu(sum(|stats| stats.cpu_nanoseconds), time);
        summary["memory"] = memory(sum(|stats| stats.memory_working_set_bytes), time);
        let processes: u64 = sum(|stats| stats.pids);
        summary["process_stats"] = json!({ "process_count": processes });
    }
    summary
}
