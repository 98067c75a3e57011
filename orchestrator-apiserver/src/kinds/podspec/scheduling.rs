//! Where a pod may run: affinity, tolerations, spread, gates.

use std::collections::BTreeSet;

use orchestrator_core::status::FieldErrorKind;
use serde_json::{Value, json};

use crate::{
    field::{Errors, Field, items_mut, member},
    kinds::check,
    names,
};

const WEIGHT: &str = "must be in the range 1-100";
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// The rules of all affinity of a pod.
pub(super) fn affinity(affinity: &Field<'_>, errors: &mut Errors) {
    let node = affinity.get("nodeAffinity");
    if node.get(REQUIRED).exists() {
        node_selector(&node.get(REQUIRED), errors);
    }
    for preference in node.get(PREFERRED).items() {
        weight(&preference, errors);
        // A preference may ask for what no node can have.
        node_selector_term(&preference.get("preference"), false, errors);
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let kind = affinity.get(kind);
        for term in kind.get(REQUIRED).items() {
            pod_term(&term, errors);
        }
        for preference in kind.get(PREFERRED).items() {
            weight(&preference, errors);
            pod_term(&preference.get("podAffinityTerm"), errors);
        }
    }
}

fn weight(preference: &Field<'_>, errors: &mut Errors) {
    let weight = preference.get("weight").int().unwrap_or(0);
    if !(1..=100).contains(&weight) {
        preference.get("weight").wrong(errors, weight, WEIGHT);
    }
}

/// The rules of a selector of nodes.
pub(crate) fn node_selector(selector: &Field<'_>, errors: &mut Errors) {
    let terms = selector.get("nodeSelectorTerms");
    if terms.len() == 0 {
        return terms.required(errors, "must have at least one node selector term");
    }
    for term in terms.items() {
        node_selector_term(&term, true, errors);
    }
}

/// The rules of a term of a selector of nodes.
fn node_selector_term(term: &Field<'_>, required: bool, errors: &mut Errors) {
    for expression in term.get("matchExpressions").items() {
        let values = expression.get("values");
        match expression.get("operator").text() {
            "In" | "NotIn" if values.len() == 0 => {
                values.required(errors, "must be specified when `operator` is 'In' or 'NotIn'");
            }
            "Exists" | "DoesNotExist" if values.len() > 0 => {
                values.forbidden(errors, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
            }
            "Gt" | "Lt" if values.len() != 1 => {
                values.required(errors, "must be specified single value when `operator` is 'Lt' or 'Gt'");
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
            _ => expression.get("operator").invalid(errors, "not a valid selector operator"),
        }
        check::label_key(&expression.get("key"), errors);
        for value in values.items().iter().filter(|_| required) {
            check::problems(value, &names::label_value(value.text()), errors);
        }
    }
    for expression in term.get("matchFields").items() {
        node_field(&expression, errors);
    }
}

fn node_field(expression: &Field<'_>, errors: &mut Errors) {
    let (key, values) = (expression.get("key"), expression.get("values"));
    match expression.get("operator").text() {
        "In" | "NotIn" if values.len() != 1 => {
            values
                .required(errors, "must be only one value when `operator` is 'In' or 'NotIn' for node field selector");
        }
        "In" | "NotIn" => {}
        _ => expression.get("operator").invalid(errors, "not a valid selector operator"),
    }
    if key.text() != "metadata.name" {
        return key.invalid(errors, "not a valid field selector key");
    }
    for value in values.items() {
        check::problems(&value, &names::subdomain(value.text()), errors);
    }
}

fn pod_term(term: &Field<'_>, errors: &mut Errors) {
    check::label_selector(&term.get("labelSelector"), errors);
    check::label_selector(&term.get("namespaceSelector"), errors);
    let namespaces = term.get("namespaces");
    let place = term.get("namespace");
    for namespace in namespaces.items() {
        for problem in names::label(namespace.text()) {
            place.wrong(errors, namespace.shown(), &problem);
        }
    }
    let (same, other) = (term.get("matchLabelKeys"), term.get("mismatchLabelKeys"));
    for keys in [&same, &other] {
        label_keys(term, keys, errors);
    }
    repeated_keys(term, &same, errors);
    for key in same.items() {
        if other.items().iter().any(|other| other.text() == key.text()) {
            key.invalid(errors, "exists in both matchLabelKeys and mismatchLabelKeys");
        }
    }
    let topology = term.get("topologyKey");
    if topology.text().is_empty() {
        topology.required(errors, "can not be empty");
    }
    check::label_key(&topology, errors);
}

fn label_keys(term: &Field<'_>, keys: &Field<'_>, errors: &mut Errors) {
    if keys.len() > 0 && !term.get("labelSelector").exists() {
        return keys.forbidden(errors, "must not be specified when labelSelector is not set");
    }
    for key in keys.items() {
        check::label_key(&key, errors);
    }
}

/// By the time of validation a key that is to match stands in the selector once, because it was written there. Twice, the
/// caller had it there already. Errors name it as an item of the term; so does upstream.
fn repeated_keys(term: &Field<'_>, keys: &Field<'_>, errors: &mut Errors) {
    let selector = term.get("labelSelector");
    let mut seen: BTreeSet<&str> = selector.get("matchLabels").entries().iter().map(|(key, _)| *key).collect();
    for expression in selector.get("matchExpressions").items() {
        let key = expression.get("key");
        let place = keys.items().iter().rposition(|listed| listed.text() == key.text());
        if let Some(index) = place.filter(|_| seen.contains(key.text())) {
            let detail = format!("{}: exists in both matchLabelKeys and labelSelector", key.shown());
            errors.add(format!("{}[{index}]", term.path()), FieldErrorKind::Invalid, detail);
        }
        seen.insert(key.text());
    }
}

/// Writes into the selectors of a new pod which labels it has: those whose keys are to match, and those whose are not.
///
/// Upstream: `applyMatchLabelKeysAndMismatchLabelKeys` of `pkg/registry/core/pod/strategy.go`.
pub(crate) fn merge_label_keys(pod: &mut Value) {
    let labels = pod["metadata"]["labels"].clone();
    let spec = member(pod, "spec");
    for constraint in items_mut(spec, "topologySpreadConstraints") {
        merge_keys(constraint, &labels);
    }
    let Some(affinity) = spec.get_mut("affinity") else { return };
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(kind) = affinity.get_mut(kind) else { continue };
        items_mut(kind, REQUIRED).for_each(|term| merge_keys(term, &labels));
        let preferred = items_mut(kind, PREFERRED).filter_map(|preference| preference.get_mut("podAffinityTerm"));
        preferred.for_each(|term| merge_keys(term, &labels));
    }
}

fn merge_keys(term: &mut Value, labels: &Value) {
    for (list, operator) in [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")] {
        let keys = term.get(list).and_then(Value::as_array).cloned().unwrap_or_default();
        let known = keys.iter().filter_map(|key| Some((key, labels.get(key.as_str()?)?)));
        let more: Vec<Value> =
            known.map(|(key, value)| json!({"key": key, "operator": operator, "values": [value]})).collect();
        if let Some(selector) =
            term.get_mut("labelSelector").filter(|selector| selector.is_object() && !more.is_empty())
        {
            match member(selector, "matchExpressions") {
                Value::Array(expressions) => expressions.extend(more),
                other => *other = more.into(),
            }
        }
    }
}

/// The rules of tolerations.
pub(crate) fn tolerations(tolerations: &Field<'_>, errors: &mut Errors) {
    for toleration in tolerations.items() {
        let (key, operator, value) = (toleration.get("key"), toleration.get("operator"), toleration.get("value"));
        check::given(&key, names::qualified_name, errors);
        if key.text().is_empty() && operator.text() != "Exists" {
            operator.invalid(
                errors,
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
            );
        }
        let effect = toleration.get("effect");
        if toleration.get("tolerationSeconds").exists() && effect.text() != "NoExecute" {
            effect.invalid(errors, "effect must be 'NoExecute' when `tolerationSeconds` is set");
        }
        match operator.text() {
            "" | "Equal" => {
                let problems = names::label_value(value.text());
                if !problems.is_empty() {
                    operator.wrong(errors, value.shown(), &problems.join(";"));
                }
            }
            "Exists" if !value.text().is_empty() => {
                operator.wrong(errors, value.shown(), "value must be empty when `operator` is 'Exists'");
            }
            "Exists" => {}
            // Operators that compare numbers are known, and off.
            "Lt" | "Gt" => operator.not_supported(errors, &["Equal", "Exists", "Lt", "Gt"]),
            _ => operator.not_supported(errors, &["Equal", "Exists"]),
        }
        if !effect.text().is_empty() {
            effect.one_of(errors, &["NoSchedule", "PreferNoSchedule", "NoExecute"]);
        }
    }
}

/// The rules of the spread over parts of the cluster.
pub(super) fn spread(constraints: &Field<'_>, errors: &mut Errors) {
    let items = constraints.items();
    let pair = |constraint: &Field<'_>| {
        format!("{{{}, {}}}", constraint.get("topologyKey").text(), constraint.get("whenUnsatisfiable").text())
    };
    for (index, constraint) in items.iter().enumerate() {
        let skew = constraint.get("maxSkew");
        if skew.int().unwrap_or(0) <= 0 {
            skew.wrong(errors, skew.int().unwrap_or(0), "must be greater than zero");
        }
        let (topology, action) = (constraint.get("topologyKey"), constraint.get("whenUnsatisfiable"));
        if topology.text().is_empty() {
            topology.required(errors, "can not be empty");
        }
        if !matches!(action.text(), "DoNotSchedule" | "ScheduleAnyway") {
            action.not_supported(errors, &["DoNotSchedule", "ScheduleAnyway"]);
        }
        let own = pair(constraint);
        if items.iter().skip(index + 1).any(|other| pair(other) == own) {
            let place = format!("{}.{{topologyKey, whenUnsatisfiable}}", constraint.path());
            errors.add(place, FieldErrorKind::Duplicate, format!("{own:?}"));
        }
        domains(constraint, action.text(), errors);
        for policy in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            constraint.get(policy).one_of(errors, &["Honor", "Ignore"]);
        }
        let keys = constraint.get("matchLabelKeys");
        label_keys(constraint, &keys, errors);
        repeated_keys(constraint, &keys, errors);
        check::label_selector(&constraint.get("labelSelector"), errors);
    }
}

fn domains(constraint: &Field<'_>, action: &str, errors: &mut Errors) {
    let domains = constraint.get("minDomains");
    if domains.int().is_some_and(|number| number <= 0) {
        domains.invalid(errors, "must be greater than zero");
    }
    if domains.exists() && action != "DoNotSchedule" {
        let detail = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
        domains.invalid(errors, &detail);
    }
}

/// The rules of what holds a pod back from the scheduler.
pub(super) fn gates(gates: &Field<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for gate in gates.items() {
        let name = gate.get("name");
        check::label_key_at(&gate, name.text(), errors);
        if seen.contains(&name.text()) {
            gate.error(errors, FieldErrorKind::Duplicate, name.shown());
        }
        seen.insert(name.text());
    }
}
