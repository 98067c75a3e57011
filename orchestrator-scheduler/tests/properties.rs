//! Whatever the cluster: a decision breaks no hard rule, a refusal is right, and the same question has the same answer.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::{Node, Pod};
use orchestrator_core::scheduler::{PodInfo, Scheduler, Snapshot, Verdict};
use orchestrator_scheduler::framework::{Profile, Remembering};
use proptest::prelude::*;
use serde_json::json;

#[derive(Clone, Debug)]
struct NodeCase {
    cpu: i64,
    pods: i64,
    zone: Option<u8>,
    taint: Option<(u8, bool)>,
    closed: bool,
}

#[derive(Clone, Debug)]
struct PodCase {
    cpu: i64,
    priority: i32,
    zone: Option<u8>,
    tolerates: Option<u8>,
    port: Option<u8>,
    app: u8,
    apart: bool,
}

fn nodes() -> impl Strategy<Value = Vec<NodeCase>> {
    let zone = proptest::option::of(0..3_u8);
    let taint = proptest::option::weighted(0.3, (0..2_u8, any::<bool>()));
    let node = (0..4_000_i64, 0..6_i64, zone, taint, proptest::bool::weighted(0.1));
    let node = node.prop_map(|(cpu, pods, zone, taint, closed)| NodeCase { cpu, pods, zone, taint, closed });
    prop::collection::vec(node, 0..6)
}

fn pods() -> impl Strategy<Value = Vec<PodCase>> {
    let zone = proptest::option::weighted(0.3, 0..3_u8);
    let tolerates = proptest::option::weighted(0.3, 0..2_u8);
    let port = proptest::option::weighted(0.2, 1..4_u8);
    let pod = (0..2_000_i64, 0..3, zone, tolerates, port, 0..3_u8, proptest::bool::weighted(0.2));
    let pod = pod.prop_map(|(cpu, priority, zone, tolerates, port, app, apart)| PodCase {
        cpu,
        priority,
        zone,
        tolerates,
        port,
        app,
        apart,
    });
    prop::collection::vec(pod, 0..16)
}

fn node(index: usize, case: &NodeCase) -> Arc<Node> {
    let name = format!("n{index}");
    let mut labels = BTreeMap::from([("host".to_owned(), name.clone())]);
    labels.extend(case.zone.map(|zone| ("zone".to_owned(), zone.to_string())));
    let effect = |hard: bool| if hard { "NoSchedule" } else { "PreferNoSchedule" };
    let taints: Vec<_> =
        case.taint.iter().map(|(key, hard)| json!({"key": key.to_string(), "effect": effect(*hard)})).collect();
    let node = json!({
        "metadata": {"name": name, "labels": labels},
        "spec": {"unschedulable": case.closed, "taints": taints},
        "status": {"allocatable": {
            "cpu": format!("{}m", case.cpu), "memory": "1Gi", "pods": case.pods.to_string(),
        }},
    });
    Arc::new(serde_json::from_value(node).unwrap())
}

fn pod(index: usize, case: &PodCase) -> PodInfo {
    let ports: Vec<_> = case.port.iter().map(|port| json!({"containerPort": 1, "hostPort": port})).collect();
    let apart = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{
        "topologyKey": "host", "labelSelector": {"matchLabels": {"app": case.app.to_string()}},
    }]}});
    let tolerations: Vec<_> =
        case.tolerates.iter().map(|key| json!({"key": key.to_string(), "operator": "Exists"})).collect();
    let selector: BTreeMap<_, _> = case.zone.iter().map(|zone| ("zone", zone.to_string())).collect();
    let pod = json!({
        "metadata": {"name": format!("p{index}"), "namespace": "x", "labels": {"app": case.app.to_string()}},
        "spec": {
            "priority": case.priority,
            "affinity": if case.apart { apart } else { json!({}) },
            "tolerations": tolerations,
            "nodeSelector": selector,
            "containers": [{
                "name": "c", "ports": ports, "resources": {"requests": {"cpu": format!("{}m", case.cpu)}},
            }],
        },
    });
    PodInfo::from(serde_json::from_value::<Pod>(pod).unwrap())
}

/// The hard rules, in their plainest form.
fn may_run(pod: &PodCase, node: &NodeCase, there: &[&PodCase]) -> bool {
    let room = there.iter().map(|other| other.cpu).sum::<i64>() + pod.cpu <= node.cpu || pod.cpu == 0;
    let places = (there.len() as i64) < node.pods;
    let zone = pod.zone.is_none() || pod.zone == node.zone;
    let taint = node.taint.is_none_or(|(key, hard)| !hard || pod.tolerates == Some(key));
    let port = pod.port.is_none() || there.iter().all(|other| other.port != pod.port);
    let apart = there.iter().all(|other| other.app != pod.app || !(other.apart || pod.apart));
    room && places && zone && taint && port && apart && !node.closed
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn decisions_break_no_rule(nodes in nodes(), pods in pods(), tie: u64) {
        let profile = Arc::new(Profile::default());
        let remembering = Remembering::new(profile.clone());
        let mut cluster = Snapshot::default();
        nodes.iter().enumerate().for_each(|(index, case)| cluster.set_node(node(index, case)));
        let mut placed: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (index, case) in pods.iter().enumerate() {
            let pod = Arc::new(pod(index, case));
            let verdict = profile.schedule(&pod, &cluster, tie);
            prop_assert_eq!(format!("{verdict:?}"), format!("{:?}", profile.schedule(&pod, &cluster, tie)));
            prop_assert_eq!(format!("{verdict:?}"), format!("{:?}", remembering.schedule(&pod, &cluster, tie)));
            let there = |node: usize, gone: &[usize]| -> Vec<&PodCase> {
                let here = placed.get(&node).into_iter().flatten();
                here.filter(|pod| !gone.contains(pod)).map(|pod| &pods[*pod]).collect()
            };
            match verdict {
                Verdict::Node(name) => {
                    let at: usize = name[1..].parse().unwrap();
                    prop_assert!(may_run(case, &nodes[at], &there(at, &[])), "{case:?} on {name}");
                    cluster.put_pod(pod, &name);
                    placed.entry(at).or_default().push(index);
                }
                Verdict::Unschedulable(why) => {
                    let right = (0..nodes.len()).find(|at| may_run(case, &nodes[*at], &there(*at, &[])));
                    prop_assert_eq!(right, None, "{}", why.message());
                    prop_assert!(nodes.is_empty() || why.per_node.len() == nodes.len());
                    if let Some(preemption) = why.preemption {
                        let at: usize = preemption.node[1..].parse().unwrap();
                        let victims: Vec<usize> =
                            preemption.victims.iter().map(|pod| pod.key().name[1..].parse().unwrap()).collect();
                        prop_assert!(victims.iter().all(|victim| pods[*victim].priority < case.priority));
                        prop_assert!(may_run(case, &nodes[at], &there(at, &victims)));
                        // Each of them has to go.
                        for kept in &victims {
                            let others: Vec<_> = victims.iter().copied().filter(|victim| victim != kept).collect();
                            prop_assert!(!may_run(case, &nodes[at], &there(at, &others)));
                        }
                    }
                }
                other => prop_assert!(false, "{:?}", other),
            }
        }
    }

    #[test]
    fn sums_are_those_of_the_pods(nodes in nodes(), steps in prop::collection::vec((0..8_usize, 0..8_usize, 0..4_u8), 0..60), pods in pods()) {
        let mut cluster = Snapshot::default();
        for (at, which, what) in steps {
            let name = format!("n{at}");
            match (what, nodes.get(at), pods.get(which)) {
                (0, Some(case), _) => cluster.set_node(node(at, case)),
                (1, ..) => cluster.remove_node(&name),
                (2, _, Some(case)) => cluster.put_pod(Arc::new(pod(which, case)), &name),
                _ => drop(cluster.remove_pod(&orchestrator_core::object::ObjectKey::new("x", format!("p{which}")))),
            }
            let mut seen = 0;
            for node in cluster.nodes() {
                seen += node.pods().len();
                let sum: i64 = node.pods().iter().map(|pod| pod.requests().milli_cpu).sum();
                prop_assert_eq!(node.requested().milli_cpu, sum);
                prop_assert!(node.pods().iter().all(|pod| cluster.place(pod.key()) == Some(node.name())));
            }
            let affine = cluster.nodes().any(|node| node.pods().iter().any(|pod| !pod.affinity().is_empty()));
            prop_assert_eq!(affine, cluster.any_affinity());
            prop_assert!(seen <= pods.len());
        }
    }
}
