//! What the runtime class of a pod adds to it: what the runtime costs, and where it is to be found.
//!
//! Upstream: `plugin/pkg/admission/runtimeclass`.

use serde_json::Value;

use crate::field::{items_mut, member};

const MISMATCH: &str = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";
const NO_OVERHEAD: &str = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";

/// Writes what a class says into a new pod of that class.
///
/// # Errors
/// Why the pod is refused.
pub(super) fn apply(class: &Value, pod: &mut Value) -> Result<(), String> {
    let spec = member(pod, "spec");
    let cost = &class["overhead"]["podFixed"];
    if !cost.is_null() {
        if !spec["overhead"].is_null() && spec["overhead"] != *cost {
            return Err(MISMATCH.to_owned());
        }
        *member(spec, "overhead") = cost.clone();
    }
    for (key, wanted) in class["scheduling"]["nodeSelector"].as_object().into_iter().flatten() {
        let selected = member(member(spec, "nodeSelector"), key);
        if !selected.is_null() && selected != wanted {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            return Err(format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}; pod.spec.nodeSelector[{key}] = {}",
                text(wanted),
                text(selected)
            ));
        }
        *selected = wanted.clone();
    }
    if let Some(tolerations) = class["scheduling"]["tolerations"].as_array() {
        add_tolerations(spec, tolerations);
    }
    Ok(())
}

/// Refuses a pod with costs that no class gave it. The class is that of the pod, if it has one.
///
/// # Errors
/// Why the pod is refused.
pub(super) fn check(class: Option<&Value>, pod: &Value) -> Result<(), &'static str> {
    let given = &pod["spec"]["overhead"];
    match class.map(|class| &class["overhead"]["podFixed"]).filter(|cost| !cost.is_null()) {
        Some(cost) if given != cost => Err(MISMATCH),
        None if !given.is_null() => Err(NO_OVERHEAD),
        _ => Ok(()),
    }
}

/// Of a pod's and a class's tolerations, those stay that no other of them covers. A pod's own are not held against each
/// other: callers can send very many.
fn add_tolerations(spec: &mut Value, of_class: &[Value]) {
    let mut own: Vec<Value> = items_mut(spec, "tolerations").map(|toleration| toleration.clone()).collect();
    own.retain(|one| !of_class.iter().any(|other| one != other && covers(other, one)));
    let added: Vec<_> = of_class.iter().filter(|one| !own.iter().any(|other| covers(other, one))).cloned().collect();
    own.extend(added);
    if !own.is_empty() {
        *member(spec, "tolerations") = own.into();
    }
}

/// Whether whatever the second toleration tolerates is tolerated by the first.
fn covers(first: &Value, second: &Value) -> bool {
    let text = |toleration: &Value, name: &str| toleration[name].as_str().unwrap_or_default().to_owned();
    let exists = text(first, "operator") == "Exists";
    if first == second {
        return true;
    }
    let every_key = text(first, "key").is_empty() && exists;
    let every_effect = text(first, "effect").is_empty();
    if text(first, "key") != text(second, "key") && !every_key
        || text(first, "effect") != text(second, "effect") && !every_effect
    {
        return false;
    }
    if let Some(longest) = first["tolerationSeconds"].as_i64().filter(|_| text(first, "effect") == "NoExecute")
        && second["tolerationSeconds"].as_i64().is_none_or(|seconds| seconds > longest)
    {
        return false;
    }
    exists || (text(second, "operator") == "Equal" && text(first, "value") == text(second, "value"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_class_gives_costs_and_places() {
        let class = json!({
            "overhead": {"podFixed": {"cpu": "1"}},
            "scheduling": {"nodeSelector": {"a": "b"}, "tolerations": [{"key": "x", "operator": "Exists"}]},
        });
        let mut pod = json!({"spec": {"tolerations": [{"key": "x", "operator": "Equal", "value": "1"}, {"key": "y"}]}});
        assert_eq!(check(Some(&class), &pod), Err(MISMATCH));
        assert_eq!(apply(&class, &mut pod), Ok(()));
        assert_eq!(pod["spec"]["overhead"], json!({"cpu": "1"}));
        assert_eq!(pod["spec"]["nodeSelector"], json!({"a": "b"}));
        assert_eq!(pod["spec"]["tolerations"], json!([{"key": "y"}, {"key": "x", "operator": "Exists"}]));
        assert_eq!(check(Some(&class), &pod), Ok(()));
        assert_eq!(check(None, &pod), Err(NO_OVERHEAD));

        pod["spec"]["nodeSelector"]["a"] = "c".into();
        let conflict = "conflict: runtimeClass.scheduling.nodeSelector[a] = b; pod.spec.nodeSelector[a] = c".to_owned();
        assert_eq!(apply(&class, &mut pod), Err(conflict));
    }
}
