//! Decisions alone, without an API: the workloads of upstream's `scheduler_perf`, and what a decision costs by the number
//! of nodes.
//!
//! One run, printed as lines: `cargo bench -p orchestrator-scheduler --bench decisions -- [NODES] [WORKLOAD]`.
#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
#![expect(clippy::print_stdout, reason = "a program for people to look at")]

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Node, Pod, PodCondition},
    apimachinery::pkg::apis::meta::v1::Time,
};
use orchestrator_core::{
    object::ObjectKey,
    scheduler::{ClusterChange, PodInfo, Preemption},
};
use orchestrator_scheduler::{
    framework::{Profile, Remembering},
    model::{Deciding, Decision, Model},
    queue::Queue,
};
use serde_json::{Value, json};

/// The numbers of nodes of the curve.
const CURVE: [usize; 4] = [100, 1_000, 10_000, 100_000];
/// How many pods are decided about for each point of it.
const CURVE_PODS: usize = 5_000;
/// After so many decisions something comes or goes in `SchedulingWithMixedChurn`.
const CHURN_EVERY: usize = 100;

fn main() {
    let nodes = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(5_000);
    let only = std::env::args().skip(1).find(|argument| argument.starts_with(|c: char| c.is_ascii_uppercase()));
    if only.is_none() {
        curve();
    }
    println!("workloads at {nodes} nodes (a fifth more for RequiredPodAntiAffinityWithNSSelector):");
    let workloads: [Workload; 10] = [
        ("SchedulingBasic", basic),
        ("SchedulingPodAntiAffinity", anti_affinity),
        ("SchedulingPodAffinity", affinity),
        ("RequiredPodAntiAffinityWithNSSelector", |nodes| namespaced_anti_affinity(nodes + nodes / 5)),
        ("TopologySpreading", |nodes| spreading(nodes, "TopologySpreading", "DoNotSchedule")),
        ("PreferredTopologySpreading", |nodes| spreading(nodes, "PreferredTopologySpreading", "ScheduleAnyway")),
        ("PreemptionAsync", |nodes| {
            preemption(nodes / 10, false);
            preemption(nodes, false);
        }),
        ("PreemptionAsyncSlowVictims", |nodes| preemption(nodes, true)),
        ("SchedulingWithMixedChurn", churn),
        ("SchedulingWhileGated", gated),
    ];
    for (name, run) in workloads {
        if only.as_deref().is_none_or(|only| only == name) {
            run(nodes);
        }
    }
}

/// A workload's name, and how it is run on so many nodes.
type Workload = (&'static str, fn(usize));

/// What a decision costs by the number of nodes, and what nodes and pods take.
fn curve() {
    println!("plain pods, by the number of nodes:");
    for nodes in CURVE {
        let (before, begin) = (resident_bytes(), Instant::now());
        let mut bench = Bench::new(nodes);
        let (made, per_node) = (begin.elapsed(), resident_bytes().saturating_sub(before) / nodes);
        bench.schedule(1, &|_| plain());
        let (before, first) = (resident_bytes(), bench.decided);
        let time = bench.schedule(CURVE_PODS, &|_| plain());
        let per_pod = resident_bytes().saturating_sub(before) / CURVE_PODS;
        println!(
            "  {nodes:>7} nodes: {:>6.1} µs a decision; {:.2} s to take the nodes in",
            time.as_secs_f64() * 1e6 / (bench.decided - first) as f64,
            made.as_secs_f64(),
        );
        // What smaller ones gave back is used again, so that only the largest shows what it takes.
        if nodes == CURVE[CURVE.len() - 1] {
            println!("  memory: {per_node} bytes a node, {per_pod} a pod, objects included");
        }
    }
}

struct Bench {
    model: Model,
    now: Duration,
    made: usize,
    decided: usize,
    /// The victims that are on their way out; `None` if victims are gone at once.
    going: Option<Vec<ObjectKey>>,
    /// Whether nodes, pods and services come and go.
    churns: bool,
    /// The pod that came.
    churning: Option<ObjectKey>,
}

impl Bench {
    fn new(nodes: usize) -> Self {
        let profile = Arc::new(Profile::default());
        let queue = Queue::new(profile.queue_sort.clone());
        let deciding = Deciding { scheduler: Arc::new(Remembering::new(profile.clone())), profile };
        let mut model = Model::new(BTreeMap::from([("default-scheduler".to_owned(), deciding)]), queue);
        for index in 0..nodes {
            model.change_node(None, Some(&node(index)), Duration::ZERO);
        }
        for index in 0..100 {
            let labels = BTreeMap::from([("team".to_owned(), "devops".to_owned())]);
            let name = format!("init-ns-{index}");
            let change = ClusterChange::Namespace(&name);
            model.change_cluster(|cluster| cluster.set_namespace(&name, Some(labels)), &change, Duration::ZERO);
        }
        Self { model, now: Duration::from_secs(1), made: 0, decided: 0, going: None, churns: false, churning: None }
    }

    /// Makes pods and decides about all of them. How long the decisions took, evictions included.
    fn schedule(&mut self, pods: usize, of: &dyn Fn(usize) -> Value) -> Duration {
        (0..pods).for_each(|index| drop(self.make(of(index))));
        let begin = Instant::now();
        while let Some(decision) = self.model.decide(self.now, self.decided as u64 * 7_919) {
            self.decided += 1;
            self.carry_out(decision);
            if self.churns && self.decided.is_multiple_of(CHURN_EVERY) {
                self.churn(self.decided / CHURN_EVERY);
            }
            if self.model.next_time(self.now).is_some_and(|next| next > self.now) {
                let gone = self.going.as_mut().map(std::mem::take).unwrap_or_default();
                gone.iter().for_each(|victim| self.model.change_pod(victim, None, self.now));
                self.now += Duration::from_secs(10);
            }
        }
        begin.elapsed()
    }

    fn make(&mut self, mut pod: Value) -> ObjectKey {
        self.made += 1;
        pod["metadata"]["name"] = format!("pod-{}", self.made).into();
        pod["metadata"]["uid"] = self.made.to_string().into();
        let pod: Arc<Pod> = Arc::new(serde_json::from_value(pod).expect("a pod"));
        let key = ObjectKey::of(&pod.metadata);
        self.model.change_pod(&key, Some(&pod), self.now);
        key
    }

    /// A node, an important pod that is too large for any node, and a service come, or go again.
    fn churn(&mut self, number: usize) {
        let (node, large) = (node(1_000_000), pod("churn", json!({}), json!({"priority": 10})));
        let key = ObjectKey::new("churn", "churn");
        if number.is_multiple_of(2) {
            self.model.change_node(Some(&node), None, self.now);
            self.model.change_quietly(|cluster| drop(cluster.workloads.services.remove(&key)));
            self.churning.take().into_iter().for_each(|key| self.model.change_pod(&key, None, self.now));
        } else {
            self.model.change_node(None, Some(&node), self.now);
            let service = serde_json::from_value(json!({"spec": {"selector": {"app": "foo"}}})).expect("a service");
            self.model.change_quietly(|cluster| drop(cluster.workloads.services.insert(key, Arc::new(service))));
            self.churning = Some(self.make(sized(large, "9")));
        }
    }

    fn carry_out(&mut self, decision: Decision) {
        match decision {
            Decision::Bind(pod, _) => self.model.bound(&pod, self.now),
            Decision::Refuse { pod, why, .. } => {
                why.preemption.iter().for_each(|preemption| self.make_room(&pod, preemption));
            }
            _ => {}
        }
    }

    fn make_room(&mut self, pod: &PodInfo, preemption: &Preemption) {
        let Some(going) = &mut self.going else {
            preemption.victims.iter().for_each(|victim| self.model.change_pod(victim.key(), None, self.now));
            return;
        };
        let mut promised = pod.pod().as_ref().clone();
        promised.status.get_or_insert_default().nominated_node_name = Some(preemption.node.clone());
        self.model.change_pod(pod.key(), Some(&Arc::new(promised)), self.now);
        for victim in &preemption.victims {
            let mut leaving = victim.pod().as_ref().clone();
            leaving.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
            leaving.spec.get_or_insert_default().node_name = Some(preemption.node.clone());
            let reason = PodCondition {
                type_: "DisruptionTarget".to_owned(),
                status: "True".to_owned(),
                reason: Some("PreemptionByScheduler".to_owned()),
                ..PodCondition::default()
            };
            leaving.status.get_or_insert_default().conditions = Some(vec![reason]);
            going.push(victim.key().clone());
            self.model.change_pod(victim.key(), Some(&Arc::new(leaving)), self.now);
        }
    }

    fn report(&mut self, name: &str, pods: usize, of: &dyn Fn(usize) -> Value) {
        let placed = self.placed();
        let time = self.schedule(pods, of);
        let (was, is) = (placed, self.placed());
        println!(
            "  {name:<42} {:>8.0} pods/s (pods on nodes: {was} before, {is} after)",
            pods as f64 / time.as_secs_f64()
        );
    }

    fn placed(&self) -> usize {
        self.model.cluster().nodes().map(|node| node.pods().len()).sum()
    }
}

fn node(index: usize) -> Arc<Node> {
    let name = format!("node-{index}");
    let node = json!({
        "metadata": {"name": name, "labels": {
            "kubernetes.io/hostname": name,
            "topology.kubernetes.io/zone": format!("zone{}", index % 3),
        }},
        "status": {"allocatable": {"cpu": "4", "memory": "32Gi", "pods": "110"}},
    });
    Arc::new(serde_json::from_value(node).expect("a node"))
}

fn pod(namespace: &str, labels: Value, more: Value) -> Value {
    let mut pod = json!({
        "metadata": {"namespace": namespace, "labels": labels},
        "spec": {"containers": [{
            "name": "pause", "image": "registry.k8s.io/pause:3.10.1",
            "resources": {"requests": {"cpu": "100m", "memory": "500Mi"}},
        }]},
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        pod["spec"][key] = value.clone();
    }
    pod
}

/// A pod that asks for so much CPU.
fn sized(mut pod: Value, cpu: &str) -> Value {
    pod["spec"]["containers"][0]["resources"]["requests"]["cpu"] = cpu.into();
    pod
}

fn plain() -> Value {
    pod("default", json!({}), json!({}))
}

fn basic(nodes: usize) {
    let mut bench = Bench::new(nodes);
    bench.schedule(1_000, &|_| plain());
    bench.report("SchedulingBasic", 10_000, &|_| plain());
}

fn anti_affinity(nodes: usize) {
    let mut bench = Bench::new(nodes);
    let wish = json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{
        "labelSelector": {"matchLabels": {"color": "green"}}, "topologyKey": "kubernetes.io/hostname",
        "namespaces": ["sched-1", "sched-0"],
    }]}}});
    bench.schedule(1_000, &|_| pod("sched-0", json!({"color": "green"}), wish.clone()));
    bench.report("SchedulingPodAntiAffinity", 2_000, &|_| pod("sched-1", json!({"color": "green"}), wish.clone()));
}

fn affinity(nodes: usize) {
    let mut bench = Bench::new(nodes);
    let wish = json!({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{
        "labelSelector": {"matchLabels": {"color": "blue"}}, "topologyKey": "topology.kubernetes.io/zone",
        "namespaces": ["sched-1", "sched-0"],
    }]}}});
    bench.schedule(5_000, &|_| pod("sched-0", json!({"color": "blue"}), wish.clone()));
    bench.report("SchedulingPodAffinity", 5_000, &|_| pod("sched-1", json!({"color": "blue"}), wish.clone()));
}

fn namespaced_anti_affinity(nodes: usize) {
    let mut bench = Bench::new(nodes);
    let wish = json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{
        "labelSelector": {"matchLabels": {"color": "green"}}, "topologyKey": "kubernetes.io/hostname",
        "namespaceSelector": {"matchLabels": {"team": "devops"}},
    }]}}});
    let of = |index: usize| pod(&format!("init-ns-{}", index % 100), json!({"color": "green"}), wish.clone());
    bench.schedule(4_000.min(nodes * 2 / 3), &of);
    bench.report("RequiredPodAntiAffinityWithNSSelector", 2_000.min(nodes / 3), &of);
}

fn spreading(nodes: usize, name: &str, when: &str) {
    let mut bench = Bench::new(nodes);
    bench.schedule(5_000, &|_| plain());
    let wish = json!({"topologySpreadConstraints": [{
        "maxSkew": 5, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": when,
        "labelSelector": {"matchLabels": {"color": "blue"}},
    }]});
    bench.report(name, 5_000, &|_| pod("default", json!({"color": "blue"}), wish.clone()));
}

fn preemption(nodes: usize, slow_victims: bool) {
    let mut bench = Bench::new(nodes);
    let of = |priority: i64, cpu: &str| sized(pod("default", json!({}), json!({"priority": priority})), cpu);
    bench.schedule(nodes * 4, &|_| of(0, "900m"));
    bench.going = slow_victims.then(Vec::new);
    let name = if slow_victims { "PreemptionAsyncSlowVictims" } else { "PreemptionAsync" };
    bench.report(&format!("{name} ({nodes} nodes)"), nodes, &|_| of(10, "3000m"));
}

fn churn(nodes: usize) {
    let mut bench = Bench::new(nodes);
    bench.schedule(1, &|_| plain());
    bench.churns = true;
    bench.report("SchedulingWithMixedChurn", 10_000, &|_| plain());
}

fn gated(nodes: usize) {
    let mut bench = Bench::new(nodes);
    let gates = json!({"schedulingGates": [{"name": "test.k8s.io/hold"}]});
    bench.schedule(10_000, &|_| pod("default", json!({}), gates.clone()));
    bench.report("SchedulingWhileGated (10,000 gated)", 20_000, &|_| plain());
}

fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: usize = status.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    pages * 4096
}
