//! What of a pod may change while gates keep it from the scheduler: it may ask for more of its node, never for something else.
//!
//! Upstream: `validateNodeSelectorMutation` and `validateNodeAffinityMutation` (KEP-3838).

use serde_json::{Value, json};

use crate::{
    field::{Errors, Field, member, remove},
    kinds::go,
};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";

/// The rules of what asks for nodes.
pub(super) fn validate(new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
    let selector = new.get("nodeSelector");
    let selected = old.get("nodeSelector").entries();
    if selected.iter().any(|(key, value)| selector.key(key).value() != value.value()) {
        let detail = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        selector.wrong(errors, shown(&selector), detail);
    }
    let place = new.at("affinity.nodeAffinity").get(REQUIRED).get("nodeSelectorTerms");
    let terms = place.items();
    let before = old.at("affinity.nodeAffinity").get(REQUIRED).get("nodeSelectorTerms").items();
    if !before.is_empty() && before.len() != terms.len() {
        let detail = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        let all: Vec<String> = terms.iter().map(shown_term).collect();
        let shown = if place.exists() { format!("[{}]", all.join(",")) } else { "null".to_owned() };
        return place.wrong(errors, shown, detail);
    }
    for (term, before) in terms.iter().zip(&before) {
        if !has_more(term, before) {
            term.wrong(errors, shown_term(term), "only additions are allowed (no mutations or deletions)");
        }
    }
}

/// Whether a term asks for all that it asked for, in the same order. One that asked for nothing matches no node, and stays so.
fn has_more(term: &Field<'_>, before: &Field<'_>) -> bool {
    let lists = ["matchExpressions", "matchFields"];
    let asks = |term: &Field<'_>| lists.iter().any(|list| term.get(list).len() > 0);
    if !asks(before) && asks(term) {
        return false;
    }
    lists.iter().all(|list| {
        let (now, before) = (term.get(list).items(), before.get(list).items());
        now.len() >= before.len() && now.iter().zip(&before).all(|(now, before)| now.value() == before.value())
    })
}

fn shown_term(term: &Field<'_>) -> String {
    go::show("NodeTerm", term.value().unwrap_or(&Value::Null))
}

fn shown(field: &Field<'_>) -> String {
    field.value().map_or_else(|| "null".to_owned(), Value::to_string)
}

/// Puts the affinity to nodes back to what it was.
pub(super) fn restore_node_affinity(spec: &mut Value, before: &Value) {
    match before["affinity"].get("nodeAffinity") {
        Some(affinity) => *member(member(spec, "affinity"), "nodeAffinity") = affinity.clone(),
        None if spec["affinity"].is_object() => drop(remove(member(spec, "affinity"), "nodeAffinity")),
        None => {}
    }
    // Where nothing else was said, nothing was.
    if before.get("affinity").is_none() && spec["affinity"] == json!({}) {
        remove(spec, "affinity");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(old: &Value, new: &Value) -> Vec<String> {
        let mut errors = Errors::default();
        validate(&Field::root(new), &Field::root(old), &mut errors);
        errors.into_vec().into_iter().map(|error| error.field).collect()
    }

    fn with_terms(terms: Value) -> Value {
        json!({"affinity": {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": terms}}}})
    }

    #[test]
    fn more_may_be_asked_for() {
        let one = json!({"key": "a", "operator": "Exists"});
        let other = json!({"key": "b", "operator": "Exists"});
        let old = with_terms(json!([{"matchExpressions": [one]}]));
        assert_eq!(broken(&json!({}), &old), [""; 0]);
        assert_eq!(broken(&old, &with_terms(json!([{"matchExpressions": [one, other]}]))), [""; 0]);
        let place = format!("affinity.nodeAffinity.{REQUIRED}.nodeSelectorTerms");
        assert_eq!(broken(&old, &with_terms(json!([{"matchExpressions": [other, one]}]))), [format!("{place}[0]")]);
        assert_eq!(broken(&old, &with_terms(json!([]))), std::slice::from_ref(&place));
        assert_eq!(broken(&with_terms(json!([{}])), &old), [format!("{place}[0]")]);
    }

    #[test]
    fn selectors_grow() {
        let selector = |labels: Value| json!({"nodeSelector": labels});
        let old = selector(json!({"a": "1"}));
        assert_eq!(broken(&old, &selector(json!({"a": "1", "b": "2"}))), [""; 0]);
        assert_eq!(broken(&old, &selector(json!({"a": "2"}))), ["nodeSelector"]);
        assert_eq!(broken(&old, &json!({})), ["nodeSelector"]);
    }

    #[test]
    fn only_the_affinity_to_nodes_is_put_back() {
        let restored = |mut spec: Value, before: Value| {
            restore_node_affinity(&mut spec, &before);
            spec
        };
        assert_eq!(restored(with_terms(json!([])), json!({})), json!({}));
        let pods = json!({"affinity": {"podAffinity": {}}});
        assert_eq!(restored(pods.clone(), json!({})), pods);
        assert_eq!(restored(json!({}), with_terms(json!([]))), with_terms(json!([])));
    }
}
