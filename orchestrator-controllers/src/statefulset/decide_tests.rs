//! Runs of a stateful set against a model of its pods and claims.

use k8s_openapi::{
    api::apps::v1::{StatefulSetOrdinals, StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetUpdateStrategy},
    apimachinery::pkg::{
        apis::meta::v1::{ObjectMeta, Time},
        util::intstr::IntOrString,
    },
};
use proptest::prelude::*;

use super::{
    super::revisions::{current_revision, keeper},
    *,
};
use crate::pods::{
    Update,
    fixtures::{at, set_running},
    sorted,
};

#[derive(Clone, Debug)]
struct Model {
    set: StatefulSet,
    revisions: Vec<Arc<ControllerRevision>>,
    pods: Vec<Arc<Pod>>,
    claims: BTreeMap<String, Arc<PersistentVolumeClaim>>,
    made: usize,
}

impl Model {
    fn new(replicas: i32, policy: &str) -> Self {
        let mut set = StatefulSet::default();
        set.metadata.name = Some("s".to_owned());
        set.metadata.uid = Some("uid-s".to_owned());
        let claim = PersistentVolumeClaim {
            metadata: ObjectMeta { name: Some("w".to_owned()), ..Default::default() },
            ..Default::default()
        };
        set.spec = Some(StatefulSetSpec {
            replicas: Some(replicas),
            pod_management_policy: Some(policy.to_owned()),
            update_strategy: Some(StatefulSetUpdateStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(RollingUpdateStatefulSetStrategy { partition: Some(0), max_unavailable: None }),
            }),
            volume_claim_templates: Some(vec![claim]),
            ..Default::default()
        });
        let mut model = Self { set, revisions: Vec::new(), pods: Vec::new(), claims: BTreeMap::new(), made: 0 };
        model.set_image("v1");
        model
    }

    fn spec(&mut self) -> &mut StatefulSetSpec {
        self.set.spec.as_mut().unwrap()
    }

    fn rolling(&mut self) -> &mut RollingUpdateStatefulSetStrategy {
        self.spec().update_strategy.as_mut().unwrap().rolling_update.get_or_insert_default()
    }

    fn set_image(&mut self, image: &str) {
        let metadata = self.spec().template.metadata.get_or_insert_default();
        metadata.labels = Some([("v".to_owned(), image.to_owned())].into());
        *self.set.metadata.generation.get_or_insert_default() += 1;
    }

    fn decide(&mut self) -> Decision {
        let revisions = sorted(&self.revisions);
        let update = match keeper(&self.set).update(&revisions, 0) {
            Update::Newest(revision) => revision,
            Update::Renumber(mut revision, number) => {
                self.revisions.retain(|old| old.metadata.name != revision.metadata.name);
                revision.revision = number;
                self.revisions.push(Arc::new(revision.clone()));
                revision
            }
            Update::Create(revision) => {
                self.revisions.push(Arc::new(revision.clone()));
                revision
            }
        };
        let current = current_revision(&self.set, &revisions, &update);
        decide(Observed {
            set: &self.set,
            current: &current,
            update: &update,
            collisions: 0,
            pods: &self.pods,
            claims: &self.claims,
            now: at(1000),
        })
    }

    fn apply(&mut self, decision: Decision) {
        for step in decision.steps {
            match step {
                Step::CreateClaim(claim, _) => {
                    let name = claim.metadata.name.clone().unwrap();
                    assert!(self.claims.insert(name, Arc::new(*claim)).is_none());
                }
                Step::AwaitClaim(..) | Step::TellConflict(_) => {}
                Step::OwnClaim(claim, owners) => {
                    let claim = self.claims.get_mut(claim.metadata.name.as_ref().unwrap()).unwrap();
                    Arc::make_mut(claim).metadata.owner_references = Some(owners);
                }
                Step::CreatePod(mut pod) => {
                    assert!(self.pods.iter().all(|other| other.metadata.name != pod.metadata.name), "two of one name");
                    self.made += 1;
                    pod.metadata.uid = Some(format!("uid-{}", self.made));
                    pod.status.get_or_insert_default().phase = Some("Pending".to_owned());
                    self.pods.push(Arc::new(*pod));
                }
                Step::LabelPod(pod, labels) => {
                    Arc::make_mut(self.pod(&pod)).metadata.labels.get_or_insert_default().extend(labels);
                }
                Step::DeletePod(pod, _) => {
                    Arc::make_mut(self.pod(&pod)).metadata.deletion_timestamp = Some(Time(at(1000)));
                }
            }
        }
        self.set.status = Some(decision.status);
    }

    fn pod(&mut self, pod: &Pod) -> &mut Arc<Pod> {
        self.pods.iter_mut().find(|other| other.metadata.uid == pod.metadata.uid).unwrap()
    }

    /// Whether anything was done.
    fn step(&mut self) -> bool {
        let decision = self.decide();
        let changed = !decision.steps.is_empty() || self.set.status.as_ref() != Some(&decision.status);
        self.apply(decision);
        changed
    }

    /// A pod moves on: what is deleted goes, what waits runs.
    fn run_pod(&mut self, index: usize) {
        if is_deleting(&self.pods[index]) {
            let pod = self.pods.remove(index);
            // The garbage collector, for claims that go with their pod.
            self.claims.retain(|_, claim| {
                orchestrator_core::meta::controller_of(&claim.metadata)
                    .is_none_or(|owner| Some(&owner.uid) != pod.metadata.uid.as_ref())
            });
        } else if phase(&self.pods[index]) == "Pending" {
            set_running(Arc::make_mut(&mut self.pods[index]), Some(0));
        }
    }

    fn settle(&mut self) {
        for _ in 0..500 {
            let before = self.pods.clone();
            let changed = self.step();
            for index in (0..self.pods.len()).rev() {
                self.run_pod(index);
            }
            if !changed && before == self.pods {
                return;
            }
        }
        panic!("no end: {self:#?}");
    }

    fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.pods.iter().map(|pod| pod.metadata.name.as_deref().unwrap()).collect();
        names.sort_unstable();
        names
    }

    fn serving(&self, pod: &Pod) -> bool {
        phase(pod) == "Running" && is_ready(pod) && !is_deleting(pod)
    }

    fn ordinal(&self, pod: &Pod) -> i32 {
        ordinal_of(&self.set, pod.metadata.name.as_deref().unwrap()).unwrap()
    }

    fn status(&self) -> serde_json::Value {
        serde_json::to_value(&self.set.status).unwrap()
    }
}

#[test]
fn pods_come_one_after_the_other_with_their_claims() {
    let mut model = Model::new(3, "OrderedReady");
    model.step();
    assert_eq!(model.names(), ["s-0"]);
    assert!(!model.decide().steps.iter().any(|step| matches!(step, Step::CreatePod(_))));
    model.settle();
    assert_eq!(model.names(), ["s-0", "s-1", "s-2"]);
    assert_eq!(model.claims.keys().collect::<Vec<_>>(), ["w-s-0", "w-s-1", "w-s-2"]);
    let status = model.status();
    let name = model.revisions[0].metadata.name.clone();
    let expected = serde_json::json!({
        "availableReplicas": 3, "collisionCount": 0, "currentReplicas": 3, "currentRevision": name,
        "observedGeneration": 1, "readyReplicas": 3, "replicas": 3, "updateRevision": name, "updatedReplicas": 3,
    });
    assert_eq!(status, expected);
}

#[test]
fn in_parallel_pods_come_at_once() {
    let mut model = Model::new(3, "Parallel");
    model.spec().ordinals = Some(StatefulSetOrdinals { start: Some(5) });
    model.step();
    assert_eq!(model.names(), ["s-5", "s-6", "s-7"]);
    model.settle();
    model.spec().replicas = Some(1);
    model.step();
    assert_eq!(model.pods.iter().filter(|pod| is_deleting(pod)).count(), 2);
}

#[test]
fn a_partition_keeps_the_lower_ordinals() {
    let mut model = Model::new(3, "OrderedReady");
    model.rolling().partition = Some(2);
    model.settle();
    model.set_image("v2");
    model.settle();
    let status = model.status();
    assert_eq!((&status["currentReplicas"], &status["updatedReplicas"]), (&2.into(), &1.into()));
    assert_ne!(status["currentRevision"], status["updateRevision"]);
    // A pod below the partition comes back as it was.
    let lost = model.pods.iter().position(|pod| pod.metadata.name.as_deref() == Some("s-0")).unwrap();
    let before = pod_revision(&model.pods.remove(lost)).map(str::to_owned);
    model.settle();
    let again = model.pods.iter().find(|pod| pod.metadata.name.as_deref() == Some("s-0")).unwrap();
    assert_eq!(pod_revision(again).map(str::to_owned), before);
    model.rolling().partition = Some(0);
    model.settle();
    let status = model.status();
    assert_eq!(status["currentRevision"], status["updateRevision"]);
    assert_eq!((&status["currentReplicas"], &status["updatedReplicas"]), (&3.into(), &3.into()));
}

#[test]
fn on_delete_waits_for_somebody_to_delete() {
    let mut model = Model::new(2, "OrderedReady");
    model.spec().update_strategy =
        Some(StatefulSetUpdateStrategy { type_: Some("OnDelete".to_owned()), rolling_update: None });
    model.settle();
    model.set_image("v2");
    model.settle();
    assert_eq!(model.status()["currentReplicas"], 2);
    assert!(model.status().get("updatedReplicas").is_none());
    model.pods.retain(|pod| pod.metadata.name.as_deref() != Some("s-1"));
    model.settle();
    assert_eq!((&model.status()["currentReplicas"], &model.status()["updatedReplicas"]), (&1.into(), &1.into()));
}

#[test]
fn failed_pods_are_made_anew() {
    for (ended, why) in [("Failed", Why::Failed), ("Succeeded", Why::Ended)] {
        let mut model = Model::new(2, "OrderedReady");
        model.settle();
        Arc::make_mut(&mut model.pods[0]).status.as_mut().unwrap().phase = Some(ended.to_owned());
        let steps = model.decide().steps;
        assert!(matches!(&steps[..], [Step::DeletePod(_, found)] if *found == why), "{steps:?}");
        model.settle();
        assert_eq!(model.names(), ["s-0", "s-1"]);
    }
}

#[test]
fn claims_go_with_scaled_pods_where_the_policy_says_so() {
    let mut model = Model::new(3, "OrderedReady");
    model.spec().persistent_volume_claim_retention_policy = Some(StatefulSetPersistentVolumeClaimRetentionPolicy {
        when_deleted: Some("Delete".to_owned()),
        when_scaled: Some("Delete".to_owned()),
    });
    model.settle();
    assert!(model.claims.values().all(|claim| orchestrator_core::meta::is_controlled_by(&claim.metadata, "uid-s")));
    model.spec().replicas = Some(1);
    model.settle();
    assert_eq!(model.claims.keys().collect::<Vec<_>>(), ["w-s-0"]);
    model.spec().replicas = Some(2);
    model.settle();
    assert_eq!(model.claims.len(), 2);
}

fn outdated(model: &Model, decision: &Decision) -> Vec<i32> {
    let ordinal = |step: &Step| match step {
        Step::DeletePod(pod, Why::Outdated) => Some(model.ordinal(pod)),
        _ => None,
    };
    decision.steps.iter().filter_map(ordinal).collect()
}

#[test]
fn an_update_takes_one_pod_after_the_other_from_the_top() {
    let mut model = Model::new(3, "Parallel");
    model.settle();
    // That another pod does not serve changes nothing.
    set_running(Arc::make_mut(&mut model.pods[0]), None);
    model.set_image("v2");
    let decision = model.decide();
    assert_eq!(outdated(&model, &decision), [2]);
    model.apply(decision);
    let decision = model.decide();
    assert_eq!(outdated(&model, &decision), [0; 0], "the one that goes is waited for");
    model.settle();
    assert_eq!(model.status()["updatedReplicas"], 3);
}

#[test]
fn a_claim_that_goes_is_waited_for_and_told() {
    let mut model = Model::new(1, "OrderedReady");
    model.settle();
    model.pods.clear();
    let claim = Arc::make_mut(model.claims.get_mut("w-s-0").unwrap());
    claim.metadata.deletion_timestamp = Some(Time(at(1)));
    let steps = model.decide().steps;
    assert!(matches!(&steps[..], [Step::AwaitClaim(..), Step::CreatePod(_)]), "{steps:?}");
}

#[test]
fn the_index_alone_is_not_restored() {
    let mut model = Model::new(1, "OrderedReady");
    model.settle();
    for (label, restored) in [("apps.kubernetes.io/pod-index", false), ("statefulset.kubernetes.io/pod-name", true)] {
        let mut model = model.clone();
        Arc::make_mut(&mut model.pods[0]).metadata.labels.as_mut().unwrap().remove(label);
        let steps = model.decide().steps;
        assert_eq!(steps.iter().any(|step| matches!(step, Step::LabelPod(..))), restored, "{label}");
    }
}

#[test]
fn another_retention_policy_changes_claims_and_is_told_of_their_pods() {
    let mut model = Model::new(1, "OrderedReady");
    model.settle();
    model.spec().persistent_volume_claim_retention_policy = Some(StatefulSetPersistentVolumeClaimRetentionPolicy {
        when_deleted: Some("Delete".to_owned()),
        when_scaled: None,
    });
    let steps = model.decide().steps;
    assert!(matches!(&steps[..], [Step::OwnClaim(..), Step::LabelPod(..)]), "{steps:?}");
}

#[test]
fn what_fails_for_all_pods_is_not_tried_with_each() {
    let mut model = Model::new(8, "Parallel");
    let decision = model.decide();
    let creations: Vec<&Step> = decision.steps.iter().filter(|step| matches!(step, Step::CreatePod(_))).collect();
    for (failed, tried) in [(0, 1), (1, 3), (2, 3), (3, 7)] {
        let may = |step: &&&Step| may_follow(&model.set, creations[failed], step);
        assert_eq!(creations.iter().filter(may).count(), tried, "{failed}");
    }
    let pod = Arc::new(Pod::default());
    let (scaled, outdated) = (Step::DeletePod(pod.clone(), Why::Scaled), Step::DeletePod(pod, Why::Outdated));
    assert!(!may_follow(&model.set, creations[0], &scaled) && !may_follow(&model.set, &scaled, &outdated));
    assert!(may_follow(&model.set, &scaled, &scaled));
}

#[test]
fn max_unavailable_lets_several_pods_be_updated_at_once() {
    let mut model = Model::new(5, "Parallel");
    model.rolling().max_unavailable = Some(IntOrString::String("50%".to_owned()));
    model.settle();
    model.set_image("v2");
    model.step();
    let mut going: Vec<i32> = model.pods.iter().filter(|pod| is_deleting(pod)).map(|pod| model.ordinal(pod)).collect();
    going.sort_unstable();
    assert_eq!(going, [3, 4]);
    model.settle();
}

#[test]
fn pods_that_ended_do_not_hold_up_scaling_down() {
    let mut model = Model::new(2, "OrderedReady");
    model.settle();
    for pod in &mut model.pods {
        Arc::make_mut(pod).status.as_mut().unwrap().phase = Some("Failed".to_owned());
    }
    model.spec().replicas = Some(0);
    model.settle();
    assert!(model.pods.is_empty());
}

#[test]
fn a_set_that_goes_does_nothing() {
    let mut model = Model::new(2, "OrderedReady");
    model.set.metadata.deletion_timestamp = Some(Time(at(1)));
    assert_eq!(model.decide().steps, []);
}

#[derive(Clone, Debug)]
enum Happening {
    Decides,
    PodRuns(usize),
    PodFails(usize),
    PodIsDeleted(usize),
    Scales(i32),
    Updates(usize),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        6 => Just(Happening::Decides),
        6 => (0..10_usize).prop_map(Happening::PodRuns),
        1 => (0..10_usize).prop_map(Happening::PodFails),
        1 => (0..10_usize).prop_map(Happening::PodIsDeleted),
        1 => (0..6_i32).prop_map(Happening::Scales),
        1 => (0..3_usize).prop_map(Happening::Updates),
    ]
}

fn check_order(model: &Model, decision: &Decision) -> Result<(), TestCaseError> {
    let wanted = ordinals(&model.set);
    let created: Vec<i32> = decision
        .steps
        .iter()
        .filter_map(|step| if let Step::CreatePod(pod) = step { Some(model.ordinal(pod)) } else { None })
        .collect();
    let deleted: Vec<i32> = decision
        .steps
        .iter()
        .filter_map(|step| match step {
            Step::DeletePod(pod, Why::Scaled | Why::Outdated) => Some(model.ordinal(pod)),
            _ => None,
        })
        .collect();
    prop_assert!(created.len() <= 1 && deleted.len() <= 1);
    let serves = |ordinal: &i32| model.pods.iter().any(|pod| model.ordinal(pod) == *ordinal && model.serving(pod));
    for ordinal in &created {
        prop_assert!((wanted.start..*ordinal).all(|lower| serves(&lower)), "{ordinal} before a lower one");
    }
    for ordinal in &deleted {
        prop_assert!(wanted.clone().all(|other| serves(&other)), "{ordinal} goes while another is down");
        let higher = model.pods.iter().map(|pod| model.ordinal(pod)).filter(|other| other > ordinal).max();
        prop_assert!(wanted.contains(ordinal) || higher.is_none(), "{ordinal} before a higher one");
    }
    Ok(())
}

fn happens(model: &mut Model, happening: &Happening) {
    let count = model.pods.len();
    match happening {
        Happening::Decides => _ = model.step(),
        Happening::PodRuns(pod) if count > 0 => model.run_pod(pod % count),
        Happening::PodFails(pod) if count > 0 => {
            Arc::make_mut(&mut model.pods[pod % count]).status.as_mut().unwrap().phase = Some("Failed".to_owned());
        }
        Happening::PodIsDeleted(pod) if count > 0 => {
            Arc::make_mut(&mut model.pods[pod % count]).metadata.deletion_timestamp = Some(Time(at(1000)));
        }
        Happening::Scales(replicas) => model.spec().replicas = Some(*replicas),
        Happening::Updates(image) => model.set_image(["v1", "v2", "v3"][*image]),
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn order_and_identity_hold_and_it_converges(
        replicas in 0..6_i32, happenings in proptest::collection::vec(happening(), 0..80),
    ) {
        let mut model = Model::new(replicas, "OrderedReady");
        for happening in &happenings {
            if matches!(happening, Happening::Decides) {
                let decision = model.decide();
                check_order(&model, &decision)?;
            }
            happens(&mut model, happening);
        }
        model.settle();
        prop_assert_eq!(model.pods.len(), ordinals(&model.set).len());
        let update = model.set.status.as_ref().unwrap().update_revision.clone();
        prop_assert!(model.pods.iter().all(|pod| pod_revision(pod) == update.as_deref()));
        prop_assert!(!model.step(), "a settled set is silent");
    }

    #[test]
    fn in_parallel_an_update_waits_for_each_pod(
        replicas in 0..7_i32, happenings in proptest::collection::vec(happening(), 0..80),
    ) {
        let mut model = Model::new(replicas, "Parallel");
        for happening in &happenings {
            if matches!(happening, Happening::Decides) {
                let decision = model.decide();
                let taken = outdated(&model, &decision);
                prop_assert!(taken.len() <= 1);
                let serves = |ordinal| model.pods.iter().any(|pod| model.ordinal(pod) == ordinal && model.serving(pod));
                prop_assert!(taken.iter().all(|taken| (taken + 1..ordinals(&model.set).end).all(serves)));
            }
            happens(&mut model, happening);
        }
        model.settle();
        prop_assert_eq!(model.pods.len(), ordinals(&model.set).len());
        prop_assert!(!model.step());
    }

    #[test]
    fn in_parallel_no_more_are_taken_down_for_an_update_than_allowed(
        replicas in 0..7_i32, allowed in 2..4_i32, happenings in proptest::collection::vec(happening(), 0..80),
    ) {
        let mut model = Model::new(replicas, "Parallel");
        model.rolling().max_unavailable = Some(IntOrString::Int(allowed));
        for happening in &happenings {
            if matches!(happening, Happening::Decides) {
                let decision = model.decide();
                let down = ordinals(&model.set)
                    .filter(|ordinal| !model.pods.iter().any(|pod| model.ordinal(pod) == *ordinal && model.serving(pod)))
                    .count();
                let taken = decision.steps.iter()
                    .filter(|step| matches!(step, Step::DeletePod(pod, Why::Outdated) if model.serving(pod))).count();
                prop_assert!(taken == 0 || down + taken <= allowed as usize);
            }
            happens(&mut model, happening);
        }
        model.settle();
        prop_assert_eq!(model.pods.len(), ordinals(&model.set).len());
        prop_assert!(!model.step());
    }
}
