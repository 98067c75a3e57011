//! What pods ask for and nodes have, as integers that are cheap to add and compare.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Container, ContainerStatus, Pod, PodSpec, ResourceRequirements},
    apimachinery::pkg::api::resource::Quantity as Written,
};

use crate::quantity::Quantity;

/// What a container without a request for CPU is taken to use where load is estimated, in thousandths of a core.
const USUAL_MILLI_CPU: i64 = 100;
/// What a container without a request for memory is taken to use where load is estimated, in bytes.
const USUAL_MEMORY: i64 = 200 << 20;

/// Amounts of resources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// CPU, in thousandths of a core.
    pub milli_cpu: i64,
    /// Memory, in bytes.
    pub memory: i64,
    /// Storage of the node itself, in bytes.
    pub ephemeral_storage: i64,
    /// Pods. Only what nodes have counts them.
    pub pods: i64,
    /// All others by name, such as huge pages and devices.
    pub scalar: BTreeMap<String, i64>,
}

impl Resources {
    /// From what an object writes. What is no quantity counts as nothing.
    pub fn from_written(written: &BTreeMap<String, Written>) -> Self {
        let mut resources = Self::default();
        for (name, amount) in written {
            let amount = Quantity::try_from(amount).unwrap_or_default();
            *resources.at(name) = if name == "cpu" { amount.milli_value() } else { amount.value() };
        }
        resources
    }

    /// The amount of one resource by its name: CPU in thousandths, all others in units.
    pub fn get(&self, name: &str) -> i64 {
        match name {
            "cpu" => self.milli_cpu,
            "memory" => self.memory,
            "ephemeral-storage" => self.ephemeral_storage,
            "pods" => self.pods,
            other => self.scalar.get(other).copied().unwrap_or(0),
        }
    }

    fn at(&mut self, name: &str) -> &mut i64 {
        match name {
            "cpu" => &mut self.milli_cpu,
            "memory" => &mut self.memory,
            "ephemeral-storage" => &mut self.ephemeral_storage,
            "pods" => &mut self.pods,
            other => self.scalar.entry(other.to_owned()).or_default(),
        }
    }

    /// Adds another amount.
    pub fn add(&mut self, other: &Self) {
        self.combine(other, i64::saturating_add);
    }

    /// Takes another amount away.
    pub fn subtract(&mut self, other: &Self) {
        self.combine(other, i64::saturating_sub);
        self.scalar.retain(|_, amount| *amount != 0);
    }

    /// Takes the larger amount of each resource.
    pub fn maximum(&mut self, other: &Self) {
        self.combine(other, i64::max);
    }

    fn combine(&mut self, other: &Self, with: fn(i64, i64) -> i64) {
        self.milli_cpu = with(self.milli_cpu, other.milli_cpu);
        self.memory = with(self.memory, other.memory);
        self.ephemeral_storage = with(self.ephemeral_storage, other.ephemeral_storage);
        self.pods = with(self.pods, other.pods);
        for (name, amount) in &other.scalar {
            let own = self.scalar.entry(name.clone()).or_default();
            *own = with(*own, *amount);
        }
    }

    /// Whether all amounts are nothing.
    pub fn is_empty(&self) -> bool {
        self.milli_cpu == 0
            && self.memory == 0
            && self.ephemeral_storage == 0
            && self.pods == 0
            && self.scalar.values().all(|amount| *amount == 0)
    }
}

/// What a pod takes from its node: the larger of what its containers need at once and what its init containers need in
/// their turn, side cars counted from their start on, and the overhead of its runtime class.
///
/// <https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/#resource-sharing-within-containers>
pub fn pod_requests(pod: &Pod) -> Resources {
    let hopeless = resize_is_infeasible(pod);
    requests(pod, &|container, status| taken(container, status, hopeless))
}

/// As [`pod_requests`], with something assumed for containers that ask for no CPU or memory: used where load is
/// estimated.
pub(super) fn usual_requests(pod: &Pod) -> Resources {
    let hopeless = resize_is_infeasible(pod);
    requests(pod, &|container, status| {
        let mut resources = taken(container, status, hopeless);
        let asked = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
        let asks = |name: &str| asked.is_some_and(|requests| requests.contains_key(name));
        if !asks("cpu") {
            resources.milli_cpu = USUAL_MILLI_CPU;
        }
        if !asks("memory") {
            resources.memory = USUAL_MEMORY;
        }
        resources
    })
}

fn requests(pod: &Pod, of: &dyn Fn(&Container, Option<&ContainerStatus>) -> Resources) -> Resources {
    let Some(spec) = &pod.spec else { return Resources::default() };
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
    let init_statuses =
        pod.status.as_ref().and_then(|status| status.init_container_statuses.as_deref()).unwrap_or_default();
    let find = |statuses: &'_ [ContainerStatus], name: &str| statuses.iter().position(|status| status.name == name);
    let mut running = Resources::default();
    for container in &spec.containers {
        running.add(&of(container, find(statuses, &container.name).and_then(|at| statuses.get(at))));
    }
    let mut sidecars = Resources::default();
    let mut starting = Resources::default();
    for container in spec.init_containers.iter().flatten() {
        let mut own = of(container, find(init_statuses, &container.name).and_then(|at| init_statuses.get(at)));
        if container.restart_policy.as_deref() == Some("Always") {
            running.add(&own);
            sidecars.add(&own);
            own = sidecars.clone();
        } else {
            own.add(&sidecars);
        }
        starting.maximum(&own);
    }
    running.maximum(&starting);
    of_whole_pod(spec, &mut running);
    if let Some(overhead) = &spec.overhead {
        running.add(&Resources::from_written(overhead));
    }
    running
}

/// Requests of the pod as a whole take the place of its containers'.
fn of_whole_pod(spec: &PodSpec, resources: &mut Resources) {
    let Some(requests) = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref()) else { return };
    let whole = Resources::from_written(requests);
    for name in
        requests.keys().filter(|name| matches!(name.as_str(), "cpu" | "memory") || name.starts_with("hugepages-"))
    {
        *resources.at(name) = whole.get(name);
    }
}

/// Whether the node has said that it will never have the room that the pod was changed to ask for.
fn resize_is_infeasible(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions
        .iter()
        .any(|condition| condition.type_ == "PodResizePending" && condition.reason.as_deref() == Some("Infeasible"))
}

/// As [`container_requests`], but what it asks for does not count where it will not be given.
fn taken(container: &Container, status: Option<&ContainerStatus>, hopeless: bool) -> Resources {
    match status.filter(|status| hopeless && status.resources.is_some()) {
        Some(status) => container_requests(&Container::default(), Some(status)),
        None => container_requests(container, status),
    }
}

/// What a container takes: what it asks for, or what the node has given it while a change is under way, if that is more.
pub fn container_requests(container: &Container, status: Option<&ContainerStatus>) -> Resources {
    let asked = |resources: &Option<ResourceRequirements>| {
        let requests = resources.as_ref().and_then(|resources| resources.requests.as_ref());
        requests.map(Resources::from_written).unwrap_or_default()
    };
    let mut resources = asked(&container.resources);
    if let Some(status) = status {
        resources.maximum(&asked(&status.resources));
        if let Some(allocated) = &status.allocated_resources {
            resources.maximum(&Resources::from_written(allocated));
        }
    }
    resources
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn side_cars_count_from_their_start() {
        let container = |name: &str, cpu: &str, policy: Option<&str>| json!({"name": name, "restartPolicy": policy, "resources": {"requests": {"cpu": cpu}}});
        let pod: Pod = serde_json::from_value(json!({"spec": {
            "initContainers": [
                container("a", "3", None),
                container("side", "500m", Some("Always")),
                container("b", "2", None),
            ],
            "containers": [container("c", "1", None), container("d", "100m", None)],
            "overhead": {"cpu": "10m"},
        }}))
        .unwrap();
        assert_eq!(pod_requests(&pod).milli_cpu, 3010);
        assert_eq!(pod_requests(&pod).memory, 0);
        assert_eq!(usual_requests(&pod).memory, 3 * (200 << 20));
    }

    #[test]
    fn changes_count_unless_they_are_hopeless() {
        let pod = |reason: &str| {
            let pod = json!({
                "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "4"}}}]},
                "status": {
                    "conditions": [{"type": "PodResizePending", "status": "True", "reason": reason}],
                    "containerStatuses": [{
                        "name": "c", "ready": true, "restartCount": 0, "image": "", "imageID": "",
                        "resources": {"requests": {"cpu": "1"}}, "allocatedResources": {"cpu": "2"},
                    }],
                },
            });
            serde_json::from_value::<Pod>(pod).unwrap()
        };
        assert_eq!(pod_requests(&pod("Deferred")).milli_cpu, 4000);
        assert_eq!(pod_requests(&pod("Infeasible")).milli_cpu, 2000);
    }
}
