//! Workloads that keep pods running: Deployment, ReplicaSet, ReplicationController, StatefulSet, DaemonSet, and the
//! ControllerRevision that remembers their templates.
//!
//! Upstream: `pkg/apis/apps/v1/defaults.go` and `pkg/apis/apps/validation/validation.go`.

use std::collections::BTreeSet;

use orchestrator_core::status::FieldErrorKind;
use serde_json::{Value, json};

use super::{app_status, check, go, podspec, rules::Rules, storage};
use crate::{
    field::{Errors, Field, items_mut, member, remove, set_default},
    names,
};

const NO_MATCH: &str = "`selector` does not match template `labels`";
const INVALID_SELECTOR: &str = "invalid label selector";

/// Deployments.
pub(super) const DEPLOYMENTS: Rules = Rules {
    generation: true,
    status: true,
    default: default_deployment,
    create: |deployment| *member(deployment, "status") = json!({}),
    validate: validate_deployment,
    validate_update: selector_stays,
    validate_status: app_status::DEPLOYMENT,
    ..Rules::NONE
};

/// Replica sets.
pub(super) const REPLICA_SETS: Rules = Rules {
    generation: true,
    status: true,
    default: default_replica_set,
    create: |set| *member(set, "status") = json!({"replicas": 0}),
    validate: validate_replica_set,
    validate_update: selector_stays,
    validate_status: app_status::REPLICA_SET,
    ..Rules::NONE
};

/// Replication controllers, whose selector is a plain map.
pub(super) const REPLICATION_CONTROLLERS: Rules = Rules {
    generation: true,
    status: true,
    default: default_replication_controller,
    create: |controller| *member(controller, "status") = json!({"replicas": 0}),
    validate: validate_replication_controller,
    validate_status: app_status::REPLICA_SET,
    ..Rules::NONE
};

/// Stateful sets.
pub(super) const STATEFUL_SETS: Rules = Rules {
    generation: true,
    status: true,
    default: default_stateful_set,
    create: |set| *member(set, "status") = json!({"availableReplicas": 0, "replicas": 0}),
    validate: validate_stateful_set,
    validate_update: update_stateful_set,
    validate_status: app_status::STATEFUL_SET,
    ..Rules::NONE
};

/// Daemon sets.
pub(super) const DAEMON_SETS: Rules = Rules {
    generation: true,
    status: true,
    default: default_daemon_set,
    create: |set| {
        *member(set, "status") = json!({
            "currentNumberScheduled": 0, "desiredNumberScheduled": 0, "numberMisscheduled": 0, "numberReady": 0,
        });
    },
    update: count_templates,
    validate: validate_daemon_set,
    validate_update: selector_stays,
    validate_status: app_status::DAEMON_SET,
    ..Rules::NONE
};

/// Controller revisions.
pub(super) const CONTROLLER_REVISIONS: Rules = Rules {
    default: |revision| set_default(revision, "revision", 0),
    validate: |revision, errors| {
        if !revision.get("data").exists() {
            revision.get("data").required(errors, "data is mandatory");
        }
        revision.get("revision").not_negative(errors);
    },
    validate_update: |new, old, errors| check::immutable(new, old, "data", errors),
    ..Rules::NONE
};

fn default_deployment(deployment: &mut Value) {
    let spec = member(deployment, "spec");
    set_default(spec, "replicas", 1);
    set_default(spec, "revisionHistoryLimit", 10);
    set_default(spec, "progressDeadlineSeconds", 600);
    let strategy = member(spec, "strategy");
    set_default(strategy, "type", "RollingUpdate");
    if strategy["type"] == "RollingUpdate" {
        let rolling = member(strategy, "rollingUpdate");
        set_default(rolling, "maxUnavailable", "25%");
        set_default(rolling, "maxSurge", "25%");
    }
    podspec::default_template(member(spec, "template"));
}

fn default_replica_set(set: &mut Value) {
    let spec = member(set, "spec");
    set_default(spec, "replicas", 1);
    podspec::default_template(member(spec, "template"));
}

fn default_replication_controller(controller: &mut Value) {
    let labels = controller["spec"]["template"]["metadata"]["labels"].clone();
    let spec = member(controller, "spec");
    set_default(spec, "replicas", 1);
    if spec.get("template").is_some() {
        podspec::default_template(member(spec, "template"));
    }
    if labels.as_object().is_some_and(|labels| !labels.is_empty()) {
        set_default(spec, "selector", labels.clone());
        set_default(member(controller, "metadata"), "labels", labels);
    }
}

fn default_stateful_set(set: &mut Value) {
    let spec = member(set, "spec");
    set_default(spec, "podManagementPolicy", "OrderedReady");
    let strategy = member(spec, "updateStrategy");
    set_default(strategy, "type", "RollingUpdate");
    if strategy["type"] == "RollingUpdate" {
        set_default(member(strategy, "rollingUpdate"), "partition", 0);
    }
    let retention = member(spec, "persistentVolumeClaimRetentionPolicy");
    set_default(retention, "whenDeleted", "Retain");
    set_default(retention, "whenScaled", "Retain");
    set_default(spec, "replicas", 1);
    set_default(spec, "revisionHistoryLimit", 10);
    for claim in items_mut(spec, "volumeClaimTemplates") {
        *member(claim, "apiVersion") = "v1".into();
        *member(claim, "kind") = "PersistentVolumeClaim".into();
        storage::default_claim(claim);
        set_default(member(claim, "status"), "phase", "Pending");
    }
    podspec::default_template(member(spec, "template"));
}

fn default_daemon_set(set: &mut Value) {
    let spec = member(set, "spec");
    let strategy = member(spec, "updateStrategy");
    set_default(strategy, "type", "RollingUpdate");
    if strategy["type"] == "RollingUpdate" {
        let rolling = member(strategy, "rollingUpdate");
        set_default(rolling, "maxUnavailable", 1);
        set_default(rolling, "maxSurge", 0);
    }
    set_default(spec, "revisionHistoryLimit", 10);
    podspec::default_template(member(spec, "template"));
    let annotations = member(member(set, "metadata"), "annotations");
    set_default(annotations, TEMPLATE_GENERATION, "1");
}

/// Counts the changes of a daemon set's template.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

fn count_templates(new: &mut Value, old: &Value) {
    let number = |tree: &Value| {
        tree["metadata"]["annotations"][TEMPLATE_GENERATION].as_str().and_then(|text| text.parse::<i64>().ok())
    };
    let old_number = number(old).unwrap_or(1);
    let changed = new["spec"]["template"] != old["spec"]["template"]
        || new["spec"]["updateStrategy"] != old["spec"]["updateStrategy"];
    let next = if changed { old_number + 1 } else { old_number };
    *member(member(member(new, "metadata"), "annotations"), TEMPLATE_GENERATION) = next.to_string().into();
}

fn selector_stays(new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
    check::immutable(&new.get("spec"), &old.get("spec"), "selector", errors);
}

/// The selector must be there, say something and be valid. Otherwise the template is not looked at: tells whether it is.
fn selector(spec: &Field<'_>, empty: &str, invalid: &str, errors: &mut Errors) -> bool {
    let selector = spec.get("selector");
    if !selector.exists() {
        selector.required(errors, "");
        return true;
    }
    let valid = check::valid_label_selector(&selector, errors);
    if check::is_empty_selector(&selector) {
        selector.wrong(errors, "{}", empty);
    }
    if !valid {
        let shown = go::show("Selector", selector.value().unwrap_or(&Value::Null));
        let detail = if invalid.is_empty() { shown } else { format!("{shown}: {invalid}") };
        selector.error(errors, FieldErrorKind::Invalid, detail);
    }
    valid
}

/// No selector selects nothing, and an empty one everything.
fn selects_template(spec: &Field<'_>, errors: &mut Errors) {
    let (selector, labels) = (spec.get("selector"), spec.at("template.metadata.labels"));
    if !selector.exists() || !check::selects(&selector, &labels) {
        let shown = labels.value().map_or_else(|| "null".to_owned(), Value::to_string);
        labels.wrong(errors, shown, NO_MATCH);
    }
}

/// A template of pods that run for good.
fn template(spec: &Field<'_>, errors: &mut Errors) {
    podspec::validate_template(&spec.get("template"), errors);
    runs_for_good(&spec.at("template.spec"), "ReplicaSet", errors);
}

fn runs_for_good(pod: &Field<'_>, kind: &str, errors: &mut Errors) {
    let policy = pod.get("restartPolicy");
    if policy.text() != "Always" {
        policy.not_supported(errors, &["Always"]);
    }
    let deadline = pod.get("activeDeadlineSeconds");
    if deadline.exists() {
        deadline.forbidden(errors, &format!("activeDeadlineSeconds in {kind} is not Supported"));
    }
}

fn validate_deployment(deployment: &Field<'_>, errors: &mut Errors) {
    let spec = deployment.get("spec");
    spec.get("replicas").not_negative(errors);
    if selector(&spec, "empty selector is invalid for deployment", INVALID_SELECTOR, errors) {
        selects_template(&spec, errors);
        template(&spec, errors);
    }
    deployment_strategy(&spec.get("strategy"), errors);
    spec.get("minReadySeconds").not_negative(errors);
    spec.get("revisionHistoryLimit").not_negative(errors);
    let deadline = spec.get("progressDeadlineSeconds");
    deadline.not_negative(errors);
    if deadline.int().unwrap_or(i64::MAX) <= spec.get("minReadySeconds").int().unwrap_or(0) {
        deadline.invalid(errors, "must be greater than minReadySeconds");
    }
}

fn deployment_strategy(strategy: &Field<'_>, errors: &mut Errors) {
    let rolling = strategy.get("rollingUpdate");
    match strategy.get("type").text() {
        "Recreate" if rolling.exists() => {
            rolling.forbidden(errors, "may not be specified when strategy `type` is 'Recreate'");
        }
        "Recreate" => {}
        "RollingUpdate" => {
            let (unavailable, surge) = (rolling.get("maxUnavailable"), rolling.get("maxSurge"));
            check::number_or_percent(&unavailable, errors);
            check::number_or_percent(&surge, errors);
            if check::is_zero(&unavailable) && check::is_zero(&surge) {
                unavailable.invalid(errors, "may not be 0 when `maxSurge` is 0");
            }
            check::at_most_all(&unavailable, errors);
        }
        _ => strategy.get("type").not_supported(errors, &["Recreate", "RollingUpdate"]),
    }
}

fn validate_replica_set(set: &Field<'_>, errors: &mut Errors) {
    let spec = set.get("spec");
    spec.get("replicas").not_negative(errors);
    spec.get("minReadySeconds").not_negative(errors);
    if selector(&spec, "empty selector is invalid for deployment", INVALID_SELECTOR, errors) {
        selects_template(&spec, errors);
        template(&spec, errors);
    }
}

fn validate_replication_controller(controller: &Field<'_>, errors: &mut Errors) {
    let spec = controller.get("spec");
    spec.get("minReadySeconds").not_negative(errors);
    let selector = spec.get("selector");
    if selector.len() == 0 {
        selector.required(errors, "");
    }
    spec.get("replicas").not_negative(errors);
    let pod = spec.get("template");
    if !pod.exists() {
        return pod.required(errors, "");
    }
    let labels = pod.at("metadata.labels");
    let label = |key: &str| labels.value().and_then(|labels| labels.get(key)).and_then(Value::as_str);
    if selector.entries().iter().any(|(key, value)| label(key) != Some(value.text())) {
        let shown = labels.value().map_or_else(|| "null".to_owned(), Value::to_string);
        labels.wrong(errors, shown, NO_MATCH);
    }
    podspec::validate_template(&spec.get("template"), errors);
    runs_for_good(&spec.at("template.spec"), "ReplicationController", errors);
}

/// The set as its pods will be: with a volume for each claim template, so that containers can mount them.
fn with_claims(set: &Field<'_>) -> Value {
    let mut tree = set.value().cloned().unwrap_or_default();
    let claims = set.at("spec.volumeClaimTemplates").items();
    let names: BTreeSet<&str> = claims.iter().map(|claim| claim.at("metadata.name").text()).collect();
    if names.is_empty() {
        return tree;
    }
    let volumes = member(member(member(member(&mut tree, "spec"), "template"), "spec"), "volumes");
    if volumes.is_null() {
        *volumes = json!([]);
    }
    if let Some(volumes) = volumes.as_array_mut() {
        // A claim takes the place of a volume of the same name.
        volumes.retain(|volume| volume["name"].as_str().is_none_or(|name| !names.contains(name)));
        volumes.extend(names.iter().map(|name| json!({"name": name, "persistentVolumeClaim": {"claimName": name}})));
    }
    tree
}

fn validate_stateful_set(set: &Field<'_>, errors: &mut Errors) {
    let spec = set.get("spec");
    match spec.get("podManagementPolicy").text() {
        "" => spec.get("podManagementPolicy").required(errors, ""),
        "OrderedReady" | "Parallel" => {}
        _ => spec.get("podManagementPolicy").invalid(errors, "must be 'OrderedReady' or 'Parallel'"),
    }
    let strategy = spec.get("updateStrategy");
    let rolling = strategy.get("rollingUpdate");
    match strategy.get("type").text() {
        "" => strategy.required(errors, ""),
        "OnDelete" if rolling.exists() => {
            let shown = go::show("SetRollingUpdate", rolling.value().unwrap_or(&Value::Null));
            rolling.wrong(errors, shown, "only allowed for updateStrategy 'RollingUpdate'");
        }
        "OnDelete" => {}
        "RollingUpdate" => {
            rolling.get("partition").not_negative(errors);
            let unavailable = rolling.get("maxUnavailable");
            check::number_or_percent(&unavailable, errors);
            if unavailable.exists() && check::is_zero(&unavailable) {
                unavailable.invalid(errors, "cannot be 0");
            }
            check::at_most_all(&unavailable, errors);
        }
        _ => {
            let shown = go::show("SetStrategy", strategy.value().unwrap_or(&Value::Null));
            strategy.wrong(errors, shown, "must be 'RollingUpdate' or 'OnDelete'");
        }
    }
    for when in ["whenDeleted", "whenScaled"] {
        spec.get("persistentVolumeClaimRetentionPolicy").get(when).one_of(errors, &["Delete", "Retain"]);
    }
    spec.get("replicas").not_negative(errors);
    spec.get("minReadySeconds").not_negative(errors);
    spec.at("ordinals.start").not_negative(errors);
    check::given(&spec.get("serviceName"), names::subdomain, errors);
    if selector(&spec, "empty selector is invalid for statefulset", "", errors) {
        selects_template(&spec, errors);
        let with_claims = with_claims(set);
        podspec::validate_template(&Field::root(&with_claims).at("spec.template"), errors);
    }
    runs_for_good(&spec.at("template.spec"), "StatefulSet", errors);
}

/// What of a stateful set may change.
const STATEFUL_UPDATE: &str = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";

fn update_stateful_set(new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
    let fixed = |set: &Field<'_>| {
        let mut spec = set.get("spec").value().cloned().unwrap_or_default();
        for name in [
            "replicas",
            "template",
            "updateStrategy",
            "minReadySeconds",
            "ordinals",
            "revisionHistoryLimit",
            "persistentVolumeClaimRetentionPolicy",
        ] {
            remove(&mut spec, name);
        }
        spec
    };
    if fixed(new) != fixed(old) {
        new.get("spec").forbidden(errors, STATEFUL_UPDATE);
    }
}

fn validate_daemon_set(set: &Field<'_>, errors: &mut Errors) {
    let spec = set.get("spec");
    let selector = spec.get("selector");
    if check::valid_label_selector(&selector, errors) {
        selects_template(&spec, errors);
    }
    if selector.exists() && check::is_empty_selector(&selector) {
        selector.wrong(errors, "{}", "empty selector is invalid for daemonset");
    }
    podspec::validate_template(&spec.get("template"), errors);
    runs_for_good(&spec.at("template.spec"), "DaemonSet", errors);
    spec.get("minReadySeconds").not_negative(errors);
    daemon_strategy(&spec.get("updateStrategy"), errors);
    spec.get("revisionHistoryLimit").not_negative(errors);
}

fn daemon_strategy(strategy: &Field<'_>, errors: &mut Errors) {
    match strategy.get("type").text() {
        "OnDelete" => return,
        "RollingUpdate" => {}
        _ => return strategy.get("type").not_supported(errors, &["RollingUpdate", "OnDelete"]),
    }
    let rolling = strategy.get("rollingUpdate");
    if !rolling.exists() {
        return rolling.required(errors, "");
    }
    let (unavailable, surge) = (rolling.get("maxUnavailable"), rolling.get("maxSurge"));
    check::number_or_percent(&unavailable, errors);
    check::number_or_percent(&surge, errors);
    check::at_most_all(&unavailable, errors);
    check::at_most_all(&surge, errors);
    match (check::is_zero(&unavailable), check::is_zero(&surge)) {
        (false, false) => surge.invalid(errors, "may not be set when maxUnavailable is non-zero"),
        (true, true) => unavailable.invalid(errors, "cannot be 0 when maxSurge is 0"),
        _ => {}
    }
}
