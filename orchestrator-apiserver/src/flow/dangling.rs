//! Whether a schema's level is there, as its status says it. Pure.

use std::collections::BTreeSet;

use serde_json::{Value, json};

const DANGLING: &str = "Dangling";

/// What to apply to the status of a schema; `None` when that says it already.
pub(super) fn status(schema: &Value, levels: &BTreeSet<String>, now: &str) -> Option<Value> {
    let level = schema["spec"]["priorityLevelConfiguration"]["name"].as_str().unwrap_or_default();
    let refers = format!("This FlowSchema references the PriorityLevelConfiguration object named {level:?}");
    let (status, reason, message) = if levels.contains(level) {
        ("False", "Found", format!("{refers} and it exists"))
    } else {
        ("True", "NotFound", format!("{refers} but there is no such object"))
    };
    let old = schema["status"]["conditions"].as_array().into_iter().flatten().find(|old| old["type"] == DANGLING);
    let same = |name: &str, value: &str| old.is_some_and(|old| old[name] == value);
    if same("status", status) && same("reason", reason) && same("message", &message) {
        return None;
    }
    let since = old.filter(|_| same("status", status)).and_then(|old| old["lastTransitionTime"].as_str());
    let condition = json!({
        "type": DANGLING, "status": status, "reason": reason, "message": message,
        "lastTransitionTime": since.unwrap_or(now),
    });
    Some(json!({
        "apiVersion": schema["apiVersion"], "kind": schema["kind"],
        "metadata": {"name": schema["metadata"]["name"]}, "status": {"conditions": [condition]},
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_changes_with_what_is_there() {
        let mut schema = json!({"metadata": {"name": "s"}, "spec": {"priorityLevelConfiguration": {"name": "l"}}});
        let levels = BTreeSet::from(["l".to_owned()]);
        let first = status(&schema, &BTreeSet::new(), "1").unwrap();
        assert_eq!(
            first["status"]["conditions"][0],
            json!({
                "type": "Dangling", "status": "True", "reason": "NotFound", "lastTransitionTime": "1",
                "message": "This FlowSchema references the PriorityLevelConfiguration object named \"l\" but there is no \
                            such object",
            })
        );
        schema["status"] = first["status"].clone();
        assert_eq!(status(&schema, &BTreeSet::new(), "2"), None);
        let found = status(&schema, &levels, "3").unwrap();
        let condition = &found["status"]["conditions"][0];
        assert_eq!((&condition["reason"], &condition["lastTransitionTime"]), (&json!("Found"), &json!("3")));
        schema["status"] = found["status"].clone();
        assert_eq!(status(&schema, &levels, "4"), None);
    }
}
