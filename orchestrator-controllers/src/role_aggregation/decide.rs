//! Which rules a cluster role has by those that it is made of.
//!
//! Upstream: <https://kubernetes.io/docs/reference/access-authn-authz/rbac/#aggregated-clusterroles>.

use std::sync::Arc;

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use orchestrator_core::selector::{LabelSelector, ParseSelectorError};

/// The rules that an aggregating role should have, if it has others: those of the roles that it selects, selector by
/// selector, in order of their names, each once.
pub(super) fn decide(
    role: &ClusterRole,
    roles: &[Arc<ClusterRole>],
) -> Result<Option<Vec<PolicyRule>>, ParseSelectorError> {
    let Some(aggregation) = &role.aggregation_rule else { return Ok(None) };
    let mut sorted: Vec<&ClusterRole> = roles.iter().map(Arc::as_ref).collect();
    sorted.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    let empty = Default::default();
    let mut rules: Vec<PolicyRule> = Vec::new();
    for selector in aggregation.cluster_role_selectors.iter().flatten() {
        let selector = LabelSelector::from_meta(selector)?;
        let others = sorted.iter().filter(|other| other.metadata.name != role.metadata.name);
        let selected = others.filter(|other| selector.matches(other.metadata.labels.as_ref().unwrap_or(&empty)));
        for rule in selected.flat_map(|other| other.rules.iter().flatten()) {
            if !rules.iter().any(|known| is_same(known, rule)) {
                rules.push(rule.clone());
            }
        }
    }
    let present = role.rules.as_deref().unwrap_or_default();
    let unchanged = present.len() == rules.len() && present.iter().zip(&rules).all(|(a, b)| is_same(a, b));
    Ok((!unchanged).then_some(rules))
}

/// Whether two rules allow the same in the same words. An empty list is as good as none.
fn is_same(a: &PolicyRule, b: &PolicyRule) -> bool {
    let list = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    let lists = |rule: &PolicyRule| {
        [&rule.api_groups, &rule.non_resource_urls, &rule.resource_names, &rule.resources].map(list)
    };
    a.verbs == b.verbs && lists(a) == lists(b)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn role(name: &str, label: &str, resources: &[&str]) -> Arc<ClusterRole> {
        let rule = |resource: &&str| json!({"apiGroups": [""], "resources": [resource], "verbs": ["get"]});
        let rules: Vec<_> = resources.iter().map(rule).collect();
        let tree = json!({"metadata": {"name": name, "labels": {label: "true"}}, "rules": rules});
        Arc::new(serde_json::from_value(tree).unwrap())
    }

    fn aggregating(name: &str, labels: &[&str]) -> ClusterRole {
        let selector = |label: &&str| json!({"matchLabels": {*label: "true"}});
        let selectors: Vec<_> = labels.iter().map(selector).collect();
        let tree = json!({"metadata": {"name": name, "labels": {"a": "true"}}, "aggregationRule": {"clusterRoleSelectors": selectors}});
        serde_json::from_value(tree).unwrap()
    }

    fn resources(rules: &[PolicyRule]) -> Vec<&str> {
        rules.iter().map(|rule| rule.resources.as_ref().unwrap()[0].as_str()).collect()
    }

    #[test]
    fn rules_come_by_selector_then_by_name_each_once() {
        let mut whole = aggregating("whole", &["b", "a"]);
        let roles = [
            role("z", "a", &["pods"]),
            role("y", "a", &["secrets", "pods"]),
            role("x", "b", &["nodes"]),
            role("w", "c", &["events"]),
            Arc::new(whole.clone()),
        ];
        let rules = decide(&whole, &roles).unwrap().unwrap();
        assert_eq!(resources(&rules), ["nodes", "secrets", "pods"]);
        whole.rules = Some(rules);
        assert_eq!(decide(&whole, &roles), Ok(None));
        assert_eq!(decide(&roles[0], &roles), Ok(None), "a role of its own");
        assert_eq!(decide(&whole, &[]), Ok(Some(Vec::new())), "what it was made of is gone");
    }

    proptest! {
        #[test]
        fn the_order_of_the_roles_does_not_matter(names in prop::collection::btree_set("[a-f]", 0..6), turn in 0..6_usize) {
            let roles: Vec<_> = names.iter().map(|name| role(name, "a", &[name, "pods"])).collect();
            let mut turned = roles.clone();
            turned.rotate_left(turn.min(roles.len()));
            let whole = aggregating("whole", &["a"]);
            prop_assert_eq!(decide(&whole, &roles).unwrap(), decide(&whole, &turned).unwrap());
        }
    }
}
