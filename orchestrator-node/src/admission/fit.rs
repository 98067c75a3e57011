//! Whether a pod fits onto a node.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Container, NodeSelectorRequirement, NodeSelectorTerm, Pod, Taint, Toleration},
    apimachinery::pkg::api::resource::Quantity as Written,
};
use orchestrator_core::quantity::Quantity;

use super::unsupported;
use crate::pod;

/// What a pod is to fit onto.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) node: &'a str,
    pub(crate) labels: &'a BTreeMap<String, String>,
    pub(crate) taints: &'a [Taint],
    pub(crate) allocatable: &'a BTreeMap<String, Written>,
    pub(crate) operating_system: &'a str,
}

/// Why a node does not take a pod: the `reason` and `message` of its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rejection {
    pub(crate) reason: String,
    pub(crate) message: String,
}

fn reject(reason: &str, message: &str) -> Result<(), Rejection> {
    Err(Rejection { reason: reason.to_owned(), message: format!("Pod was rejected: {message}") })
}

/// Decides on a pod, given the pods that were taken before.
pub(crate) fn admit(pod: &Pod, place: &Place<'_>, taken: &[&Pod]) -> Result<(), Rejection> {
    let spec = pod::spec(pod);
    if let Some(os) = spec.os.as_ref().filter(|os| os.name != place.operating_system) {
        let message = format!(
            "Failed to admit pod as the OS field doesn't match node OS: {} on {}",
            os.name, place.operating_system
        );
        return reject("PodOSNotSupported", &message);
    }
    if let Some(feature) = unsupported(pod) {
        return reject("UnsupportedPodSpec", &format!("this node does not support {feature}"));
    }
    if !selected(pod, place) {
        let message = "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
        return reject("NodeAffinity", message);
    }
    let tolerated = |taint: &Taint| spec.tolerations.iter().flatten().any(|toleration| tolerates(toleration, taint));
    if place.taints.iter().any(|taint| taint.effect == "NoExecute" && !tolerated(taint)) {
        return reject(
            "TaintToleration",
            "Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate",
        );
    }
    fits(pod, place, taken)
}

fn fits(pod: &Pod, place: &Place<'_>, taken: &[&Pod]) -> Result<(), Rejection> {
    let insufficient = |resource: &str, requested: i64, used: i64, capacity: i64| {
        let message = format!(
            "Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, capacity: {capacity}"
        );
        reject(&format!("OutOf{resource}"), &message)
    };
    let unit = |resource: &str, quantity: &Quantity| {
        if resource == "cpu" { quantity.milli_value() } else { quantity.value() }
    };
    let capacity = |resource: &str| {
        let quantity = place.allocatable.get(resource).and_then(|written| Quantity::try_from(written).ok());
        quantity.map_or(0, |quantity| unit(resource, &quantity))
    };
    let count = i64::try_from(taken.len()).unwrap_or(i64::MAX);
    if count >= capacity("pods") {
        return insufficient("pods", 1, count, capacity("pods"));
    }
    let mut used: BTreeMap<String, Quantity> = BTreeMap::new();
    for other in taken {
        for (name, amount) in requests(other) {
            add(&mut used, name, amount);
        }
    }
    for (name, amount) in requests(pod) {
        let (requested, present) = (unit(&name, &amount), used.get(&name).map_or(0, |used| unit(&name, used)));
        let capacity = capacity(&name);
        if requested > 0 && requested.saturating_add(present) > capacity {
            return insufficient(&name, requested, present, capacity);
        }
    }
    Ok(())
}

fn add(list: &mut BTreeMap<String, Quantity>, name: String, amount: Quantity) {
    let present = list.remove(&name).unwrap_or(Quantity::ZERO);
    list.insert(name, present + amount);
}

/// What a pod asks for: its containers together with its sidecars, or an init container with the sidecars before it.
///
/// Upstream: <https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/#resource-sharing-within-containers>.
pub(crate) fn requests(pod: &Pod) -> BTreeMap<String, Quantity> {
    let spec = pod::spec(pod);
    let mut total = BTreeMap::new();
    let mut peak: BTreeMap<String, Quantity> = BTreeMap::new();
    for container in spec.init_containers.iter().flatten() {
        if pod::is_sidecar(container) {
            of_container(container).into_iter().for_each(|(name, amount)| add(&mut total, name, amount));
            continue;
        }
        let mut moment = total.clone();
        of_container(container).into_iter().for_each(|(name, amount)| add(&mut moment, name, amount));
        larger(&mut peak, moment);
    }
    for container in &spec.containers {
        of_container(container).into_iter().for_each(|(name, amount)| add(&mut total, name, amount));
    }
    larger(&mut total, peak);
    let whole = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    total.extend(parse(whole.into_iter().flatten()));
    parse(spec.overhead.iter().flatten()).into_iter().for_each(|(name, amount)| add(&mut total, name, amount));
    total
}

fn of_container(container: &Container) -> BTreeMap<String, Quantity> {
    let resources = container.resources.as_ref();
    let limits = resources.and_then(|resources| resources.limits.as_ref());
    let requests = resources.and_then(|resources| resources.requests.as_ref());
    parse(limits.into_iter().flatten().chain(requests.into_iter().flatten()))
}

fn parse<'a>(list: impl Iterator<Item = (&'a String, &'a Written)>) -> BTreeMap<String, Quantity> {
    list.filter_map(|(name, written)| Some((name.clone(), Quantity::try_from(written).ok()?))).collect()
}

fn larger(list: &mut BTreeMap<String, Quantity>, other: BTreeMap<String, Quantity>) {
    for (name, amount) in other {
        if list.get(&name).is_none_or(|present| *present < amount) {
            list.insert(name, amount);
        }
    }
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let (effect, key) = (text(&toleration.effect), text(&toleration.key));
    (effect.is_empty() || effect == taint.effect)
        && (key.is_empty() || key == taint.key)
        && match toleration.operator.as_deref() {
            Some("Exists") => true,
            _ => text(&toleration.value) == text(&taint.value),
        }
}

fn selected(pod: &Pod, place: &Place<'_>) -> bool {
    let spec = pod::spec(pod);
    let simple = spec.node_selector.iter().flatten().all(|(key, value)| place.labels.get(key) == Some(value));
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    simple && required.is_none_or(|selector| selector.node_selector_terms.iter().any(|term| matches(term, place)))
}

fn matches(term: &NodeSelectorTerm, place: &Place<'_>) -> bool {
    let labels = term.match_expressions.iter().flatten();
    let fields = term.match_fields.iter().flatten();
    let empty = labels.clone().next().is_none() && fields.clone().next().is_none();
    !empty
        && labels.clone().all(|requirement| holds(requirement, place.labels.get(&requirement.key).map(String::as_str)))
        && fields
            .clone()
            .all(|requirement| holds(requirement, (requirement.key == "metadata.name").then_some(place.node)))
}

fn holds(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let listed = || requirement.values.iter().flatten().any(|wanted| Some(wanted.as_str()) == value);
    let number = |text: Option<&str>| text.and_then(|text| text.parse::<i64>().ok());
    let bound = || number(requirement.values.iter().flatten().next().map(String::as_str));
    match requirement.operator.as_str() {
        "In" => listed(),
        "NotIn" => !listed(),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => number(value).zip(bound()).is_some_and(|(value, bound)| value > bound),
        "Lt" => number(value).zip(bound()).is_some_and(|(value, bound)| value < bound),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap()
    }

    fn cpu(amount: &str) -> Pod {
        pod(json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": amount}}}]}))
    }

    fn reason(pod: &Pod, taken: &[&Pod]) -> Option<String> {
        let allocatable =
            BTreeMap::from([("cpu".to_owned(), Written("2".into())), ("pods".to_owned(), Written("2".into()))]);
        let labels = BTreeMap::from([("zone".to_owned(), "a".to_owned())]);
        let place =
            Place { node: "n", labels: &labels, taints: &[], allocatable: &allocatable, operating_system: "linux" };
        admit(pod, &place, taken).err().map(|rejection| rejection.reason)
    }

    #[test]
    fn resources() {
        assert_eq!(reason(&cpu("2"), &[]), None);
        assert_eq!(reason(&cpu("1500m"), &[&cpu("501m")]).as_deref(), Some("OutOfcpu"));
        assert_eq!(reason(&cpu("0"), &[&cpu("0"), &cpu("0")]).as_deref(), Some("OutOfpods"));
    }

    #[test]
    fn selectors_and_features() {
        let base = |extra: Value| {
            let mut spec = json!({"containers": []});
            spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            reason(&pod(spec), &[])
        };
        assert_eq!(base(json!({"nodeSelector": {"zone": "a"}})), None);
        assert_eq!(base(json!({"nodeSelector": {"zone": "b"}})).as_deref(), Some("NodeAffinity"));
        assert_eq!(base(json!({"os": {"name": "windows"}})).as_deref(), Some("PodOSNotSupported"));
        let volume = json!({"volumes": [{"name": "v", "nfs": {"server": "s", "path": "/"}}]});
        assert_eq!(base(volume).as_deref(), Some("UnsupportedPodSpec"));
        let probe = json!({"containers": [{"name": "c", "livenessProbe": {"grpc": {"port": 1}}}]});
        assert_eq!(base(probe).as_deref(), Some("UnsupportedPodSpec"));
    }

    #[test]
    fn init_containers_count_at_their_moment() {
        let resources = |cpu: &str| json!({"requests": {"cpu": cpu}});
        let pod = pod(json!({
            "initContainers": [
                {"name": "s", "restartPolicy": "Always", "resources": resources("1")},
                {"name": "i", "resources": resources("3")},
            ],
            "containers": [{"name": "c", "resources": resources("2")}],
        }));
        assert_eq!(requests(&pod)["cpu"].milli_value(), 4000);
    }
}
