//! StatefulSets: pods with names and claims that last.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{runs_for_good, selector, status};
use crate::{
    field::{Errors, Field, items_mut, member, remove, set_default},
    kinds::{check, go, podspec, rules::Rules, storage, warnings},
    names::{self, NameRule},
    strategy::Generation,
};

/// What of a stateful set may change.
const UPDATE: &str = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";

/// Stateful sets.
pub(in crate::kinds) const STATEFUL_SETS: Rules = Rules {
    names: NameRule::Label,
    generation: Generation::Intent,
    status: true,
    default,
    create: |set| *member(set, "status") = json!({"availableReplicas": 0, "replicas": 0}),
    validate_create: |set, errors| validate(set, &Extent { fixed: true, template: true }, errors),
    validate_update: update,
    validate_status: status::STATEFUL_SET,
    warn: warnings::of_stateful_set,
    ..Rules::NONE
};

/// Which parts of a set are looked at.
struct Extent {
    /// What never changes: claims, and the name of the service.
    fixed: bool,
    /// The template of its pods.
    template: bool,
}

fn default(set: &mut Value) {
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

fn validate(set: &Field<'_>, extent: &Extent, errors: &mut Errors) {
    let spec = set.get("spec");
    match spec.get("podManagementPolicy").text() {
        "" => spec.get("podManagementPolicy").required(errors, ""),
        "OrderedReady" | "Parallel" => {}
        _ => spec.get("podManagementPolicy").invalid(errors, "must be 'OrderedReady' or 'Parallel'"),
    }
    update_strategy(&spec.get("updateStrategy"), errors);
    for when in ["whenDeleted", "whenScaled"] {
        spec.get("persistentVolumeClaimRetentionPolicy").get(when).one_of(errors, &["Retain", "Delete"]);
    }
    if extent.fixed {
        for claim in spec.get("volumeClaimTemplates").items() {
            storage::validate_claim_spec(&claim.get("spec"), errors);
        }
    }
    spec.get("replicas").not_negative(errors);
    spec.get("minReadySeconds").not_negative(errors);
    spec.at("ordinals.start").not_negative(errors);
    if extent.fixed {
        check::given(&spec.get("serviceName"), names::label, errors);
    }
    if selector(&spec, "empty selector is invalid for statefulset", "", errors) {
        check::selects_template(&spec, errors);
        if extent.template {
            let with_claims = with_claims(set);
            podspec::validate_template(&Field::root(&with_claims).at("spec.template"), errors);
        }
    }
    runs_for_good(&spec.at("template.spec"), "StatefulSet", errors);
}

fn update_strategy(strategy: &Field<'_>, errors: &mut Errors) {
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

/// A set that was wrong before may keep the template that it has.
fn update(new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
    let mut before = Errors::default();
    validate(old, &Extent { fixed: false, template: true }, &mut before);
    validate(new, &Extent { fixed: false, template: before.is_empty() }, errors);
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
        new.get("spec").forbidden(errors, UPDATE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{broken, broken_by_change, with};

    fn set() -> Value {
        json!({"metadata": {"name": "s", "namespace": "n"}, "spec": {
            "serviceName": "s", "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
        }})
    }

    #[test]
    fn sets_are_checked() {
        for (place, value, expected) in [
            ("metadata.labels", Value::Null, &[][..]),
            (
                "spec.serviceName",
                json!("a.b"),
                &["spec.serviceName: \"a.b\": a lowercase RFC 1123 label must consist of"],
            ),
            ("spec.ordinals", json!({"start": -1}), &["spec.ordinals.start: -1: must be greater than or equal to 0"]),
            (
                "spec.volumeClaimTemplates",
                json!([{"metadata": {"name": "v"}, "spec": {"resources": {"requests": {"storage": "1Gi"}}}}]),
                &["spec.volumeClaimTemplates[0].spec.accessModes: at least 1 access mode is required"],
            ),
            (
                "spec.updateStrategy",
                json!({"type": "OnDelete", "rollingUpdate": {"partition": 1}}),
                &["spec.updateStrategy.rollingUpdate: {\"Partition\":1,\"MaxUnavailable\":null}: only allowed for \
                   updateStrategy 'RollingUpdate'"],
            ),
            (
                "spec.updateStrategy",
                json!({"rollingUpdate": {"maxUnavailable": "0%"}}),
                &["spec.updateStrategy.rollingUpdate.maxUnavailable: \"0%\": cannot be 0"],
            ),
            (
                "spec.persistentVolumeClaimRetentionPolicy",
                json!({"whenDeleted": "Keep"}),
                &[
                    "spec.persistentVolumeClaimRetentionPolicy.whenDeleted: \"Keep\": supported values: \"Retain\", \"Delete\"",
                ],
            ),
        ] {
            let found = broken(&STATEFUL_SETS, with(set(), place, value));
            assert_eq!(found.len(), expected.len(), "{place}: {found:?}");
            assert!(found.iter().zip(expected).all(|(found, expected)| found.starts_with(expected)), "{found:?}");
        }
    }

    #[test]
    fn what_was_wrong_before_may_stay() {
        let change = |old: Value, place: &str, value: Value| {
            broken_by_change(&STATEFUL_SETS, old.clone(), with(old, place, value))
        };
        // The name of the service cannot change any more.
        let named = with(set(), "spec.serviceName", json!("a.b"));
        assert_eq!(change(named, "spec.replicas", json!(2)), [""; 0]);
        let empty = with(set(), "spec.template.spec.containers", json!([]));
        assert_eq!(change(empty, "spec.replicas", json!(2)), [""; 0]);
        assert_eq!(change(set(), "spec.template.spec.containers", json!([])), ["spec.template.spec.containers: "]);
        assert_eq!(change(set(), "spec.serviceName", json!("t")), [format!("spec: {UPDATE}")]);
        assert_eq!(change(set(), "spec.revisionHistoryLimit", json!(2)), [""; 0]);
    }
}
