//! What a pod's `resize` may change: amounts of processor and memory of containers that run all the time.
//!
//! Upstream: `ValidatePodResize` (KEP-1287).

use orchestrator_core::status::FieldErrorKind;
use serde_json::{Value, json};

use super::quality;
use crate::{
    field::{Errors, Field, items_mut, member, remove},
    kinds::{check, podspec},
};

/// Takes the resources of the pod and of its containers, and how these are changed, from what was sent; everything else
/// stays.
pub(super) fn update(new: &mut Value, old: &Value) {
    let wanted = new.get("spec").cloned().unwrap_or_default();
    *member(new, "spec") = old.get("spec").cloned().unwrap_or_default();
    match wanted.get("resources") {
        Some(whole) => *member(member(new, "spec"), "resources") = whole.clone(),
        None => drop(remove(member(new, "spec"), "resources")),
    }
    for list in ["containers", "initContainers"] {
        let wanted = Field::root(&wanted).get(list).items();
        for container in items_mut(member(new, "spec"), list) {
            let Some(same) = wanted.iter().find(|wanted| container["name"] == wanted.get("name").text()) else {
                continue;
            };
            for name in ["resources", "resizePolicy"] {
                match same.get(name).value() {
                    Some(value) => *member(container, name) = value.clone(),
                    None => drop(remove(container, name)),
                }
            }
        }
    }
}

pub(super) fn validate(new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
    let refused = if old.at("metadata.annotations").key(podspec::MIRROR).exists() {
        Some("static pods cannot be resized")
    } else {
        (old.at("spec.os.name").text() == "windows").then_some("windows pods cannot be resized")
    };
    if let Some(refused) = refused {
        *errors = Errors::default();
        return errors.add(check::WHOLE, FieldErrorKind::Forbidden, refused);
    }
    let runs =
        old.at("status.containerStatuses").items().into_iter().find(|status| status.at("state.running").exists());
    let has_claims = old.at("status.nodeAllocatableResourceClaimStatuses").len() > 0;
    let (new, old) = (new.get("spec"), old.get("spec"));
    if quality(&new) != quality(&old) {
        new.wrong(errors, json!(quality(&old)), "Pod QOS Class may not change as a result of resizing");
    }
    if runs.is_some_and(|status| !status.get("resources").exists()) {
        new.forbidden(errors, "Pod running on node without support for resize");
    }
    whole_pod(&new, &old, errors);
    if has_claims {
        new.forbidden(errors, "pods with node allocatable resource claims cannot be resized");
    }
    for list in ["initContainers", "containers"] {
        for (new, old) in new.get(list).items().iter().zip(old.get(list).items()) {
            let words = ("resource requests cannot be removed", "resource limits cannot be removed");
            nothing_removed(&new.get("resources"), &old.get("resources"), words, errors);
        }
    }
    for (changed, before) in new.get("containers").items().iter().zip(old.get("containers").items()) {
        if fixed(changed) != fixed(&before) {
            new.forbidden(errors, "only cpu and memory resources are mutable");
        }
    }
    for (changed, before) in new.get("initContainers").items().iter().zip(old.get("initContainers").items()) {
        init_container(changed, &before, errors);
    }
}

/// What a pod asks for as a whole changes by the same rules.
fn whole_pod(new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
    let (changed, before) = (new.get("resources"), old.get("resources"));
    let asks = |whole: &Field<'_>| whole.get("requests").len() + whole.get("limits").len() > 0;
    if !asks(&changed) && !asks(&before) {
        return;
    }
    if before.exists() && !changed.exists() {
        return changed.forbidden(errors, "pod-level resources cannot be removed");
    }
    let words = ("pod-level resource requests cannot be removed", "pod-level resource limits cannot be removed");
    nothing_removed(&changed, &before, words, errors);
    if fixed_amounts(&changed) != fixed_amounts(&before) {
        new.forbidden(errors, "only cpu and memory resources are mutable at pod-level");
    }
}

/// Containers that prepare others change as these do, unless they would have to be started anew.
fn init_container(new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
    if fixed(new) != fixed(old) {
        new.forbidden(errors, "only cpu and memory resources for init or sidecar containers are mutable");
    }
    if new.value() == old.value() || new.get("restartPolicy").text() == "Always" {
        return;
    }
    for policy in new.get("resizePolicy").items() {
        if policy.get("restartPolicy").text() == "RestartContainer" {
            let detail = "non-sidecar init containers with a resize policy of RestartContainer cannot be resized";
            new.forbidden(errors, detail);
        }
    }
}

/// An amount that is there can become another one; it cannot go. The words are those for requests and for limits.
fn nothing_removed(new: &Field<'_>, old: &Field<'_>, words: (&str, &str), errors: &mut Errors) {
    for (list, detail) in [("requests", words.0), ("limits", words.1)] {
        let new = new.get(list);
        if old.get(list).entries().iter().any(|(name, _)| !new.key(name).exists()) {
            new.forbidden(errors, detail);
        }
    }
}

/// A container without the amounts that may change.
fn fixed(container: &Field<'_>) -> Value {
    let mut tree = container.value().cloned().unwrap_or_default();
    let resources = fixed_amounts(&container.get("resources"));
    *member(&mut tree, "resources") = resources;
    tree
}

/// Resources without the amounts that may change; nothing is left of what is empty then.
fn fixed_amounts(resources: &Field<'_>) -> Value {
    let mut tree = resources.value().cloned().unwrap_or_else(|| json!({}));
    for list in ["requests", "limits"] {
        let Some(amounts) = tree.get_mut(list) else { continue };
        remove(amounts, "cpu");
        remove(amounts, "memory");
        if amounts.as_object().is_some_and(serde_json::Map::is_empty) {
            remove(&mut tree, list);
        }
    }
    tree
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(resources: &Value, init: &Value) -> Value {
        json!({"spec": {
            "containers": [{"name": "c", "image": "a", "resources": resources}],
            "initContainers": [{"name": "i", "resources": init}],
        }})
    }

    fn broken(old: &Value, mut new: Value) -> Vec<String> {
        update(&mut new, old);
        let mut errors = Errors::default();
        validate(&Field::root(&new), &Field::root(old), &mut errors);
        errors.into_vec().into_iter().map(|error| format!("{}: {}", error.field, error.detail)).collect()
    }

    #[test]
    fn amounts_of_running_containers_change() {
        let requests = |cpu: &str, disk: &str| json!({"requests": {"cpu": cpu, "ephemeral-storage": disk}});
        let old = pod(&requests("1", "1Gi"), &json!({}));
        assert_eq!(broken(&old, pod(&requests("2", "1Gi"), &json!({}))), [""; 0]);
        let more =
            json!({"requests": {"cpu": "1", "memory": "1Gi", "ephemeral-storage": "1Gi"}, "limits": {"cpu": "3"}});
        assert_eq!(broken(&old, pod(&more, &json!({}))), [""; 0]);
        let disk = broken(&old, pod(&requests("1", "2Gi"), &json!({})));
        assert_eq!(disk, ["spec: only cpu and memory resources are mutable"]);
        let init = |resources: Value| broken(&old, pod(&requests("1", "1Gi"), &resources));
        assert_eq!(init(json!({"limits": {"cpu": "1"}})), [""; 0]);
        assert_eq!(
            init(json!({"limits": {"ephemeral-storage": "1Gi"}})),
            ["spec.initContainers[0]: only cpu and memory resources for init or sidecar containers are mutable"]
        );
    }

    #[test]
    fn whole_pods_are_resized_as_their_containers_are() {
        let whole = |resources: Value| {
            let mut pod = pod(&json!({"requests": {"cpu": "1"}}), &json!({}));
            pod["spec"]["resources"] = resources;
            pod
        };
        let old = whole(json!({"requests": {"cpu": "1", "memory": "1Gi"}}));
        assert_eq!(broken(&old, whole(json!({"requests": {"cpu": "2", "memory": "1Gi"}}))), [""; 0]);
        assert_eq!(
            broken(&old, whole(json!({"requests": {"cpu": "2"}}))),
            ["spec.resources.requests: pod-level resource requests cannot be removed"]
        );
        let more = json!({"cpu": "1", "memory": "1Gi", "hugepages-2Mi": "2Mi"});
        assert_eq!(
            broken(&old, whole(json!({"requests": more}))),
            ["spec: only cpu and memory resources are mutable at pod-level"]
        );
    }

    #[test]
    fn containers_that_run_once_are_not_started_anew() {
        let with_policy = |cpu: &str| {
            let mut pod = pod(&json!({}), &json!({"requests": {"cpu": cpu}}));
            pod["spec"]["initContainers"][0]["resizePolicy"] =
                json!([{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]);
            pod
        };
        assert_eq!(
            broken(&with_policy("1"), with_policy("2")),
            ["spec.initContainers[0]: non-sidecar init containers with a resize policy of RestartContainer cannot be \
                 resized"]
        );
    }

    #[test]
    fn nothing_else_is_taken_from_what_was_sent() {
        let old = pod(&json!({"requests": {"cpu": "1"}}), &json!({}));
        let mut new = old.clone();
        new["spec"]["containers"][0]["image"] = "b".into();
        new["spec"]["nodeName"] = "n".into();
        update(&mut new, &old);
        assert_eq!(new, old);
    }

    #[test]
    fn neither_an_amount_nor_the_class_goes() {
        let amounts = json!({"cpu": "1", "memory": "1Gi"});
        let all = json!({"requests": amounts, "limits": amounts});
        let old = pod(&json!({"requests": amounts}), &all);
        let less = broken(&old, pod(&json!({"requests": {"cpu": "1"}}), &all));
        assert_eq!(less, ["spec.containers[0].resources.requests: resource requests cannot be removed"]);
        let class = broken(&old, pod(&all, &all));
        assert_eq!(class, ["spec: \"Burstable\": Pod QOS Class may not change as a result of resizing"]);
    }

    #[test]
    fn nodes_that_cannot_are_not_asked() {
        let mut old = pod(&json!({"requests": {"cpu": "1"}}), &json!({}));
        old["status"] = json!({"containerStatuses": [{"name": "c", "state": {"running": {}}}]});
        let refused = broken(&old, old.clone());
        assert_eq!(refused, ["spec: Pod running on node without support for resize"]);
        old["metadata"] = json!({"annotations": {"kubernetes.io/config.mirror": "x"}});
        assert_eq!(broken(&old, old.clone()), ["[]: static pods cannot be resized"]);
    }
}
