//! Rollouts against a model of replica sets and their pods.

use k8s_openapi::{
    api::apps::v1::{ReplicaSetStatus, RollingUpdateDeployment},
    apimachinery::pkg::{apis::meta::v1::Time, util::intstr::IntOrString},
};
use proptest::prelude::*;

use super::{
    super::strategy::{fixtures::rolling, max_surge, max_unavailable, wanted},
    *,
};
use crate::pods::fixtures::at;

/// A deployment, its sets, and for each set the pods: `true` where available.
#[derive(Clone, Debug)]
struct Model {
    deployment: Deployment,
    sets: Vec<(ReplicaSet, Vec<bool>)>,
    clock: i64,
}

impl Model {
    fn new(deployment: Deployment) -> Self {
        let mut model = Self { deployment, sets: Vec::new(), clock: 0 };
        model.set_image("v1");
        model
    }

    fn set_image(&mut self, image: &str) {
        let template = &mut self.deployment.spec.as_mut().unwrap().template;
        template.metadata.get_or_insert_default().labels = Some([("v".to_owned(), image.to_owned())].into());
        self.spec_changed();
    }

    fn set_replicas(&mut self, replicas: i32) {
        self.deployment.spec.as_mut().unwrap().replicas = Some(replicas);
        self.spec_changed();
    }

    fn spec_changed(&mut self) {
        *self.deployment.metadata.generation.get_or_insert_default() += 1;
    }

    fn pods(&self) -> Vec<Arc<Pod>> {
        let of = |(set, pods): &(ReplicaSet, Vec<bool>)| {
            let owner = orchestrator_core::meta::owner_reference(set, true);
            {
                let pod = Arc::new(crate::pods::pod_from_template(&Default::default(), "default", owner));
                pods.iter().map(|_| pod.clone()).collect::<Vec<_>>()
            }
        };
        self.sets.iter().flat_map(of).collect()
    }

    fn decide(&self) -> Decision {
        let sets: Vec<Arc<ReplicaSet>> = self.sets.iter().map(|(set, _)| Arc::new(set.clone())).collect();
        let pods = self.pods();
        decide(Observed { deployment: &self.deployment, sets: &sets, pods: &pods, now: at(self.clock) })
    }

    /// Does what was decided. Whether that changed anything.
    fn apply(&mut self, decision: Decision) -> bool {
        let before = format!("{:?} {:?}", self.sets, self.deployment);
        if let Some(Write { mut set, .. }) = decision.create {
            set.metadata.uid = set.metadata.name.clone();
            set.metadata.generation = Some(1);
            set.metadata.creation_timestamp = Some(Time(at(self.clock)));
            assert!(self.sets.iter().all(|(other, _)| other.metadata.name != set.metadata.name));
            self.sets.push((set, Vec::new()));
        }
        for Write { mut set, scaled } in decision.update {
            *set.metadata.generation.as_mut().unwrap() += i64::from(scaled.is_some());
            let place = self.sets.iter_mut().find(|(old, _)| old.metadata.name == set.metadata.name).unwrap();
            place.0 = set;
        }
        self.sets.retain(|(set, _)| decision.delete.iter().all(|gone| gone.metadata.name != set.metadata.name));
        if let Some(revision) = decision.revision {
            let annotations = self.deployment.metadata.annotations.get_or_insert_default();
            annotations.insert(REVISION.to_owned(), revision);
        }
        self.deployment.status = Some(decision.status);
        if let Some(rollback) = decision.rollback {
            self.deployment = rollback.applied_to(&self.deployment);
            self.spec_changed();
        }
        before != format!("{:?} {:?}", self.sets, self.deployment)
    }

    fn step(&mut self) -> bool {
        self.clock += 1;
        let decision = self.decide();
        self.apply(decision)
    }

    /// One replica set's controller runs: unavailable pods go first.
    fn run_set(&mut self, index: usize) {
        let Some(count) = self.sets.len().checked_sub(1) else { return };
        let (set, pods) = &mut self.sets[index.min(count)];
        let wanted = usize::try_from(replicas(set)).unwrap();
        pods.sort();
        while pods.len() > wanted {
            pods.remove(0);
        }
        pods.resize(wanted, false);
        report(set, pods);
    }

    /// One pod becomes available, or stops to be.
    fn turn_pod(&mut self, index: usize, available: bool) {
        let total: usize = self.sets.iter().map(|(_, pods)| pods.len()).sum();
        let mut index = index % total.max(1);
        for (set, pods) in &mut self.sets {
            if let Some(pod) = pods.get_mut(index) {
                *pod = available;
                report(set, pods);
                return;
            }
            index -= pods.len();
        }
    }

    fn available(&self) -> i32 {
        self.sets.iter().flat_map(|(_, pods)| pods).filter(|pod| **pod).count() as i32
    }

    fn told(&self) -> i32 {
        self.sets.iter().map(|(set, _)| replicas(set)).sum()
    }

    /// Lets everything happen until nothing changes.
    fn settle(&mut self) {
        for _ in 0..500 {
            let mut changed = self.step();
            for index in 0..self.sets.len() {
                let before = self.sets[index].clone();
                self.run_set(index);
                let (set, pods) = &mut self.sets[index];
                pods.fill(true);
                report(set, pods);
                changed |= before != self.sets[index];
            }
            if !changed {
                return;
            }
        }
        panic!("no end: {self:#?}");
    }

    fn reason(&self, type_: &str) -> Option<String> {
        let conditions = self.deployment.status.as_ref()?.conditions.as_ref()?;
        conditions.iter().find(|condition| condition.type_ == type_)?.reason.clone()
    }

    fn active(&self) -> Vec<&ReplicaSet> {
        self.sets.iter().map(|(set, _)| set).filter(|set| replicas(set) > 0).collect()
    }
}

fn report(set: &mut ReplicaSet, pods: &[bool]) {
    let available = pods.iter().filter(|pod| **pod).count() as i32;
    set.status = Some(ReplicaSetStatus {
        replicas: pods.len() as i32,
        available_replicas: crate::pods::nonzero(available),
        ready_replicas: crate::pods::nonzero(available),
        terminating_replicas: Some(0),
        observed_generation: set.metadata.generation,
        ..Default::default()
    });
}

fn model(replicas: i32) -> Model {
    let quarter = || IntOrString::String("25%".to_owned());
    Model::new(rolling(replicas, quarter(), quarter()))
}

#[test]
fn a_new_deployment_makes_its_set_at_full_size() {
    let mut model = model(3);
    let decision = model.decide();
    let create = decision.create.clone().unwrap();
    assert_eq!(create.scaled, Some((0, 3)));
    assert_eq!(decision.revision.as_deref(), Some("1"));
    let name = create.set.metadata.name.clone().unwrap();
    let hash = create.set.metadata.labels.as_ref().unwrap()["pod-template-hash"].clone();
    assert_eq!(name, format!("d-{hash}"));
    model.apply(decision);
    assert_eq!(model.reason("Progressing").as_deref(), Some("NewReplicaSetCreated"));
    assert_eq!(model.reason("Available").as_deref(), Some("MinimumReplicasUnavailable"));
    model.settle();
    assert_eq!(model.reason("Progressing").as_deref(), Some("NewReplicaSetAvailable"));
    let annotations = serde_json::to_value(&model.sets[0].0.metadata.annotations).unwrap();
    let expected = serde_json::json!({
        "deployment.kubernetes.io/desired-replicas": "3", "deployment.kubernetes.io/max-replicas": "4",
        "deployment.kubernetes.io/revision": "1",
    });
    assert_eq!(annotations, expected);
    let mut status = serde_json::to_value(&model.deployment.status).unwrap();
    status.as_object_mut().unwrap().remove("conditions");
    let expected = serde_json::json!({
        "availableReplicas": 3, "observedGeneration": 2, "readyReplicas": 3, "replicas": 3,
        "terminatingReplicas": 0, "updatedReplicas": 3,
    });
    assert_eq!(status, expected);
}

#[test]
fn a_rollback_revives_the_old_set_with_a_new_revision() {
    let mut model = model(2);
    model.settle();
    model.set_image("v2");
    model.settle();
    model.set_image("v1");
    model.settle();
    assert_eq!(model.sets.len(), 2);
    let first = &model.sets[0].0.metadata;
    let note =
        |name: &str| first.annotations.as_ref().unwrap().get(&format!("deployment.kubernetes.io/{name}")).cloned();
    assert_eq!((note("revision").as_deref(), note("revision-history").as_deref()), (Some("3"), Some("1")));
    // The steps that Kubernetes takes, seen in how often each size changed.
    assert_eq!((first.generation, model.sets[1].0.metadata.generation), (Some(5), Some(4)));
}

fn image(model: &Model) -> &str {
    &model.deployment.spec.as_ref().unwrap().template.metadata.as_ref().unwrap().labels.as_ref().unwrap()["v"]
}

#[test]
fn an_annotation_rolls_back_to_a_revision_with_its_annotations() {
    let mut model = model(2);
    let annotate = |model: &mut Model, key: &str, value: &str| {
        let annotations = model.deployment.metadata.annotations.get_or_insert_default();
        annotations.insert(key.to_owned(), value.to_owned());
    };
    annotate(&mut model, "cause", "create");
    model.settle();
    model.set_image("v2");
    annotate(&mut model, "cause", "edit");
    model.settle();
    for (revision, expected, reason, message) in [
        ("x", "v2", None, ""),
        ("7", "v2", Some("DeploymentRollbackRevisionNotFound"), "Unable to find the revision to rollback to."),
        (
            "2",
            "v2",
            Some("DeploymentRollbackTemplateUnchanged"),
            "The rollback revision contains the same template as current deployment \"d\"",
        ),
        ("0", "v1", Some("DeploymentRollback"), "Rolled back deployment \"d\" to revision 1"),
    ] {
        annotate(&mut model, super::super::sets::ROLLBACK_TO, revision);
        let decision = model.decide();
        let event = decision.rollback.as_ref().map(|rollback| rollback.event.clone());
        let told = event.as_ref().map(|event| (event.reason.as_str(), event.message.as_str()));
        assert_eq!(told, reason.map(|reason| (reason, message)));
        assert_eq!((decision.update.len(), decision.create.is_none()), (0, true), "a rollback scales nothing");
        model.apply(decision);
        assert_eq!(image(&model), expected, "{revision}");
    }
    let annotations = model.deployment.metadata.annotations.clone().unwrap();
    assert_eq!((annotations["cause"].as_str(), annotations.len()), ("create", 2), "{annotations:?}");
    model.settle();
    assert_eq!(revision_of(&model.sets[0].0), 3);
}

#[test]
fn nothing_is_rolled_back_while_paused_or_where_there_is_no_other_revision() {
    let mut model = model(1);
    model.settle();
    let annotation = (super::super::sets::ROLLBACK_TO.to_owned(), "0".to_owned());
    model.deployment.metadata.annotations.get_or_insert_default().extend([annotation]);
    let told = model.decide().rollback.unwrap();
    assert_eq!((told.to, told.event.message.as_str()), (None, "Unable to find last revision."));
    model.deployment.spec.as_mut().unwrap().paused = Some(true);
    assert_eq!(model.decide().rollback, None);
}

#[test]
fn a_paused_set_of_the_right_size_is_left_alone() {
    let mut model = model(3);
    model.settle();
    let spec = model.deployment.spec.as_mut().unwrap();
    spec.paused = Some(true);
    spec.strategy.as_mut().unwrap().rolling_update.as_mut().unwrap().max_surge = Some(IntOrString::Int(3));
    assert_eq!(model.decide().update, []);
    model.set_replicas(4);
    assert_eq!(model.decide().update[0].scaled, Some((3, 4)));
}

#[test]
fn a_stuck_rollout_stops_where_upstream_does() {
    let number = IntOrString::Int;
    let percent = |text: &str| IntOrString::String(text.to_owned());
    for (surge, unavailable, expected) in [
        (number(2), percent("25%"), (4, 3)),
        (number(0), number(1), (4, 1)),
        (percent("0%"), percent("10%"), (4, 1)),
        (percent("50%"), percent("50%"), (3, 5)),
    ] {
        let mut model = Model::new(rolling(5, surge.clone(), unavailable));
        model.settle();
        model.set_image("bad");
        for _ in 0..20 {
            model.step();
            (0..model.sets.len()).for_each(|index| model.run_set(index));
        }
        let sizes = (replicas(&model.sets[0].0), replicas(&model.sets[1].0));
        assert_eq!(sizes, expected, "{surge:?}");
        assert_eq!(model.reason("Progressing").as_deref(), Some("ReplicaSetUpdated"));
        model.clock += 700;
        model.step();
        assert_eq!(model.reason("Progressing").as_deref(), Some("ProgressDeadlineExceeded"));
        assert!(!model.step(), "a stuck rollout is silent");
    }
}

#[test]
fn a_recreation_never_mixes_revisions() {
    let mut model = model(3);
    let strategy = model.deployment.spec.as_mut().unwrap().strategy.as_mut().unwrap();
    (strategy.type_, strategy.rolling_update) = (Some("Recreate".to_owned()), None);
    model.settle();
    model.set_image("v2");
    for _ in 0..10 {
        model.step();
        let running = model.sets.iter().filter(|(_, pods)| !pods.is_empty()).count();
        let told = model.active().len();
        assert!(running <= 1 && told <= 1);
        if told == 1 && model.sets.len() == 2 {
            assert!(model.sets[0].1.is_empty());
        }
        (0..model.sets.len()).for_each(|index| model.run_set(index));
    }
    model.settle();
    assert_eq!(model.sets[1].0.metadata.generation, Some(1));
    assert_eq!(model.reason("Progressing").as_deref(), Some("NewReplicaSetAvailable"));
}

#[test]
fn history_is_cut_to_its_limit() {
    let mut model = model(1);
    model.deployment.spec.as_mut().unwrap().revision_history_limit = Some(1);
    for image in ["a", "b", "c", "d"] {
        model.set_image(image);
        model.settle();
    }
    let revisions: Vec<i64> = model.sets.iter().map(|(set, _)| revision_of(set)).collect();
    assert_eq!(revisions, [3, 4]);
}

#[test]
fn a_paused_deployment_scales_in_proportion_and_rolls_no_further() {
    let mut model = model(10);
    model.settle();
    model.set_image("v2");
    model.step();
    (0..2).for_each(|index| model.run_set(index));
    (0..2).for_each(|_| _ = model.step());
    let before: Vec<i32> = model.sets.iter().map(|(set, _)| replicas(set)).collect();
    model.deployment.spec.as_mut().unwrap().paused = Some(true);
    model.set_replicas(20);
    (0..5).for_each(|_| _ = model.step());
    let after: Vec<i32> = model.sets.iter().map(|(set, _)| replicas(set)).collect();
    assert_eq!((before, after), (vec![8, 5], vec![15, 10]));
    assert_eq!(model.reason("Progressing").as_deref(), Some("DeploymentPaused"));
    model.deployment.spec.as_mut().unwrap().paused = None;
    model.settle();
    assert_eq!(model.reason("Progressing").as_deref(), Some("NewReplicaSetAvailable"));
}

#[derive(Clone, Debug)]
enum Happening {
    Decides,
    SetRuns(usize),
    PodTurns(usize, bool),
}

fn happening(with_failures: bool) -> impl Strategy<Value = Happening> {
    prop_oneof![
        2 => Just(Happening::Decides),
        2 => (0..3_usize).prop_map(Happening::SetRuns),
        3 => (0..40_usize, any::<bool>())
            .prop_map(move |(pod, available)| Happening::PodTurns(pod, available || !with_failures)),
    ]
}

fn amount() -> impl Strategy<Value = IntOrString> {
    prop_oneof![
        (0..6_i32).prop_map(IntOrString::Int),
        (0..=100_i32).prop_map(|percent| IntOrString::String(format!("{percent}%"))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    /// Whatever the pods do, a decision alone neither makes too many nor takes away too much; where no pod fails,
    /// enough are available all the time.
    #[test]
    fn surge_and_unavailability_hold_at_every_step(
        replicas in 1..12_i32, surge in amount(), unavailable in amount(),
        with_failures in any::<bool>(),
        images in proptest::collection::vec("v[1-4]", 1..4),
        happenings in proptest::collection::vec(happening(true), 0..80),
    ) {
        let mut model = Model::new(rolling(replicas, surge, unavailable));
        model.settle();
        let most = wanted(&model.deployment) + max_surge(&model.deployment);
        let least = wanted(&model.deployment) - max_unavailable(&model.deployment);
        for (index, happening) in happenings.iter().enumerate() {
            if index % 20 == 0 {
                model.set_image(&images[(index / 20) % images.len()]);
            }
            let available_before = model.available();
            match happening {
                Happening::Decides => _ = model.step(),
                Happening::SetRuns(set) => model.run_set(*set),
                Happening::PodTurns(pod, available) => model.turn_pod(*pod, *available || !with_failures),
            }
            prop_assert!(model.told() <= most, "{} > {most}", model.told());
            let kept: i32 = model.sets.iter()
                .map(|(set, pods)| (pods.iter().filter(|pod| **pod).count() as i32).min(super::replicas(set))).sum();
            if !with_failures {
                prop_assert!(kept >= least, "{kept} < {least}");
            } else if matches!(happening, Happening::Decides) && available_before < least {
                prop_assert!(model.told() > 0);
            }
        }
        model.settle();
        let active = model.active();
        prop_assert_eq!(active.len(), 1);
        prop_assert_eq!(super::replicas(active[0]), replicas);
        prop_assert_eq!(model.reason("Progressing"), Some("NewReplicaSetAvailable".to_owned()));
        prop_assert!(!model.step(), "a settled deployment is silent");
    }

    /// Scaling in the middle of rollouts ends at the wanted size.
    #[test]
    fn scaling_converges_from_anywhere(
        sizes in proptest::collection::vec(0..15_i32, 1..6), surge in amount(), unavailable in amount(),
        happenings in proptest::collection::vec(happening(false), 0..60),
    ) {
        let mut model = Model::new(rolling(sizes[0], surge, unavailable));
        for (index, happening) in happenings.iter().enumerate() {
            if index % 10 == 0 {
                model.set_replicas(sizes[(index / 10) % sizes.len()]);
                model.set_image(["v1", "v2", "v3"][(index / 10) % 3]);
            }
            match happening {
                Happening::Decides => _ = model.step(),
                Happening::SetRuns(set) => model.run_set(*set),
                Happening::PodTurns(pod, available) => model.turn_pod(*pod, *available),
            }
        }
        model.settle();
        prop_assert_eq!(model.told(), wanted(&model.deployment));
        prop_assert!(!model.step());
    }
}

#[test]
fn nothing_said_about_the_rolling_update_means_a_quarter() {
    let mut model = model(4);
    model.deployment.spec.as_mut().unwrap().strategy.as_mut().unwrap().rolling_update =
        Some(RollingUpdateDeployment::default());
    assert_eq!((max_surge(&model.deployment), max_unavailable(&model.deployment)), (1, 1));
}
