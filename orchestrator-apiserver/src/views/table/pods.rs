//! The cells of pods.
//!
//! Upstream: `printPod` of `pkg/printers/internalversion`: what is shown as status is not a field of the pod but the
//! most telling state among its containers.

use serde_json::{Value, json};

use super::row::{Row, Tree, cells};

pub(super) fn pod(row: &Row<'_>) -> Vec<Value> {
    let summary = Summary::of(row);
    let (spec, status) = (row.at("spec"), row.at("status"));
    let restarts = match summary.last_restart {
        Some(last) if summary.restarts != 0 => format!("{} ({} ago)", summary.restarts, row.since(last)),
        _ => summary.restarts.to_string(),
    };
    let address = status.get("podIPs").items().next().map_or("", |address| address.get("ip").text());
    cells![
        row.name(),
        format!("{}/{}", summary.ready, summary.containers),
        summary.reason,
        restarts,
        row.age(),
        if address.is_empty() { "<none>" } else { address },
        spec.get("nodeName").text_or("<none>"),
        status.get("nominatedNodeName").text_or("<none>"),
        readiness_gates(spec, status),
    ]
}

/// The conditions of a row: whether the pod is over.
pub(super) fn conditions(pod: Tree<'_>) -> Option<Value> {
    let (reason, message) = match pod.at("status.phase").text() {
        "Succeeded" => ("Succeeded", "The pod has completed successfully."),
        "Failed" => ("Failed", "The pod failed."),
        _ => return None,
    };
    Some(json!([{"type": "Completed", "status": "True", "reason": reason, "message": message}]))
}

fn readiness_gates(spec: Tree<'_>, status: Tree<'_>) -> String {
    let gates = spec.get("readinessGates");
    if gates.len() == 0 {
        return "<none>".to_owned();
    }
    let conditions = status.get("conditions");
    let holds = |gate: &Tree<'_>| conditions.condition_holds(gate.get("conditionType").text());
    format!("{}/{}", gates.items().filter(holds).count(), gates.len())
}

/// What the containers of a pod come to.
struct Summary<'a> {
    reason: String,
    ready: usize,
    containers: usize,
    restarts: i64,
    last_restart: Option<Tree<'a>>,
}

impl<'a> Summary<'a> {
    fn of(row: &Row<'a>) -> Self {
        let (spec, status) = (row.at("spec"), row.at("status"));
        let sidecars = spec.get("initContainers").items().filter(|container| is_sidecar(*container)).count();
        let mut summary = Self {
            reason: status.get("reason").text_or(status.get("phase").text()).to_owned(),
            ready: 0,
            containers: spec.get("containers").len() + sidecars,
            restarts: 0,
            last_restart: None,
        };
        let gated = |condition: Tree<'_>| {
            condition.get("type").text() == "PodScheduled" && condition.get("reason").text() == "SchedulingGated"
        };
        if status.get("conditions").items().any(gated) {
            summary.reason = "SchedulingGated".to_owned();
        }
        let initializing = summary.add_init_containers(spec, status);
        if !initializing || status.get("conditions").condition_holds("Initialized") {
            summary.add_containers(spec, status);
        }
        summary.consider_deletion(row);
        summary
    }

    /// Whether initialization is still going on, with the reason set to where it is.
    fn add_init_containers(&mut self, spec: Tree<'a>, status: Tree<'a>) -> bool {
        for (index, container) in status.get("initContainerStatuses").items().enumerate() {
            self.add_restarts(container);
            let (state, sidecar) = (container.get("state"), is_sidecar(init_container(spec, container)));
            let terminated = state.get("terminated");
            if terminated.exists() && terminated.get("exitCode").int() == 0 {
                continue;
            }
            if sidecar && container.get("started").bool() == Some(true) {
                self.ready += usize::from(container.get("ready").bool() == Some(true));
                continue;
            }
            let waiting = state.at("waiting.reason").text();
            self.reason = if terminated.exists() {
                format!("Init:{}", termination(terminated))
            } else if !waiting.is_empty() && waiting != "PodInitializing" {
                format!("Init:{waiting}")
            } else {
                format!("Init:{index}/{}", spec.get("initContainers").len())
            };
            return true;
        }
        false
    }

    fn add_containers(&mut self, spec: Tree<'a>, status: Tree<'a>) {
        // From here on the init containers do not count, but for those that run on.
        (self.restarts, self.last_restart) = (0, None);
        for container in status.get("initContainerStatuses").items() {
            if is_sidecar(init_container(spec, container)) {
                self.add_restarts(container);
            }
        }
        let mut running = false;
        for container in status.get("containerStatuses").items().rev() {
            self.add_restarts(container);
            let state = container.get("state");
            let (waiting, terminated) = (state.at("waiting.reason").text(), state.get("terminated"));
            if !waiting.is_empty() {
                waiting.clone_into(&mut self.reason);
            } else if terminated.exists() {
                self.reason = termination(terminated);
            } else if container.get("ready").bool() == Some(true) && state.get("running").exists() {
                running = true;
                self.ready += 1;
            }
        }
        if running && self.reason == "Completed" {
            let ready = status.get("conditions").condition_holds("Ready");
            self.reason = if ready { "Running" } else { "NotReady" }.to_owned();
        }
    }

    fn consider_deletion(&mut self, row: &Row<'_>) {
        if !row.is_terminating() {
            return;
        }
        if row.at("status.reason").text() == "NodeLost" {
            "Unknown".clone_into(&mut self.reason);
        } else if !matches!(row.at("status.phase").text(), "Succeeded" | "Failed") {
            "Terminating".clone_into(&mut self.reason);
        }
    }

    fn add_restarts(&mut self, container: Tree<'a>) {
        self.restarts += container.get("restartCount").int();
        let finished = container.at("lastState.terminated.finishedAt");
        // Times of one length and zone: their texts have their order.
        if finished.exists() && self.last_restart.is_none_or(|last| last.text() < finished.text()) {
            self.last_restart = Some(finished);
        }
    }
}

fn init_container<'a>(spec: Tree<'a>, status: Tree<'_>) -> Tree<'a> {
    let name = status.get("name").text();
    let missing = spec.get("");
    spec.get("initContainers").items().find(|container| container.get("name").text() == name).unwrap_or(missing)
}

/// An init container that runs on beside the others.
fn is_sidecar(container: Tree<'_>) -> bool {
    container.get("restartPolicy").text() == "Always"
}

fn termination(terminated: Tree<'_>) -> String {
    let (reason, signal) = (terminated.get("reason").text(), terminated.get("signal").int());
    match reason {
        "" if signal != 0 => format!("Signal:{signal}"),
        "" => format!("ExitCode:{}", terminated.get("exitCode").int()),
        reason => reason.to_owned(),
    }
}
