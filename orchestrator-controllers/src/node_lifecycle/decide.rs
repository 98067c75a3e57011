//! What a node's conditions and taints should be, given when it was last heard of.
//!
//! Upstream: `pkg/controller/nodelifecycle` and <https://kubernetes.io/docs/concepts/architecture/nodes/>.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::{
    api::core::v1::{Node, NodeCondition, NodeStatus, Pod, PodStatus, Taint},
    apimachinery::pkg::apis::meta::v1::{MicroTime, Time},
};
use orchestrator_core::meta;

pub(crate) const NOT_READY: &str = "node.kubernetes.io/not-ready";
pub(crate) const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

/// Condition, status, and the taint that goes with it.
const CONDITION_TAINTS: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
];

const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// What the node's agent reports, and nobody knows once it is silent.
const REPORTED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// When a node was last heard of, by the watcher's own clock: the clocks of nodes may differ.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Health {
    heard: Option<Duration>,
    heartbeat: Option<Time>,
    status: Option<String>,
    renewed: Option<MicroTime>,
}

impl Health {
    /// Takes in what there is to see of a node now.
    pub(super) fn observe(&mut self, node: &Node, renewed: Option<&MicroTime>, now: Duration) {
        let ready = ready(node);
        let heartbeat = ready.and_then(|ready| ready.last_heartbeat_time.clone());
        let status = ready.map(|ready| ready.status.clone());
        // That a node is unknown is said by this controller, not by the node.
        let spoke = heartbeat != self.heartbeat || status != self.status && status.as_deref() != Some("Unknown");
        if self.heard.is_none() || spoke {
            self.heard = Some(now);
        }
        self.heartbeat = heartbeat;
        self.status = status;
        self.renew(renewed, now);
    }

    /// Takes in the lease of a node.
    pub(super) fn renew(&mut self, renewed: Option<&MicroTime>, now: Duration) {
        if let Some(renewed) = renewed
            && self.renewed.as_ref().is_none_or(|known| known.0 < renewed.0)
        {
            self.renewed = Some(renewed.clone());
            self.heard = Some(now);
        }
    }

    /// When the node counts as gone, unless it is heard of before.
    pub(super) fn deadline(&self, grace: Duration) -> Duration {
        self.heard.unwrap_or_default() + grace
    }
}

pub(super) fn ready(node: &Node) -> Option<&NodeCondition> {
    meta::condition(conditions(node), "Ready")
}

fn conditions(node: &Node) -> &[NodeCondition] {
    node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default()
}

/// `True`, `False` or `Unknown`; unknown before the node has said anything.
pub(super) fn ready_status(node: &Node) -> &str {
    ready(node).map_or("Unknown", |ready| &ready.status)
}

/// The status of a node that is silent, if it does not say so yet.
pub(super) fn silenced(node: &Node, now: &Time) -> Option<NodeStatus> {
    let mut new = node.status.clone().unwrap_or_default();
    let conditions = new.conditions.get_or_insert_default();
    let mut changed = false;
    for type_ in REPORTED {
        let known = meta::condition(conditions, type_);
        if known.is_some_and(|known| known.status == "Unknown") {
            continue;
        }
        let (reason, message) = match known {
            Some(_) => ("NodeStatusUnknown", "Kubelet stopped posting node status."),
            None => ("NodeStatusNeverUpdated", "Kubelet never posted node status."),
        };
        let heartbeat = match known {
            Some(known) => known.last_heartbeat_time.clone(),
            None => node.metadata.creation_timestamp.clone(),
        };
        let condition = NodeCondition {
            type_: type_.to_owned(),
            status: "Unknown".to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_heartbeat_time: heartbeat,
            last_transition_time: Some(now.clone()),
        };
        changed |= meta::set_condition(conditions, condition);
    }
    changed.then_some(new)
}

/// Whether a node was found to be silent.
pub(super) fn is_silent(node: &Node) -> bool {
    ready(node).is_some_and(|ready| ready.status == "Unknown")
}

/// The status of a pod on a silent node, if it says there that it is ready.
pub(super) fn unready(pod: &Pod, now: &Time) -> Option<PodStatus> {
    let mut status = pod.status.clone()?;
    let mut conditions = status.conditions.iter_mut().flatten();
    let ready = conditions.find(|condition| condition.type_ == "Ready" && condition.status == "True")?;
    ready.status = "False".to_owned();
    ready.last_transition_time = Some(now.clone());
    ready.observed_generation = pod.metadata.generation;
    Some(status)
}

/// The labels of earlier days, each with the one that took its place and that it follows. As upstream's `labelReconcileInfo`.
const FOLLOWING_LABELS: [(&str, &str); 2] =
    [("kubernetes.io/os", "beta.kubernetes.io/os"), ("kubernetes.io/arch", "beta.kubernetes.io/arch")];

/// The labels of a node with those that follow others, if they do not yet.
pub(super) fn wanted_labels(node: &Node) -> Option<BTreeMap<String, String>> {
    let labels = node.metadata.labels.as_ref()?;
    let mut wanted = labels.clone();
    for (leading, following) in FOLLOWING_LABELS {
        wanted.extend(labels.get(leading).map(|value| (following.to_owned(), value.clone())));
    }
    (wanted != *labels).then_some(wanted)
}

/// Whether a node does not count when its zone is judged.
pub(super) fn is_excluded(node: &Node) -> bool {
    meta::label(&node.metadata, "node.kubernetes.io/exclude-disruption").is_some()
}

/// The taint that evicts the pods of a node, if there is a reason to.
pub(super) fn eviction_taint(node: &Node) -> Option<&'static str> {
    match ready_status(node) {
        "True" => None,
        "False" => Some(NOT_READY),
        _ => Some(UNREACHABLE),
    }
}

/// Whether a node has a taint that evicts because it is not ready.
pub(super) fn is_evicting(node: &Node) -> bool {
    taints(node).iter().any(|taint| taint.effect == "NoExecute" && [NOT_READY, UNREACHABLE].contains(&&*taint.key))
}

fn taints(node: &Node) -> &[Taint] {
    node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
}

/// The taints that a node should have, if they are not those it has. `evict`: its pods may be evicted.
pub(super) fn wanted_taints(node: &Node, evict: bool, now: &Time) -> Option<Vec<Taint>> {
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    for (type_, status, key) in CONDITION_TAINTS {
        if meta::condition(conditions(node), type_).is_some_and(|condition| condition.status == status) {
            wanted.push((key, "NoSchedule"));
        }
    }
    if node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true) {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    if evict && let Some(key) = eviction_taint(node) {
        wanted.push((key, "NoExecute"));
    }
    let own = |taint: &Taint| match taint.effect.as_str() {
        "NoSchedule" => taint.key == UNSCHEDULABLE || CONDITION_TAINTS.iter().any(|(_, _, key)| *key == taint.key),
        "NoExecute" => taint.key == NOT_READY || taint.key == UNREACHABLE,
        _ => false,
    };
    let stays = |taint: &&Taint| !own(taint) || wanted.contains(&(&taint.key, &taint.effect));
    let mut new: Vec<Taint> = taints(node).iter().filter(stays).cloned().collect();
    for (key, effect) in wanted {
        if !new.iter().any(|taint| taint.key == key && taint.effect == effect) {
            let time_added = Some(now.clone());
            new.push(Taint { key: key.to_owned(), effect: effect.to_owned(), time_added, value: None });
        }
    }
    (new != taints(node)).then_some(new)
}

/// How fast nodes may be tainted for eviction: tokens that come back with time, at most one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct EvictionRate {
    next: Duration,
}

impl EvictionRate {
    pub(super) fn new() -> Self {
        Self { next: Duration::ZERO }
    }

    /// Takes a token, or says when there will be one.
    pub(super) fn take(&mut self, per_second: f64, now: Duration) -> Result<(), Duration> {
        if now < self.next {
            return Err(self.next - now);
        }
        let pause = Duration::try_from_secs_f64(1.0 / per_second).unwrap_or(Duration::MAX);
        self.next = now.saturating_add(pause);
        Ok(())
    }
}

/// How a zone fares, which decides how fast its nodes are emptied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Zone {
    Normal,
    /// Many nodes are not ready: rather the network than the nodes.
    Partial,
    Full,
}

/// Judges a zone by its nodes.
pub(super) fn zone_state(ready: usize, not_ready: usize) -> Zone {
    if ready == 0 && not_ready > 0 {
        Zone::Full
    } else if not_ready > 2 && not_ready as f64 / (ready + not_ready) as f64 >= UNHEALTHY_FRACTION {
        Zone::Partial
    } else {
        Zone::Normal
    }
}

/// As upstream's `--unhealthy-zone-threshold`.
const UNHEALTHY_FRACTION: f64 = 0.55;

/// As upstream's `--large-cluster-size-threshold`.
const LARGE_ZONE_NODES: usize = 50;

/// As upstream's `--secondary-node-eviction-rate`, relative to the normal rate.
const SECONDARY_RATE: f64 = 0.1;

/// Nodes per second of a zone that may be emptied.
pub(super) fn rate(zone: Zone, nodes: usize, normal: f64) -> f64 {
    match zone {
        Zone::Normal | Zone::Full => normal,
        Zone::Partial if nodes > LARGE_ZONE_NODES => normal * SECONDARY_RATE,
        Zone::Partial => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::NodeSpec;
    use proptest::prelude::*;

    use super::*;

    fn time(second: i64) -> Time {
        Time(jiff::Timestamp::from_second(second).unwrap())
    }

    fn node(ready: &str, heartbeat: i64) -> Node {
        let condition = NodeCondition {
            type_: "Ready".to_owned(),
            status: ready.to_owned(),
            last_heartbeat_time: Some(time(heartbeat)),
            ..Default::default()
        };
        let status = NodeStatus { conditions: Some(vec![condition]), ..Default::default() };
        Node { status: Some(status), ..Default::default() }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_node_is_heard_by_its_status_and_its_lease() {
        let mut health = Health::default();
        health.observe(&node("True", 1), None, seconds(0));
        health.observe(&node("True", 1), None, seconds(10));
        assert_eq!(health.deadline(seconds(40)), seconds(40));
        let renewed = MicroTime(jiff::Timestamp::from_second(5).unwrap());
        health.renew(Some(&renewed), seconds(20));
        health.renew(Some(&renewed), seconds(30));
        assert_eq!(health.deadline(seconds(40)), seconds(60));
        health.observe(&node("True", 2), Some(&renewed), seconds(35));
        assert_eq!(health.deadline(seconds(40)), seconds(75));
        health.observe(&node("Unknown", 2), None, seconds(90));
        assert_eq!(health.deadline(seconds(40)), seconds(75), "the own write is no sign of life");
    }

    #[test]
    fn a_silent_node_is_unknown() {
        let mut silent = node("True", 1);
        let status = silenced(&silent, &time(9)).unwrap();
        let conditions = status.conditions.clone().unwrap();
        let ready = meta::condition(&conditions, "Ready").unwrap();
        assert_eq!((ready.status.as_str(), ready.reason.as_deref()), ("Unknown", Some("NodeStatusUnknown")));
        assert_eq!(ready.last_heartbeat_time, Some(time(1)));
        let disk = meta::condition(&conditions, "DiskPressure").unwrap();
        assert_eq!(disk.reason.as_deref(), Some("NodeStatusNeverUpdated"));
        silent.status = Some(status);
        assert_eq!(silenced(&silent, &time(10)), None);
        let taints = wanted_taints(&silent, true, &time(9)).unwrap();
        let taints: Vec<_> = taints.iter().map(|taint| (&*taint.key, &*taint.effect)).collect();
        assert_eq!(taints, [(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")]);
    }

    #[test]
    fn pods_of_a_silent_node_are_not_ready() {
        let silent = node("Unknown", 1);
        assert!(is_silent(&silent) && !is_silent(&node("False", 1)) && !is_silent(&Node::default()));
        let mut pod = crate::pods::fixtures::running("p", Some(0));
        pod.metadata.generation = Some(3);
        let status = unready(&pod, &time(9)).unwrap();
        let ready = &status.conditions.as_ref().unwrap()[0];
        assert_eq!((&*ready.status, ready.observed_generation), ("False", Some(3)));
        pod.status = Some(status);
        assert_eq!(unready(&pod, &time(10)), None);
    }

    #[test]
    fn labels_of_earlier_days_follow() {
        let mut node = node("True", 1);
        assert_eq!(wanted_labels(&node), None);
        let label = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let labels = [("kubernetes.io/os", "linux"), ("beta.kubernetes.io/os", "other"), ("mine", "x")];
        node.metadata.labels = Some(labels.iter().map(label).collect());
        let wanted = wanted_labels(&node).unwrap();
        assert_eq!((wanted.len(), &*wanted["beta.kubernetes.io/os"]), (3, "linux"));
        node.metadata.labels = Some(wanted);
        assert_eq!(wanted_labels(&node), None);
    }

    #[test]
    fn zones_are_judged_by_their_nodes() {
        assert_eq!(zone_state(2, 1), Zone::Normal);
        assert_eq!(zone_state(2, 3), Zone::Partial);
        assert_eq!(zone_state(0, 1), Zone::Full);
        let mut rate = EvictionRate::new();
        assert_eq!(rate.take(0.1, seconds(0)), Ok(()));
        assert_eq!(rate.take(0.1, seconds(4)), Err(seconds(6)));
        assert_eq!(rate.take(0.1, seconds(10)), Ok(()));
        assert!(rate.take(0.0, seconds(20)).is_ok() && rate.take(0.0, seconds(99)).is_err());
    }

    proptest! {
        #[test]
        fn foreign_taints_stay_and_wanted_ones_settle(
            status in prop_oneof![Just("True"), Just("False"), Just("Unknown")],
            evict in any::<bool>(),
            unschedulable in any::<bool>(),
            before in prop::collection::vec((0..3_usize, any::<bool>()), 0..3),
        ) {
            let mut node = node(status, 1);
            let taint = |(key, execute): (usize, bool)| Taint {
                key: [NOT_READY, UNREACHABLE, "mine"][key].to_owned(),
                effect: if execute { "NoExecute" } else { "NoSchedule" }.to_owned(),
                ..Default::default()
            };
            let before: Vec<Taint> = before.into_iter().map(taint).collect();
            let foreign = |taints: &[Taint]| taints.iter().filter(|taint| taint.key == "mine").count();
            let count = foreign(&before);
            let (taints, unschedulable) = (Some(before), Some(unschedulable));
            node.spec = Some(NodeSpec { taints, unschedulable, ..Default::default() });
            if let Some(taints) = wanted_taints(&node, evict, &time(1)) {
                prop_assert_eq!(foreign(&taints), count);
                node.spec.as_mut().unwrap().taints = Some(taints);
            }
            prop_assert_eq!(wanted_taints(&node, evict, &time(2)), None);
            prop_assert_eq!(is_evicting(&node), evict && status != "True");
        }
    }
}
