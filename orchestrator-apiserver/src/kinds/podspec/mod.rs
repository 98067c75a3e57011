//! The pod's spec: its defaults and rules, alike in pods and in the templates of all workloads.
//!
//! Upstream: `pkg/apis/core/v1/defaults.go` and `pkg/apis/core/validation/validation.go`.

mod containers;
mod defaults;
mod environment;
mod network;
mod probes;
mod resources;
mod scheduling;
mod security;
mod volume_defaults;
mod volumes;

pub(crate) use defaults::{default_requests, default_spec, host_ports};
pub(crate) use resources::{
    amount, can_overcommit, container_resource, is_quota_resource, resource_name, resource_requirements,
    summed_requests,
};
pub(crate) use scheduling::{node_selector, tolerations};
pub(crate) use volume_defaults::{default_source, default_volume};
pub(crate) use volumes::{driver_name, plain_source};

use serde_json::{Value, json};

use super::check;
use crate::{
    field::{Errors, Field, member},
    names,
};

/// Writes the defaults of a template: its metadata and its spec are always there.
pub(crate) fn default_template(template: &mut Value) {
    let metadata = member(template, "metadata");
    if metadata.is_null() {
        *metadata = json!({});
    }
    default_spec(member(template, "spec"));
}

/// The rules of a template.
pub(crate) fn validate_template(template: &Field<'_>, errors: &mut Errors) {
    validate_template_metadata(template, errors);
    let spec = template.get("spec");
    validate(&spec, errors);
    let ephemeral = spec.get("ephemeralContainers");
    if ephemeral.len() > 0 {
        ephemeral.forbidden(errors, "ephemeral containers not allowed in pod template");
    }
}

/// The rules of a template's labels and annotations.
pub(crate) fn validate_template_metadata(template: &Field<'_>, errors: &mut Errors) {
    // Errors name them as if they stood in the template itself.
    let labels = template.at("metadata.labels").shown_at(format!("{}.labels", template.path()));
    check::labels(&labels, errors);
    let annotations = template.at("metadata.annotations").shown_at(format!("{}.annotations", template.path()));
    for (key, _) in annotations.entries() {
        for problem in names::qualified_name(&key.to_lowercase()) {
            annotations.wrong(errors, format!("{key:?}"), &problem);
        }
    }
}

/// What of a pod its parts have to know of each other.
pub(super) struct Context<'a> {
    pub(super) restart_policy: &'a str,
    pub(super) volumes: Vec<Field<'a>>,
    pub(super) claims: Vec<&'a str>,
    pub(super) grace_seconds: i64,
}

/// The rules of a pod's spec, in upstream's order.
pub(crate) fn validate(spec: &Field<'_>, errors: &mut Errors) {
    let context = Context {
        restart_policy: spec.get("restartPolicy").text(),
        volumes: volumes::validate(&spec.get("volumes"), errors),
        claims: spec.get("resourceClaims").items().iter().map(|claim| claim.get("name").text()).collect(),
        grace_seconds: spec.get("terminationGracePeriodSeconds").int().unwrap_or(0),
    };
    claims(&spec.get("resourceClaims"), errors);
    containers::validate(spec, &context, errors);
    if spec.get("resources").exists() {
        resource_requirements(&spec.get("resources"), &context.claims, errors);
    }
    security::host_ports(spec, errors);
    restart_policy(&spec.get("restartPolicy"), errors);
    network::dns_policy(spec, errors);
    check::labels(&spec.get("nodeSelector"), errors);
    security::validate_pod(spec, errors);
    scheduling::affinity(&spec.get("affinity"), errors);
    network::dns_config(spec, errors);
    for gate in spec.get("readinessGates").items() {
        check::label_key(&gate.get("conditionType"), errors);
    }
    scheduling::gates(&spec.get("schedulingGates"), errors);
    scheduling::spread(&spec.get("topologySpreadConstraints"), errors);
    security::host_users(spec, errors);
    single_values(spec, errors);
    scheduling::tolerations(&spec.get("tolerations"), errors);
    network::host_aliases(&spec.get("hostAliases"), errors);
    check::given(&spec.get("priorityClassName"), names::subdomain, errors);
    check::given(&spec.get("runtimeClassName"), names::subdomain, errors);
    spec.get("preemptionPolicy").one_of(errors, &["PreemptLowerPriority", "Never"]);
    resources::overhead(&spec.get("overhead"), errors);
    let system = spec.at("os.name");
    if spec.get("os").exists() && system.text().is_empty() {
        system.required(errors, "cannot be empty");
    } else {
        system.shown_at(spec.get("os").path()).one_of(errors, &["linux", "windows"]);
    }
}

fn single_values(spec: &Field<'_>, errors: &mut Errors) {
    check::given(&spec.get("serviceAccountName"), names::subdomain, errors);
    check::given(&spec.get("nodeName"), names::subdomain, errors);
    check::in_range(&spec.get("activeDeadlineSeconds"), 1, i64::from(i32::MAX), errors);
    check::given(&spec.get("hostname"), names::label, errors);
    check::given(&spec.get("subdomain"), names::label, errors);
}

fn restart_policy(policy: &Field<'_>, errors: &mut Errors) {
    if policy.text().is_empty() {
        policy.required(errors, "");
    } else {
        policy.one_of(errors, &["Always", "OnFailure", "Never"]);
    }
}

fn claims(claims: &Field<'_>, errors: &mut Errors) {
    let mut seen = Vec::new();
    for claim in claims.items() {
        let name = claim.get("name");
        check::needed(&name, names::label, errors);
        if seen.contains(&name.text()) {
            name.duplicate(errors);
        }
        seen.push(name.text());
        let (given, template) = (claim.get("resourceClaimName"), claim.get("resourceClaimTemplateName"));
        match (given.exists(), template.exists()) {
            (true, true) => {
                claim.invalid(
                    errors,
                    "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified",
                );
            }
            (false, false) => {
                claim.invalid(errors, "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`");
            }
            _ => {}
        }
        check::given(&given, names::subdomain, errors);
        check::given(&template, names::subdomain, errors);
    }
}
