//! Leases and events: what components tell each other.

use serde_json::{Value, json};

use super::{check, rules::Rules};
use crate::{
    field::{Errors, Field, member, set_default},
    names::{self, NameRule},
};

/// Leases.
pub(super) const LEASES: Rules = Rules {
    needs_version: true,
    default: |lease| {
        if lease.get("spec").is_none() {
            *member(lease, "spec") = json!({});
        }
    },
    validate: validate_lease,
    ..Rules::NONE
};

/// Events, as the core group has them.
pub(super) const EVENTS: Rules = Rules {
    names: NameRule::PathSegment,
    default: |event| {
        for name in ["involvedObject", "source"] {
            set_default(event, name, json!({}));
        }
        for name in ["firstTimestamp", "lastTimestamp", "eventTime"] {
            set_default(event, name, Value::Null);
        }
        for name in ["reportingComponent", "reportingInstance"] {
            set_default(event, name, "");
        }
    },
    validate: |event, errors| {
        let involved = event.get("involvedObject");
        namespace(event, &involved, errors);
        if event.get("eventTime").exists() {
            for (name, place) in
                [("reportingComponent", "reportingController"), ("reportingInstance", "reportingInstance")]
            {
                if event.get(name).text().is_empty() {
                    event.get(place).required(errors, "");
                }
            }
            for name in ["action", "reason"] {
                check::required(&event.get(name), errors);
            }
        }
    },
    ..Rules::NONE
};

/// Events, as the group of their own has them.
pub(super) const NEW_EVENTS: Rules = Rules {
    default: |event| {
        for name in ["regarding", "deprecatedSource"] {
            set_default(event, name, json!({}));
        }
        for name in ["deprecatedFirstTimestamp", "deprecatedLastTimestamp", "eventTime"] {
            set_default(event, name, Value::Null);
        }
    },
    validate: validate_new_event,
    ..Rules::NONE
};

fn validate_lease(lease: &Field<'_>, errors: &mut Errors) {
    let spec = lease.get("spec");
    let duration = spec.get("leaseDurationSeconds");
    if duration.int().is_some_and(|seconds| seconds <= 0) {
        duration.invalid(errors, "must be greater than 0");
    }
    let transitions = spec.get("leaseTransitions");
    transitions.not_negative(errors);
    let (strategy, preferred) = (spec.get("strategy"), spec.get("preferredHolder"));
    if strategy.exists() {
        check::problems(&strategy, &names::qualified_name(strategy.text()), errors);
    }
    if preferred.exists() && strategy.text().is_empty() {
        preferred.forbidden(errors, "may only be specified when `strategy` is defined");
    }
}

fn namespace(event: &Field<'_>, involved: &Field<'_>, errors: &mut Errors) {
    let (own, other) = (event.at("metadata.namespace"), involved.get("namespace"));
    let expected = if other.text().is_empty() { "default" } else { other.text() };
    if own.text() != expected {
        errors.add(
            "involvedObject.namespace",
            orchestrator_core::status::FieldErrorKind::Invalid,
            format!("{}: does not match event.namespace", other.shown()),
        );
    }
}

fn validate_new_event(event: &Field<'_>, errors: &mut Errors) {
    namespace(event, &event.get("regarding"), errors);
    check_time(event, errors);
    let controller = event.get("reportingController");
    if controller.text().is_empty() {
        controller.required(errors, "");
    } else {
        check::problems(&controller, &names::qualified_name(controller.text()), errors);
    }
    check::required(&event.get("reportingInstance"), errors);
    for (name, most) in [("reportingInstance", 128), ("action", 128), ("reason", 128), ("note", 1024)] {
        let field = event.get(name);
        if matches!(name, "action" | "reason") {
            check::required(&field, errors);
        }
        if field.text().len() > most {
            field.wrong(errors, "\"\"", &format!("can have at most {most} characters"));
        }
    }
    let of = event.get("type");
    if !matches!(of.text(), "Normal" | "Warning") {
        of.wrong(errors, "\"\"", &format!("has invalid value: {}", of.text()));
    }
}

fn check_time(event: &Field<'_>, errors: &mut Errors) {
    if !event.get("eventTime").exists() {
        event.get("eventTime").required(errors, "");
    }
}
