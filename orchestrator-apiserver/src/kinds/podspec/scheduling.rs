//! Where a pod may run: affinity, tolerations, spread, gates.

use crate::{
    field::{Errors, Field},
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
        node_selector_term(&preference.get("preference"), errors);
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
        node_selector_term(&term, errors);
    }
}

/// The rules of a term of a selector of nodes.
pub(crate) fn node_selector_term(term: &Field<'_>, errors: &mut Errors) {
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
    let namespaces = term.get("namespaces");
    let place = term.get("namespace");
    for namespace in namespaces.items() {
        for problem in names::label(namespace.text()) {
            place.wrong(errors, namespace.shown(), &problem);
        }
    }
    check::label_selector(&term.get("namespaceSelector"), errors);
    for list in ["matchLabelKeys", "mismatchLabelKeys"] {
        label_keys(term, list, errors);
    }
    let topology = term.get("topologyKey");
    if topology.text().is_empty() {
        topology.required(errors, "can not be empty");
    }
    check::label_key(&topology, errors);
}

fn label_keys(term: &Field<'_>, list: &str, errors: &mut Errors) {
    let keys = term.get(list);
    if keys.len() > 0 && !term.get("labelSelector").exists() {
        return keys.forbidden(errors, "must not be specified when labelSelector is not set");
    }
    for key in keys.items() {
        check::label_key(&key, errors);
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
            _ => operator.not_supported(errors, &["Equal", "Exists"]),
        }
        if !effect.text().is_empty() {
            effect.one_of(errors, &["NoSchedule", "PreferNoSchedule", "NoExecute"]);
        }
    }
}

/// The rules of the spread over parts of the cluster.
pub(super) fn spread(constraints: &Field<'_>, errors: &mut Errors) {
    let mut seen = Vec::new();
    for constraint in constraints.items() {
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
        let pair = format!("{{{}, {}}}", topology.text(), action.text());
        if seen.contains(&pair) {
            let place = format!("{}.{{topologyKey, whenUnsatisfiable}}", constraint.path());
            errors.add(place, orchestrator_core::status::FieldErrorKind::Duplicate, format!("{pair:?}"));
        }
        seen.push(pair);
        domains(&constraint, action.text(), errors);
        for policy in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            constraint.get(policy).one_of(errors, &["Honor", "Ignore"]);
        }
        label_keys(&constraint, "matchLabelKeys", errors);
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
    let mut seen = Vec::new();
    for gate in gates.items() {
        let name = gate.get("name");
        check::label_key_at(&gate, name.text(), errors);
        if seen.contains(&name.text()) {
            gate.error(errors, orchestrator_core::status::FieldErrorKind::Duplicate, name.shown());
        }
        seen.push(name.text());
    }
}
