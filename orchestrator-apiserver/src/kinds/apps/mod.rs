//! Workloads that keep pods running: Deployment, ReplicaSet, ReplicationController, StatefulSet, DaemonSet, and the
//! ControllerRevision that remembers their templates.
//!
//! Upstream: `pkg/apis/apps/v1/defaults.go`, `pkg/apis/apps/validation/validation.go` and `pkg/registry/apps`.

mod daemon_sets;
mod stateful_sets;
mod status;

use orchestrator_core::status::FieldErrorKind;
use serde_json::{Value, json};

pub(super) use self::{daemon_sets::DAEMON_SETS, stateful_sets::STATEFUL_SETS};
use super::{check, go, podspec, rules::Rules, warnings};
use crate::{
    field::{Errors, Field, member, set_default},
    strategy::Generation,
};

const INVALID_SELECTOR: &str = "invalid label selector";

/// Deployments.
pub(super) const DEPLOYMENTS: Rules = Rules {
    generation: Generation::Annotated,
    status: true,
    default: default_deployment,
    create: |deployment| *member(deployment, "status") = json!({}),
    validate: validate_deployment,
    validate_update: selector_stays,
    validate_status: status::DEPLOYMENT,
    warn: warnings::of_workload,
    ..Rules::NONE
};

/// Replica sets.
pub(super) const REPLICA_SETS: Rules = Rules {
    generation: Generation::Intent,
    status: true,
    default: default_replica_set,
    create: |set| *member(set, "status") = json!({"replicas": 0}),
    validate: validate_replica_set,
    validate_update: |new, old, errors| {
        // Upstream looks at a changed set twice.
        validate_replica_set(new, errors);
        selector_stays(new, old, errors);
    },
    validate_status: status::REPLICA_SET,
    warn: warnings::of_workload,
    ..Rules::NONE
};

/// Replication controllers, whose selector is a plain map.
pub(super) const REPLICATION_CONTROLLERS: Rules = Rules {
    generation: Generation::Intent,
    status: true,
    default: default_replication_controller,
    create: |controller| *member(controller, "status") = json!({"replicas": 0}),
    validate: validate_replication_controller,
    // Upstream looks at a changed controller twice.
    validate_update: |new, _, errors| validate_replication_controller(new, errors),
    validate_status: status::REPLICA_SET,
    warn: warnings::of_workload,
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
        check::selects_template(&spec, errors);
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
        _ => {
            let shown = go::show("RollingStrategy", strategy.value().unwrap_or(&Value::Null));
            strategy.not_supported_as(errors, &shown, &["Recreate", "RollingUpdate"]);
        }
    }
}

fn validate_replica_set(set: &Field<'_>, errors: &mut Errors) {
    let spec = set.get("spec");
    spec.get("replicas").not_negative(errors);
    spec.get("minReadySeconds").not_negative(errors);
    if selector(&spec, "empty selector is invalid for deployment", INVALID_SELECTOR, errors) {
        check::selects_template(&spec, errors);
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
        check::not_selected(&labels, errors);
    }
    podspec::validate_template(&spec.get("template"), errors);
    runs_for_good(&spec.at("template.spec"), "ReplicationController", errors);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{broken, broken_by_change, with};

    fn workload() -> Value {
        json!({"metadata": {"name": "w", "namespace": "n"}, "spec": {
            "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
        }})
    }

    #[test]
    fn strategies_of_deployments_are_checked() {
        let strategy = |strategy: Value| broken(&DEPLOYMENTS, with(workload(), "spec.strategy", strategy));
        assert_eq!(strategy(json!({"type": "Recreate"})), [""; 0]);
        assert_eq!(
            strategy(json!({"type": "Blue"})),
            [
                "spec.strategy: {\"Type\":\"Blue\",\"RollingUpdate\":null}: supported values: \"Recreate\", \"RollingUpdate\""
            ]
        );
        // To Go a text that is no number is none.
        let bounds = json!({"rollingUpdate": {"maxUnavailable": "some", "maxSurge": "0%"}});
        let found = strategy(bounds);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[1].ends_with("\"some\": may not be 0 when `maxSurge` is 0"), "{found:?}");
        assert_eq!(strategy(json!({"rollingUpdate": {"maxUnavailable": "5", "maxSurge": "0%"}})).len(), 1);
    }

    #[test]
    fn what_is_wrong_after_a_change_is_said_twice() {
        let why = "spec.replicas: -1: must be greater than or equal to 0";
        let changed = with(workload(), "spec.replicas", json!(-1));
        assert_eq!(broken_by_change(&REPLICA_SETS, workload(), changed.clone()), [why, why]);
        assert_eq!(broken_by_change(&DEPLOYMENTS, workload(), changed), [why]);
        let controller = |replicas: i64| {
            let controller = with(workload(), "spec.selector", json!({"a": "b"}));
            with(controller, "spec.replicas", replicas.into())
        };
        assert_eq!(broken_by_change(&REPLICATION_CONTROLLERS, controller(1), controller(-1)), [why, why]);
    }
}
