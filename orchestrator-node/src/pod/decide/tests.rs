//! The decisions about a pod, case by case and as properties.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::pod::{containers, memory::Failure};
use orchestrator_core::runtime::{ContainerId, ContainerKey, SandboxId, SandboxKey};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn pod(spec: Value) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": spec})).unwrap()
}

fn sandbox(attempt: u32, state: SandboxState) -> SandboxStatus {
    SandboxStatus {
        id: SandboxId(format!("s{attempt}")),
        key: SandboxKey { pod_uid: "u".into(), attempt },
        namespace: "n".into(),
        name: "p".into(),
        state,
        created_at: at(0),
        addresses: vec![],
        labels: Default::default(),
        annotations: Default::default(),
    }
}

fn run(name: &str, attempt: u32, state: ContainerState) -> ContainerStatus {
    ContainerStatus {
        id: ContainerId(format!("{name}-{attempt}")),
        sandbox: SandboxId("s0".into()),
        key: ContainerKey { name: name.into(), attempt },
        image: "i".into(),
        image_id: "i".into(),
        created_at: at(0),
        state,
        labels: Default::default(),
        annotations: Default::default(),
    }
}

fn running() -> ContainerState {
    ContainerState::Running { started_at: at(0) }
}

fn exited(code: i32) -> ContainerState {
    ContainerState::Exited {
        started_at: Some(at(0)),
        finished_at: at(10),
        exit_code: code,
        signal: None,
        reason: "x".into(),
        message: String::new(),
    }
}

fn container(name: &str) -> Value {
    json!({"name": name, "image": "i", "imagePullPolicy": "IfNotPresent"})
}

fn ready_memory() -> Memory {
    Memory { volumes: Volumes::Ready { refresh_at: None }, ..Memory::default() }
}

#[derive(Debug)]
struct Case {
    pod: Pod,
    previous: PodStatus,
    observed: Observed,
    memory: Memory,
    in_flight: BTreeMap<Slot, Operation>,
    wanted: Wanted,
    now: Timestamp,
}

impl Case {
    fn new(spec: Value, runs: Vec<ContainerStatus>) -> Self {
        Self {
            pod: pod(spec),
            previous: PodStatus::default(),
            observed: Observed::new(vec![sandbox(0, SandboxState::Ready)], runs),
            memory: ready_memory(),
            in_flight: BTreeMap::new(),
            wanted: Wanted::Yes,
            now: at(20),
        }
    }

    fn decide(&self) -> Plan {
        decide(&Situation {
            pod: &self.pod,
            previous: &self.previous,
            observed: &self.observed,
            memory: &self.memory,
            in_flight: &self.in_flight,
            wanted: self.wanted,
            final_status_written: true,
            now: self.now,
        })
    }

    fn started(&self) -> Vec<String> {
        self.decide().start.iter().map(short).collect()
    }
}

fn short(operation: &Operation) -> String {
    match operation {
        Operation::Pull { container, attempt } => format!("pull {container} {attempt}"),
        Operation::Start { container, attempt, .. } => format!("start {container} {attempt}"),
        Operation::Stop { container, .. } => format!("stop {container}"),
        Operation::Remove { id, .. } => format!("remove {id}"),
        Operation::RunSandbox { attempt } => format!("sandbox {attempt}"),
        Operation::StopSandbox { id } => format!("stop {id}"),
        Operation::RemoveSandbox { id } => format!("remove {id}"),
        Operation::Probe { container, kind, .. } => format!("probe {container} {kind:?}"),
        other => format!("{other:?}"),
    }
}

#[test]
fn volumes_then_sandbox_then_image_then_container() {
    let mut case = Case::new(json!({"containers": [container("a"), container("b")]}), vec![]);
    case.observed = Observed::default();
    case.memory = Memory::default();
    assert_eq!(case.started(), ["SetUpVolumes"]);
    case.memory = ready_memory();
    assert_eq!(case.started(), ["sandbox 0"]);
    case.observed = Observed::new(vec![sandbox(0, SandboxState::Ready)], vec![]);
    assert_eq!(case.started(), ["pull a 0", "pull b 0"]);
    case.memory.pulled.insert("a".into(), 0);
    assert_eq!(case.started(), ["start a 0", "pull b 0"]);
    case.in_flight.insert(Slot::Container("a".into()), Operation::Pull { container: "a".into(), attempt: 0 });
    assert_eq!(case.started(), ["pull b 0"]);
}

#[test]
fn init_containers_run_one_after_the_other() {
    let spec = json!({
        "initContainers": [container("i1"), {"name": "s", "image": "i", "restartPolicy": "Always"}, container("i2")],
        "containers": [container("a")],
    });
    let mut case = Case::new(spec, vec![]);
    assert_eq!(case.started(), ["pull i1 0"]);
    let set = |case: &mut Case, runs| case.observed = Observed::new(vec![sandbox(0, SandboxState::Ready)], runs);
    set(&mut case, vec![run("i1", 0, running())]);
    assert_eq!(case.started(), Vec::<String>::new());
    set(&mut case, vec![run("i1", 0, exited(0))]);
    assert_eq!(case.started(), ["pull s 0"]);
    set(&mut case, vec![run("i1", 0, exited(0)), run("s", 0, running())]);
    assert_eq!(case.started(), ["pull i2 0"]);
    set(&mut case, vec![run("i1", 0, exited(0)), run("s", 0, running()), run("i2", 0, exited(0))]);
    assert_eq!(case.started(), ["pull a 0"]);
    set(&mut case, vec![run("s", 0, exited(3)), run("a", 0, running())]);
    assert_eq!(case.started(), ["pull s 1"], "a sidecar comes back beside the running container");
}

#[test]
fn restart_policies() {
    let started = |policy: &str, code| {
        Case::new(json!({"restartPolicy": policy, "containers": [container("a")]}), vec![run("a", 0, exited(code))])
            .started()
    };
    assert_eq!(started("Always", 0), ["pull a 1"]);
    assert_eq!(started("OnFailure", 1), ["pull a 1"]);
    assert_eq!(started("OnFailure", 0), ["stop s0"]);
    assert_eq!(started("Never", 1), ["stop s0"]);
}

#[test]
fn crashes_are_backed_off() {
    let mut case = Case::new(json!({"containers": [container("a")]}), vec![run("a", 1, exited(1))]);
    let delay = std::time::Duration::from_secs(40);
    case.memory.crashes.insert("a".into(), backoff::Backoff { delay, last_try: at(5) });
    let plan = case.decide();
    assert!(plan.start.is_empty());
    assert_eq!(plan.backing_off, [("a".to_owned(), 40)]);
    assert_eq!(plan.wake_at, Some(at(50)));
    case.now = at(50);
    assert_eq!(case.started(), ["pull a 2"]);
}

#[test]
fn a_dead_sandbox_is_made_anew() {
    let mut case = Case::new(json!({"containers": [container("a")]}), vec![run("a", 0, running())]);
    case.observed = Observed::new(vec![sandbox(0, SandboxState::NotReady)], vec![run("a", 0, running())]);
    assert_eq!(case.started(), ["stop a"]);
    case.observed = Observed::new(vec![sandbox(0, SandboxState::NotReady)], vec![run("a", 0, exited(137))]);
    assert_eq!(case.started(), ["sandbox 1"]);
    let sandboxes = vec![sandbox(0, SandboxState::NotReady), sandbox(1, SandboxState::Ready)];
    case.observed = Observed::new(sandboxes, vec![run("a", 0, exited(137))]);
    assert_eq!(case.started(), ["pull a 1"]);
}

#[test]
fn a_deleted_pod_ends_in_order() {
    let spec = json!({
        "initContainers": [
            {"name": "s1", "image": "i", "restartPolicy": "Always"},
            {"name": "s2", "image": "i", "restartPolicy": "Always"},
        ],
        "containers": [container("a")],
    });
    let mut case = Case::new(spec, vec![run("s1", 0, running()), run("s2", 0, running()), run("a", 0, running())]);
    case.pod.metadata.deletion_timestamp = Some(orchestrator_core::object::time(at(50)));
    case.pod.metadata.deletion_grace_period_seconds = Some(30);
    let Operation::Stop { container, deadline, .. } = &case.decide().start[0] else { panic!("no stop") };
    assert_eq!((container.as_str(), *deadline), ("a", at(50)));
    assert_eq!(case.started(), ["stop a"]);
    let set = |case: &mut Case, runs| case.observed = Observed::new(vec![sandbox(0, SandboxState::Ready)], runs);
    set(&mut case, vec![run("s1", 0, running()), run("s2", 0, running()), run("a", 0, exited(0))]);
    assert_eq!(case.started(), ["stop s2"]);
    set(&mut case, vec![run("s1", 0, running()), run("s2", 0, exited(0)), run("a", 0, exited(0))]);
    assert_eq!(case.started(), ["stop s1"]);
    set(&mut case, vec![run("a", 0, exited(0))]);
    assert_eq!(case.started(), ["stop s0"]);
    case.observed = Observed::new(vec![sandbox(0, SandboxState::NotReady)], vec![run("a", 0, exited(0))]);
    assert_eq!(case.started(), ["TearDownVolumes"]);
    case.memory.volumes = Volumes::Gone;
    assert_eq!(case.started(), ["DeletePod"]);
    case.wanted = Wanted::Gone;
    assert_eq!(case.started(), ["remove s0"]);
    case.observed = Observed::default();
    assert!(case.decide().finished);
}

#[test]
fn a_shorter_grace_replaces_a_longer_one() {
    let mut case = Case::new(json!({"containers": [container("a")]}), vec![run("a", 0, running())]);
    case.pod.metadata.deletion_timestamp = Some(orchestrator_core::object::time(at(22)));
    let stop = |deadline| Operation::Stop {
        container: "a".into(),
        id: ContainerId("a-0".into()),
        deadline,
        message: String::new(),
    };
    let slot = Slot::Container("a".into());
    case.in_flight.insert(slot.clone(), stop(at(50)));
    let plan = case.decide();
    assert_eq!(plan.cancel, std::slice::from_ref(&slot));
    assert_eq!(plan.start.len(), 1);
    case.in_flight.insert(slot, stop(at(22)));
    assert_eq!(case.decide(), Plan::default());
}

#[test]
fn a_pod_that_was_active_too_long_ends() {
    let mut case =
        Case::new(json!({"activeDeadlineSeconds": 15, "containers": [container("a")]}), vec![run("a", 0, running())]);
    case.previous.start_time = Some(orchestrator_core::object::time(at(10)));
    assert_eq!(case.decide().wake_at, Some(at(25)));
    case.now = at(25);
    assert_eq!(case.started(), ["stop a"]);
}

#[test]
fn probes_wait_for_the_startup_probe() {
    let probe = json!({"exec": {"command": ["true"]}, "initialDelaySeconds": 5});
    let spec = json!({"containers": [
        {"name": "a", "image": "i", "startupProbe": probe, "livenessProbe": probe, "readinessProbe": probe}]});
    let mut case = Case::new(spec, vec![run("a", 0, running())]);
    assert_eq!(case.started(), ["probe a Startup"]);
    let passed = probe::ProbeState { next_at: at(0), streak: (true, 1), verdict: Some(true) };
    case.memory.probes.insert("a".into(), (0, [(ProbeKind::Startup, passed)].into()));
    assert_eq!(case.started(), ["probe a Liveness", "probe a Readiness"]);
    case.memory.condemned.insert("a".into(), (0, "why".into()));
    assert_eq!(case.started(), ["stop a"]);
}

#[test]
fn lost_containers_count_as_restarts() {
    let mut case = Case::new(json!({"containers": [container("a")]}), vec![]);
    case.previous = serde_json::from_value(json!({"containerStatuses": [{
        "name": "a", "image": "i", "imageID": "", "ready": true, "restartCount": 4,
        "state": {"running": {}}}]}))
    .unwrap();
    assert_eq!(case.started(), ["pull a 5"]);
    assert_eq!(containers::next_attempt(&case.observed, &case.previous, Role::Regular, "a"), 5);
}

fn state() -> impl Strategy<Value = ContainerState> {
    prop_oneof![
        Just(ContainerState::Created),
        Just(running()),
        Just(ContainerState::Unknown),
        (0..3_i32).prop_map(exited),
    ]
}

prop_compose! {
    fn any_case()(
        policy in prop_oneof![Just("Always"), Just("OnFailure"), Just("Never")],
        init in prop::option::of(prop_oneof![Just(None), Just(Some("Always"))]),
        states in prop::collection::vec((0..3_u32, state()), 0..4),
        sandbox_state in prop::option::of(prop_oneof![Just(SandboxState::Ready), Just(SandboxState::NotReady)]),
        deleted in any::<bool>(),
        wanted in prop_oneof![Just(Wanted::Yes), Just(Wanted::Gone), Just(Wanted::Shutdown(5))],
        pulled in any::<bool>(),
        failing in any::<bool>(),
        volumes in 0..3,
        now in 0..100_i64,
    ) -> Case {
        let mut spec = json!({"restartPolicy": policy, "containers": [container("a"), container("b")]});
        if let Some(restart) = init {
            spec["initContainers"] = json!([{"name": "i", "image": "i", "restartPolicy": restart}]);
        }
        let names = ["a", "b", "i", "a"];
        let mut runs: Vec<ContainerStatus> = vec![];
        for (index, (attempt, state)) in states.into_iter().enumerate() {
            let attempt = if index == 3 { attempt + 3 } else { attempt };
            runs.push(run(names[index], attempt, state));
        }
        let mut case = Case::new(spec, vec![]);
        let sandboxes = sandbox_state.map(|state| sandbox(0, state)).into_iter().collect();
        case.observed = Observed::new(sandboxes, runs);
        if deleted {
            case.pod.metadata.deletion_timestamp = Some(orchestrator_core::object::time(at(60)));
        }
        case.wanted = wanted;
        case.now = at(now);
        if pulled {
            case.memory.pulled.insert("a".into(), 0);
        }
        if failing {
            let failure = Failure::new("CreateContainerError", String::new(), at(0), std::time::Duration::from_secs(30));
            case.memory.failures.insert("b".into(), failure);
        }
        case.memory.volumes = match volumes { 0 => Volumes::Unknown, 1 => Volumes::Gone, _ => Volumes::Ready { refresh_at: None } };
        case
    }
}

proptest! {
    #[test]
    fn one_operation_per_slot_and_none_twice(mut case in any_case()) {
        let plan = case.decide();
        let mut slots: Vec<Slot> = plan.start.iter().map(Operation::slot).collect();
        slots.sort();
        slots.dedup();
        prop_assert_eq!(slots.len(), plan.start.len());
        for operation in plan.start {
            case.in_flight.insert(operation.slot(), operation);
        }
        let again = case.decide();
        for operation in &again.start {
            let slot = operation.slot();
            prop_assert!(again.cancel.contains(&slot) || !case.in_flight.contains_key(&slot));
        }
    }

    #[test]
    fn a_pod_that_ends_starts_nothing(case in any_case()) {
        let ending = case.wanted != Wanted::Yes || case.pod.metadata.deletion_timestamp.is_some();
        for operation in case.decide().start {
            let starts = matches!(operation, Operation::Start { .. } | Operation::Pull { .. } | Operation::RunSandbox { .. });
            prop_assert!(!(ending && starts), "{:?}", operation);
        }
    }

    #[test]
    fn never_two_runs_of_a_container_at_once(case in any_case()) {
        for operation in case.decide().start {
            if let Operation::Start { container, attempt, .. } = operation {
                let alive = case.observed.runs(&container).any(|run| run.state.is_running() && run.key.attempt != attempt);
                let newest = case.observed.newest_run(&container).is_some_and(|run| run.state.is_running());
                prop_assert!(!newest, "{container} {attempt} {alive}");
            }
        }
    }

    #[test]
    fn there_is_always_something_to_come(case in any_case()) {
        let plan = case.decide();
        let waits = plan.finished || !plan.start.is_empty() || plan.wake_at.is_some();
        let alive = case.observed.containers().iter().any(|run| run.state.is_running());
        let pending = case.pod.metadata.deletion_timestamp.is_none() && case.wanted == Wanted::Yes;
        prop_assert!(waits || alive || pending, "{plan:?}");
    }
}
