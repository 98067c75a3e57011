//! Requests and limits.

use std::collections::{BTreeMap, BTreeSet};

use orchestrator_core::{quantity::Quantity, status::FieldErrorKind};

use super::Context;
use crate::{
    field::{Errors, Field},
    kinds::check,
    names,
};

const FOR_PODS: [&str; 2] = ["cpu", "memory"];
/// As errors name them: large pages come in several sizes.
const FOR_PODS_SHOWN: [&str; 3] = ["cpu", HUGE_PAGES, "memory"];
const FOR_CONTAINERS: [&str; 3] = ["cpu", "ephemeral-storage", "memory"];
const STANDARD: [&str; 12] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "storage",
    "requests.storage",
];
const OBJECT_COUNTS: [&str; 9] = [
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
    "pods",
];
const HUGE_PAGES: &str = "hugepages-";

/// Whether a name without a domain is one of Kubernetes.
pub(crate) fn is_standard(name: &str) -> bool {
    STANDARD.contains(&name)
        || OBJECT_COUNTS.contains(&name)
        || name.starts_with(HUGE_PAGES)
        || name.starts_with("requests.hugepages-")
}

/// Whether a resource belongs to someone else's domain.
pub(crate) fn is_extended(name: &str) -> bool {
    let is_foreign = name.contains('/') && !name.contains("kubernetes.io/") && !name.starts_with("requests.");
    // Quotas count it under a longer name.
    is_foreign && names::qualified_name(&format!("requests.{name}")).is_empty()
}

/// Whether a name without a domain is one that quotas count.
pub(crate) fn is_quota_resource(name: &str) -> bool {
    is_standard(name) && name != "storage"
}

/// Whether containers may ask for more of a resource than there is.
pub(crate) fn can_overcommit(name: &str) -> bool {
    (!name.contains('/') || name.contains("kubernetes.io/")) && !name.starts_with(HUGE_PAGES)
}

/// What is wrong with the name of a resource.
pub(crate) fn resource_name(field: &Field<'_>, name: &str, errors: &mut Errors) -> bool {
    let problems = names::qualified_name(name);
    for problem in &problems {
        field.wrong(errors, format!("{name:?}"), problem);
    }
    if problems.is_empty() && !name.contains('/') && !is_standard(name) {
        field.wrong(errors, format!("{name:?}"), "must be a standard resource type or fully qualified");
    }
    problems.is_empty()
}

/// What is wrong with the name of a resource of containers.
pub(crate) fn container_resource(field: &Field<'_>, name: &str, errors: &mut Errors) {
    if !resource_name(field, name, errors) {
        return;
    }
    let shown = format!("{name:?}");
    if !name.contains('/') {
        if !FOR_CONTAINERS.contains(&name) && !name.starts_with(HUGE_PAGES) {
            field.wrong(errors, shown, "must be a standard resource for containers");
        }
    } else if !name.contains("kubernetes.io/") && !is_extended(name) {
        field.wrong(errors, shown, "doesn't follow extended resource name standard");
    }
}

/// The rules of an amount of a resource: not negative, and whole where the resource has no parts.
pub(crate) fn amount(field: &Field<'_>, name: &str, errors: &mut Errors) {
    check::quantity_not_negative(field, errors);
    let whole = OBJECT_COUNTS.contains(&name) || is_extended(name);
    if whole && check::quantity(field).is_some_and(|quantity| quantity.milli_value() % 1000 != 0) {
        field.invalid(errors, "must be an integer");
    }
}

/// The rules of what a container asks for.
pub(super) fn of_container(resources: &Field<'_>, claims: &BTreeSet<&str>, errors: &mut Errors) {
    requirements(resources, container_resource, claims, errors);
}

/// The rules of what a pod asks for as a whole: no less than its containers do.
pub(super) fn of_pod(spec: &Field<'_>, context: &Context<'_>, errors: &mut Errors) {
    let whole = spec.get("resources");
    if context.system == Some("windows") {
        return whole.forbidden(errors, "may not be set for a windows pod");
    }
    if whole.get("claims").exists() {
        whole.get("claims").forbidden(errors, "claims may not be set for Resources at pod-level");
    }
    requirements(&whole, pod_resource, &context.claims, errors);
    no_less(&whole, spec, "requests", |_| true, errors);
    no_less(&whole, spec, "limits", |name| name.starts_with(HUGE_PAGES), errors);
    for (index, container) in spec.get("containers").items().iter().enumerate() {
        for (name, limit) in container.at("resources.limits").entries() {
            let most = whole.get("limits").key(name);
            if most.exists() && check::quantity(&limit) > check::quantity(&most) {
                let place = format!("{}.containers[{index}][{name}].limits", whole.path());
                let detail = format!("{}: must be less than or equal to pod limits of {}", limit.shown(), most.text());
                errors.add(place, FieldErrorKind::Invalid, detail);
            }
        }
    }
}

/// What a pod says as a whole is no less than what its containers say together, where it says anything.
fn no_less(whole: &Field<'_>, spec: &Field<'_>, list: &'static str, of: fn(&str) -> bool, errors: &mut Errors) {
    for (name, sum) in aggregate(spec, list).iter().filter(|(name, _)| of(name)) {
        let said = whole.get(list).key(name);
        if said.exists() && check::quantity(&said).is_some_and(|said| *sum > said) {
            said.invalid(errors, &format!("must be greater than or equal to aggregate container {list} of {sum}"));
        }
    }
}

/// What is wrong with the name of a resource of whole pods.
fn pod_resource(field: &Field<'_>, name: &str, errors: &mut Errors) {
    let mut own = Errors::default();
    resource_name(field, name, &mut own);
    if own.is_empty() && !is_of_pods(name) {
        field.not_supported_as(&mut own, &format!("{name:?}"), &FOR_PODS_SHOWN);
    }
    errors.extend(own);
}

/// Whether a pod can ask for a resource as a whole.
pub(super) fn is_of_pods(name: &str) -> bool {
    FOR_PODS.contains(&name) || name.starts_with(HUGE_PAGES)
}

/// Whether a resource is memory in large pages.
pub(super) fn is_huge_pages(name: &str) -> bool {
    name.starts_with(HUGE_PAGES)
}

fn requirements(
    resources: &Field<'_>,
    check_name: fn(&Field<'_>, &str, &mut Errors),
    claims: &BTreeSet<&str>,
    errors: &mut Errors,
) {
    let (limits, requests) = (resources.get("limits"), resources.get("requests"));
    let mut names: BTreeSet<&str> = BTreeSet::new();
    for (name, limit) in limits.entries() {
        check_name(&limit, name, errors);
        amount(&limit, name, errors);
        whole_pages(&limit, name, errors);
        names.insert(name);
    }
    for (name, request) in requests.entries() {
        check_name(&request, name, errors);
        amount(&request, name, errors);
        within_limit(&limits, &requests, name, &request, errors);
        whole_pages(&request, name, errors);
        names.insert(name);
    }
    let huge = names.iter().any(|name| name.starts_with(HUGE_PAGES));
    if huge && !names.contains("cpu") && !names.contains("memory") {
        resources.forbidden(errors, "HugePages require cpu or memory");
    }
    claimed(&resources.get("claims"), claims, errors);
}

/// Memory in large pages comes in whole pages.
fn whole_pages(amount: &Field<'_>, name: &str, errors: &mut Errors) {
    let Some(page) = name.strip_prefix(HUGE_PAGES) else { return };
    let bytes = |text: &str| text.parse::<Quantity>().ok().map(|size| size.value()).filter(|size| *size > 0);
    let wanted = check::quantity(amount).map_or(0, |wanted| wanted.value());
    if bytes(page).is_none_or(|page| wanted % page != 0) {
        amount.invalid(errors, &format!("{} is not positive integer multiple of {name}", amount.text()));
    }
}

/// The pod's claims that a container uses, whole or one request of them.
fn claimed(uses: &Field<'_>, claims: &BTreeSet<&str>, errors: &mut Errors) {
    let mut seen: BTreeSet<(&str, &str)> = BTreeSet::new();
    for place in uses.items() {
        let (name, request) = (place.get("name").text(), place.get("request"));
        if name.is_empty() {
            place.required(errors, "");
            continue;
        }
        let duplicate = |errors: &mut Errors, shown: &str| {
            place.error(errors, FieldErrorKind::Duplicate, format!("{shown:?}"));
        };
        if seen.contains(&(name, "")) {
            duplicate(errors, name);
        } else {
            check::given(&request, names::label, errors);
            let key = (name, request.text());
            if seen.contains(&key) {
                duplicate(errors, &format!("{name}/{}", request.text()));
            } else if request.text().is_empty() {
                seen.iter().filter(|(other, _)| *other == name).for_each(|_| duplicate(errors, name));
            }
            seen.insert(key);
        }
        if !claims.contains(name) {
            let known = claims.iter().copied().collect::<Vec<_>>().join(", ");
            let known = if known.is_empty() { " which is empty".to_owned() } else { format!(": {known}") };
            let detail = format!("{name:?}: must be one of the names in pod.spec.resourceClaims{known}");
            place.error(errors, FieldErrorKind::NotFound, detail);
        }
    }
}

fn within_limit(limits: &Field<'_>, requests: &Field<'_>, name: &str, request: &Field<'_>, errors: &mut Errors) {
    let whole = !can_overcommit(name);
    let limit = limits.get(name);
    let shown = request.shown();
    match (check::quantity(&limit), check::quantity(request)) {
        (Some(most), Some(wanted)) if whole && wanted != most => {
            requests.wrong(errors, shown, &format!("must be equal to {name} limit of {}", limit.text()));
        }
        (Some(most), Some(wanted)) if wanted > most => {
            requests.wrong(errors, shown, &format!("must be less than or equal to {name} limit of {}", limit.text()));
        }
        (None, _) if whole => limits.required(errors, "Limit must be set for non overcommitable resources"),
        _ => {}
    }
}

/// The rules of what a pod costs beside its containers. Upstream reads it as limits.
pub(crate) fn overhead(overhead: &Field<'_>, errors: &mut Errors) {
    let limits = overhead.shown_at(format!("{}.limits", overhead.path()));
    for (name, value) in limits.entries() {
        container_resource(&value, name, errors);
        amount(&value, name, errors);
        whole_pages(&value, name, errors);
    }
}

/// What the containers of a spec say together. Those that prepare the pod run one by one, before the others and beside the
/// sidecars that were there before.
///
/// Upstream: `AggregateContainerRequests` and `AggregateContainerLimits`.
pub(crate) fn aggregate(spec: &Field<'_>, list: &'static str) -> BTreeMap<String, Quantity> {
    let amounts = |container: &Field<'_>| {
        let entries = container.get("resources").get(list).entries();
        let amount = |(name, amount): (&str, Field<'_>)| Some((name.to_owned(), check::quantity(&amount)?));
        entries.into_iter().filter_map(amount).collect::<Vec<_>>()
    };
    let (mut sums, mut sidecars, mut most) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for container in spec.get("containers").items() {
        add(&mut sums, &amounts(&container));
    }
    for container in spec.get("initContainers").items() {
        let mut beside = sidecars.clone();
        add(&mut beside, &amounts(&container));
        if container.get("restartPolicy").text() == "Always" {
            add(&mut sums, &amounts(&container));
            sidecars.clone_from(&beside);
        }
        at_least(&mut most, beside);
    }
    at_least(&mut sums, most);
    sums
}

fn add(sums: &mut BTreeMap<String, Quantity>, amounts: &[(String, Quantity)]) {
    for (name, amount) in amounts {
        *sums.entry(name.clone()).or_default() += amount;
    }
}

fn at_least(sums: &mut BTreeMap<String, Quantity>, others: BTreeMap<String, Quantity>) {
    for (name, other) in others {
        let sum = sums.entry(name).or_default();
        if other > *sum {
            *sum = other;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn container(cpu: &str, policy: Value) -> Value {
        json!({"resources": {"requests": {"cpu": cpu}}, "restartPolicy": policy})
    }

    #[test]
    fn containers_are_summed_as_they_run() {
        let spec = json!({
            "containers": [container("1", Value::Null), container("1", Value::Null)],
            "initContainers": [
                container("1", Value::Null), container("2", json!("Always")), container("3", Value::Null),
            ],
        });
        assert_eq!(aggregate(&Field::root(&spec), "requests")["cpu"].to_string(), "5");
        let alone = json!({"containers": [], "initContainers": [container("4", Value::Null)]});
        assert_eq!(aggregate(&Field::root(&alone), "requests")["cpu"].to_string(), "4");
    }

    #[test]
    fn what_is_not_said_of_a_whole_pod_is_not_compared() {
        let told = |whole: Value, system: Option<&str>| {
            let spec = json!({"resources": whole, "containers": [container("2", Value::Null)]});
            let context = Context {
                place: String::new(),
                system,
                restart_policy: "Always",
                volumes: BTreeMap::new(),
                claims: BTreeSet::new(),
                grace_seconds: 30,
                host_users: true,
            };
            let mut errors = Errors::default();
            of_pod(&Field::root(&spec), &context, &mut errors);
            errors.into_vec().into_iter().map(|error| format!("{}: {}", error.field, error.detail)).collect::<Vec<_>>()
        };
        assert_eq!(told(json!({"requests": {"memory": "1Gi"}}), None), [""; 0]);
        assert_eq!(
            told(json!({"requests": {"cpu": "1"}}), None),
            ["resources.requests[cpu]: \"1\": must be greater than or equal to aggregate container requests of 2"]
        );
        assert_eq!(
            told(json!({"requests": {"ephemeral-storage": "1Gi"}}), None),
            [
                "resources.requests[ephemeral-storage]: \"ephemeral-storage\": supported values: \"cpu\", \"hugepages-\", \
                 \"memory\""
            ]
        );
        assert_eq!(told(json!({}), Some("windows")), ["resources: may not be set for a windows pod"]);
    }
}
