//! DaemonSets: a pod on every node.

use serde_json::{Value, json};

use super::{runs_for_good, selector_stays, status};
use crate::{
    field::{Errors, Field, member, set_default},
    kinds::{check, go, podspec, rules::Rules, warnings},
    strategy::Generation,
};

/// Counts the changes of a daemon set's template.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

/// Daemon sets.
pub(in crate::kinds) const DAEMON_SETS: Rules = Rules {
    generation: Generation::Intent,
    status: true,
    default,
    create: |set| {
        *member(set, "status") = json!({
            "currentNumberScheduled": 0, "desiredNumberScheduled": 0, "numberMisscheduled": 0, "numberReady": 0,
        });
    },
    update: count_templates,
    validate,
    validate_update: |new, old, errors| {
        // Upstream looks at a changed set twice.
        validate(new, errors);
        selector_stays(new, old, errors);
    },
    validate_status: status::DAEMON_SET,
    warn: warnings::of_template,
    ..Rules::NONE
};

fn default(set: &mut Value) {
    let spec = member(set, "spec");
    let strategy = member(spec, "updateStrategy");
    set_default(strategy, "type", "RollingUpdate");
    if strategy["type"] == "RollingUpdate" {
        let rolling = member(strategy, "rollingUpdate");
        set_default(rolling, "maxUnavailable", 1);
        set_default(rolling, "maxSurge", 0);
    }
    set_default(spec, "revisionHistoryLimit", 10);
    podspec::default_template(member(spec, "template"));
    let annotations = member(member(set, "metadata"), "annotations");
    set_default(annotations, TEMPLATE_GENERATION, "1");
}

fn count_templates(new: &mut Value, old: &Value) {
    let number = |tree: &Value| {
        tree["metadata"]["annotations"][TEMPLATE_GENERATION].as_str().and_then(|text| text.parse::<i64>().ok())
    };
    let old_number = number(old).unwrap_or(1);
    let changed = new["spec"]["template"] != old["spec"]["template"];
    let next = if changed { old_number + 1 } else { old_number };
    *member(member(member(new, "metadata"), "annotations"), TEMPLATE_GENERATION) = next.to_string().into();
}

fn validate(set: &Field<'_>, errors: &mut Errors) {
    let spec = set.get("spec");
    let selector = spec.get("selector");
    if check::valid_label_selector(&selector, errors) {
        check::selects_template(&spec, errors);
    }
    if selector.exists() && check::is_empty_selector(&selector) {
        selector.wrong(errors, "{}", "empty selector is invalid for daemonset");
    }
    podspec::validate_template(&spec.get("template"), errors);
    runs_for_good(&spec.at("template.spec"), "DaemonSet", errors);
    spec.get("minReadySeconds").not_negative(errors);
    update_strategy(&spec.get("updateStrategy"), errors);
    spec.get("revisionHistoryLimit").not_negative(errors);
}

fn update_strategy(strategy: &Field<'_>, errors: &mut Errors) {
    match strategy.get("type").text() {
        "OnDelete" => return,
        "RollingUpdate" => {}
        _ => {
            let shown = go::show("RollingStrategy", strategy.value().unwrap_or(&Value::Null));
            return strategy.not_supported_as(errors, &shown, &["RollingUpdate", "OnDelete"]);
        }
    }
    let rolling = strategy.get("rollingUpdate");
    if !rolling.exists() {
        return rolling.required(errors, "");
    }
    let (unavailable, surge) = (rolling.get("maxUnavailable"), rolling.get("maxSurge"));
    check::number_or_percent(&unavailable, errors);
    check::number_or_percent(&surge, errors);
    check::at_most_all(&unavailable, errors);
    check::at_most_all(&surge, errors);
    match (check::is_zero(&unavailable), check::is_zero(&surge)) {
        (false, false) => surge.invalid(errors, "may not be set when maxUnavailable is non-zero"),
        (true, true) => unavailable.required(errors, "cannot be 0 when maxSurge is 0"),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{broken, broken_by_change, with};

    fn set() -> Value {
        json!({"metadata": {"name": "s", "namespace": "n"}, "spec": {
            "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
        }})
    }

    #[test]
    fn strategies_are_checked() {
        let strategy = |strategy: Value| broken(&DAEMON_SETS, with(set(), "spec.updateStrategy", strategy));
        assert_eq!(strategy(json!({"type": "OnDelete"})), [""; 0]);
        assert_eq!(
            strategy(json!({"rollingUpdate": {"maxUnavailable": 0}})),
            ["spec.updateStrategy.rollingUpdate.maxUnavailable: cannot be 0 when maxSurge is 0"]
        );
        assert_eq!(
            strategy(json!({"type": "Rolling", "rollingUpdate": {"maxSurge": "5%"}})),
            [
                "spec.updateStrategy: {\"Type\":\"Rolling\",\"RollingUpdate\":{\"MaxUnavailable\":0,\"MaxSurge\":\"5%\"}}: \
              supported values: \"RollingUpdate\", \"OnDelete\"",
            ]
        );
    }

    #[test]
    fn what_is_wrong_after_a_change_is_said_twice() {
        let why = "spec.minReadySeconds: -1: must be greater than or equal to 0";
        assert_eq!(broken_by_change(&DAEMON_SETS, set(), with(set(), "spec.minReadySeconds", json!(-1))), [why, why]);
    }

    #[test]
    fn only_templates_are_counted() {
        let count = |place: &str, value: Value| {
            let (mut old, mut new) = (set(), with(set(), place, value));
            default(&mut old);
            default(&mut new);
            count_templates(&mut new, &old);
            new["metadata"]["annotations"][TEMPLATE_GENERATION].clone()
        };
        assert_eq!(count("spec.updateStrategy.type", json!("OnDelete")), "1");
        assert_eq!(count("spec.template.spec.hostNetwork", json!(true)), "2");
    }
}
