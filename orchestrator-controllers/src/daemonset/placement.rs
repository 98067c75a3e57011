//! Which nodes a daemon set's pods belong on, and what such a pod looks like.
//!
//! Upstream: <https://kubernetes.io/docs/concepts/workloads/controllers/daemonset/#how-daemon-pods-are-scheduled>.

use k8s_openapi::{
    api::{
        apps::v1::DaemonSet,
        core::v1::{
            Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, PodTemplateSpec, Toleration,
        },
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use orchestrator_core::{
    meta::{self, owner_reference},
    scheduler::matching,
};

use crate::pods::{REVISION_LABEL, pod_from_template, pod_name_prefix};

/// The label of a pod that has the generation of its template.
const GENERATION_LABEL: &str = "pod-template-generation";

/// The annotation of a set that has the generation of its template.
const GENERATION_ANNOTATION: &str = "deprecated.daemonset.template.generation";

/// The field of a node by which a pod is bound to it.
const NODE_NAME_FIELD: &str = "metadata.name";

/// Conditions of nodes in spite of which every daemon pod runs, as taints with their effects.
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];

/// The same for pods in the network of their node, which they may be there to set up.
const TOLERATED_IN_HOST_NETWORK: (&str, &str) = ("node.kubernetes.io/network-unavailable", "NoSchedule");

/// What a node is to a daemon set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fit {
    /// It is to have a pod.
    Runs,
    /// It gets no new pod, but keeps the one that it has.
    Keeps,
    /// It is to have none.
    Not,
}

/// The pods of a daemon set, all but for the node.
#[derive(Clone, Debug)]
pub(crate) struct Placement {
    template: PodTemplateSpec,
    spec: PodSpec,
}

impl Placement {
    pub(crate) fn of(set: &DaemonSet) -> Self {
        let mut template = set.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
        let mut spec = template.spec.take().unwrap_or_default();
        add_tolerations(&mut spec);
        Self { template, spec }
    }

    /// What a node is to the set.
    pub(crate) fn fit(&self, node: &Node) -> Fit {
        let name = self.spec.node_name.as_deref().unwrap_or_default();
        if !(name.is_empty() || name == meta::name(&node.metadata))
            || !matching::node_affinity_matches(&self.spec, node)
        {
            return Fit::Not;
        }
        let tolerations = matching::tolerations(&self.spec);
        if matching::untolerated_taint(tolerations, node).is_none() {
            return Fit::Runs;
        }
        let evicts = matching::taints(node).iter().filter(|taint| taint.effect == "NoExecute");
        if evicts.into_iter().all(|taint| matching::tolerates(tolerations, taint)) { Fit::Keeps } else { Fit::Not }
    }

    /// The pod for a node, of a revision with this hash.
    pub(crate) fn pod(&self, set: &DaemonSet, node: &str, hash: &str) -> Pod {
        let mut pod = pod_from_template(&self.template, meta::namespace(&set.metadata), owner_reference(set, true));
        pod.metadata.generate_name = Some(pod_name_prefix(meta::name(&set.metadata)));
        let labels = pod.metadata.labels.get_or_insert_default();
        if let Some(generation) = template_generation(set) {
            labels.insert(GENERATION_LABEL.to_owned(), generation.to_string());
        }
        labels.insert(REVISION_LABEL.to_owned(), hash.to_owned());
        let mut spec = self.spec.clone();
        bind(&mut spec, node);
        pod.spec = Some(spec);
        pod
    }
}

fn add_tolerations(spec: &mut PodSpec) {
    let in_host_network = spec.host_network == Some(true);
    let tolerations = spec.tolerations.get_or_insert_default();
    for (key, effect) in TOLERATED.into_iter().chain(in_host_network.then_some(TOLERATED_IN_HOST_NETWORK)) {
        let wanted = Toleration {
            key: Some(key.to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some(effect.to_owned()),
            ..Default::default()
        };
        let same = |known: &&mut Toleration| {
            (&known.key, &known.operator, &known.effect) == (&wanted.key, &wanted.operator, &wanted.effect)
                && known.value.as_deref().unwrap_or_default().is_empty()
        };
        match tolerations.iter_mut().find(same) {
            Some(known) => *known = wanted,
            None => tolerations.push(wanted),
        }
    }
}

/// Lets the scheduler put a pod on one node only, instead of what its affinity required before.
fn bind(spec: &mut PodSpec, node: &str) {
    let this_node = NodeSelectorRequirement {
        key: NODE_NAME_FIELD.to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    let term = NodeSelectorTerm { match_fields: Some(vec![this_node]), match_expressions: None };
    let affinity = spec.affinity.get_or_insert_default().node_affinity.get_or_insert_default();
    affinity.required_during_scheduling_ignored_during_execution =
        Some(NodeSelector { node_selector_terms: vec![term] });
}

/// The node that a pod runs on, or is bound for.
pub(crate) fn target_node(pod: &Pod) -> Option<&str> {
    let spec = pod.spec.as_ref()?;
    if let Some(name) = spec.node_name.as_deref().filter(|name| !name.is_empty()) {
        return Some(name);
    }
    let fields = matching::required_node_affinity(spec)?.node_selector_terms.iter();
    let of_term = |term: &NodeSelectorTerm| match term.match_fields.as_deref()? {
        [field] if field.key == NODE_NAME_FIELD && field.operator == "In" => Some(field.values.clone()?.len() == 1),
        _ => None,
    };
    let term = fields.into_iter().find(|term| of_term(term) == Some(true))?;
    term.match_fields.as_ref()?.first()?.values.as_ref()?.first().map(String::as_str)
}

/// Whether a pod was made from the set's present template.
pub(crate) fn is_updated(set: &DaemonSet, pod: &ObjectMeta, hash: &str) -> bool {
    let of_generation = || {
        let generation = template_generation(set)?;
        Some(meta::label(pod, GENERATION_LABEL)? == generation.to_string())
    };
    meta::label(pod, REVISION_LABEL) == Some(hash) || of_generation() == Some(true)
}

fn template_generation(set: &DaemonSet) -> Option<i64> {
    meta::annotation(&set.metadata, GENERATION_ANNOTATION)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::{
        apps::v1::DaemonSetSpec,
        core::v1::{NodeSpec, Taint},
    };

    use super::*;

    fn set(spec: PodSpec) -> DaemonSet {
        let mut set = DaemonSet::default();
        set.metadata.name = Some("d".to_owned());
        set.metadata.annotations = Some([(GENERATION_ANNOTATION.to_owned(), "3".to_owned())].into());
        set.spec = Some(DaemonSetSpec {
            template: PodTemplateSpec { spec: Some(spec), ..Default::default() },
            ..Default::default()
        });
        set
    }

    fn node(name: &str, taints: &[(&str, &str)]) -> Node {
        let taint = |(key, effect): &(&str, &str)| Taint {
            key: (*key).to_owned(),
            effect: (*effect).to_owned(),
            ..Default::default()
        };
        Node {
            metadata: ObjectMeta { name: Some(name.to_owned()), ..Default::default() },
            spec: Some(NodeSpec { taints: Some(taints.iter().map(taint).collect()), ..Default::default() }),
            ..Default::default()
        }
    }

    #[test]
    fn taints_decide_between_running_keeping_and_leaving() {
        let plain = Placement::of(&set(PodSpec::default()));
        for (taints, expected) in [
            (&[][..], Fit::Runs),
            (
                &[("node.kubernetes.io/not-ready", "NoExecute"), ("node.kubernetes.io/unschedulable", "NoSchedule")],
                Fit::Runs,
            ),
            (&[("gpu", "PreferNoSchedule")], Fit::Runs),
            (&[("gpu", "NoSchedule")], Fit::Keeps),
            (&[("node.kubernetes.io/network-unavailable", "NoSchedule")], Fit::Keeps),
            (&[("gpu", "NoSchedule"), ("gone", "NoExecute")], Fit::Not),
        ] {
            assert_eq!(plain.fit(&node("n", taints)), expected, "{taints:?}");
        }
        let host = Placement::of(&set(PodSpec { host_network: Some(true), ..Default::default() }));
        assert_eq!(host.fit(&node("n", &[("node.kubernetes.io/network-unavailable", "NoSchedule")])), Fit::Runs);
    }

    #[test]
    fn names_and_labels_decide_where_pods_belong() {
        let named = Placement::of(&set(PodSpec { node_name: Some("n".to_owned()), ..Default::default() }));
        assert_eq!([named.fit(&node("n", &[])), named.fit(&node("m", &[]))], [Fit::Runs, Fit::Not]);
        let selector = Some([("disk".to_owned(), "ssd".to_owned())].into());
        let selecting = Placement::of(&set(PodSpec { node_selector: selector, ..Default::default() }));
        let mut with_disk = node("n", &[]);
        with_disk.metadata.labels = Some([("disk".to_owned(), "ssd".to_owned())].into());
        assert_eq!([selecting.fit(&with_disk), selecting.fit(&node("m", &[]))], [Fit::Runs, Fit::Not]);
    }

    #[test]
    fn a_pod_is_bound_to_its_node_and_tolerates_its_conditions() {
        let set = set(PodSpec::default());
        let pod = Placement::of(&set).pod(&set, "n7", "abc");
        assert_eq!(target_node(&pod), Some("n7"));
        assert_eq!(pod.spec.as_ref().unwrap().tolerations.as_ref().unwrap().len(), TOLERATED.len());
        assert_eq!(meta::label(&pod.metadata, GENERATION_LABEL), Some("3"));
        assert!(is_updated(&set, &pod.metadata, "abc") && is_updated(&set, &pod.metadata, "other"));
        let mut elsewhere = set.clone();
        elsewhere.metadata.annotations = None;
        assert!(!is_updated(&elsewhere, &pod.metadata, "other"));
    }

    #[test]
    fn a_toleration_that_is_there_is_not_added_twice() {
        let known = Toleration {
            key: Some(TOLERATED[0].0.to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some(TOLERATED[0].1.to_owned()),
            toleration_seconds: Some(5),
            ..Default::default()
        };
        let placement = Placement::of(&set(PodSpec { tolerations: Some(vec![known]), ..Default::default() }));
        let tolerations = placement.spec.tolerations.unwrap();
        assert_eq!((tolerations.len(), tolerations[0].toleration_seconds), (TOLERATED.len(), None));
    }
}
