//! How pods are spread that say nothing about it: those of one service or one set over hosts and zones.
//!
//! <https://kubernetes.io/docs/concepts/scheduling-eviction/topology-spread-constraints/#internal-default-constraints>

use k8s_openapi::{
    api::core::v1::TopologySpreadConstraint, apimachinery::pkg::apis::meta::v1::LabelSelector as Written,
};
use orchestrator_core::{
    meta::controller_of,
    object::ObjectKey,
    scheduler::{PodInfo, Workloads},
};

use super::constraint::HOSTNAME;

/// The constraints of pods that have none.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Defaults {
    /// Upstream's: softly over hosts and zones, nodes without a zone included.
    #[default]
    System,
    /// These. Their selectors are left empty: they speak of the pods of one service or one set.
    List(Vec<TopologySpreadConstraint>),
}

impl Defaults {
    pub(super) fn constraints(&self) -> Vec<TopologySpreadConstraint> {
        let soft = |topology_key: &str, max_skew| TopologySpreadConstraint {
            max_skew,
            topology_key: topology_key.to_owned(),
            when_unsatisfiable: "ScheduleAnyway".to_owned(),
            ..TopologySpreadConstraint::default()
        };
        match self {
            Self::System => vec![soft(HOSTNAME, 3), soft("topology.kubernetes.io/zone", 5)],
            Self::List(constraints) => constraints.clone(),
        }
    }
}

/// The pods that a pod belongs with: those of the same services, and of the set that made it. `None` for none.
pub(super) fn fellows(pod: &PodInfo, workloads: &Workloads) -> Option<Written> {
    let namespace = &pod.key().namespace;
    let mut selector = Written::default();
    let first = ObjectKey::new(namespace.clone(), "");
    let services = workloads.services.range(first..).take_while(|(key, _)| key.namespace == *namespace);
    for (_, service) in services {
        let wanted = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        let wanted = wanted.filter(|wanted| wanted.iter().all(|(key, value)| pod.labels().get(key) == Some(value)));
        add(&mut selector, wanted.filter(|wanted| !wanted.is_empty()));
    }
    if let Some(owner) = controller_of(&pod.metadata) {
        let key = ObjectKey::new(namespace.clone(), owner.name.clone());
        let set = match (owner.api_version.as_str(), owner.kind.as_str()) {
            ("v1", "ReplicationController") => {
                let spec = workloads.replication_controllers.get(&key).and_then(|set| set.spec.as_ref());
                add(&mut selector, spec.and_then(|spec| spec.selector.as_ref()));
                None
            }
            ("apps/v1", "ReplicaSet") => {
                workloads.replica_sets.get(&key).and_then(|set| set.spec.as_ref()).map(|spec| &spec.selector)
            }
            ("apps/v1", "StatefulSet") => {
                workloads.stateful_sets.get(&key).and_then(|set| set.spec.as_ref()).map(|spec| &spec.selector)
            }
            _ => None,
        };
        if let Some(set) = set {
            add(&mut selector, set.match_labels.as_ref());
            let expressions = set.match_expressions.iter().flatten().cloned();
            selector.match_expressions.get_or_insert_default().extend(expressions);
        }
    }
    let nothing = selector.match_labels.as_ref().is_none_or(|labels| labels.is_empty())
        && selector.match_expressions.as_ref().is_none_or(|expressions| expressions.is_empty());
    (!nothing).then_some(selector)
}

fn add(selector: &mut Written, labels: Option<&std::collections::BTreeMap<String, String>>) {
    if let Some(labels) = labels {
        selector.match_labels.get_or_insert_default().extend(labels.clone());
    }
}
