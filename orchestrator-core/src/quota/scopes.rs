//! Which objects the scopes of a quota are about.
//!
//! Upstream: <https://kubernetes.io/docs/concepts/policy/resource-quotas/#quota-scopes>.

use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, Pod, PodAffinityTerm, ResourceQuotaSpec, ScopedResourceSelectorRequirement,
};

/// Whether a quota counts all objects, and not only those of a scope.
pub fn is_unscoped(spec: &ResourceQuotaSpec) -> bool {
    requirements(spec).next().is_none()
}

/// All scopes of a quota, as what they require.
fn requirements(spec: &ResourceQuotaSpec) -> impl Iterator<Item = ScopedResourceSelectorRequirement> {
    let plain = spec.scopes.iter().flatten().map(|scope| ScopedResourceSelectorRequirement {
        scope_name: scope.clone(),
        operator: "Exists".to_owned(),
        values: None,
    });
    let selected = spec.scope_selector.iter().flat_map(|selector| selector.match_expressions.iter().flatten().cloned());
    plain.chain(selected)
}

/// Whether a quota is about a pod.
pub fn has_pod(spec: &ResourceQuotaSpec, pod: &Pod) -> bool {
    let pod_spec = pod.spec.as_ref();
    let ends = pod_spec.and_then(|spec| spec.active_deadline_seconds).is_some_and(|seconds| seconds >= 0);
    let best_effort =
        || pod.status.as_ref().and_then(|status| status.qos_class.as_deref()).unwrap_or("BestEffort") == "BestEffort";
    requirements(spec).all(|wanted| match &*wanted.scope_name {
        "Terminating" => ends,
        "NotTerminating" => !ends,
        "BestEffort" => best_effort(),
        "NotBestEffort" => !best_effort(),
        "PriorityClass" => {
            matches(&wanted, pod_spec.and_then(|spec| spec.priority_class_name.as_deref()).unwrap_or_default())
        }
        "CrossNamespacePodAffinity" => crosses_namespaces(pod),
        _ => false,
    })
}

/// Whether a quota is about a claim.
pub fn has_claim(spec: &ResourceQuotaSpec, claim: &PersistentVolumeClaim) -> bool {
    let wanted_class = claim.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.as_deref());
    requirements(spec).all(|wanted| {
        wanted.scope_name == "VolumeAttributesClass" && matches(&wanted, wanted_class.unwrap_or_default())
    })
}

fn matches(wanted: &ScopedResourceSelectorRequirement, value: &str) -> bool {
    let among = wanted.values.iter().flatten().any(|known| known == value);
    match &*wanted.operator {
        "In" => among,
        "NotIn" => !among,
        "Exists" => !value.is_empty(),
        "DoesNotExist" => value.is_empty(),
        _ => false,
    }
}

fn crosses_namespaces(pod: &Pod) -> bool {
    let Some(affinity) = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref()) else { return false };
    let crosses = |term: &PodAffinityTerm| {
        term.namespaces.as_ref().is_some_and(|names| !names.is_empty()) || term.namespace_selector.is_some()
    };
    let near = affinity.pod_affinity.iter().flat_map(|affinity| {
        let preferred = affinity.preferred_during_scheduling_ignored_during_execution.iter().flatten();
        let required = affinity.required_during_scheduling_ignored_during_execution.iter().flatten();
        required.chain(preferred.map(|weighted| &weighted.pod_affinity_term))
    });
    let far = affinity.pod_anti_affinity.iter().flat_map(|affinity| {
        let preferred = affinity.preferred_during_scheduling_ignored_during_execution.iter().flatten();
        let required = affinity.required_during_scheduling_ignored_during_execution.iter().flatten();
        required.chain(preferred.map(|weighted| &weighted.pod_affinity_term))
    });
    near.chain(far).any(crosses)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn spec(tree: Value) -> ResourceQuotaSpec {
        serde_json::from_value(tree).unwrap()
    }

    #[test]
    fn every_scope_tells_pods_apart() {
        let affinity = json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
            {"topologyKey": "k", "namespaces": ["n"]},
        ]}});
        let tree = json!({
            "spec": {"containers": [], "activeDeadlineSeconds": 5, "priorityClassName": "high", "affinity": affinity},
            "status": {"qosClass": "Burstable"},
        });
        let special: Pod = serde_json::from_value(tree).unwrap();
        let plain = Pod::default();
        let selecting = |operator: &str, values: Value| {
            json!({"scopeSelector": {"matchExpressions": [
                {"scopeName": "PriorityClass", "operator": operator, "values": values},
            ]}})
        };
        for (tree, of_special, of_plain) in [
            (json!({}), true, true),
            (json!({"scopes": ["Terminating"]}), true, false),
            (json!({"scopes": ["NotTerminating"]}), false, true),
            (json!({"scopes": ["BestEffort"]}), false, true),
            (json!({"scopes": ["NotBestEffort", "Terminating"]}), true, false),
            (json!({"scopes": ["CrossNamespacePodAffinity"]}), true, false),
            (selecting("In", json!(["high"])), true, false),
            (selecting("NotIn", json!(["high"])), false, true),
            (selecting("Exists", Value::Null), true, false),
            (selecting("DoesNotExist", Value::Null), false, true),
        ] {
            let spec = spec(tree.clone());
            assert_eq!((has_pod(&spec, &special), has_pod(&spec, &plain)), (of_special, of_plain), "{tree}");
        }
        assert!(!has_claim(&spec(json!({"scopes": ["BestEffort"]})), &PersistentVolumeClaim::default()));
    }
}
