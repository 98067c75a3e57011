//! Requests and limits.

use std::collections::BTreeMap;

use orchestrator_core::quantity::Quantity;

use crate::{
    field::{Errors, Field},
    kinds::check,
    names,
};

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
    name.contains('/') && !name.contains("kubernetes.io/") && !name.starts_with("requests.")
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

/// The rules of what a container or a pod asks for.
pub(crate) fn resource_requirements(resources: &Field<'_>, claims: &[&str], errors: &mut Errors) {
    let (limits, requests) = (resources.get("limits"), resources.get("requests"));
    let mut names: Vec<&str> = Vec::new();
    for (name, limit) in limits.entries() {
        container_resource(&limit, name, errors);
        amount(&limit, name, errors);
        names.push(name);
    }
    for (name, request) in requests.entries() {
        container_resource(&request, name, errors);
        amount(&request, name, errors);
        within_limit(&limits, &requests, name, &request, errors);
        names.push(name);
    }
    let huge = names.iter().any(|name| name.starts_with(HUGE_PAGES));
    if huge && !names.contains(&"cpu") && !names.contains(&"memory") {
        resources.forbidden(errors, "HugePages require cpu or memory");
    }
    let mut seen = Vec::new();
    for claim in resources.get("claims").items() {
        let name = claim.get("name");
        if name.text().is_empty() {
            name.required(errors, "");
        } else if !claims.contains(&name.text()) {
            name.not_found(errors);
        }
        let key = (name.text(), claim.get("request").text());
        if seen.contains(&key) {
            name.duplicate(errors);
        }
        seen.push(key);
    }
}

fn within_limit(limits: &Field<'_>, requests: &Field<'_>, name: &str, request: &Field<'_>, errors: &mut Errors) {
    let whole = is_extended(name) || name.starts_with(HUGE_PAGES);
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

/// The rules of what a pod costs beside its containers.
pub(super) fn overhead(overhead: &Field<'_>, errors: &mut Errors) {
    for (name, value) in overhead.entries() {
        container_resource(&value, name, errors);
        amount(&value, name, errors);
    }
}

/// What the containers of a spec request together.
pub(crate) fn summed_requests(spec: &Field<'_>) -> BTreeMap<String, Quantity> {
    let mut sums: BTreeMap<String, Quantity> = BTreeMap::new();
    for container in spec.get("containers").items() {
        for (name, request) in container.at("resources.requests").entries() {
            if let Some(quantity) = check::quantity(&request) {
                *sums.entry(name.to_owned()).or_default() += &quantity;
            }
        }
    }
    sums
}
