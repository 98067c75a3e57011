//! What a pod's `resize` may change: amounts of processor and memory of containers that run all the time.
//!
//! Upstream: `ValidatePodResize` (KEP-1287).

use serde_json::{Value, json};

use super::quality;
use crate::{
    field::{Errors, Field, items_mut, member, remove},
    kinds::podspec,
};

/// Takes the containers' resources, and how they are changed, from what was sent; everything else stays.
pub(super) fn update(new: &mut Value, old: &Value) {
    let wanted = new.get("spec").cloned().unwrap_or_default();
    *member(new, "spec") = old.get("spec").cloned().unwrap_or_default();
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
    let whole = Field::root(&Value::Null).shown_at("");
    if old.at("metadata.annotations").key(podspec::MIRROR).exists() {
        return whole.forbidden(errors, "static pods cannot be resized");
    }
    if old.at("spec.os.name").text() == "windows" {
        return whole.forbidden(errors, "windows pods cannot be resized");
    }
    let runs =
        old.at("status.containerStatuses").items().into_iter().find(|status| status.at("state.running").exists());
    let (new, old) = (new.get("spec"), old.get("spec"));
    if quality(&new) != quality(&old) {
        new.wrong(errors, json!(quality(&old)), "Pod QOS Class may not change as a result of resizing");
    }
    if runs.is_some_and(|status| !status.get("resources").exists()) {
        new.forbidden(errors, "Pod running on node without support for resize");
    }
    for list in ["initContainers", "containers"] {
        for (new_container, old_container) in new.get(list).items().iter().zip(old.get(list).items()) {
            let is_sidecar = old_container.get("restartPolicy").text() == "Always";
            if list == "containers" || is_sidecar {
                nothing_removed(&new_container.get("resources"), &old_container.get("resources"), errors);
            }
            if let Some(refused) = forbidden(list, is_sidecar, new_container, &old_container) {
                new.forbidden(errors, refused);
            }
        }
    }
}

/// An amount that a container has can become another one; it cannot go.
fn nothing_removed(new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
    for (list, detail) in
        [("requests", "resource requests cannot be removed"), ("limits", "resource limits cannot be removed")]
    {
        let new = new.get(list);
        if old.get(list).entries().iter().any(|(name, _)| !new.key(name).exists()) {
            new.forbidden(errors, detail);
        }
    }
}

/// Why a container may not be changed like this.
fn forbidden(list: &str, is_sidecar: bool, new: &Field<'_>, old: &Field<'_>) -> Option<&'static str> {
    let (is_same, refused) = match (list, is_sidecar) {
        ("containers", _) => (fixed(new) == fixed(old), "only cpu and memory resources are mutable"),
        (_, true) => (fixed(new) == fixed(old), "only cpu and memory resources for sidecar containers are mutable"),
        (_, false) => (new.value() == old.value(), "resources for non-sidecar init containers are immutable"),
    };
    (!is_same).then_some(refused)
}

/// A container without the amounts that may change.
fn fixed(container: &Field<'_>) -> Value {
    let mut tree = container.value().cloned().unwrap_or_default();
    for list in ["requests", "limits"] {
        let amounts = member(member(&mut tree, "resources"), list);
        remove(amounts, "cpu");
        remove(amounts, "memory");
        if amounts.as_object().is_some_and(serde_json::Map::is_empty) {
            *amounts = Value::Null;
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
        let init = broken(&old, pod(&requests("1", "1Gi"), &json!({"limits": {"cpu": "1"}})));
        assert_eq!(init, ["spec: resources for non-sidecar init containers are immutable"]);
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
        assert_eq!(broken(&old, old.clone()), [": static pods cannot be resized"]);
    }
}
