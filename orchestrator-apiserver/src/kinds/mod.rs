//! The rules of the built-in kinds, one file for each family.

mod namespace;

use std::sync::Arc;

use crate::{
    names::NameRule,
    strategy::{Plain, Strategy},
};

/// Kinds that count generations, beside those with a strategy of their own.
const WITH_GENERATION: [(&str, &str); 12] = [
    ("", "podtemplates"),
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations"),
    ("admissionregistration.k8s.io", "validatingadmissionpolicies"),
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations"),
    ("apiextensions.k8s.io", "customresourcedefinitions"),
    ("discovery.k8s.io", "endpointslices"),
    ("flowcontrol.apiserver.k8s.io", "flowschemas"),
    ("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations"),
    ("networking.k8s.io", "ingresses"),
    ("networking.k8s.io", "ingressclasses"),
    ("networking.k8s.io", "networkpolicies"),
    ("scheduling.k8s.io", "priorityclasses"),
];

/// The strategy of a kind.
pub(crate) fn strategy(group: &str, plural: &str, has_status: bool) -> Arc<dyn Strategy> {
    deep(group, plural).unwrap_or_else(|| {
        let names = if group == "rbac.authorization.k8s.io" { NameRule::PathSegment } else { NameRule::Subdomain };
        let generation = WITH_GENERATION.contains(&(group, plural));
        Arc::new(Plain { generation, status: has_status, names })
    })
}

/// Whether a kind has defaults and rules of its own.
pub(crate) fn is_deep(group: &str, plural: &str) -> bool {
    deep(group, plural).is_some()
}

fn deep(group: &str, plural: &str) -> Option<Arc<dyn Strategy>> {
    Some(match (group, plural) {
        ("", "namespaces") => Arc::new(namespace::Namespaces),
        _ => return None,
    })
}
