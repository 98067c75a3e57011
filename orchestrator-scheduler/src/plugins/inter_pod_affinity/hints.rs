//! Which changes may help a pod whose wishes about the pods near it were broken.

use k8s_openapi::api::core::v1::{Node, Pod};
use orchestrator_core::scheduler::{AffinityTerm, PodInfo};

/// Whether another pod's coming, change or going may help: one that is wanted came, or one that is not wanted, or does not
/// want this one, went.
pub(super) fn after_pod(pod: &PodInfo, old: Option<&Pod>, new: Option<&Pod>) -> bool {
    if let (Some(old), Some(new)) = (old, new)
        && old.metadata.labels == new.metadata.labels
    {
        return false;
    }
    let info = |pod: &Pod| PodInfo::from(pod.clone());
    let (old, new) = (old.map(info), new.map(info));
    let own = pod.affinity();
    let wanted = |other: &PodInfo| !own.required.is_empty() && own.required.iter().all(|term| may_match(term, other));
    let unwanted = |other: &PodInfo| {
        own.anti_required.iter().any(|term| may_match(term, other))
            || other.affinity().anti_required.iter().any(|term| may_match(term, pod))
    };
    let comes = new.as_ref().is_some_and(wanted) && !old.as_ref().is_some_and(wanted);
    let goes = old.as_ref().is_some_and(unwanted) && !new.as_ref().is_some_and(unwanted);
    comes || goes
}

/// Whether a node that came or changed may help: it is in the domains that the pod asks for, and was not before.
pub(super) fn after_node(pod: &PodInfo, old: Option<&Node>, new: &Node) -> bool {
    let label = |node: &Node, key: &str| node.metadata.labels.as_ref().and_then(|labels| labels.get(key).cloned());
    let own = pod.affinity();
    if !own.required.iter().all(|term| label(new, &term.topology_key).is_some()) {
        return false;
    }
    // Whoever does not want the pod near it may do so by any label.
    let Some(old) = old else { return true };
    let moved = |term: &AffinityTerm| label(old, &term.topology_key) != label(new, &term.topology_key);
    let own_terms = || own.required.iter().chain(&own.anti_required);
    own_terms().next().is_none() && old.metadata.labels != new.metadata.labels || own_terms().any(moved)
}

/// Whether a term may speak of a pod, whatever the labels of its namespace.
fn may_match(term: &AffinityTerm, pod: &PodInfo) -> bool {
    let namespace = term.namespace_selector.is_some() || term.namespaces.contains(&pod.key().namespace);
    namespace && term.selector.as_ref().is_some_and(|selector| selector.matches(pod.labels()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(app: &str, affinity: Value) -> Pod {
        let spec = json!({"affinity": affinity, "containers": []});
        let pod = json!({"metadata": {"name": app, "namespace": "x", "labels": {"app": app}}, "spec": spec});
        serde_json::from_value(pod).unwrap()
    }

    fn wish(what: &str, app: &str) -> Value {
        let term = json!({"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": app}}});
        json!({what: {"requiredDuringSchedulingIgnoredDuringExecution": [term]}})
    }

    fn node(zone: &str) -> Node {
        serde_json::from_value(json!({"metadata": {"name": "n", "labels": {"zone": zone}}})).unwrap()
    }

    #[test]
    fn the_wanted_help_by_coming_and_the_unwanted_by_going() {
        let near = PodInfo::from(pod("p", wish("podAffinity", "a")));
        let far = PodInfo::from(pod("p", wish("podAntiAffinity", "a")));
        let (a, b) = (pod("a", json!({})), pod("b", json!({})));
        assert!(after_pod(&near, None, Some(&a)) && after_pod(&near, Some(&b), Some(&a)));
        assert!(!after_pod(&near, None, Some(&b)) && !after_pod(&near, Some(&a), None));
        assert!(after_pod(&far, Some(&a), None) && after_pod(&far, Some(&a), Some(&b)));
        assert!(!after_pod(&far, None, Some(&a)) && !after_pod(&far, Some(&b), None));
        assert!(after_pod(&PodInfo::from(a), Some(&pod("q", wish("podAntiAffinity", "a"))), None));
    }

    #[test]
    fn nodes_help_by_being_elsewhere() {
        let near = PodInfo::from(pod("p", wish("podAffinity", "a")));
        assert!(after_node(&near, None, &node("z")) && after_node(&near, Some(&node("y")), &node("z")));
        assert!(!after_node(&near, Some(&node("z")), &node("z")) && !after_node(&near, None, &Node::default()));
    }
}
