//! Classes of pods: PriorityClass and RuntimeClass.
//!
//! Upstream: `pkg/apis/scheduling/validation/validation.go` and `pkg/apis/node/validation/validation.go`.

use std::collections::BTreeSet;

use orchestrator_core::status::FieldErrorKind;
use serde_json::Value;

use super::{check, go, podspec, rules::Rules, warnings};
use crate::{
    field::{Errors, Field, set_default},
    names,
    strategy::Generation,
};

/// Highest priority that users may give.
const USER_PRIORITY_MAX: i64 = 1_000_000_000;
const SYSTEM_PRIORITIES: [(&str, i64); 2] =
    [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];

/// Priority classes.
pub(super) const PRIORITY_CLASSES: Rules = Rules {
    generation: Generation::Fixed,
    default: |class| {
        set_default(class, "preemptionPolicy", "PreemptLowerPriority");
        set_default(class, "value", 0);
    },
    // What cannot change any more is not looked at again.
    validate_create: validate_priority,
    validate_update: |new, old, errors| {
        let value = |class: &Field<'_>| class.get("value").int();
        if value(new) != value(old) {
            new.get("value").forbidden(errors, "may not be changed in an update.");
        }
        check::immutable(new, old, "preemptionPolicy", errors);
    },
    ..Rules::NONE
};

/// Runtime classes.
pub(super) const RUNTIME_CLASSES: Rules = Rules {
    needs_version: true,
    default: |class| set_default(class, "handler", ""),
    validate: |class, errors| {
        let handler = class.get("handler");
        check::problems(&handler, &names::label(handler.text()), errors);
        podspec::overhead(&class.at("overhead.podFixed").shown_at("overhead"), errors);
        check::labels(&class.at("scheduling.nodeSelector"), errors);
        tolerations(&class.at("scheduling.tolerations"), errors);
    },
    validate_update: |new, old, errors| check::immutable(new, old, "handler", errors),
    warn: warnings::of_runtime_class,
    ..Rules::NONE
};

/// Each toleration is there once, whatever it says about seconds.
fn tolerations(tolerations: &Field<'_>, errors: &mut Errors) {
    podspec::tolerations(tolerations, errors);
    let mut seen = BTreeSet::new();
    for toleration in tolerations.items() {
        if !seen.insert(["key", "operator", "value", "effect"].map(|name| toleration.get(name).text())) {
            let shown = go::show("Toleration", toleration.value().unwrap_or(&Value::Null));
            toleration.error(errors, FieldErrorKind::Duplicate, shown);
        }
    }
}

fn validate_priority(class: &Field<'_>, errors: &mut Errors) {
    let (name, value) = (class.at("metadata.name"), class.get("value"));
    let number = value.int().unwrap_or(0);
    if name.text().starts_with("system-") {
        if let Some(why) = not_of_the_system(name.text(), number, class.get("globalDefault").bool() == Some(true)) {
            let reserved = "priority class names with 'system-' prefix are reserved for system use only. error: ";
            name.forbidden(errors, &format!("{reserved}{why}"));
        }
    } else if number > USER_PRIORITY_MAX {
        let detail = format!("maximum allowed value of a user defined priority is {USER_PRIORITY_MAX}");
        value.forbidden(errors, &detail);
    }
    class.get("preemptionPolicy").one_of(errors, &["PreemptLowerPriority", "Never"]);
}

/// Why this is no priority class of the system's.
fn not_of_the_system(name: &str, value: i64, is_default: bool) -> Option<String> {
    match SYSTEM_PRIORITIES.iter().find(|(known, _)| *known == name) {
        None => Some(format!("{name} is not a known system priority class")),
        Some((_, known)) if *known != value => Some(format!("value of {name} PriorityClass must be {known}")),
        Some(_) if is_default => Some(format!("globalDefault of {name} PriorityClass must be false")),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{broken, broken_by_change};

    #[test]
    fn classes_of_the_system_are_its_own() {
        let class = |name: &str, value: i64, default: bool| {
            broken(&PRIORITY_CLASSES, json!({"metadata": {"name": name}, "value": value, "globalDefault": default}))
        };
        let critical = "system-node-critical";
        assert_eq!(class(critical, 2_000_001_000, false), [""; 0]);
        for (name, value, default, expected) in [
            ("system-x", 1, false, "system-x is not a known system priority class"),
            (critical, 1, false, "value of system-node-critical PriorityClass must be 2000001000"),
            (critical, 2_000_001_000, true, "globalDefault of system-node-critical PriorityClass must be false"),
        ] {
            let reserved = "priority class names with 'system-' prefix are reserved for system use only. error: ";
            assert_eq!(class(name, value, default), [format!("metadata.name: {reserved}{expected}")]);
        }
        let large = json!({"metadata": {"name": "a"}, "value": 1_000_000_001});
        assert_eq!(broken(&PRIORITY_CLASSES, large.clone()).len(), 1);
        assert_eq!(broken_by_change(&PRIORITY_CLASSES, large.clone(), large), [""; 0]);
    }

    #[test]
    fn runtime_classes_say_what_pods_cost_and_where_they_run() {
        let toleration = |seconds: i64| json!({"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds});
        let class = json!({
            "handler": "h", "overhead": {"podFixed": {"cpu": "-1", "parts": "1"}},
            "scheduling": {"tolerations": [toleration(1), toleration(2)]},
        });
        let found = broken(&RUNTIME_CLASSES, class);
        assert_eq!(found[0], "overhead.limits[cpu]: \"-1\": must be greater than or equal to 0");
        assert!(
            found[1].starts_with("overhead.limits[parts]: \"parts\": must be a standard resource type"),
            "{found:?}"
        );
        let shown =
            "{\"Key\":\"a\",\"Operator\":\"Exists\",\"Value\":\"\",\"Effect\":\"NoExecute\",\"TolerationSeconds\":2}";
        assert_eq!(found.last(), Some(&format!("scheduling.tolerations[1]: {shown}")));
    }
}
