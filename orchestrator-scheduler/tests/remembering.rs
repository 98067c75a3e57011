//! A profile that remembers decides as one that looks at every node each time, whatever happens to the cluster in between.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use orchestrator_core::{
    object::ObjectKey,
    scheduler::{PodInfo, Scheduler, Snapshot, Verdict},
};
use orchestrator_scheduler::framework::{Profile, Remembering};
use proptest::prelude::*;
use serde_json::{Value, json};

const NODES: usize = 7;

/// Something happens.
#[derive(Clone, Debug)]
enum Step {
    /// A pod of a template is decided about, and put where it goes; otherwise its victims go.
    Schedule(usize, u8),
    /// A pod goes.
    Remove(usize),
    /// A node comes or is another.
    SetNode(usize, NodeCase),
    RemoveNode(usize),
    /// A namespace has this label.
    Namespace(bool),
    /// A service selects the pods of a label.
    Service(u8),
    /// A node is promised to an important pod.
    Promise(usize, u8),
    /// What was promised is void.
    Forget(u8),
}

#[derive(Clone, Debug)]
struct NodeCase {
    cpu: i64,
    zone: Option<u8>,
    taint: Option<bool>,
    image: bool,
    size: i64,
}

fn node_case() -> impl Strategy<Value = NodeCase> {
    let zone = prop::option::weighted(0.8, 0..3_u8);
    let taint = prop::option::weighted(0.3, any::<bool>());
    (1..5_i64, zone, taint, any::<bool>(), 0..3_i64).prop_map(|(cpu, zone, taint, image, size)| NodeCase {
        cpu,
        zone,
        taint,
        image,
        size,
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0..templates().len(), 0..3_u8).prop_map(|(template, label)| Step::Schedule(template, label)),
        3 => (0..40_usize).prop_map(Step::Remove),
        2 => (0..NODES, node_case()).prop_map(|(at, case)| Step::SetNode(at, case)),
        1 => (0..NODES).prop_map(Step::RemoveNode),
        1 => any::<bool>().prop_map(Step::Namespace),
        1 => (0..3_u8).prop_map(Step::Service),
        1 => (0..NODES, 0..3_u8).prop_map(|(at, which)| Step::Promise(at, which)),
        1 => (0..3_u8).prop_map(Step::Forget),
    ]
}

fn node(at: usize, case: &NodeCase) -> Arc<Node> {
    let name = format!("n{at}");
    let mut labels = BTreeMap::from([("kubernetes.io/hostname".to_owned(), name.clone())]);
    labels.insert("size".to_owned(), case.size.to_string());
    labels.extend(case.zone.map(|zone| ("topology.kubernetes.io/zone".to_owned(), format!("z{zone}"))));
    let taint = |hard: bool| json!({"key": "t", "effect": if hard { "NoSchedule" } else { "PreferNoSchedule" }});
    let images = if case.image { json!([{"names": ["big:latest"], "sizeBytes": 900 << 20}]) } else { json!([]) };
    let node = json!({
        "metadata": {"name": name, "labels": labels},
        "spec": {"taints": case.taint.map(taint).into_iter().collect::<Vec<_>>()},
        "status": {"allocatable": {"cpu": case.cpu.to_string(), "memory": "4Gi", "pods": "6"}, "images": images},
    });
    Arc::new(serde_json::from_value(node).unwrap())
}

/// What pods ask for besides CPU.
fn templates() -> Vec<Value> {
    let near = |when: &str, what: &str, term: Value| json!({"affinity": {what: {when: [term]}}});
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
    let term = |key: &str, label: &str| json!({"topologyKey": key, "labelSelector": {"matchLabels": {"app": label}}});
    let zone = "topology.kubernetes.io/zone";
    let everywhere = json!({
        "topologyKey": zone, "labelSelector": {"matchLabels": {"app": "1"}},
        "namespaceSelector": {"matchLabels": {"team": "a"}},
    });
    let spread = |key: &str, when: &str, more: Value| {
        let mut spread = json!({
            "maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": when,
            "labelSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["0", "1"]}]},
        });
        more.as_object().into_iter().flatten().for_each(|(key, value)| spread[key] = value.clone());
        spread
    };
    let hostname = "kubernetes.io/hostname";
    vec![
        json!({}),
        json!({"priority": 5}),
        json!({"tolerations": [{"key": "t", "operator": "Exists"}]}),
        json!({"nodeSelector": {"size": "1"}}),
        json!({"affinity": {"nodeAffinity": {preferred: [
            {"weight": 3, "preference": {"matchExpressions": [{"key": "size", "operator": "Gt", "values": ["0"]}]}},
            {"weight": 5, "preference": {"matchExpressions": [{"key": "size", "operator": "In", "values": ["2"]}]}},
        ]}}}),
        near(required, "podAntiAffinity", term(hostname, "0")),
        near(required, "podAffinity", term(zone, "1")),
        near(required, "podAntiAffinity", everywhere),
        near(preferred, "podAffinity", json!({"weight": 7, "podAffinityTerm": term(zone, "2")})),
        near(preferred, "podAntiAffinity", json!({"weight": 9, "podAffinityTerm": term(hostname, "1")})),
        json!({"topologySpreadConstraints": [spread(zone, "DoNotSchedule", json!({"minDomains": 2}))]}),
        json!({"topologySpreadConstraints": [
            spread(zone, "ScheduleAnyway", json!({})), spread(hostname, "ScheduleAnyway", json!({"maxSkew": 2})),
        ]}),
        json!({"nodeSelector": {"size": "2"}, "topologySpreadConstraints": [
            spread(hostname, "DoNotSchedule", json!({"nodeTaintsPolicy": "Honor"})),
            spread(zone, "DoNotSchedule", json!({"nodeAffinityPolicy": "Ignore", "maxSkew": 3})),
        ]}),
    ]
}

fn pod(number: usize, template: usize, label: u8) -> Pod {
    let mut pod = json!({
        "metadata": {
            "name": format!("p{number}"), "namespace": if number.is_multiple_of(3) { "y" } else { "x" }, "uid": number.to_string(),
            "labels": {"app": label.to_string()},
        },
        "spec": {"containers": [{"name": "c", "image": "big", "resources": {"requests": {"cpu": "300m"}}}]},
    });
    for (key, value) in templates()[template].as_object().into_iter().flatten() {
        pod["spec"][key] = value.clone();
    }
    serde_json::from_value(pod).unwrap()
}

fn label(value: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("team".to_owned(), value.to_owned())])
}

fn promise(cluster: &mut Snapshot, at: usize, which: u8) {
    let mut promised = pod(1000 + usize::from(which), 1, which);
    promised.metadata.name = Some(format!("promised{which}"));
    cluster.nominate(Arc::new(promised.into()), &format!("n{at}"));
}

/// Everything of a verdict that anybody can see.
fn shown(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Unschedulable(why) => {
            let victims = why.preemption.as_ref().map(|preemption| (&preemption.node, &preemption.victims));
            format!("{} {victims:?} {:?}", why.message(), why.per_node)
        }
        other => format!("{other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn the_verdict_is_that_of_looking_at_every_node(
        nodes in prop::collection::vec(node_case(), 1..NODES),
        steps in prop::collection::vec(step(), 0..60),
        tie: u64,
    ) {
        let profile = Arc::new(Profile::default());
        let remembering = Remembering::new(profile.clone());
        let mut cluster = Snapshot::default();
        cluster.set_namespace("x", Some(label("a")));
        nodes.iter().enumerate().for_each(|(at, case)| cluster.set_node(node(at, case)));
        let mut placed: Vec<ObjectKey> = Vec::new();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Schedule(template, label) => {
                    let pod = Arc::new(PodInfo::from(pod(number, template, label)));
                    let tie = tie.wrapping_mul(number as u64 + 1);
                    let verdict = remembering.schedule(&pod, &cluster, tie);
                    prop_assert_eq!(shown(&verdict), shown(&profile.schedule(&pod, &cluster, tie)), "{:?}", pod.spec);
                    match verdict {
                        Verdict::Node(name) => {
                            placed.push(pod.key().clone());
                            cluster.put_pod(pod, &name);
                        }
                        Verdict::Unschedulable(why) => {
                            let victims = why.preemption.iter().flat_map(|preemption| &preemption.victims);
                            victims.for_each(|victim| drop(cluster.remove_pod(victim.key())));
                        }
                        other => prop_assert!(false, "{:?}", other),
                    }
                }
                Step::Remove(which) if !placed.is_empty() => {
                    cluster.remove_pod(&placed.remove(which % placed.len()));
                }
                Step::Remove(_) => {}
                Step::SetNode(at, case) => cluster.set_node(node(at, &case)),
                Step::RemoveNode(at) => cluster.remove_node(&format!("n{at}")),
                Step::Namespace(team) => cluster.set_namespace("y", Some(label(if team { "a" } else { "b" }))),
                Step::Service(which) => {
                    let service = json!({"spec": {"selector": {"app": which.to_string()}}});
                    let service: Service = serde_json::from_value(service).unwrap();
                    cluster.workloads.services.insert(ObjectKey::new("x", "s"), Arc::new(service));
                }
                Step::Promise(at, which) => promise(&mut cluster, at, which),
                Step::Forget(which) => cluster.forget_nomination(&ObjectKey::new("x", format!("promised{which}"))),
            }
        }
    }
}
