//! Explanations agree with decisions, for every recorded cluster and for made-up ones.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use orchestrator_core::scheduler::{PodInfo, Snapshot, Verdict};
use orchestrator_scheduler::{
    explain::explain,
    framework::{Profile, Remembering},
    what_if::{Recording, what_if},
};
use serde_json::{Value, json};

const CASES: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/decisions.json"));

fn recording(case: &Value) -> Recording {
    let recording = json!({"nodes": case["nodes"], "pods": case["pods"], "pending": case["pending"]});
    serde_json::from_value(recording).unwrap()
}

#[test]
fn the_best_total_is_the_one_that_is_taken() {
    let cases: Vec<Value> = serde_json::from_str(CASES).unwrap();
    let profile = Profile::default();
    let mut placed = 0;
    for case in &cases {
        let recording = recording(case);
        let (cluster, pod) = (recording.cluster(), PodInfo::from(recording.pending.clone()));
        let explanation = explain(&profile, &pod, &cluster, 3);
        match &explanation.verdict {
            Verdict::Node(node) => {
                placed += 1;
                let best = explanation.nodes.values().filter_map(|node| node.total()).max();
                assert_eq!(explanation.nodes[node].total(), best, "{}", case["seed"]);
            }
            Verdict::Unschedulable(why) => {
                for (name, node) in &explanation.nodes {
                    let first = node.refusals.first();
                    let told = why.of_node(name).map(|rejection| rejection.plugin);
                    assert!(first.is_some() && told.is_some(), "{} {name}", case["seed"]);
                    assert!(
                        node.refusals.iter().any(|refusal| Some(refusal.plugin) == told),
                        "{} {name}",
                        case["seed"]
                    );
                }
                assert!(!explanation.waits_for.is_empty(), "{}", case["seed"]);
            }
            Verdict::Gated => assert_eq!(explanation.gates[0].plugin, "SchedulingGates"),
            other => panic!("{other:?}"),
        }
    }
    assert!(placed > 500, "{placed}");
}

fn node(name: &str, cpu: &str) -> Node {
    let allocatable = json!({"cpu": cpu, "memory": "4Gi", "pods": "9"});
    serde_json::from_value(json!({"metadata": {"name": name}, "status": {"allocatable": allocatable}})).unwrap()
}

fn pod(name: &str, cpu: &str, priority: i32) -> Pod {
    let container = json!({"name": "c", "resources": {"requests": {"cpu": cpu}}});
    let pod = json!({
        "metadata": {"name": name, "namespace": "x"}, "spec": {"priority": priority, "containers": [container]},
    });
    serde_json::from_value(pod).unwrap()
}

#[test]
fn tables_tell_scores_refusals_victims_and_events() {
    let mut cluster = Snapshot::default();
    cluster.set_node(Arc::new(node("a", "2")));
    cluster.set_node(Arc::new(node("small", "1")));
    let profile = Profile::default();
    let table = explain(&profile, &pod("p", "1", 0).into(), &cluster, 0).to_string();
    assert!(table.contains("NodeResourcesFit 72→72→72"), "{table}");
    assert!(table.contains("TaintToleration 0→100→300"), "{table}");
    assert!(table.ends_with("it runs on a\n"), "{table}");
    cluster.put_pod(Arc::new(pod("low", "2", 0).into()), "a");
    let table = explain(&profile, &pod("high", "2", 9).into(), &cluster, 0).to_string();
    assert!(table.contains("NodeResourcesFit: Insufficient cpu (removing pods may help)\n"), "{table}");
    assert!(table.contains("room is made on a by removing x/low\n"), "{table}");
    assert!(table.contains("it is tried again after AssignedPod/Delete, "), "{table}");
}

#[test]
fn pods_are_planned_for_without_a_cluster() {
    let mut cluster = Snapshot::default();
    for name in ["a", "b"] {
        cluster.set_node(Arc::new(node(name, "2")));
    }
    let remembering = Remembering::new(Arc::new(Profile::default()));
    let pods = (0..5).map(|number| Arc::new(PodInfo::from(pod(&format!("p{number}"), "1", 0))));
    let (outcomes, after) = what_if(&remembering, cluster, pods, 7);
    let places: Vec<_> = outcomes.iter().map(|outcome| after.place(outcome.pod.key())).collect();
    assert_eq!(places.iter().filter(|place| place.is_some()).count(), 4);
    assert_eq!(after.nodes().map(|node| node.pods().len()).collect::<Vec<_>>(), [2, 2]);
    let Verdict::Unschedulable(why) = &outcomes[4].verdict else { panic!("{:?}", outcomes[4].verdict) };
    assert!(why.message().starts_with("0/2 nodes are available: 2 Insufficient cpu."), "{}", why.message());
}

#[test]
fn recorded_decisions_are_replayed() {
    let cases: Vec<Value> = serde_json::from_str(CASES).unwrap();
    let profile = Profile::default();
    for case in cases.iter().take(200) {
        let first = Recording { tie: 5, ..recording(case) };
        let pod = PodInfo::from(first.pending.clone());
        let again = Recording::of(&pod, &first.cluster(), first.tie);
        let text = serde_json::to_string(&again).unwrap();
        let read: Recording = serde_json::from_str(&text).unwrap();
        assert_eq!(read, again);
        assert_eq!(format!("{:?}", read.replay(&profile)), format!("{:?}", first.replay(&profile)));
    }
}
