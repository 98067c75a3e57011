//! From one status to the next: the strategic merge patch that takes the API there.

use k8s_openapi::api::core::v1::{Pod, PodCondition, PodStatus};
use serde::Serialize;
use serde_json::{Map, Value, json};

/// A strategic merge patch from one status to the other, of the fields that the node owns; `None` when they say the same.
pub(crate) fn patch(pod: &Pod, known: &PodStatus, status: &PodStatus) -> Option<Value> {
    let mut changes = Map::new();
    macro_rules! compare {
        ($($field:ident $name:literal)*) => {$(
            if known.$field != status.$field {
                // What it says no more is taken away by `null`.
                changes.insert($name.to_owned(), tree(&status.$field));
            }
        )*};
    }
    compare!(
        phase "phase"
        reason "reason"
        message "message"
        start_time "startTime"
        host_ip "hostIP"
        host_ips "hostIPs"
        pod_ip "podIP"
        pod_ips "podIPs"
        container_statuses "containerStatuses"
        init_container_statuses "initContainerStatuses"
        ephemeral_container_statuses "ephemeralContainerStatuses"
        observed_generation "observedGeneration"
        resize "resize"
    );
    // These merge by address; the old addresses have to go.
    for (name, is_known) in [("podIPs", known.pod_ips.is_some()), ("hostIPs", known.host_ips.is_some())] {
        if let Some(Value::Array(addresses)) = changes.get_mut(name).filter(|_| is_known) {
            addresses.insert(0, json!({"$patch": "replace"}));
        }
    }
    if known.conditions != status.conditions {
        match &status.conditions {
            None => drop(changes.insert("conditions".to_owned(), Value::Null)),
            Some(conditions) => {
                let changed = changed_conditions(known.conditions.as_deref().unwrap_or_default(), conditions);
                if !changed.is_empty() {
                    changes.insert("conditions".to_owned(), changed.into());
                }
            }
        }
    }
    (!changes.is_empty()).then(|| json!({"metadata": {"uid": crate::pod::uid(pod)}, "status": changes}))
}

/// What has become of conditions, as patches of those of their types: what one says no more is taken away by name.
fn changed_conditions(old: &[PodCondition], new: &[PodCondition]) -> Vec<Value> {
    let changed = new.iter().filter(|condition| !old.contains(condition));
    changed
        .map(|condition| {
            let mut patch = tree(condition);
            let before = old.iter().find(|before| before.type_ == condition.type_).map(tree);
            if let (Some(fields), Some(Value::Object(before))) = (patch.as_object_mut(), before) {
                for (field, _) in before {
                    fields.entry(field).or_insert(Value::Null);
                }
            }
            patch
        })
        .collect()
}

/// The types of the API have a tree each.
fn tree(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}
