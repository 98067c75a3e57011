//! Classes of pods: PriorityClass and RuntimeClass.

use super::{check, podspec, rules::Rules};
use crate::{
    field::{Errors, Field, set_default},
    names,
};

/// Highest priority that users may give.
const USER_PRIORITY_MAX: i64 = 1_000_000_000;
const SYSTEM_PRIORITIES: [(&str, i64); 2] =
    [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];

/// Priority classes.
pub(super) const PRIORITY_CLASSES: Rules = Rules {
    generation: true,
    default: |class| {
        set_default(class, "preemptionPolicy", "PreemptLowerPriority");
        set_default(class, "value", 0);
    },
    validate: validate_priority,
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
        check::labels(&class.at("scheduling.nodeSelector"), errors);
        podspec::tolerations(&class.at("scheduling.tolerations"), errors);
    },
    validate_update: |new, old, errors| check::immutable(new, old, "handler", errors),
    ..Rules::NONE
};

fn validate_priority(class: &Field<'_>, errors: &mut Errors) {
    let (name, value) = (class.at("metadata.name"), class.get("value"));
    let number = value.int().unwrap_or(0);
    if name.text().starts_with("system-") {
        let known = SYSTEM_PRIORITIES.iter().any(|known| *known == (name.text(), number));
        if !known {
            let detail = "priority class names with 'system-' prefix are reserved for system use only. error: only \
                          predefined system classes are allowed";
            class.get("metadata").get("name").forbidden(errors, detail);
        }
    } else if number > USER_PRIORITY_MAX {
        let detail = format!("maximum allowed value of a user defined priority is {USER_PRIORITY_MAX}");
        value.forbidden(errors, &detail);
    }
    class.get("preemptionPolicy").one_of(errors, &["PreemptLowerPriority", "Never"]);
}
