//! Whether workloads are as they ask, by their own pods and by what their status says.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use orchestrator_core::{meta, object::ObjectKey};

use super::placement::is_ready;
use crate::snapshot::Snapshot;

/// Counts that should be equal, by their names.
type Counts<'a> = [(&'a str, i64)];

/// Deployments that have not rolled out, or that do not know it.
pub(super) fn deployments(snapshot: &Snapshot) -> Vec<String> {
    let mut found = Vec::new();
    for deployment in snapshot.deployments() {
        let wanted = i64::from(deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1));
        let status = deployment.status.clone().unwrap_or_default();
        let count = |count: Option<i32>| i64::from(count.unwrap_or(0));
        let sets: Vec<_> = snapshot
            .replica_sets()
            .filter(|set| meta::is_controlled_by(&set.metadata, meta::uid(&deployment.metadata)))
            .collect();
        let asked = sets.iter().map(|set| i64::from(set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)));
        let owners: BTreeSet<&str> = sets.iter().map(|set| meta::uid(&set.metadata)).collect();
        let pods = ready_pods(snapshot, |uid| owners.contains(uid));
        found.extend(differing(
            "deployment",
            &deployment.metadata,
            wanted,
            &[
                ("replicas of its sets", asked.sum()),
                ("ready pods", pods),
                ("status.replicas", count(status.replicas)),
                ("status.updatedReplicas", count(status.updated_replicas)),
                ("status.readyReplicas", count(status.ready_replicas)),
                ("status.availableReplicas", count(status.available_replicas)),
            ],
        ));
        found.extend(unobserved("deployment", &deployment.metadata, status.observed_generation));
    }
    found
}

/// Replica sets without the pods that they ask for.
pub(super) fn replica_sets(snapshot: &Snapshot) -> Vec<String> {
    let mut found = Vec::new();
    for set in snapshot.replica_sets() {
        let wanted = i64::from(set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1));
        let status = set.status.clone().unwrap_or_default();
        let own = meta::uid(&set.metadata);
        found.extend(differing(
            "replica set",
            &set.metadata,
            wanted,
            &[
                ("ready pods", ready_pods(snapshot, |uid| uid == own)),
                ("status.replicas", i64::from(status.replicas)),
                ("status.readyReplicas", i64::from(status.ready_replicas.unwrap_or(0))),
                ("status.availableReplicas", i64::from(status.available_replicas.unwrap_or(0))),
            ],
        ));
        found.extend(unobserved("replica set", &set.metadata, status.observed_generation));
    }
    found
}

/// Stateful sets whose pods are not exactly those with the ordinals that they ask for, all of the newest revision.
pub(super) fn stateful_sets(snapshot: &Snapshot) -> Vec<String> {
    let mut found = Vec::new();
    for set in snapshot.stateful_sets() {
        let spec = set.spec.clone().unwrap_or_default();
        let (wanted, status) = (i64::from(spec.replicas.unwrap_or(1)), set.status.clone().unwrap_or_default());
        let name = meta::name(&set.metadata);
        let first = i64::from(spec.ordinals.and_then(|ordinals| ordinals.start).unwrap_or(0));
        let expected: BTreeSet<String> = (first..first + wanted).map(|ordinal| format!("{name}-{ordinal}")).collect();
        let own = meta::uid(&set.metadata);
        let pods = || snapshot.pods().filter(|pod| meta::is_controlled_by(&pod.metadata, own));
        let names: BTreeSet<String> = pods().map(|pod| meta::name(&pod.metadata).to_owned()).collect();
        if names != expected {
            let (missing, excess) = (expected.difference(&names), names.difference(&expected));
            let (missing, excess): (Vec<_>, Vec<_>) = (missing.collect(), excess.collect());
            found.push(format!("stateful set {name}: missing {missing:?}, in excess {excess:?}"));
        }
        let update = status.update_revision.as_deref();
        let revision = |pod: &&Pod| meta::label(&pod.metadata, "controller-revision-hash") == update;
        found.extend(differing(
            "stateful set",
            &set.metadata,
            wanted,
            &[
                ("ready pods", ready_pods(snapshot, |uid| uid == own)),
                ("pods of the newest revision", pods().filter(revision).count() as i64),
                ("status.replicas", i64::from(status.replicas)),
                ("status.readyReplicas", i64::from(status.ready_replicas.unwrap_or(0))),
                ("status.updatedReplicas", i64::from(status.updated_replicas.unwrap_or(0))),
            ],
        ));
        found.extend(unobserved("stateful set", &set.metadata, status.observed_generation));
    }
    found
}

/// Services whose endpoints are not the ready pods that they select.
pub(super) fn services(snapshot: &Snapshot) -> Vec<String> {
    let mut listed: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
    for slice in snapshot.endpoint_slices() {
        let Some(service) = meta::label(&slice.metadata, "kubernetes.io/service-name") else { continue };
        let ready =
            slice.endpoints.iter().flatten().filter(|endpoint| {
                endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
            });
        let pods = ready.filter_map(|endpoint| endpoint.target_ref.as_ref()?.uid.as_deref());
        listed.entry((meta::namespace(&slice.metadata), service)).or_default().extend(pods);
    }
    let mut found = Vec::new();
    for service in snapshot.services() {
        let key = ObjectKey::of(&service.metadata);
        let Some(selector) = service.spec.as_ref().and_then(|spec| spec.selector.as_ref()) else { continue };
        let selects = |pod: &&Pod| {
            pod.metadata.namespace == service.metadata.namespace
                && selector.iter().all(|(name, value)| meta::label(&pod.metadata, name) == Some(value))
        };
        let wanted: BTreeSet<&str> =
            snapshot.pods().filter(|pod| is_ready(pod)).filter(selects).map(|pod| meta::uid(&pod.metadata)).collect();
        let listed =
            listed.remove(&(meta::namespace(&service.metadata), meta::name(&service.metadata))).unwrap_or_default();
        if listed != wanted {
            found.push(format!("service {key} lists {} pods, {} are ready", listed.len(), wanted.len()));
        }
    }
    found
}

fn ready_pods(snapshot: &Snapshot, owner: impl Fn(&str) -> bool) -> i64 {
    let owned = |pod: &&Pod| meta::controller_of(&pod.metadata).is_some_and(|reference| owner(&reference.uid));
    snapshot.pods().filter(owned).filter(|pod| is_ready(pod)).count() as i64
}

fn differing(kind: &str, metadata: &ObjectMeta, wanted: i64, counts: &Counts<'_>) -> Vec<String> {
    let key = ObjectKey::of(metadata);
    let differing = counts.iter().filter(|(_, count)| *count != wanted);
    differing.map(|(name, count)| format!("{kind} {key} asks for {wanted}, {name}: {count}")).collect()
}

fn unobserved(kind: &str, metadata: &ObjectMeta, observed: Option<i64>) -> Option<String> {
    let key = ObjectKey::of(metadata);
    (observed != metadata.generation)
        .then(|| format!("{kind} {key} is at generation {:?}, observed {observed:?}", metadata.generation))
}
