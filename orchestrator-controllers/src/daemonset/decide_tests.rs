//! Runs of a daemon set against a model of its nodes and pods.

use k8s_openapi::{
    api::{
        apps::v1::{DaemonSetSpec, DaemonSetUpdateStrategy},
        core::v1::{NodeSpec, Taint},
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use proptest::prelude::*;

use super::*;
use crate::pods::fixtures::{at, running, set_running};

struct Model {
    set: DaemonSet,
    nodes: Vec<Arc<Node>>,
    pods: Vec<Arc<Pod>>,
    hash: String,
    waiting: BTreeMap<String, Duration>,
    made: usize,
    second: i64,
}

impl Model {
    fn new(nodes: usize, surge: i32, unavailable: i32) -> Self {
        let mut set = DaemonSet::default();
        set.metadata.name = Some("d".to_owned());
        set.metadata.uid = Some("uid-d".to_owned());
        set.metadata.generation = Some(1);
        set.spec = Some(DaemonSetSpec {
            update_strategy: Some(DaemonSetUpdateStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(RollingUpdateDaemonSet {
                    max_surge: Some(IntOrString::Int(surge)),
                    max_unavailable: Some(IntOrString::Int(unavailable)),
                }),
            }),
            ..Default::default()
        });
        let node = |number: usize| {
            let metadata = ObjectMeta { name: Some(format!("n{number}")), ..Default::default() };
            Arc::new(Node { metadata, ..Default::default() })
        };
        Self {
            set,
            nodes: (0..nodes).map(node).collect(),
            pods: Vec::new(),
            hash: "v1".to_owned(),
            waiting: BTreeMap::new(),
            made: 0,
            second: 0,
        }
    }

    fn observed(&self) -> Observed<'_> {
        Observed {
            set: &self.set,
            nodes: &self.nodes,
            pods: &self.pods,
            hash: &self.hash,
            waiting: &self.waiting,
            now: at(self.second),
        }
    }

    /// Decides, and does it; pods that go are gone at once.
    fn step(&mut self) -> Decision {
        self.second += 1;
        let decision = decide(self.observed());
        for node in &decision.create {
            self.made += 1;
            let mut pod = Placement::of(&self.set).pod(&self.set, node, &self.hash);
            pod.metadata.name = Some(format!("p{}", self.made));
            pod.metadata.uid = pod.metadata.name.clone();
            pod.metadata.creation_timestamp = Some(Time(at(self.second)));
            self.pods.push(Arc::new(pod));
        }
        let gone = |pod: &Arc<Pod>| decision.delete.iter().any(|gone| gone.metadata.uid == pod.metadata.uid);
        self.pods.retain(|pod| !gone(pod));
        decision
    }

    fn start_all(&mut self) {
        let second = self.second;
        for pod in &mut self.pods {
            if phase(pod).is_empty() {
                set_running(Arc::make_mut(pod), Some(second));
            }
        }
    }

    fn settle(&mut self) {
        for _ in 0..40 {
            self.start_all();
            if self.step() == Decision::default() {
                return;
            }
        }
        panic!("it never settles");
    }

    fn available(&self) -> usize {
        self.pods.iter().filter(|pod| is_ready(pod) && !is_deleting(pod)).count()
    }

    fn taint(&mut self, node: usize, effect: &str) {
        let taint = Taint { key: "k".to_owned(), effect: effect.to_owned(), ..Default::default() };
        Arc::make_mut(&mut self.nodes[node]).spec = Some(NodeSpec { taints: Some(vec![taint]), ..Default::default() });
    }
}

#[test]
fn every_node_gets_one_pod_and_loses_it_with_the_right_to_it() {
    let mut model = Model::new(3, 0, 1);
    model.settle();
    assert_eq!(model.pods.len(), 3);
    model.taint(0, "NoSchedule");
    model.taint(1, "NoExecute");
    model.settle();
    let on: Vec<_> = model.pods.iter().filter_map(|pod| target_node(pod)).collect();
    assert_eq!(on, ["n0", "n2"]);
    let status = status(model.observed(), 0);
    let expected = serde_json::json!({
        "currentNumberScheduled": 1, "desiredNumberScheduled": 1, "numberAvailable": 1, "numberMisscheduled": 1,
        "numberReady": 1, "observedGeneration": 1, "updatedNumberScheduled": 1,
    });
    assert_eq!(serde_json::to_value(status).unwrap(), expected);
}

#[test]
fn a_failed_pod_goes_after_a_pause_and_a_succeeded_one_at_once() {
    let mut model = Model::new(2, 0, 1);
    model.settle();
    for (pod, phase) in model.pods.iter_mut().zip(["Failed", "Succeeded"]) {
        Arc::make_mut(pod).status.as_mut().unwrap().phase = Some(phase.to_owned());
    }
    model.waiting = [("n0".to_owned(), Duration::from_secs(4))].into();
    let decision = decide(model.observed());
    assert_eq!((decision.ended.len(), decision.look_again), (1, Some(Duration::from_secs(4))));
    model.waiting.clear();
    assert_eq!(decide(model.observed()).ended.len(), 2);
    model.settle();
    assert_eq!((model.pods.len(), model.made), (2, 4));
}

#[test]
fn without_rolling_updates_old_pods_stay() {
    let mut model = Model::new(2, 0, 1);
    model.set.spec.as_mut().unwrap().update_strategy.as_mut().unwrap().type_ = Some("OnDelete".to_owned());
    model.settle();
    model.hash = "v2".to_owned();
    assert_eq!(model.step(), Decision::default());
    model.pods.remove(0);
    model.settle();
    let observed = status(model.observed(), 0);
    assert_eq!((observed.updated_number_scheduled, observed.number_unavailable), (Some(1), None));
}

#[test]
fn an_outdated_pod_that_does_not_serve_goes_and_counts_as_missing() {
    let mut model = Model::new(3, 0, 1);
    model.settle();
    model.hash = "v2".to_owned();
    set_running(Arc::make_mut(&mut model.pods[1]), None);
    let gone = decide(model.observed()).delete;
    assert_eq!(gone, [model.pods[1].clone()], "none that serves goes with it");
}

#[test]
fn a_surge_takes_pods_from_nodes_that_get_none_once_others_serve() {
    let mut model = Model::new(2, 1, 0);
    model.settle();
    model.taint(0, "NoSchedule");
    model.hash = "v2".to_owned();
    let decision = decide(model.observed());
    assert_eq!(decision.create, ["n1"]);
    assert_eq!(decision.delete, [model.pods[0].clone()], "one is wanted, and two serve");
    set_running(Arc::make_mut(&mut model.pods[1]), None);
    assert_eq!(decide(model.observed()).delete, [], "the last one that serves stays");
    set_running(Arc::make_mut(&mut model.pods[0]), None);
    assert_eq!(decide(model.observed()).delete, [model.pods[0].clone()]);
}

#[test]
fn an_update_that_does_not_become_ready_stops() {
    let mut model = Model::new(3, 0, 1);
    model.settle();
    model.hash = "v2".to_owned();
    for _ in 0..6 {
        model.step();
    }
    assert_eq!((model.available(), model.pods.len()), (2, 3));
}

proptest! {
    #[test]
    fn an_update_keeps_within_its_bounds_and_ends(
        nodes in 1..8_usize, surge in 0..4_i32, unavailable in 0..4_i32, late in prop::collection::vec(any::<bool>(), 40),
    ) {
        let unavailable = if surge == 0 { unavailable.max(1) } else { 0 };
        let mut model = Model::new(nodes, surge, unavailable);
        model.settle();
        model.hash = "v2".to_owned();
        for start in late {
            if start {
                model.start_all();
            }
            model.step();
            let missing = nodes - model.available().min(nodes);
            prop_assert!(missing <= unavailable as usize, "{missing} of {nodes} are missing");
            prop_assert!(model.pods.len() <= nodes + surge as usize);
        }
        model.settle();
        prop_assert_eq!(model.pods.len(), nodes);
        let updated = model.pods.iter().all(|pod| meta::label(&pod.metadata, REVISION_LABEL) == Some("v2"));
        prop_assert!(updated);
        prop_assert_eq!(decide(model.observed()), Decision::default());
    }

    #[test]
    fn whatever_pods_there_are_each_node_ends_with_one(
        found in prop::collection::vec((0..6_usize, 0..3_usize, any::<bool>()), 0..12), surge in 0..2_i32,
    ) {
        let mut model = Model::new(4, surge, 1 - surge);
        for (number, (node, revision, ready)) in found.into_iter().enumerate() {
            let mut pod = running(&format!("f{number}"), ready.then_some(0));
            let labels = [(REVISION_LABEL.to_owned(), format!("v{revision}"))];
            pod.metadata.labels = Some(labels.into());
            pod.spec.get_or_insert_default().node_name = Some(format!("n{node}"));
            model.pods.push(Arc::new(pod));
        }
        for _ in 0..40 {
            model.start_all();
            for pod in &mut model.pods {
                set_running(Arc::make_mut(pod), Some(0));
            }
            model.step();
        }
        let mut on: Vec<_> = model.pods.iter().filter_map(|pod| target_node(pod)).collect();
        on.retain(|node| *node < "n4");
        on.sort_unstable();
        prop_assert_eq!(on, ["n0", "n1", "n2", "n3"]);
        prop_assert_eq!(decide(model.observed()), Decision::default());
    }
}
