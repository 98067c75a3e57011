//! PodDisruptionBudget.
//!
//! Upstream: `pkg/apis/policy/validation/validation.go`.

use serde_json::{Value, json};

use super::{check, conditions, go, rules::Rules};
use crate::{
    field::{Errors, Field, member},
    names::NameRule,
    strategy::Generation,
};

/// Disruption budgets.
pub(super) const DISRUPTION_BUDGETS: Rules = Rules {
    names: NameRule::PathSegment,
    generation: Generation::Intent,
    status: true,
    needs_version: true,
    default: |budget| {
        if budget.get("spec").is_none() {
            *member(budget, "spec") = json!({});
        }
    },
    create: |budget| {
        *member(budget, "status") =
            json!({"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0});
    },
    validate: validate_budget,
    validate_status: |new, _, errors| {
        let status = new.get("status");
        conditions::validate(&status.get("conditions"), errors);
        for count in ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"] {
            status.get(count).not_negative(errors);
        }
    },
    ..Rules::NONE
};

fn validate_budget(budget: &Field<'_>, errors: &mut Errors) {
    let spec = budget.get("spec");
    let (least, most) = (spec.get("minAvailable"), spec.get("maxUnavailable"));
    if least.exists() && most.exists() {
        let shown = go::show("Budget", spec.value().unwrap_or(&Value::Null));
        spec.wrong(errors, shown, "minAvailable and maxUnavailable cannot be both set");
    }
    for bound in [least, most] {
        check::number_or_percent(&bound, errors);
        check::at_most_all(&bound, errors);
    }
    spec.get("unhealthyPodEvictionPolicy").one_of(errors, &["AlwaysAllow", "IfHealthyBudget"]);
    check::label_selector(&spec.get("selector"), errors);
}
