//! A profile that remembers decides as one that looks at every node each time, whatever happens to the cluster in between.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::{
    core::v1::{Node, Pod, Service},
    policy::v1::PodDisruptionBudget,
};
use orchestrator_core::{
    object::ObjectKey,
    scheduler::{PodInfo, Scheduler, Snapshot, Verdict},
};
use orchestrator_scheduler::{
    framework::{Profile, Remembering},
    plugins::DefaultPreemption,
};
use proptest::prelude::*;
use serde_json::{Value, json};

const NODES: usize = 7;

/// Something happens.
#[derive(Clone, Debug)]
enum Step {
    /// A pod of a template is decided about, and put where it goes; otherwise its victims go.
    Schedule(usize, u8),
    /// A pod of a template and a priority is decided about. What it is promised, and what is removed for it, goes as said.
    Preempt(usize, u8, i32, Preempting),
    /// A pod that a node was promised to is decided about again, not knowing of the promise.
    Again(usize),
    /// So many pods of a label may be disrupted; `None` if all may be.
    Budget(u8, Option<i32>),
    /// A pod that was placed is another object: it started then, and may be on its way out.
    Change(usize, u8, bool),
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

/// How a preemption goes on.
#[derive(Clone, Copy, Debug)]
enum Preempting {
    /// The victims are gone, and the pod has not been decided about again.
    Done,
    /// The victims are on their way out; the pod is decided about again at once, knowing of its promise or not.
    Terminating(bool),
    /// The pod never preempts.
    Never,
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
        6 => (0..templates().len(), 0..3_u8, 0..4, preempting()).prop_map(|(template, label, priority, how)| {
            Step::Preempt(template, label, priority, how)
        }),
        2 => (0..40_usize).prop_map(Step::Again),
        2 => (0..3_u8, prop::option::of(0..3)).prop_map(|(label, allowed)| Step::Budget(label, allowed)),
        2 => (0..40_usize, 0..3_u8, any::<bool>()).prop_map(|(which, start, going)| Step::Change(which, start, going)),
        3 => (0..40_usize).prop_map(Step::Remove),
        2 => (0..NODES, node_case()).prop_map(|(at, case)| Step::SetNode(at, case)),
        1 => (0..NODES).prop_map(Step::RemoveNode),
        1 => any::<bool>().prop_map(Step::Namespace),
        1 => (0..3_u8).prop_map(Step::Service),
        1 => (0..NODES, 0..3_u8).prop_map(|(at, which)| Step::Promise(at, which)),
        1 => (0..3_u8).prop_map(Step::Forget),
    ]
}

fn preempting() -> impl Strategy<Value = Preempting> {
    prop_oneof![
        4 => Just(Preempting::Done),
        3 => any::<bool>().prop_map(Preempting::Terminating),
        1 => Just(Preempting::Never),
    ]
}

/// Steps of pods that are alike but for their priorities, so that what is remembered is used.
fn crowded() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3_u8).prop_map(|label| Step::Schedule(0, label)),
        8 => (0..3_u8, 1..4, preempting()).prop_map(|(label, priority, how)| Step::Preempt(0, label, priority, how)),
        3 => (0..40_usize).prop_map(Step::Again),
        3 => (0..3_u8, prop::option::of(0..3)).prop_map(|(label, allowed)| Step::Budget(label, allowed)),
        2 => step(),
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

/// A cluster, decided about with memory and without.
struct Pair {
    profile: Arc<Profile>,
    remembering: Remembering,
    cluster: Snapshot,
    placed: Vec<ObjectKey>,
    /// The pods that nodes were promised to.
    promised: Vec<Arc<PodInfo>>,
}

type Tested<T> = Result<T, TestCaseError>;

impl Pair {
    fn new(profile: Profile, nodes: &[NodeCase]) -> Self {
        let profile = Arc::new(profile);
        let mut cluster = Snapshot::default();
        cluster.set_namespace("x", Some(label("a")));
        nodes.iter().enumerate().for_each(|(at, case)| cluster.set_node(node(at, case)));
        Self {
            remembering: Remembering::new(profile.clone()),
            profile,
            cluster,
            placed: Vec::new(),
            promised: Vec::new(),
        }
    }

    /// Decides both ways, which are alike.
    fn decide(&self, pod: &PodInfo, tie: u64) -> Tested<Verdict> {
        let verdict = self.remembering.schedule(pod, &self.cluster, tie);
        let afresh = self.profile.schedule(pod, &self.cluster, tie);
        prop_assert_eq!(shown(&verdict), shown(&afresh), "{:?}", pod.spec);
        Ok(verdict)
    }

    fn schedule(&mut self, pod: Pod, tie: u64) -> Tested<()> {
        let pod = Arc::new(PodInfo::from(pod));
        match self.decide(&pod, tie)? {
            Verdict::Node(name) => {
                self.placed.push(pod.key().clone());
                self.cluster.put_pod(pod, &name);
            }
            Verdict::Unschedulable(why) => {
                let victims = why.preemption.iter().flat_map(|preemption| &preemption.victims);
                victims.for_each(|victim| drop(self.cluster.remove_pod(victim.key())));
            }
            other => prop_assert!(false, "{:?}", other),
        }
        Ok(())
    }

    /// As the loop does it: the node is promised to the pod, and pods go.
    fn preempt(&mut self, mut pod: Pod, how: Preempting, tie: u64) -> Tested<()> {
        let policy = if matches!(how, Preempting::Never) { "Never" } else { "PreemptLowerPriority" };
        pod.spec.get_or_insert_default().preemption_policy = Some(policy.to_owned());
        let info = Arc::new(PodInfo::from(pod.clone()));
        let why = match self.decide(&info, tie)? {
            Verdict::Unschedulable(why) => why,
            _ => return self.schedule(pod, tie),
        };
        let Some(preemption) = why.preemption else { return Ok(()) };
        self.cluster.nominate(info.clone(), &preemption.node);
        self.promised.push(info);
        for victim in &preemption.victims {
            match how {
                Preempting::Terminating(_) => self.change(victim, 2, true),
                _ => drop(self.cluster.remove_pod(victim.key())),
            }
        }
        if let Preempting::Terminating(known) = how {
            if known {
                pod.status.get_or_insert_default().nominated_node_name = Some(preemption.node);
            }
            self.decide(&PodInfo::from(pod), tie)?;
        }
        Ok(())
    }

    /// A pod started then, and may be on its way out.
    fn change(&mut self, pod: &PodInfo, start: u8, going: bool) {
        let Some(node) = self.cluster.place(pod.key()).map(str::to_owned) else { return };
        let mut changed = serde_json::to_value(pod.pod()).unwrap();
        changed["status"] = json!({"startTime": format!("2020-01-01T00:00:0{start}Z")});
        if going {
            changed["metadata"]["deletionTimestamp"] = json!("2020-01-02T00:00:00Z");
            let reason = json!({"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"});
            changed["status"]["conditions"] = json!([reason]);
        }
        let changed: Pod = serde_json::from_value(changed).unwrap();
        self.cluster.put_pod(Arc::new(changed.into()), &node);
    }

    fn step(&mut self, number: usize, step: Step, tie: u64) -> Tested<()> {
        let cluster = &mut self.cluster;
        match step {
            Step::Schedule(template, label) => return self.schedule(pod(number, template, label), tie),
            Step::Preempt(template, label, priority, how) => {
                let mut pod = pod(number, template, label);
                pod.spec.get_or_insert_default().priority = Some(priority);
                return self.preempt(pod, how, tie);
            }
            Step::Again(which) => {
                if let Some(pod) = self.promised.get(which % self.promised.len().max(1)) {
                    self.decide(pod, tie)?;
                }
            }
            Step::Budget(which, allowed) => {
                let key = ObjectKey::new("x", format!("b{which}"));
                match allowed {
                    Some(allowed) => drop(cluster.budgets.insert(key, budget(which, allowed))),
                    None => drop(cluster.budgets.remove(&key)),
                }
            }
            Step::Change(which, start, going) => {
                let key = self.placed.get(which % self.placed.len().max(1));
                if let Some(pod) = key.and_then(|key| cluster.pod(key)).cloned() {
                    self.change(&pod, start, going);
                }
            }
            Step::Remove(which) if !self.placed.is_empty() => {
                cluster.remove_pod(&self.placed.remove(which % self.placed.len()));
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
            Step::Promise(at, which) => promise(cluster, at, which),
            Step::Forget(which) => cluster.forget_nomination(&ObjectKey::new("x", format!("promised{which}"))),
        }
        Ok(())
    }
}

fn budget(label: u8, allowed: i32) -> Arc<PodDisruptionBudget> {
    let budget = json!({
        "metadata": {"namespace": "x"},
        "spec": {"selector": {"matchLabels": {"app": label.to_string()}}},
        "status": {"disruptionsAllowed": allowed, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0},
    });
    Arc::new(serde_json::from_value(budget).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn the_verdict_is_that_of_looking_at_every_node(
        nodes in prop::collection::vec(node_case(), 1..NODES),
        steps in prop::collection::vec(step(), 0..60),
        tie: u64,
    ) {
        let mut pair = Pair::new(Profile::default(), &nodes);
        for (number, step) in steps.into_iter().enumerate() {
            pair.step(number, step, tie.wrapping_mul(number as u64 + 1))?;
        }
    }

    /// Fewer candidates are compared here than there are, so that it matters where one starts.
    #[test]
    fn room_is_made_as_by_looking_at_every_node(
        nodes in prop::collection::vec(node_case(), 3..3 * NODES),
        steps in prop::collection::vec(crowded(), 0..120),
        fewest in 1..6_usize,
        tie: u64,
    ) {
        let profile =
            Profile { post_filters: vec![Arc::new(DefaultPreemption::new(10, fewest))], ..Profile::default() };
        let mut pair = Pair::new(profile, &nodes);
        for (number, step) in steps.into_iter().enumerate() {
            pair.step(number, step, tie.wrapping_mul(number as u64 + 1))?;
        }
    }
}
