//! Decisions of the real kube-scheduler 1.36 on small generated clusters: this one decides the same, with the same
//! messages. What ties is broken at random there, so a recorded case has all nodes that were seen chosen.
//!
//! Not in the cases, and so covered by other tests only: volumes, images, disruption budgets, default spreading.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::{Container, Node, Pod, PodSpec};
use orchestrator_core::scheduler::{PodInfo, Scheduler, Snapshot, Verdict};
use orchestrator_scheduler::framework::Profile;
use serde_json::Value;

const CASES: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/decisions.json"));
/// How many cases are decided as recorded. It may only grow.
const FLOOR: usize = 1434;

#[test]
fn decisions_are_upstreams() {
    let cases: Vec<Value> = serde_json::from_str(CASES).unwrap();
    let mut agreed: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    let mut differences = Vec::new();
    for case in &cases {
        let count = agreed.entry(case["focus"].as_str().unwrap()).or_default();
        count.1 += 1;
        match difference(case) {
            None => count.0 += 1,
            Some(difference) => differences.push(difference),
        }
    }
    let total: usize = agreed.values().map(|(agreed, _)| agreed).sum();
    let report = format!("{total} of {} agree: {agreed:?}\n{}", cases.len(), differences.join("\n"));
    assert!(total >= FLOOR, "{report}");
    assert!(differences.is_empty(), "{report}");
}

/// How the decision differs from the recorded one. Over all ways to break ties, every recorded node is chosen.
fn difference(case: &Value) -> Option<String> {
    let want = &case["decision"];
    let got: Vec<_> = (0..8).map(|tie| decide(case, tie)).collect();
    let same = match want["nodes"].as_array() {
        Some(nodes) => nodes.iter().all(|node| got.iter().any(|got| got["node"] == *node)),
        None => got.iter().all(|got| got == want),
    };
    (!same).then(|| format!("{} {}: want {want}, got {}", case["seed"], case["focus"], Value::Array(got)))
}

fn decide(case: &Value, tie: u64) -> Value {
    let mut cluster = Snapshot::default();
    for (name, team) in [("sched", "a"), ("sched-other", "b")] {
        let labels = [("team", team), ("kubernetes.io/metadata.name", name)];
        cluster.set_namespace(name, Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()));
    }
    for node in case["nodes"].as_array().unwrap() {
        cluster.set_node(Arc::new(serde_json::from_value::<Node>(node.clone()).unwrap()));
    }
    for pod in case["pods"].as_array().unwrap() {
        let pod = PodInfo::from(admitted(pod));
        let node = pod.node_name().unwrap().to_owned();
        cluster.put_pod(Arc::new(pod), &node);
    }
    let mut pod = admitted(&case["pending"]);
    let profile = Profile::default();
    match profile.schedule(&pod.clone().into(), &cluster, tie) {
        Verdict::Node(node) => serde_json::json!({ "node": node }),
        Verdict::Gated => serde_json::json!({
            "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates",
        }),
        Verdict::Unschedulable(why) => {
            let mut decision = serde_json::json!({ "reason": "Unschedulable", "message": why.message() });
            let Some(preemption) = why.preemption else { return decision };
            if case["decision"]["nodes"].is_array() {
                // The recorded decision is the one after the victims are gone.
                preemption.victims.iter().for_each(|victim| drop(cluster.remove_pod(victim.key())));
                pod.status.get_or_insert_default().nominated_node_name = Some(preemption.node.clone());
                return match profile.schedule(&pod.into(), &cluster, tie) {
                    Verdict::Node(node) => serde_json::json!({ "node": node }),
                    other => serde_json::json!({ "after preemption": format!("{other:?}") }),
                };
            }
            decision["nominated"] = preemption.node.into();
            decision
        }
        other => serde_json::json!({ "verdict": format!("{other:?}") }),
    }
}

/// A pod as the API server stores it, as far as scheduling goes.
fn admitted(pod: &Value) -> Pod {
    let mut pod: Pod = serde_json::from_value(pod.clone()).unwrap();
    let spec: &mut PodSpec = pod.spec.as_mut().unwrap();
    spec.priority = Some(match spec.priority_class_name.as_deref() {
        Some("sched-low") => 10,
        Some("sched-high") => 1000,
        _ => 0,
    });
    spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()).for_each(default_requests);
    pod
}

/// A container asks for what it is limited to, unless it says otherwise.
fn default_requests(container: &mut Container) {
    let Some(resources) = &mut container.resources else { return };
    for (name, limit) in resources.limits.iter().flatten() {
        let requests = resources.requests.get_or_insert_default();
        requests.entry(name.clone()).or_insert_with(|| limit.clone());
    }
}
