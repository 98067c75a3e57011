//! Leases and events: what components tell each other.
//!
//! Upstream: `pkg/apis/coordination/validation` and `pkg/apis/core/validation/events.go`.

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
    validate: |event, errors| validate_event(event, &CORE_NAMES, errors),
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
    validate: |event, errors| validate_event(event, &NEW_NAMES, errors),
    validate_create: validate_new_event,
    validate_update: new_event_stays,
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
        election_strategy(&strategy, errors);
    }
    if !preferred.text().is_empty() && strategy.text().is_empty() {
        preferred.forbidden(errors, "may only be specified if `strategy` is defined");
    }
}

/// How a holder is chosen: Kubernetes' own way, or one that a domain defines. Upstream names the field twice.
fn election_strategy(strategy: &Field<'_>, errors: &mut Errors) {
    let place = strategy.shown_at(format!("{}.strategy", strategy.path()));
    if strategy.text().contains('/') {
        check::problems(&place, &names::qualified_name(strategy.text()), errors);
    } else {
        place.one_of(errors, &["OldestEmulationVersion"]);
    }
}

/// What the members of an event are called, in a version and in errors.
struct EventNames {
    involved: &'static str,
    controller: &'static str,
    shown_controller: &'static str,
    note: &'static str,
}

const CORE_NAMES: EventNames = EventNames {
    involved: "involvedObject",
    controller: "reportingComponent",
    shown_controller: "reportingComponent",
    note: "message",
};
const NEW_NAMES: EventNames = EventNames {
    involved: "regarding",
    controller: "reportingController",
    shown_controller: "reportingController",
    note: "note",
};

/// The rules that hold in both groups: events with a time are held to more than those without.
fn validate_event(event: &Field<'_>, names: &EventNames, errors: &mut Errors) {
    let own = event.at("metadata.namespace").text();
    let place = event.get(names.involved).get("namespace").shown_at("involvedObject.namespace");
    let timed = event.get("eventTime").exists();
    let matches = match place.text() {
        "" => own == "default" || (timed && own == "kube-system"),
        given => timed || given == own,
    };
    if !matches {
        place.invalid(errors, "does not match event.namespace");
    }
    if !timed {
        return;
    }
    let controller = event.get(names.controller).shown_at(names.shown_controller);
    check::required(&controller, errors);
    check::problems(&controller, &names::qualified_name(controller.text()), errors);
    for (name, place, needed, most) in [
        // Upstream misspells it when it is too long.
        ("reportingInstance", "repotingIntance", true, 128),
        ("action", "action", true, 128),
        ("reason", "reason", true, 128),
        (names.note, "message", false, 1024),
    ] {
        let field = event.get(name);
        if needed {
            check::required(&field, errors);
        }
        if field.text().len() > most {
            field.shown_at(place).wrong(errors, "\"\"", &format!("can have at most {most} characters"));
        }
    }
}

/// The rules of the newer group alone. An event that came by way of the core group is not held to them when it changes.
fn validate_new_event(event: &Field<'_>, errors: &mut Errors) {
    validate_series(&event.get("series"), errors);
    if !event.get("eventTime").exists() {
        event.get("eventTime").required(errors, "");
    }
    let of = event.get("type");
    if !matches!(of.text(), "Normal" | "Warning") {
        of.wrong(errors, "\"\"", &format!("has invalid value: {}", of.text()));
    }
    for (name, place) in [
        ("deprecatedFirstTimestamp", "firstTimestamp"),
        ("deprecatedLastTimestamp", "lastTimestamp"),
        ("deprecatedCount", "count"),
    ] {
        if event.get(name).exists() && event.get(name).int() != Some(0) {
            event.get(place).wrong(errors, "\"\"", "needs to be unset");
        }
    }
    if event.get("deprecatedSource").len() > 0 {
        event.get("source").wrong(errors, "\"\"", "needs to be unset");
    }
}

fn validate_series(series: &Field<'_>, errors: &mut Errors) {
    if !series.exists() {
        return;
    }
    let (count, time) = (series.get("count"), series.get("lastObservedTime"));
    if count.int().unwrap_or(0) < 2 {
        count.wrong(errors, "\"\"", "should be at least 2");
    }
    if !time.exists() {
        time.required(errors, "");
    }
}

/// An event of the newer group tells once what happened; only its series goes on.
fn new_event_stays(new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
    if new.get("series").value() != old.get("series").value() {
        validate_series(&new.get("series"), errors);
    }
    for (name, place) in [
        ("regarding", "involvedObject"),
        ("reason", "reason"),
        ("note", "message"),
        ("deprecatedSource", "source"),
        ("deprecatedFirstTimestamp", "firstTimestamp"),
        ("deprecatedLastTimestamp", "lastTimestamp"),
        ("deprecatedCount", "count"),
        // Upstream says this one twice.
        ("reason", "reason"),
        ("type", "type"),
        ("eventTime", "eventTime"),
        ("action", "action"),
        ("related", "related"),
        ("reportingController", "reportingController"),
        ("reportingInstance", "reportingInstance"),
    ] {
        if new.get(name).value() != old.get(name).value() {
            let shown = new.get(name).value().map_or_else(|| "null".to_owned(), Value::to_string);
            new.get(place).wrong(errors, shown, check::IMMUTABLE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::broken;

    #[test]
    fn leases_name_a_known_strategy() {
        let lease = |spec: Value| broken(&LEASES, json!({ "spec": spec }));
        assert_eq!(lease(json!({"strategy": "OldestEmulationVersion", "preferredHolder": "h"})), [""; 0]);
        assert_eq!(lease(json!({"strategy": "example.com/mine", "preferredHolder": ""})), [""; 0]);
        assert_eq!(
            lease(json!({"strategy": "Mine"})),
            ["spec.strategy.strategy: \"Mine\": supported values: \"OldestEmulationVersion\""]
        );
        assert_eq!(lease(json!({"strategy": "a/b/c"})).len(), 1);
        assert_eq!(
            lease(json!({"preferredHolder": "h"})),
            ["spec.preferredHolder: may only be specified if `strategy` is defined"]
        );
    }
}
