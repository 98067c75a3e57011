//! What single objects use, by the names that quotas have for it.
//!
//! Upstream: `pkg/quota/v1/evaluator/core`.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::{
        core::v1::{Container, ContainerStatus, PersistentVolumeClaim, Pod, ResourceRequirements, Service},
        resource::v1::{DeviceRequest, ResourceClaim},
    },
    apimachinery::pkg::api::resource::Quantity as Written,
};

use crate::quantity::{Format, Quantity};

/// Amounts by name.
pub type Amounts = BTreeMap<String, Quantity>;

/// Resources whose requests and limits quotas count by these names.
const COMPUTED: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

/// What of a container's resources is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Requests,
    Limits,
}

impl Part {
    fn of(self, resources: Option<&ResourceRequirements>) -> Amounts {
        read(resources.and_then(|resources| match self {
            Self::Requests => resources.requests.as_ref(),
            Self::Limits => resources.limits.as_ref(),
        }))
    }
}

fn one(count: i64) -> Quantity {
    Quantity::from_value(count, Format::DecimalSi)
}

/// Adds amounts to others.
pub fn add(total: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        match total.get_mut(name) {
            // What is added to nothing is written as it came.
            Some(known) if !known.is_zero() => *known += amount,
            _ => drop(total.insert(name.clone(), amount.clone())),
        }
    }
}

fn raise(total: &mut Amounts, other: Amounts) {
    for (name, amount) in other {
        match total.get(&name) {
            Some(known) if *known >= amount => {}
            _ => drop(total.insert(name, amount)),
        }
    }
}

fn read(written: Option<&BTreeMap<String, Written>>) -> Amounts {
    let amounts = written.into_iter().flatten();
    amounts.filter_map(|(name, amount)| Some((name.clone(), Quantity::try_from(amount).ok()?))).collect()
}

/// What a pod uses. Once it has ended only its existence counts.
pub fn pod(pod: &Pod, now: Timestamp) -> Amounts {
    let mut used: Amounts = [("count/pods".to_owned(), one(1))].into();
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    if matches!(phase, Some("Succeeded" | "Failed")) || is_overdue(pod, now) {
        return used;
    }
    used.insert("pods".to_owned(), one(1));
    for (name, amount) in computed(pod, Part::Requests) {
        if COMPUTED.contains(&&*name) || name.starts_with("hugepages-") {
            used.insert(name.clone(), amount.clone());
        }
        used.insert(format!("requests.{name}"), amount);
    }
    let limits = computed(pod, Part::Limits).into_iter().filter(|(name, _)| COMPUTED.contains(&&**name));
    used.extend(limits.map(|(name, amount)| (format!("limits.{name}"), amount)));
    used
}

/// Whether a pod should have been gone by now.
fn is_overdue(pod: &Pod, now: Timestamp) -> bool {
    let grace = pod.metadata.deletion_grace_period_seconds.map(SignedDuration::from_secs);
    let deletion = pod.metadata.deletion_timestamp.as_ref().map(|time| time.0);
    deletion.zip(grace).is_some_and(|(deletion, grace)| now.duration_since(deletion) > grace)
}

/// What a pod's containers take at once, or its init containers in their turn, whichever is more.
fn computed(pod: &Pod, part: Part) -> Amounts {
    let Some(spec) = &pod.spec else { return Amounts::new() };
    let status = pod.status.as_ref();
    let statuses = status.and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
    let init_statuses = status.and_then(|status| status.init_container_statuses.as_deref()).unwrap_or_default();
    let is_infeasible = is_infeasible(pod);
    let of_container =
        |container: &Container, statuses: &[ContainerStatus]| of_container(container, statuses, part, is_infeasible);
    let mut running = Amounts::new();
    spec.containers.iter().for_each(|container| add(&mut running, &of_container(container, statuses)));
    let (mut sidecars, mut starting) = (Amounts::new(), Amounts::new());
    for container in spec.init_containers.iter().flatten() {
        let mut own = of_container(container, init_statuses);
        if container.restart_policy.as_deref() == Some("Always") {
            add(&mut running, &own);
            add(&mut sidecars, &own);
            own = sidecars.clone();
        } else {
            add(&mut own, &sidecars);
        }
        raise(&mut starting, own);
    }
    raise(&mut running, starting);
    let whole = part.of(spec.resources.as_ref());
    running.extend(
        whole
            .into_iter()
            .filter(|(name, _)| matches!(name.as_str(), "cpu" | "memory") || name.starts_with("hugepages-")),
    );
    for (name, amount) in read(spec.overhead.as_ref()) {
        match running.get_mut(&name) {
            Some(known) if !known.is_zero() => *known += &amount,
            _ if part == Part::Requests => drop(running.insert(name, amount)),
            _ => {}
        }
    }
    running
}

/// Whether a pod's node has said that it will never have what the pod is to be changed to.
fn is_infeasible(pod: &Pod) -> bool {
    let mut conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions
        .any(|condition| condition.type_ == "PodResizePending" && condition.reason.as_deref() == Some("Infeasible"))
}

/// What a container has or is to have, whichever is more. What it cannot have does not count.
fn of_container(container: &Container, statuses: &[ContainerStatus], part: Part, is_infeasible: bool) -> Amounts {
    let mut amounts = part.of(container.resources.as_ref());
    let status = statuses.iter().find(|status| status.name == container.name && status.resources.is_some());
    if let Some(status) = status {
        if is_infeasible {
            amounts.clear();
        }
        raise(&mut amounts, part.of(status.resources.as_ref()));
        if part == Part::Requests {
            raise(&mut amounts, read(status.allocated_resources.as_ref()));
        }
    }
    amounts
}

/// What a service uses.
pub fn service(service: &Service) -> Amounts {
    let spec = service.spec.clone().unwrap_or_default();
    let ports = spec.ports.unwrap_or_default();
    let count = |count: usize| one(i64::try_from(count).unwrap_or(i64::MAX));
    let (mut node_ports, mut balancers) = (0, 0);
    match spec.type_.as_deref() {
        Some("NodePort") => node_ports = ports.len(),
        Some("LoadBalancer") => {
            balancers = 1;
            node_ports = match spec.allocate_load_balancer_node_ports {
                Some(false) => ports.iter().filter(|port| port.node_port.unwrap_or(0) != 0).count(),
                _ => ports.len(),
            };
        }
        _ => {}
    }
    let amounts = [
        ("count/services", count(1)),
        ("services", count(1)),
        ("services.nodeports", count(node_ports)),
        ("services.loadbalancers", count(balancers)),
    ];
    amounts.into_iter().map(|(name, amount)| (name.to_owned(), amount)).collect()
}

/// What a claim uses, of all classes and of its own.
pub fn claim(claim: &PersistentVolumeClaim) -> Amounts {
    let spec = claim.spec.as_ref();
    let asked = spec.and_then(|spec| spec.resources.as_ref()?.requests.as_ref()?.get("storage"));
    let allocated = claim.status.as_ref().and_then(|status| status.allocated_resources.as_ref()?.get("storage"));
    let storage = [asked, allocated].into_iter().flatten().filter_map(|amount| Quantity::try_from(amount).ok()).max();
    let annotation = claim.metadata.annotations.as_ref();
    let class = annotation.and_then(|known| known.get("volume.beta.kubernetes.io/storage-class")).cloned();
    let class = class.or_else(|| spec?.storage_class_name.clone()).filter(|class| !class.is_empty());
    let mut used: Amounts =
        ["count/persistentvolumeclaims", "persistentvolumeclaims"].map(|name| (name.to_owned(), one(1))).into();
    used.extend(storage.clone().map(|storage| ("requests.storage".to_owned(), storage)));
    if let Some(class) = class {
        let of_class = |what: &str| format!("{class}.storageclass.storage.k8s.io/{what}");
        used.insert(of_class("persistentvolumeclaims"), one(1));
        used.extend(storage.map(|storage| (of_class("requests.storage"), storage)));
    }
    used
}

/// How many devices a claim gets at most, and so what a request for all of them costs. As upstream's
/// `AllocationResultsMaxSize`.
const ALL_DEVICES: i64 = 32;

/// The end of the names that quotas have for devices of a class.
const OF_DEVICE_CLASS: &str = ".deviceclass.resource.k8s.io/devices";

/// Whether quotas count devices of a class by this name.
pub fn is_of_devices(name: &str) -> bool {
    name.ends_with(OF_DEVICE_CLASS)
}

/// What a claim of devices uses, of each class.
pub fn device_claim(claim: &ResourceClaim) -> Amounts {
    let mut used: Amounts = [("count/resourceclaims.resource.k8s.io".to_owned(), one(1))].into();
    let requests = claim.spec.devices.iter().flat_map(|devices| devices.requests.iter().flatten());
    requests.for_each(|request| add(&mut used, &device_request(request)));
    used
}

/// What a request uses: of its alternatives, for each class, the one that takes most.
fn device_request(request: &DeviceRequest) -> Amounts {
    let mut used = Amounts::new();
    let mut take = |class: &str, mode: Option<&str>, count: Option<i64>| {
        let count = if mode == Some("All") { ALL_DEVICES } else { count.unwrap_or(1) };
        raise(&mut used, [(format!("{class}{OF_DEVICE_CLASS}"), one(count))].into());
    };
    match request.first_available.as_deref() {
        Some(alternatives) if !alternatives.is_empty() => alternatives.iter().for_each(|alternative| {
            take(&alternative.device_class_name, alternative.allocation_mode.as_deref(), alternative.count);
        }),
        _ => request.exactly.iter().for_each(|exactly| {
            take(&exactly.device_class_name, exactly.allocation_mode.as_deref(), exactly.count);
        }),
    }
    used
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn shown(amounts: Amounts) -> BTreeMap<String, String> {
        amounts.into_iter().map(|(name, amount)| (name, amount.to_string())).collect()
    }

    fn expected(amounts: Value) -> BTreeMap<String, String> {
        serde_json::from_value(amounts).unwrap()
    }

    #[test]
    fn a_pod_uses_what_its_containers_ask_for() {
        let tree = json!({"spec": {
            "initContainers": [{"name": "i", "resources": {"requests": {"cpu": "2"}}}],
            "containers": [
                {"name": "a", "resources": {"requests": {"cpu": "500m", "memory": "1Gi", "x.y/gpu": "1"}}},
                {"name": "b", "resources": {"requests": {"memory": "512Mi"}, "limits": {"memory": "1Gi", "x.y/gpu": "1"}}},
            ],
        }});
        let mut pod: Pod = serde_json::from_value(tree).unwrap();
        let used = json!({
            "count/pods": "1", "pods": "1", "cpu": "2", "requests.cpu": "2", "memory": "1536Mi",
            "requests.memory": "1536Mi", "requests.x.y/gpu": "1", "limits.memory": "1Gi",
        });
        assert_eq!(shown(super::pod(&pod, Timestamp::UNIX_EPOCH)), expected(used));
        pod.status.get_or_insert_default().phase = Some("Succeeded".to_owned());
        assert_eq!(shown(super::pod(&pod, Timestamp::UNIX_EPOCH)), expected(json!({"count/pods": "1"})));
    }

    #[test]
    fn claims_use_devices_of_classes() {
        let tree = json!({"spec": {"devices": {"requests": [
            {"name": "a", "exactly": {"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 2}},
            {"name": "b", "firstAvailable": [
                {"name": "x", "deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 3},
                {"name": "y", "deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1},
                {"name": "z", "deviceClassName": "nic", "allocationMode": "All"},
            ]},
        ]}}});
        let used = json!({
            "count/resourceclaims.resource.k8s.io": "1", "gpu.deviceclass.resource.k8s.io/devices": "5",
            "nic.deviceclass.resource.k8s.io/devices": "32",
        });
        assert_eq!(shown(super::device_claim(&serde_json::from_value(tree).unwrap())), expected(used));
    }

    #[test]
    fn a_change_that_cannot_be_made_counts_by_what_the_pod_has() {
        let tree = json!({
            "spec": {"containers": [{"name": "a", "resources": {"requests": {"cpu": "9"}}}]},
            "status": {"containerStatuses": [{
                "name": "a", "image": "i", "imageID": "", "ready": true, "restartCount": 0,
                "allocatedResources": {"cpu": "1"}, "resources": {"requests": {"cpu": "2"}},
            }]},
        });
        let mut pod: Pod = serde_json::from_value(tree).unwrap();
        let cpu = |pod: &Pod| super::pod(pod, Timestamp::UNIX_EPOCH)["cpu"].to_string();
        assert_eq!(cpu(&pod), "9");
        let condition = json!([{"type": "PodResizePending", "status": "True", "reason": "Infeasible"}]);
        pod.status.as_mut().unwrap().conditions = serde_json::from_value(condition).unwrap();
        assert_eq!(cpu(&pod), "2");
    }

    #[test]
    fn services_and_claims_use_what_they_take_from_others() {
        let tree = json!({"spec": {"type": "LoadBalancer", "ports": [{"port": 1}, {"port": 2}]}});
        let used = super::service(&serde_json::from_value(tree).unwrap());
        let all =
            json!({"count/services": "1", "services": "1", "services.nodeports": "2", "services.loadbalancers": "1"});
        assert_eq!(shown(used), expected(all));
        let tree = json!({"spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "1Gi"}}}});
        let used = super::claim(&serde_json::from_value(tree).unwrap());
        let all = json!({
            "count/persistentvolumeclaims": "1", "persistentvolumeclaims": "1", "requests.storage": "1Gi",
            "fast.storageclass.storage.k8s.io/persistentvolumeclaims": "1",
            "fast.storageclass.storage.k8s.io/requests.storage": "1Gi",
        });
        assert_eq!(shown(used), expected(all));
    }
}
