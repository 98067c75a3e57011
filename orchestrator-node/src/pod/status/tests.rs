//! The status of a pod as it follows from its containers.

use serde_json::{Value, json};

use super::*;
use crate::pod::{backoff::Backoff, memory::Failure};
use orchestrator_core::runtime::{ContainerId, ContainerKey, SandboxId, SandboxKey, SandboxState, SandboxStatus};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn run(name: &str, attempt: u32, state: ContainerState) -> ContainerStatus {
    ContainerStatus {
        id: ContainerId(format!("{name}-{attempt}")),
        sandbox: SandboxId("s".into()),
        key: ContainerKey { name: name.into(), attempt },
        image: "img".into(),
        image_id: "sha256:1".into(),
        created_at: at(0),
        state,
        labels: Default::default(),
        annotations: Default::default(),
    }
}

fn running() -> ContainerState {
    ContainerState::Running { started_at: at(1) }
}

fn exited(code: i32) -> ContainerState {
    ContainerState::Exited {
        started_at: Some(at(1)),
        finished_at: at(9),
        exit_code: code,
        signal: None,
        reason: if code == 0 { "Completed" } else { "Error" }.into(),
        message: String::new(),
    }
}

fn show(spec: Value, runs: Vec<ContainerStatus>, memory: &Memory, previous: Value) -> Value {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "n", "uid": "u", "generation": 3}, "spec": spec, "status": previous,
    }))
    .unwrap();
    let sandbox = SandboxStatus {
        id: SandboxId("s".into()),
        key: SandboxKey { pod_uid: "u".into(), attempt: 0 },
        namespace: "n".into(),
        name: "p".into(),
        state: SandboxState::Ready,
        created_at: at(0),
        addresses: vec!["10.0.0.7".parse().unwrap()],
        labels: Default::default(),
        annotations: Default::default(),
    };
    let observed = Observed::new(vec![sandbox], runs);
    let node = NodeFacts { runtime: "rt".into(), addresses: vec!["192.0.2.1".parse().unwrap()] };
    let status = compute(&View {
        pod: &pod,
        previous: crate::pod::status_of(&pod),
        observed: &observed,
        memory,
        node: &node,
        ending: false,
        now: at(10),
    });
    serde_json::to_value(status).unwrap()
}

fn condition<'a>(status: &'a Value, kind: &str) -> &'a Value {
    status["conditions"].as_array().unwrap().iter().find(|condition| condition["type"] == kind).unwrap()
}

fn one(name: &str) -> Value {
    json!({"containers": [{"name": name, "image": "img"}]})
}

#[test]
fn a_new_pod() {
    let status = show(one("c"), vec![], &Memory::default(), json!({}));
    assert_eq!(status["phase"], "Pending");
    assert_eq!(status["startTime"], "2027-01-15T08:00:10Z");
    assert_eq!(status["observedGeneration"], 3);
    assert_eq!(status["containerStatuses"][0]["state"]["waiting"]["reason"], "ContainerCreating");
    let ready = condition(&status, "Ready");
    assert_eq!(ready["reason"], "ContainersNotReady");
    assert_eq!(ready["message"], "containers with unready status: [c]");
    assert_eq!(condition(&status, "Initialized")["status"], "True");
    assert_eq!(condition(&status, "PodReadyToStartContainers")["status"], "True");
}

#[test]
fn a_running_pod() {
    let previous = json!({"conditions": [{"type": "PodScheduled", "status": "True"}], "qosClass": "BestEffort"});
    let status = show(one("c"), vec![run("c", 0, running())], &Memory::default(), previous);
    assert_eq!(status["phase"], "Running");
    assert_eq!((&status["podIP"], &status["hostIP"]), (&json!("10.0.0.7"), &json!("192.0.2.1")));
    assert_eq!(status["podIPs"], json!([{"ip": "10.0.0.7"}]));
    let container = &status["containerStatuses"][0];
    assert_eq!((&container["ready"], &container["started"]), (&json!(true), &json!(true)));
    assert_eq!(container["containerID"], "rt://c-0");
    assert_eq!(container["state"]["running"]["startedAt"], "2027-01-15T08:00:01Z");
    assert_eq!(condition(&status, "Ready")["status"], "True");
    assert_eq!(condition(&status, "PodScheduled")["status"], "True");
    assert_eq!(status["qosClass"], "BestEffort");
}

#[test]
fn init_containers_come_first() {
    let spec = json!({"initContainers": [{"name": "i"}], "containers": [{"name": "c"}]});
    let status = show(spec.clone(), vec![run("i", 0, running())], &Memory::default(), json!({}));
    assert_eq!(status["phase"], "Pending");
    assert_eq!(status["containerStatuses"][0]["state"]["waiting"]["reason"], "PodInitializing");
    let initialized = condition(&status, "Initialized");
    assert_eq!(initialized["reason"], "ContainersNotInitialized");
    assert_eq!(initialized["message"], "containers with incomplete status: [i]");
    let status = show(spec, vec![run("i", 0, exited(0)), run("c", 0, running())], &Memory::default(), json!({}));
    assert_eq!(status["initContainerStatuses"][0]["ready"], true);
    assert_eq!(condition(&status, "Ready")["status"], "True");
}

#[test]
fn a_crash_loop() {
    let mut memory = Memory::default();
    let delay = std::time::Duration::from_secs(80);
    memory.crashes.insert("c".into(), Backoff { delay, last_try: at(1) });
    let status = show(one("c"), vec![run("c", 2, exited(3)), run("c", 3, exited(4))], &memory, json!({}));
    assert_eq!(status["phase"], "Running");
    let container = &status["containerStatuses"][0];
    assert_eq!(container["restartCount"], 3);
    assert_eq!(container["state"]["waiting"]["reason"], "CrashLoopBackOff");
    let message = "back-off 1m20s restarting failed container=c pod=p_n(u)";
    assert_eq!(container["state"]["waiting"]["message"], message);
    assert_eq!(container["lastState"]["terminated"]["exitCode"], 4);
}

#[test]
fn a_container_between_two_runs() {
    // The first try after a failure does not wait: there is no back-off to show.
    let mut memory = Memory::default();
    let delay = std::time::Duration::from_secs(10);
    memory.crashes.insert("c".into(), Backoff { delay, last_try: at(10) });
    let status = show(one("c"), vec![run("c", 0, exited(3))], &memory, json!({}));
    assert_eq!(status["containerStatuses"][0]["state"]["terminated"]["exitCode"], 3);
    // What was waited for stays until the container runs.
    let waiting = json!({"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 1,
        "state": {"waiting": {"reason": "CrashLoopBackOff"}}});
    let previous = json!({"containerStatuses": [waiting]});
    let runs = vec![run("c", 1, exited(3)), run("c", 2, ContainerState::Created)];
    let status = show(one("c"), runs, &memory, previous);
    assert_eq!(status["containerStatuses"][0]["state"]["waiting"]["reason"], "CrashLoopBackOff");
    let status = show(one("c"), vec![run("c", 0, ContainerState::Created)], &Memory::default(), json!({}));
    assert_eq!(status["containerStatuses"][0]["state"]["waiting"]["reason"], "ContainerCreating");
}

#[test]
fn completed_and_failed_pods() {
    let spec = |policy: &str| json!({"restartPolicy": policy, "containers": [{"name": "c"}]});
    let status = show(spec("Never"), vec![run("c", 0, exited(0))], &Memory::default(), json!({}));
    assert_eq!(status["phase"], "Succeeded");
    assert_eq!(condition(&status, "Ready")["reason"], "PodCompleted");
    assert_eq!(status["containerStatuses"][0]["state"]["terminated"]["reason"], "Completed");
    let status = show(spec("Never"), vec![run("c", 0, exited(1))], &Memory::default(), json!({}));
    assert_eq!(status["phase"], "Failed");
    assert_eq!(condition(&status, "ContainersReady")["reason"], "PodFailed");
    let status = show(spec("OnFailure"), vec![run("c", 0, exited(1))], &Memory::default(), json!({}));
    assert_eq!(status["phase"], "Running");
}

#[test]
fn images_that_cannot_be_had() {
    let mut memory = Memory::default();
    let failure = |at| Failure::new("ErrImagePull", "denied".into(), at, std::time::Duration::from_secs(10));
    memory.failures.insert("c".into(), failure(at(10)));
    let waiting =
        |memory: &Memory| show(one("c"), vec![], memory, json!({}))["containerStatuses"][0]["state"]["waiting"].clone();
    assert_eq!(waiting(&memory), json!({"reason": "ErrImagePull", "message": "denied"}));
    memory.failures.insert("c".into(), failure(at(5)));
    let message = "Back-off pulling image \"img\": ErrImagePull: denied";
    assert_eq!(waiting(&memory), json!({"reason": "ImagePullBackOff", "message": message}));
}

#[test]
fn a_rejected_pod() {
    let memory = Memory { rejection: Some(("OutOfcpu".into(), "why".into())), ..Memory::default() };
    let status = show(one("c"), vec![], &memory, json!({}));
    assert_eq!((&status["phase"], &status["reason"]), (&json!("Failed"), &json!("OutOfcpu")));
    assert_eq!(status.get("containerStatuses"), None);
}

#[test]
fn readiness_gates() {
    let spec = json!({"readinessGates": [{"conditionType": "x/y"}], "containers": [{"name": "c"}]});
    let runs = || vec![run("c", 0, running())];
    let status = show(spec.clone(), runs(), &Memory::default(), json!({}));
    let ready = condition(&status, "Ready");
    assert_eq!(ready["reason"], "ReadinessGatesNotReady");
    assert_eq!(ready["message"], "corresponding condition of pod readiness gate \"x/y\" does not exist.");
    let previous = json!({"conditions": [{"type": "x/y", "status": "True"}]});
    assert_eq!(condition(&show(spec, runs(), &Memory::default(), previous), "Ready")["status"], "True");
}

#[test]
fn lost_containers() {
    let spec = |policy: &str| json!({"restartPolicy": policy, "containers": [{"name": "c"}]});
    let previous = json!({"containerStatuses": [{
        "name": "c", "image": "i", "imageID": "", "ready": true, "restartCount": 1, "state": {"running": {}}}]});
    let status = show(spec("Never"), vec![], &Memory::default(), previous.clone());
    assert_eq!(status["phase"], "Failed");
    assert_eq!(status["containerStatuses"][0]["state"]["terminated"]["reason"], "ContainerStatusUnknown");
    let status = show(spec("Always"), vec![], &Memory::default(), previous);
    let container = &status["containerStatuses"][0];
    assert_eq!(container["restartCount"], 1, "the next run counts");
    assert_eq!(container["lastState"]["terminated"]["exitCode"], 137);
}

#[test]
fn patches_name_what_changed() {
    let pod: Pod = serde_json::from_value(json!({"metadata": {"uid": "u"}})).unwrap();
    let status = |value: Value| serde_json::from_value::<PodStatus>(value).unwrap();
    let old = status(json!({"phase": "Pending", "reason": "x", "podIPs": [{"ip": "1"}], "qosClass": "Burstable"}));
    let new = status(json!({"phase": "Running", "podIPs": [{"ip": "2"}], "qosClass": "BestEffort"}));
    let patch = patch::patch(&pod, &old, &new).unwrap();
    assert_eq!(patch::patch(&pod, &old, &old), None);
    assert_eq!(
        patch,
        json!({"metadata": {"uid": "u"}, "status": {
            "phase": "Running", "reason": null, "podIPs": [{"$patch": "replace"}, {"ip": "2"}]}})
    );
}

#[test]
fn a_condition_that_says_less_than_before_loses_the_rest_by_name() {
    let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}})).unwrap();
    let status = |ready: Value| -> PodStatus {
        serde_json::from_value(json!({"conditions": [{"type": "PodScheduled", "status": "True"}, ready]})).unwrap()
    };
    let unready = status(json!({"type": "Ready", "status": "False", "reason": "ContainersNotReady", "message": "m"}));
    let ready = status(json!({"type": "Ready", "status": "True"}));
    let patch = patch::patch(&pod, &unready, &ready).unwrap();
    let expected = json!([{"type": "Ready", "status": "True", "reason": null, "message": null}]);
    assert_eq!(patch["status"]["conditions"], expected);
}
