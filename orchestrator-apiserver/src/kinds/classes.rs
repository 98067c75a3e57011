//! Classes of pods and of requests: PriorityClass, RuntimeClass, FlowSchema, PriorityLevelConfiguration, and the kinds
//! of dynamic resources.

use serde_json::{Value, json};

use super::{check, podspec, rules::Rules};
use crate::{
    field::{Errors, Field, items_mut, member, set_default},
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

/// Flow schemas.
pub(super) const FLOW_SCHEMAS: Rules = Rules {
    generation: true,
    status: true,
    default: |schema| {
        let spec = member(schema, "spec");
        set_default(spec, "matchingPrecedence", 1000);
        set_default(member(spec, "priorityLevelConfiguration"), "name", "");
    },
    create: |schema| *member(schema, "status") = json!({}),
    validate: |schema, errors| {
        let spec = schema.get("spec");
        let precedence = spec.get("matchingPrecedence");
        if precedence.int().is_some_and(|number| number <= 0) {
            precedence.invalid(errors, "must be a positive value");
        }
        if precedence.int().is_some_and(|number| number > 10_000) {
            precedence.invalid(errors, "must not be greater than 10000");
        }
        let level = spec.at("priorityLevelConfiguration.name");
        if level.text().is_empty() {
            level.required(errors, "must reference a priority level");
        } else {
            check::problems(&level, &names::subdomain(level.text()), errors);
        }
    },
    ..Rules::NONE
};

/// Priority levels.
pub(super) const PRIORITY_LEVELS: Rules = Rules {
    generation: true,
    status: true,
    default: default_level,
    create: |level| *member(level, "status") = json!({}),
    validate: |level, errors| {
        let of = level.at("spec.type");
        if !matches!(of.text(), "Exempt" | "Limited") {
            of.not_supported(errors, &["Exempt", "Limited"]);
        }
        let limited = level.at("spec.limited");
        if of.text() == "Limited" && !limited.exists() {
            limited.required(errors, "must not be empty when type is Limited");
        }
    },
    ..Rules::NONE
};

/// Device classes.
pub(super) const DEVICE_CLASSES: Rules = Rules {
    generation: true,
    default: |class| {
        if class.get("spec").is_none() {
            *member(class, "spec") = json!({});
        }
    },
    ..Rules::NONE
};

/// Claims of devices.
pub(super) const RESOURCE_CLAIMS: Rules = Rules {
    status: true,
    default: |claim| default_device_claim(member(claim, "spec")),
    create: |claim| *member(claim, "status") = json!({}),
    validate: |claim, errors| validate_device_claim(&claim.get("spec"), errors),
    validate_update: |new, old, errors| check::immutable(new, old, "spec", errors),
    ..Rules::NONE
};

/// Templates of claims of devices.
pub(super) const RESOURCE_CLAIM_TEMPLATES: Rules = Rules {
    default: |template| {
        let spec = member(template, "spec");
        set_default(spec, "metadata", json!({}));
        default_device_claim(member(spec, "spec"));
    },
    validate: |template, errors| validate_device_claim(&template.at("spec.spec"), errors),
    validate_update: |new, old, errors| check::immutable(new, old, "spec", errors),
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

fn default_level(level: &mut Value) {
    let spec = member(level, "spec");
    set_default(spec, "type", "");
    if let Some(exempt) = spec.get_mut("exempt") {
        set_default(exempt, "nominalConcurrencyShares", 0);
        set_default(exempt, "lendablePercent", 0);
    }
    if let Some(limited) = spec.get_mut("limited") {
        set_default(limited, "nominalConcurrencyShares", 30);
        set_default(limited, "lendablePercent", 0);
        let response = member(limited, "limitResponse");
        set_default(response, "type", "");
        if let Some(queuing) = response.get_mut("queuing") {
            set_default(queuing, "queues", 64);
            set_default(queuing, "handSize", 8);
            set_default(queuing, "queueLengthLimit", 50);
        }
    }
}

fn default_device_claim(spec: &mut Value) {
    let devices = member(spec, "devices");
    set_default(devices, "requests", Value::Null);
    let ask = |request: &mut Value| {
        set_default(request, "allocationMode", "ExactCount");
        if request["allocationMode"] == "ExactCount" {
            set_default(request, "count", 1);
        }
    };
    for request in items_mut(devices, "requests") {
        if let Some(exactly) = request.get_mut("exactly") {
            ask(exactly);
        }
        items_mut(request, "firstAvailable").for_each(ask);
    }
}

fn validate_device_claim(spec: &Field<'_>, errors: &mut Errors) {
    let mut seen = Vec::new();
    for request in spec.at("devices.requests").items() {
        let name = request.get("name");
        check::needed(&name, names::label, errors);
        if seen.contains(&name.text()) {
            name.duplicate(errors);
        }
        seen.push(name.text());
        let (exactly, first) = (request.get("exactly"), request.get("firstAvailable"));
        match (exactly.exists(), first.len() > 0) {
            (true, true) => request.invalid(errors, "exactly one of `exactly` or `firstAvailable` must be specified"),
            (false, false) => request.required(errors, "exactly one of `exactly` or `firstAvailable` is required"),
            (true, false) => check::needed(&exactly.get("deviceClassName"), names::subdomain, errors),
            (false, true) => {
                for choice in first.items() {
                    check::needed(&choice.get("deviceClassName"), names::subdomain, errors);
                }
            }
        }
    }
}
