//! Which nodes a pod's node selector, node affinity and tolerations let it onto.
//!
//! <https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/> and
//! <https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/>.

use k8s_openapi::api::core::v1::{
    Node, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodSpec, PreferredSchedulingTerm,
    Taint, Toleration,
};

/// The taint of nodes that are closed to new pods.
pub const UNSCHEDULABLE_TAINT: &str = "node.kubernetes.io/unschedulable";

/// Whether a pod's node selector and required node affinity let it onto a node.
pub fn node_affinity_matches(spec: &PodSpec, node: &Node) -> bool {
    let label = |key: &str| node.metadata.labels.as_ref().and_then(|labels| labels.get(key));
    let selected = spec.node_selector.iter().flatten().all(|(key, value)| label(key) == Some(value));
    selected && required_node_affinity(spec).is_none_or(|selector| node_selector_matches(selector, node))
}

/// A pod's required node affinity.
pub fn required_node_affinity(spec: &PodSpec) -> Option<&NodeSelector> {
    node_affinity(spec)?.required_during_scheduling_ignored_during_execution.as_ref()
}

/// How much a pod's preferred node affinity speaks for a node: the sum of the weights of the terms that match.
pub fn node_preference(spec: &PodSpec, node: &Node) -> i64 {
    let affinity = node_affinity(spec)
        .and_then(|affinity| affinity.preferred_during_scheduling_ignored_during_execution.as_deref());
    terms_weight(affinity.unwrap_or_default(), node)
}

/// The sum of the weights of the terms that match a node.
pub fn terms_weight(terms: &[PreferredSchedulingTerm], node: &Node) -> i64 {
    let terms = terms.iter();
    terms.filter(|term| term_matches(&term.preference, node)).map(|term| i64::from(term.weight)).sum()
}

fn node_affinity(spec: &PodSpec) -> Option<&NodeAffinity> {
    spec.affinity.as_ref()?.node_affinity.as_ref()
}

/// Whether any of a selector's terms matches a node.
pub fn node_selector_matches(selector: &NodeSelector, node: &Node) -> bool {
    selector.node_selector_terms.iter().any(|term| term_matches(term, node))
}

/// Whether all of a term's requirements match a node. An empty term matches none.
fn term_matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let labels = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let label = |key: &str| node.metadata.labels.as_ref().and_then(|labels| labels.get(key)).map(String::as_str);
    let field = |key: &str| if key == "metadata.name" { node.metadata.name.as_deref() } else { None };
    !(labels.is_empty() && fields.is_empty())
        && labels.iter().all(|requirement| requirement_matches(requirement, label(&requirement.key)))
        && fields.iter().all(|requirement| requirement_matches(requirement, field(&requirement.key)))
}

fn requirement_matches(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let among = |value: &str| values.iter().any(|candidate| candidate == value);
    let numbers = || {
        let bound: i64 = values.first()?.parse().ok()?;
        Some((value?.parse::<i64>().ok()?, bound))
    };
    match requirement.operator.as_str() {
        "In" => value.is_some_and(among),
        "NotIn" => !value.is_some_and(among),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => numbers().is_some_and(|(value, bound)| value > bound),
        "Lt" => numbers().is_some_and(|(value, bound)| value < bound),
        _ => false,
    }
}

/// The first taint that keeps a pod with these tolerations off a node, among those that keep new pods off.
pub fn untolerated_taint<'a>(tolerations: &[Toleration], node: &'a Node) -> Option<&'a Taint> {
    let keeps_off = |taint: &&Taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute");
    taints(node).iter().filter(keeps_off).find(|taint| !tolerates(tolerations, taint))
}

/// A node's taints.
pub fn taints(node: &Node) -> &[Taint] {
    node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
}

/// A pod's tolerations.
pub fn tolerations(spec: &PodSpec) -> &[Toleration] {
    spec.tolerations.as_deref().unwrap_or_default()
}

/// Whether any of these tolerations tolerates a taint.
pub fn tolerates(tolerations: &[Toleration], taint: &Taint) -> bool {
    tolerations.iter().any(|toleration| toleration_matches(toleration, taint))
}

fn toleration_matches(toleration: &Toleration, taint: &Taint) -> bool {
    let asked = TaintParts::new(&toleration.key, &toleration.value, &toleration.effect);
    let value = taint.value.as_deref().unwrap_or_default();
    asked.tolerates(toleration.operator.as_deref(), TaintParts { key: &taint.key, value, effect: &taint.effect })
}

/// What a taint says, of a node or of a device, or what a toleration asks of it; empty where nothing is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaintParts<'a> {
    /// Its key.
    pub key: &'a str,
    /// Its value.
    pub value: &'a str,
    /// What it does.
    pub effect: &'a str,
}

impl<'a> TaintParts<'a> {
    /// The parts of a toleration.
    pub fn new(key: &'a Option<String>, value: &'a Option<String>, effect: &'a Option<String>) -> Self {
        let [key, value, effect] = [key, value, effect].map(|part| part.as_deref().unwrap_or_default());
        Self { key, value, effect }
    }

    /// Whether a toleration of these parts, with this operator, tolerates a taint. Upstream: `Toleration.ToleratesTaint`.
    pub fn tolerates(&self, operator: Option<&str>, taint: TaintParts<'_>) -> bool {
        let is = |asked: &str, has: &str| asked.is_empty() || asked == has;
        is(self.effect, taint.effect)
            && is(self.key, taint.key)
            && match operator.unwrap_or_default() {
                "" | "Equal" => self.value == taint.value,
                "Exists" => true,
                _ => false,
            }
    }
}

/// Whether a node is closed to a pod with these tolerations.
pub fn is_closed(tolerations: &[Toleration], node: &Node) -> bool {
    let taint = || Taint { key: UNSCHEDULABLE_TAINT.to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() };
    node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false) && !tolerates(tolerations, &taint())
}
