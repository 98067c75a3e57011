//! A pod with what scheduling needs of it, worked out once.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    ops::Deref,
    sync::Arc,
};

use k8s_openapi::{
    api::core::v1::{Pod, PodAffinityTerm, PodSpec, WeightedPodAffinityTerm},
    apimachinery::pkg::apis::meta::v1::LabelSelector as Written,
};

use super::resources::{Resources, pod_requests, usual_requests};
use crate::{object::ObjectKey, selector::LabelSelector};

/// A pod with what scheduling needs of it, worked out once. It is the pod wherever one is expected.
#[derive(Clone, Default)]
pub struct PodInfo {
    pod: Arc<Pod>,
    key: ObjectKey,
    requests: Resources,
    usual_requests: Resources,
    host_ports: Vec<HostPort>,
    affinity: Affinity,
}

/// A port of the node that a pod takes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    /// The address; `0.0.0.0` for all.
    pub address: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// The number.
    pub port: i32,
}

/// A pod's wishes about the pods near it.
#[derive(Clone, Debug, Default)]
pub struct Affinity {
    /// Pods that must be near.
    pub required: Vec<AffinityTerm>,
    /// Pods that should be near, with weights.
    pub preferred: Vec<(i64, AffinityTerm)>,
    /// Pods that must not be near.
    pub anti_required: Vec<AffinityTerm>,
    /// Pods that should not be near, with weights.
    pub anti_preferred: Vec<(i64, AffinityTerm)>,
}

/// Which pods, and how near.
#[derive(Clone, Debug)]
pub struct AffinityTerm {
    /// Namespaces by name.
    pub namespaces: BTreeSet<String>,
    /// Namespaces by label; `None` for none.
    pub namespace_selector: Option<LabelSelector>,
    /// The pods' labels; `None` for no pods.
    pub selector: Option<LabelSelector>,
    /// The label of nodes that are near each other if they have the same value.
    pub topology_key: String,
}

impl fmt::Debug for PodInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PodInfo({})", self.key)
    }
}

impl Deref for PodInfo {
    type Target = Pod;

    fn deref(&self) -> &Pod {
        &self.pod
    }
}

impl From<Pod> for PodInfo {
    fn from(pod: Pod) -> Self {
        Self::new(Arc::new(pod))
    }
}

impl PodInfo {
    /// Works a pod out.
    pub fn new(pod: Arc<Pod>) -> Self {
        Self {
            key: ObjectKey::of(&pod.metadata),
            requests: pod_requests(&pod),
            usual_requests: usual_requests(&pod),
            host_ports: pod.spec.as_ref().map(host_ports).unwrap_or_default(),
            affinity: Affinity::of(&pod),
            pod,
        }
    }

    /// The pod.
    pub fn pod(&self) -> &Arc<Pod> {
        &self.pod
    }

    /// Namespace and name.
    pub fn key(&self) -> &ObjectKey {
        &self.key
    }

    /// Its UID; empty if it has none.
    pub fn uid(&self) -> &str {
        self.pod.metadata.uid.as_deref().unwrap_or_default()
    }

    /// Its labels.
    pub fn labels(&self) -> &BTreeMap<String, String> {
        const NONE: &BTreeMap<String, String> = &BTreeMap::new();
        self.pod.metadata.labels.as_ref().unwrap_or(NONE)
    }

    /// Its priority; 0 if it has none.
    pub fn priority(&self) -> i32 {
        self.pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0)
    }

    /// The node it has been given; `None` or empty otherwise.
    pub fn node_name(&self) -> Option<&str> {
        self.pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
    }

    /// The node that was promised to it.
    pub fn nominated_node_name(&self) -> Option<&str> {
        self.pod.status.as_ref()?.nominated_node_name.as_deref().filter(|name| !name.is_empty())
    }

    /// Whether its deletion has been asked for.
    pub fn is_terminating(&self) -> bool {
        self.pod.metadata.deletion_timestamp.is_some()
    }

    /// What it takes from its node.
    pub fn requests(&self) -> &Resources {
        &self.requests
    }

    /// What it takes, with usual amounts for containers that ask for no CPU or memory.
    pub fn usual_requests(&self) -> &Resources {
        &self.usual_requests
    }

    /// The ports of the node that it takes.
    pub fn host_ports(&self) -> &[HostPort] {
        &self.host_ports
    }

    /// Its wishes about the pods near it.
    pub fn affinity(&self) -> &Affinity {
        &self.affinity
    }
}

impl HostPort {
    /// Whether both cannot be taken at once.
    pub fn conflicts(&self, other: &Self) -> bool {
        const ALL: &str = "0.0.0.0";
        self.port == other.port
            && self.protocol == other.protocol
            && (self.address == other.address || self.address == ALL || other.address == ALL)
    }
}

/// Ports of containers and of side cars.
fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    let text = |text: &Option<String>, default: &str| {
        text.clone().filter(|text| !text.is_empty()).unwrap_or_else(|| default.to_owned())
    };
    ports
        .filter_map(|port| {
            let number = port.host_port.filter(|number| *number > 0)?;
            let (address, protocol) = (text(&port.host_ip, "0.0.0.0"), text(&port.protocol, "TCP"));
            Some(HostPort { address, protocol, port: number })
        })
        .collect()
}

impl Affinity {
    fn of(pod: &Pod) -> Self {
        let Some(affinity) = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref()) else { return Self::default() };
        let terms = |terms: &Option<Vec<PodAffinityTerm>>| {
            terms.iter().flatten().map(|term| AffinityTerm::new(pod, term)).collect()
        };
        let weighted = |terms: &Option<Vec<WeightedPodAffinityTerm>>| {
            let terms = terms.iter().flatten();
            terms.map(|term| (term.weight.into(), AffinityTerm::new(pod, &term.pod_affinity_term))).collect()
        };
        let mut wishes = Self::default();
        if let Some(near) = &affinity.pod_affinity {
            wishes.required = terms(&near.required_during_scheduling_ignored_during_execution);
            wishes.preferred = weighted(&near.preferred_during_scheduling_ignored_during_execution);
        }
        if let Some(far) = &affinity.pod_anti_affinity {
            wishes.anti_required = terms(&far.required_during_scheduling_ignored_during_execution);
            wishes.anti_preferred = weighted(&far.preferred_during_scheduling_ignored_during_execution);
        }
        wishes
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.required.is_empty()
            && self.preferred.is_empty()
            && self.anti_required.is_empty()
            && self.anti_preferred.is_empty()
    }
}

impl AffinityTerm {
    fn new(pod: &Pod, term: &PodAffinityTerm) -> Self {
        let mut namespaces: BTreeSet<_> = term.namespaces.iter().flatten().cloned().collect();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.insert(pod.metadata.namespace.clone().unwrap_or_default());
        }
        let parse =
            |selector: &Option<Written>| selector.as_ref().and_then(|selector| LabelSelector::from_meta(selector).ok());
        Self {
            namespaces,
            namespace_selector: parse(&term.namespace_selector),
            selector: parse(&term.label_selector),
            topology_key: term.topology_key.clone(),
        }
    }

    /// Whether it speaks of this pod, whose namespace has these labels.
    pub fn matches(&self, pod: &PodInfo, namespace_labels: &BTreeMap<String, String>) -> bool {
        let namespace = self.namespaces.contains(&pod.key().namespace)
            || self.namespace_selector.as_ref().is_some_and(|selector| selector.matches(namespace_labels));
        namespace && self.selector.as_ref().is_some_and(|selector| selector.matches(pod.labels()))
    }
}
