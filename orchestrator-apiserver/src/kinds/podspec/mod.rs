//! The pod's spec: its defaults and rules, alike in pods and in the templates of all workloads.
//!
//! Upstream: `pkg/apis/core/v1/defaults.go` and `pkg/apis/core/validation/validation.go`.

mod annotations;
mod containers;
mod defaults;
mod environment;
mod network;
mod probes;
mod resources;
mod scheduling;
mod security;
mod volume_defaults;
mod volume_sources;
mod volumes;
mod warnings;
mod windows;

pub(crate) use annotations::{MIRROR, validate_update as validate_annotations_update};
pub(crate) use defaults::{default_requests, default_spec, host_ports};
pub(crate) use resources::{
    aggregate, amount, can_overcommit, container_resource, is_extended, is_quota_resource, overhead, resource_name,
};
pub(crate) use scheduling::{merge_label_keys, node_selector, tolerations};
pub(crate) use volume_defaults::{default_source, default_volume};
pub(crate) use volume_sources::{Owner, driver_name, one_too_many, plain_source, source};
pub(crate) use volumes::template_metadata;
pub(crate) use warnings::{of_claim as warn_of_claim, of_pod as warn_of_pod, old_label};

use std::collections::{BTreeMap, BTreeSet};

use orchestrator_core::status::FieldErrorKind;
use serde_json::{Value, json};

use super::{check, go};
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
    let (spec, annotations) = (template.get("spec"), template_annotations(template));
    annotations::validate(&annotations, &spec, errors);
    validate(&spec, Pod::Template, errors);
    annotations::same_profiles(&annotations, &spec, errors);
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
    check::annotations(&template_annotations(template), errors);
}

fn template_annotations<'a>(template: &Field<'a>) -> Field<'a> {
    template.at("metadata.annotations").shown_at(format!("{}.annotations", template.path()))
}

/// The rules of a pod, as it is at any time.
pub(crate) fn validate_pod(pod: &Field<'_>, errors: &mut Errors) {
    let (spec, annotations) = (pod.get("spec"), pod.at("metadata.annotations"));
    annotations::validate(&annotations, &spec, errors);
    let is_mirror = annotations.key(MIRROR).exists();
    validate(&spec, Pod::Itself { name: pod.at("metadata.name").text(), is_mirror }, errors);
    if spec.get("serviceAccountName").text().is_empty() {
        let volumes = spec.get("volumes").items();
        for source in volumes.iter().flat_map(|volume| volume.at("projected.sources").items()) {
            let token = source.get("serviceAccountToken");
            if token.exists() {
                token.forbidden(errors, "must not be specified when serviceAccountName is not set");
            }
        }
    }
    for list in ["containers", "initContainers"] {
        spec.get(list).items().iter().for_each(|container| containers::bare_image(container, errors));
    }
}

/// The rules of a pod that is new, beside those that always hold.
pub(crate) fn validate_new_pod(pod: &Field<'_>, errors: &mut Errors) {
    annotations::same_profiles(&pod.at("metadata.annotations"), &pod.get("spec"), errors);
}

/// Whose spec it is.
#[derive(Clone, Copy, Debug)]
enum Pod<'a> {
    /// That of a pod, by its name.
    Itself {
        name: &'a str,
        /// Whether it stands for one that a node runs by itself.
        is_mirror: bool,
    },
    /// That of pods to come.
    Template,
}

/// What of a pod its parts have to know of each other.
struct Context<'a> {
    /// Where the spec is.
    place: String,
    /// The operating system that the pod says it is for.
    system: Option<&'a str>,
    restart_policy: &'a str,
    volumes: BTreeMap<&'a str, Field<'a>>,
    claims: BTreeSet<&'a str>,
    grace_seconds: i64,
    /// Whether its users are those of the machine.
    host_users: bool,
}

/// The rules of a pod's spec, in upstream's order.
fn validate(spec: &Field<'_>, pod: Pod<'_>, errors: &mut Errors) {
    let names = spec.get("resourceClaims").items();
    let os = spec.get("os");
    let context = Context {
        place: spec.path(),
        system: os.exists().then(|| os.get("name").text()),
        restart_policy: spec.get("restartPolicy").text(),
        volumes: volumes::validate(&spec.get("volumes"), pod, errors),
        claims: names.iter().map(|claim| claim.get("name").text()).filter(|name| !name.is_empty()).collect(),
        grace_seconds: spec.get("terminationGracePeriodSeconds").int().unwrap_or(0),
        host_users: spec.get("hostUsers").bool() != Some(false),
    };
    claims(&spec.get("resourceClaims"), pod, errors);
    containers::validate(spec, &context, errors);
    if spec.get("resources").exists() {
        resources::of_pod(spec, &context, errors);
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
    windows::host_process(spec, errors);
    security::host_users(spec, errors);
    network::host_name(spec, errors);
    single_values(spec, errors);
    scheduling::tolerations(&spec.get("tolerations"), errors);
    network::host_aliases(&spec.get("hostAliases"), errors);
    check::given(&spec.get("priorityClassName"), names::subdomain, errors);
    let runtime = spec.get("runtimeClassName");
    if runtime.exists() {
        check::problems(&runtime, &names::subdomain(runtime.text()), errors);
    }
    let preemption = spec.get("preemptionPolicy");
    if preemption.exists() && preemption.text().is_empty() {
        preemption.required(errors, "");
    } else {
        preemption.one_of(errors, &["PreemptLowerPriority", "Never"]);
    }
    resources::overhead(&spec.get("overhead"), errors);
    system(spec, errors);
    environment::files(spec, errors);
}

/// What a pod says depends on the operating system that it says it is for.
fn system(spec: &Field<'_>, errors: &mut Errors) {
    let (system, name) = (spec.get("os"), spec.at("os.name"));
    match name.text() {
        _ if !system.exists() => {}
        "" => name.required(errors, ""),
        "linux" => windows::not_on_linux(spec, errors),
        "windows" => windows::only(spec, errors),
        _ => name.shown_at(system.path()).not_supported(errors, &["linux", "windows"]),
    }
}

/// All containers of a spec, in upstream's order: those that prepare, those of the application, those for debugging.
fn all_containers<'a>(spec: &Field<'a>) -> Vec<Field<'a>> {
    ["initContainers", "containers", "ephemeralContainers"].iter().flat_map(|list| spec.get(list).items()).collect()
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

fn claims(claims: &Field<'_>, pod: Pod<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for claim in claims.items() {
        if matches!(pod, Pod::Itself { is_mirror: true, .. }) {
            errors.add(check::WHOLE, FieldErrorKind::Forbidden, "static pods do not support resource claims");
            continue;
        }
        let name = claim.get("name");
        if name.text().is_empty() {
            name.required(errors, "");
        } else if seen.insert(name.text()) {
            check::problems(&name, &names::label(name.text()), errors);
        } else {
            name.duplicate(errors);
        }
        let (given, template) = (claim.get("resourceClaimName"), claim.get("resourceClaimTemplateName"));
        let shown = || go::show("Claim", claim.value().unwrap_or(&Value::Null));
        match (given.exists(), template.exists()) {
            (true, true) => {
                let detail = "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified";
                claim.wrong(errors, shown(), detail);
            }
            (false, false) => {
                let detail = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`";
                claim.wrong(errors, shown(), detail);
            }
            _ => {}
        }
        for reference in [given, template].iter().filter(|reference| reference.exists()) {
            check::problems(reference, &names::subdomain(reference.text()), errors);
        }
    }
}
