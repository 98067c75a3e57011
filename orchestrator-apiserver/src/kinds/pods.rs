//! Pods: what the server decides about them, and the little of them that may change.
//!
//! Upstream: `pkg/registry/core/pod/strategy.go` and `ValidatePodUpdate`.

mod gated;
mod resize;
mod status;

use orchestrator_core::{quantity::Quantity, status::FieldErrorKind};
use serde_json::{Value, json};

use super::{check, go, podspec, rules::Rules, warnings};
use crate::{
    field::{Errors, Field, items_mut, member, remove, set_default},
    names,
    strategy::Generation,
};

const GATED: &str = "Scheduling is blocked due to non-empty scheduling gates";
const UPDATE: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// Pods.
pub(super) const PODS: Rules = Rules {
    generation: Generation::Intent,
    status: true,
    returns_deleted: true,
    default,
    create,
    update,
    validate: podspec::validate_pod,
    validate_create,
    validate_update,
    update_status: status::update,
    validate_status: status::validate,
    grace,
    warn: warnings::of_pod,
    ..Rules::NONE
};

/// What a pod's `resize` may change: the resources of its containers.
pub(super) const RESIZE: Rules = Rules { update: resize::update, validate_update: resize::validate, ..PODS };

/// What a pod's `ephemeralcontainers` may change: debugging containers may be added.
pub(super) const EPHEMERAL: Rules = Rules { update: update_ephemeral, validate_update: validate_ephemeral, ..PODS };

fn default(pod: &mut Value) {
    let spec = member(pod, "spec");
    podspec::default_spec(spec);
    podspec::default_requests(spec);
    podspec::host_ports(spec);
    set_default(spec, "enableServiceLinks", true);
    status::default(pod);
}

fn create(pod: &mut Value) {
    podspec::merge_label_keys(pod);
    let mut status = json!({"phase": "Pending", "qosClass": quality(&Field::root(pod).get("spec"))});
    if Field::root(pod).at("spec.schedulingGates").len() > 0 {
        status["conditions"] = json!([{
            "type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "message": GATED,
            "lastProbeTime": null, "lastTransitionTime": null,
        }]);
    }
    *member(pod, "status") = status;
}

/// The class that decides who is evicted first.
fn quality(spec: &Field<'_>) -> &'static str {
    let pod_level = spec.get("resources");
    let resources: Vec<Field<'_>> = if pod_level.get("limits").len() + pod_level.get("requests").len() > 0 {
        vec![pod_level]
    } else {
        let containers = spec.get("containers").items().into_iter().chain(spec.get("initContainers").items());
        containers.map(|container| container.get("resources")).collect()
    };
    let amount = |resources: &Field<'_>, of: &str, name: &str| {
        check::quantity(&resources.get(of).get(name)).filter(|quantity| *quantity > Quantity::ZERO)
    };
    let any = |resources: &Field<'_>| {
        ["cpu", "memory"]
            .iter()
            .any(|name| amount(resources, "limits", name).is_some() || amount(resources, "requests", name).is_some())
    };
    let fixed = |resources: &Field<'_>| {
        ["cpu", "memory"].iter().all(|name| {
            let limit = amount(resources, "limits", name);
            limit.is_some() && limit == amount(resources, "requests", name)
        })
    };
    if !resources.iter().any(any) {
        "BestEffort"
    } else if resources.iter().all(fixed) {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

fn update(new: &mut Value, old: &Value) {
    // A grace period below zero may be mended to one second.
    let seconds = |tree: &Value| tree["spec"]["terminationGracePeriodSeconds"].as_i64();
    if seconds(new).is_some_and(|seconds| seconds < 0) && seconds(old) == Some(1) {
        *member(member(new, "spec"), "terminationGracePeriodSeconds") = 1.into();
    }
}

/// The rules of a pod that is new, beside those that always hold.
fn validate_create(pod: &Field<'_>, errors: &mut Errors) {
    let spec = pod.get("spec");
    if spec.get("ephemeralContainers").len() > 0 {
        spec.get("ephemeralContainers").forbidden(errors, "cannot be set on create");
    }
    if !spec.get("nodeName").text().is_empty() && spec.get("schedulingGates").len() > 0 {
        spec.get("nodeName").forbidden(errors, "cannot be set until all schedulingGates have been cleared");
    }
    podspec::validate_new_pod(pod, errors);
}

fn validate_update(new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
    podspec::validate_annotations_update(new, old, errors);
    let old_pod = old;
    let (new, old) = (new.get("spec"), old.get("spec"));
    for list in ["containers", "initContainers"] {
        if !same_containers(&new.get(list), &old.get(list), errors) {
            return;
        }
    }
    if !deadline(&new, &old, errors) {
        return;
    }
    added_tolerations(&new, &old, errors);
    gates(&new, &old, errors);
    let (Some(changed), Some(before)) = (new.value(), old.value()) else { return };
    if changed == before {
        return;
    }
    if old.get("schedulingGates").len() > 0 {
        gated::validate(&new, &old, errors);
    }
    let allowed = without_allowed_changes(&new, &old, changed, before);
    if allowed != *before {
        let difference = go::difference("PodSpec", before, &allowed);
        old_pod.get("spec").forbidden(errors, &format!("{UPDATE}\n{difference}"));
    }
}

/// Containers stay the same ones; their images may change. Tells whether it is worth to look further.
fn same_containers(new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) -> bool {
    if new.len() != old.len() {
        new.forbidden(errors, "pod updates may not add or remove containers");
        return false;
    }
    for image in new.items().iter().map(|container| container.get("image")) {
        check::required(&image, errors);
        if image.text().trim() != image.text() {
            image.invalid(errors, "must not have leading or trailing whitespace");
        }
    }
    true
}

/// The new spec with what may change as it was.
fn without_allowed_changes(new: &Field<'_>, old: &Field<'_>, changed: &Value, before: &Value) -> Value {
    let mut allowed = changed.clone();
    for list in ["containers", "initContainers"] {
        let images: Vec<Value> = old
            .get(list)
            .items()
            .iter()
            .map(|container| container.get("image").value().cloned().unwrap_or_default())
            .collect();
        for (container, image) in items_mut(&mut allowed, list).zip(images) {
            *member(container, "image") = image;
        }
    }
    let mut names = vec!["activeDeadlineSeconds", "tolerations", "schedulingGates"];
    if old.get("schedulingGates").len() > 0 {
        names.push("nodeSelector");
        gated::restore_node_affinity(&mut allowed, before);
    }
    let seconds = |spec: &Field<'_>| spec.get("terminationGracePeriodSeconds").int();
    if seconds(old).is_some_and(|seconds| seconds < 0) && seconds(new) == Some(1) {
        names.push("terminationGracePeriodSeconds");
    }
    for name in names {
        restore(&mut allowed, before, name);
    }
    allowed
}

/// Puts a member back to what it was.
fn restore(tree: &mut Value, before: &Value, name: &str) {
    match before.get(name) {
        Some(value) => *member(tree, name) = value.clone(),
        None => drop(remove(tree, name)),
    }
}

/// A deadline may be set or come closer, never go away or further off. Tells whether it is worth to look further.
fn deadline(new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) -> bool {
    let (new, old) = (new.get("activeDeadlineSeconds"), old.get("activeDeadlineSeconds"));
    match (new.int(), old.int()) {
        (Some(seconds), _) if !(0..=i64::from(i32::MAX)).contains(&seconds) => {
            check::in_range(&new, 0, i64::from(i32::MAX), errors);
            return false;
        }
        (Some(new_seconds), Some(old_seconds)) if new_seconds > old_seconds => {
            new.invalid(errors, "must be less than or equal to previous value");
            return false;
        }
        (None, Some(_)) => new.wrong(errors, "null", "must not update from a positive integer to nil value"),
        _ => {}
    }
    true
}

fn added_tolerations(new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
    let (new, old) = (new.get("tolerations"), old.get("tolerations"));
    let without_seconds = |toleration: &Field<'_>| {
        let mut tree = toleration.value().cloned().unwrap_or_default();
        remove(&mut tree, "tolerationSeconds");
        tree
    };
    let kept: Vec<Value> = new.items().iter().map(without_seconds).collect();
    if !old.items().iter().map(without_seconds).all(|toleration| kept.contains(&toleration)) {
        return new.forbidden(errors, "existing toleration can not be modified except its tolerationSeconds");
    }
    // Upstream looks at them for a second time.
    podspec::tolerations(&new, errors);
}

/// Gates may be taken away, never added.
fn gates(new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
    let (new, old) = (new.get("schedulingGates"), old.get("schedulingGates"));
    let before: Vec<&str> = old.items().iter().map(|gate| gate.get("name").text()).collect();
    for gate in new.items() {
        if !before.contains(&gate.get("name").text()) {
            let detail =
                format!("only deletion is allowed, but found new scheduling gate '{}'", gate.get("name").text());
            gate.get("name").forbidden(errors, &detail);
        }
    }
}

fn update_ephemeral(new: &mut Value, old: &Value) {
    let containers = new["spec"]["ephemeralContainers"].clone();
    *member(new, "spec") = old.get("spec").cloned().unwrap_or_default();
    if !containers.is_null() {
        *member(member(new, "spec"), "ephemeralContainers") = containers;
    }
}

fn validate_ephemeral(new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
    podspec::validate_annotations_update(new, old, errors);
    if old.at("metadata.annotations").key(podspec::MIRROR).exists() {
        *errors = Errors::default();
        let detail = "static pods do not support ephemeral containers";
        return errors.add(check::WHOLE, FieldErrorKind::Forbidden, detail);
    }
    let (new, old) = (new.at("spec.ephemeralContainers"), old.at("spec.ephemeralContainers"));
    let kept = new.items();
    for before in old.items() {
        let name = before.get("name").text();
        match kept.iter().find(|container| container.get("name").text() == name) {
            None => new.forbidden(errors, &format!("existing ephemeral containers {name:?} may not be removed\n")),
            Some(now) if now.value() != before.value() => {
                let (before, now) = (before.value(), now.value());
                let (before, now) = (before.unwrap_or(&Value::Null), now.unwrap_or(&Value::Null));
                let difference = go::difference("EphemeralContainer", before, now);
                let detail = format!("existing ephemeral containers {name:?} may not be changed\n{difference}");
                new.forbidden(errors, &detail);
            }
            Some(_) => {}
        }
    }
}

/// At once where no node runs it; else what was asked for, or what the pod says.
fn grace(pod: &Value, asked: Option<i64>) -> i64 {
    let spec = Field::root(pod).get("spec");
    let finished = matches!(pod["status"]["phase"].as_str(), Some("Failed" | "Succeeded"));
    if spec.get("nodeName").text().is_empty() || finished {
        return 0;
    }
    let seconds = asked.or_else(|| spec.get("terminationGracePeriodSeconds").int()).unwrap_or(30);
    if seconds < 0 { 1 } else { seconds }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(spec: Value) -> Value {
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": spec});
        default(&mut pod);
        create(&mut pod);
        pod
    }

    #[test]
    fn quality_follows_resources() {
        let class = |resources: Value| {
            let pod = pod(json!({"containers": [{"name": "c", "image": "b", "resources": resources}]}));
            pod["status"]["qosClass"].as_str().unwrap().to_owned()
        };
        assert_eq!(class(json!({})), "BestEffort");
        assert_eq!(class(json!({"requests": {"cpu": "1"}})), "Burstable");
        assert_eq!(class(json!({"limits": {"cpu": "1", "memory": "1Gi"}})), "Guaranteed");
    }

    #[test]
    fn grace_is_for_pods_on_nodes() {
        let mut pod = pod(json!({"containers": [{"name": "c", "image": "b"}]}));
        assert_eq!(grace(&pod, Some(10)), 0);
        pod["spec"]["nodeName"] = "n".into();
        assert_eq!((grace(&pod, None), grace(&pod, Some(5))), (30, 5));
        pod["status"]["phase"] = "Succeeded".into();
        assert_eq!(grace(&pod, None), 0);
    }

    #[test]
    fn differences_are_those_of_upstream() {
        let cases: Value = serde_json::from_str(include_str!("../../tests/fixtures/golden-cases.json")).unwrap();
        let steps =
            |name: &str| cases.as_array().unwrap().iter().find(|case| case["name"] == name).unwrap()["steps"].clone();
        for (name, change) in
            [("update/pod/immutable", "containers"), ("update/pod/ephemeral-via-main", "ephemeralContainers")]
        {
            let steps = steps(name);
            let old = steps[0]["answer"]["body"].clone();
            let mut new = old.clone();
            if change == "containers" {
                new["spec"]["containers"][0]["command"] = json!(["x"]);
            } else {
                new["spec"][change] = json!([{"name": "dbg", "image": "b"}]);
            }
            default(&mut new);
            let mut errors = Errors::default();
            validate_update(&Field::root(&new), &Field::root(&old), &mut errors);
            let message = errors.into_vec().remove(0).message();
            assert_eq!(
                message,
                steps[1]["answer"]["body"]["details"]["causes"][0]["message"].as_str().unwrap(),
                "{name}"
            );
        }
    }

    #[test]
    fn images_may_change_and_commands_may_not() {
        let old = pod(json!({"containers": [{"name": "c", "image": "b:1"}]}));
        let changed = |change: fn(&mut Value)| {
            let mut new = old.clone();
            change(&mut new["spec"]["containers"][0]);
            let mut errors = Errors::default();
            validate_update(&Field::root(&new), &Field::root(&old), &mut errors);
            errors.into_vec().len()
        };
        assert_eq!(changed(|container| container["image"] = "b:2".into()), 0);
        assert_eq!(changed(|container| container["command"] = json!(["x"])), 1);
    }
}
