//! Clusters to decide about, drawn by chance and small enough to read.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::{Node, Pod};
use orchestrator_core::scheduler::{PodInfo, Snapshot};
use proptest::prelude::*;
use serde_json::json;

/// A cluster, and the pods that wait in it.
#[derive(Clone, Debug)]
pub struct ClusterCase {
    /// The nodes: `n0`, `n1`, and so on.
    pub nodes: Vec<NodeCase>,
    /// The pods on nodes: `r0`, `r1`, and so on, each with the number of its node.
    pub running: Vec<(PodCase, usize)>,
    /// The pods that wait: `p0`, `p1`, and so on.
    pub waiting: Vec<PodCase>,
}

/// A node.
#[derive(Clone, Debug)]
pub struct NodeCase {
    /// CPU that pods may take, in thousandths of a core.
    pub milli_cpu: i64,
    /// Memory that pods may take, in MiB.
    pub memory_mebibytes: i64,
    /// How many pods it may have.
    pub pods: i64,
    /// Its label `zone`.
    pub zone: Option<u8>,
    /// The key and the effect of its taint.
    pub taint: Option<(u8, &'static str)>,
    /// It is closed to new pods.
    pub unschedulable: bool,
}

/// A pod.
#[derive(Clone, Debug, Default)]
pub struct PodCase {
    /// CPU that it asks for, in thousandths of a core.
    pub milli_cpu: i64,
    /// Memory that it asks for, in MiB.
    pub memory_mebibytes: i64,
    /// Its priority.
    pub priority: i32,
    /// The zone that its node selector wants.
    pub zone: Option<u8>,
    /// A zone that its required node affinity does not want.
    pub not_zone: Option<u8>,
    /// The key of the taint that it tolerates.
    pub tolerates: Option<u8>,
    /// The port of the node that it takes: address, protocol, number.
    pub port: Option<(&'static str, &'static str, i32)>,
}

/// Clusters of up to six nodes with pods on them and pods that wait.
pub fn clusters() -> impl Strategy<Value = ClusterCase> {
    (
        prop::collection::vec(node(), 0..6),
        prop::collection::vec((pod(), 0..6_usize), 0..8),
        prop::collection::vec(pod(), 1..10),
    )
        .prop_map(|(nodes, running, waiting)| {
            let count = nodes.len();
            let running = running.into_iter().filter(|_| count > 0).map(|(pod, at)| (pod, at % count.max(1))).collect();
            ClusterCase { nodes, running, waiting }
        })
}

fn node() -> impl Strategy<Value = NodeCase> {
    let effect = prop::sample::select(vec!["NoSchedule", "NoExecute", "PreferNoSchedule"]);
    (
        0..4_000_i64,
        0..4_096_i64,
        0..6_i64,
        prop::option::of(0..3_u8),
        prop::option::weighted(0.4, (0..2_u8, effect)),
        prop::bool::weighted(0.15),
    )
        .prop_map(|(milli_cpu, memory_mebibytes, pods, zone, taint, unschedulable)| NodeCase {
            milli_cpu,
            memory_mebibytes,
            pods,
            zone,
            taint,
            unschedulable,
        })
}

fn pod() -> impl Strategy<Value = PodCase> {
    let address = prop::sample::select(vec!["", "0.0.0.0", "10.0.0.1", "10.0.0.2"]);
    let protocol = prop::sample::select(vec!["TCP", "UDP"]);
    (
        prop_oneof![Just(0), 1..2_500_i64],
        prop_oneof![Just(0), 1..2_048_i64],
        0..3_i32,
        prop::option::weighted(0.3, 0..3_u8),
        prop::option::weighted(0.2, 0..3_u8),
        prop::option::weighted(0.3, 0..2_u8),
        prop::option::weighted(0.4, (address, protocol, 1..3_i32)),
    )
        .prop_map(|(milli_cpu, memory_mebibytes, priority, zone, not_zone, tolerates, port)| PodCase {
            milli_cpu,
            memory_mebibytes,
            priority,
            zone,
            not_zone,
            tolerates,
            port,
        })
}

impl NodeCase {
    /// An empty node that is open to all and has room for any pod of these cases.
    pub fn roomy() -> Self {
        Self { milli_cpu: 64_000, memory_mebibytes: 65_536, pods: 110, zone: None, taint: None, unschedulable: false }
    }

    /// The object.
    pub fn node(&self, name: &str) -> Arc<Node> {
        let taints: Vec<_> =
            self.taint.iter().map(|(key, effect)| json!({"key": format!("taint-{key}"), "effect": effect})).collect();
        let labels: BTreeMap<_, _> = self.zone.iter().map(|zone| ("zone", zone.to_string())).collect();
        let node = json!({
            "metadata": {"name": name, "labels": labels},
            "spec": {"unschedulable": self.unschedulable, "taints": taints},
            "status": {"allocatable": {
                "cpu": format!("{}m", self.milli_cpu),
                "memory": format!("{}Mi", self.memory_mebibytes),
                "pods": self.pods.to_string(),
            }},
        });
        Arc::new(serde_json::from_value(node).expect("a node"))
    }
}

impl PodCase {
    /// The object, on a node or on none.
    pub fn pod(&self, name: &str, node: Option<&str>) -> Pod {
        let ports: Vec<_> = self
            .port
            .iter()
            .map(|(address, protocol, port)| {
                json!({"containerPort": 80, "hostPort": port, "hostIP": address, "protocol": protocol})
            })
            .collect();
        let tolerations: Vec<_> =
            self.tolerates.iter().map(|key| json!({"key": format!("taint-{key}"), "operator": "Exists"})).collect();
        let selector: BTreeMap<_, _> = self.zone.iter().map(|zone| ("zone", zone.to_string())).collect();
        let mut requests = BTreeMap::new();
        if self.milli_cpu > 0 {
            requests.insert("cpu", format!("{}m", self.milli_cpu));
        }
        if self.memory_mebibytes > 0 {
            requests.insert("memory", format!("{}Mi", self.memory_mebibytes));
        }
        let mut pod = json!({
            "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}")},
            "spec": {
                "priority": self.priority,
                "nodeName": node,
                "nodeSelector": selector,
                "tolerations": tolerations,
                "containers": [{"name": "main", "ports": ports, "resources": {"requests": requests}}],
            },
        });
        if let Some(zone) = self.not_zone {
            let term =
                json!({"matchExpressions": [{"key": "zone", "operator": "NotIn", "values": [zone.to_string()]}]});
            let required = json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}});
            pod["spec"]["affinity"] = json!({"nodeAffinity": required});
        }
        serde_json::from_value(pod).expect("a pod")
    }

    /// What a scheduler sees of it while it waits.
    pub fn waiting(&self, name: &str) -> PodInfo {
        PodInfo::from(self.pod(name, None))
    }
}

impl ClusterCase {
    /// The cluster as a scheduler sees it.
    pub fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot::default();
        snapshot.set_namespace("default", Some(BTreeMap::new()));
        for (number, node) in self.nodes.iter().enumerate() {
            snapshot.set_node(node.node(&format!("n{number}")));
        }
        for (number, (pod, at)) in self.running.iter().enumerate() {
            let node = format!("n{at}");
            let pod = PodInfo::from(pod.pod(&format!("r{number}"), Some(&node)));
            snapshot.put_pod(Arc::new(pod), &node);
        }
        snapshot
    }
}
