//! From one status to the next: the strategic merge patch that takes the API there.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use serde_json::{Value, json};

/// Both statuses with nothing but the fields that the node owns and that differ; `None` when none does.
macro_rules! differing {
    ($known:ident, $status:ident: $($field:ident)*) => {{
        let (mut old, mut new) = (PodStatus::default(), PodStatus::default());
        let mut differ = false;
        $(
            if $known.$field != $status.$field {
                old.$field.clone_from(&$known.$field);
                new.$field.clone_from(&$status.$field);
                differ = true;
            }
        )*
        differ.then_some((old, new))
    }};
}

/// A strategic merge patch from one status to the other; `None` when they say the same.
pub(crate) fn patch(pod: &Pod, known: &PodStatus, status: &PodStatus) -> Option<Value> {
    let (known, status) = differing!(known, status:
        phase reason message start_time host_ip host_ips pod_ip pod_ips conditions container_statuses
        init_container_statuses ephemeral_container_statuses observed_generation resize
    )?;
    let fields = |status: &PodStatus| match serde_json::to_value(status) {
        Ok(Value::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    };
    let (known, status) = (fields(&known), fields(&status));
    let mut changes = serde_json::Map::new();
    let names: BTreeSet<&String> = known.keys().chain(status.keys()).collect();
    for field in names {
        let (old, new) = (known.get(field), status.get(field));
        if old == new {
            continue;
        }
        let value = match (field.as_str(), new) {
            (_, None) => Value::Null,
            // These merge by address; the old addresses have to go.
            ("podIPs" | "hostIPs", Some(Value::Array(list))) if old.is_some() => {
                let mut list = list.clone();
                list.insert(0, json!({"$patch": "replace"}));
                Value::Array(list)
            }
            ("conditions", Some(Value::Array(list))) => {
                let old = old.and_then(Value::as_array).cloned().unwrap_or_default();
                let changed = list.iter().filter(|condition| !old.contains(condition));
                let changed: Vec<Value> = changed.map(|condition| merge_condition(&old, condition)).collect();
                if changed.is_empty() {
                    continue;
                }
                Value::Array(changed)
            }
            (_, Some(new)) => new.clone(),
        };
        changes.insert(field.clone(), value);
    }
    (!changes.is_empty()).then(|| json!({"metadata": {"uid": crate::pod::uid(pod)}, "status": changes}))
}

/// A condition as a patch of the one of its type: what it says no more has to be taken away by name.
fn merge_condition(old: &[Value], condition: &Value) -> Value {
    let mut patch = condition.clone();
    let before = old.iter().find(|before| before["type"] == condition["type"]).and_then(Value::as_object);
    if let Some(fields) = patch.as_object_mut() {
        for (field, _) in before.into_iter().flatten() {
            fields.entry(field.as_str()).or_insert(Value::Null);
        }
    }
    patch
}
