//! The DaemonSet controller: one pod on each node that is to have one.
//!
//! Upstream: <https://kubernetes.io/docs/concepts/workloads/controllers/daemonset/>. Start at [`decide::decide`].

mod decide;
mod placement;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::{ControllerRevision, DaemonSet, DaemonSetStatus},
    core::v1::{Node, Pod},
};
use kube_core::params::PostParams;
use orchestrator_core::{
    client::Api,
    controller::{Action, Cache, Change, Context, Controller, Reconciler, generation_changed},
    events::{Event, EventRecorder},
    meta::{self, is_controlled_by, owner_reference},
    object::{Object, ObjectKey},
    scheduler::matching,
    status::{ApiError, ApiResult},
};
use tokio_util::sync::CancellationToken;

use self::{
    decide::{Decision, Observed},
    placement::Placement,
};
use crate::{
    context::ControllerContext,
    limits::{FAILED_DAEMON_POD_PAUSE, FAILED_DAEMON_POD_PAUSE_LONGEST},
    pods::{
        Backoff, Keeper, PodControl, REVISION_LABEL, candidates, claim_all, index_by_controller, only, phase,
        possible_owners, selects, sorted,
    },
    writes::settled,
};

/// Runs the controller until the shutdown.
pub(crate) async fn run(context: ControllerContext, shutdown: CancellationToken) {
    let caches = &context.caches;
    let reconciler = DaemonSets {
        sets: caches.cache(),
        nodes: caches.cache(),
        pods: caches.cache(),
        revisions: caches.cache(),
        recorder: context.recorder.clone(),
        failed: Mutex::new(Backoff::new(FAILED_DAEMON_POD_PAUSE, FAILED_DAEMON_POD_PAUSE_LONGEST)),
    };
    index_by_controller(&reconciler.pods);
    index_by_controller(&reconciler.revisions);
    let (owners, users) = (reconciler.sets.clone(), reconciler.sets.clone());
    Controller::new("daemonset", caches)
        .reconciles::<DaemonSet>()
        .filter(generation_changed)
        .owns::<Pod>()
        .owns::<ControllerRevision>()
        .watches::<Pod>(move |change| possible_owners(&owners, change, |set: &DaemonSet, pod| is_selected(set, pod)))
        .watches::<Node>(move |change| concerned(change, &users))
        .run(reconciler, shutdown)
        .await;
}

fn is_selected(set: &DaemonSet, object: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> bool {
    selects(set.spec.as_ref().map(|spec| &spec.selector), object)
}

/// The sets to which a node is something else than before.
fn concerned(change: &Change<Node>, sets: &Cache<DaemonSet>) -> Vec<ObjectKey> {
    let seen = |node: &Arc<Node>| (node.metadata.labels.clone(), matching::taints(node).to_vec());
    if change.old.as_ref().map(seen) == change.new.as_ref().map(seen) {
        return Vec::new();
    }
    let differs = |set: &&Arc<DaemonSet>| {
        let placement = Placement::of(set);
        let fit = |node: &Option<Arc<Node>>| node.as_ref().map(|node| placement.fit(node));
        fit(&change.old) != fit(&change.new)
    };
    sets.list().iter().filter(differs).map(|set| ObjectKey::of(&set.metadata)).collect()
}

/// A set, by its UID, and a node.
type OnNode = (String, String);

struct DaemonSets {
    sets: Cache<DaemonSet>,
    nodes: Cache<Node>,
    pods: Cache<Pod>,
    revisions: Cache<ControllerRevision>,
    recorder: EventRecorder,
    /// Where pods failed, and how long the next one that fails there stays.
    failed: Mutex<Backoff<OnNode>>,
}

#[async_trait]
impl Reconciler for DaemonSets {
    type Object = DaemonSet;
    type Error = ApiError;

    async fn reconcile(&self, key: &ObjectKey, context: &Context) -> ApiResult<Action> {
        let Some(set) = self.sets.get(key) else {
            self.forget_gone();
            return Ok(Action::Done);
        };
        if set.metadata.deletion_timestamp.is_some() {
            return Ok(Action::Done);
        }
        let control = PodControl::new(context, &self.recorder, &*set);
        if set.spec.as_ref().is_none_or(|spec| spec.selector == Default::default()) {
            let message = "This daemon set is selecting all pods. A non-empty selector is required.";
            control.record(Event::warning("SelectingAll", message));
            return Ok(Action::Done);
        }
        let selected = |pod: &Pod| is_selected(&set, &pod.metadata);
        let history = self.history(&set, context).await?;
        let pods = claim_all(context.client(), &*set, candidates(&self.pods, &set.metadata), selected).await?;
        let api = Api::<ControllerRevision>::namespaced(context.client(), &key.namespace);
        let collisions = set.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0);
        let (current, collisions) = keeper(&set).write_update(&api, &history, collisions).await?;
        let (now, nodes) = (context.env().now(), self.nodes.list());
        let observed = Observed {
            set: &set,
            nodes: &nodes,
            pods: &pods,
            hash: meta::label(&current.metadata, REVISION_LABEL).unwrap_or(meta::name(&current.metadata)),
            waiting: &self.waiting(&set, &nodes, now),
            now,
        };
        let decision = decide::decide(observed);
        let outcome = self.carry_out(observed, &decision, &control).await;
        write_status(&set, decide::status(observed, collisions), context).await?;
        outcome?;
        for revision in surplus(&set, &history, &current, &pods) {
            settled(api.delete(meta::name(&revision.metadata), &only(&revision.metadata)).await)?;
        }
        Ok(decision.look_again.map_or(Action::Done, Action::RequeueAfter))
    }
}

impl DaemonSets {
    /// The set's revisions, orphans adopted, the oldest first; none is ever released.
    async fn history(&self, set: &Arc<DaemonSet>, context: &Context) -> ApiResult<Vec<Arc<ControllerRevision>>> {
        let selected = |revision: &ControllerRevision| {
            is_controlled_by(&revision.metadata, meta::uid(&set.metadata)) || is_selected(set, &revision.metadata)
        };
        let candidates = candidates(&self.revisions, &set.metadata);
        Ok(sorted(&claim_all(context.client(), &**set, candidates, selected).await?))
    }

    async fn carry_out(&self, observed: Observed<'_>, decision: &Decision, control: &PodControl<'_>) -> ApiResult<()> {
        let set = observed.set;
        for (node, pod) in &decision.ended {
            self.tell_ended(set, node, pod, observed.now, control);
        }
        let placement = Placement::of(set);
        let pod = |node: &String| Object::from_typed(Arc::new(placement.pod(set, node, observed.hash)));
        let created = control.create(&decision.create.iter().map(pod).collect::<Vec<_>>()).await;
        let deleted = control.delete(&decision.delete).await;
        created.into_result().and(deleted.into_result()).map(drop)
    }

    fn tell_ended(&self, set: &DaemonSet, node: &str, pod: &Pod, now: Timestamp, control: &PodControl<'_>) {
        let (namespace, name) = (meta::namespace(&pod.metadata), meta::name(&pod.metadata));
        if phase(pod) == "Failed" {
            self.failed().next((meta::uid(&set.metadata).to_owned(), node.to_owned()), now);
            let message = format!("Found failed daemon pod {namespace}/{name} on node {node}, will try to kill it");
            control.record(Event::warning("FailedDaemonPod", message));
        } else {
            let message =
                format!("Found succeeded daemon pod {namespace}/{name} on node {node}, will try to delete it");
            control.record(Event::normal("SucceededDaemonPod", message));
        }
    }

    /// The nodes where the next pod that fails stays a while, and how long.
    fn waiting(&self, set: &DaemonSet, nodes: &[Arc<Node>], now: Timestamp) -> BTreeMap<String, Duration> {
        let failed = self.failed();
        if failed.is_empty() {
            return BTreeMap::new();
        }
        let wait = |node: &Arc<Node>| {
            let name = meta::name(&node.metadata).to_owned();
            Some((name.clone(), failed.remaining(&(meta::uid(&set.metadata).to_owned(), name), now)?))
        };
        nodes.iter().filter_map(wait).collect()
    }

    /// Forgets what failed of sets, and on nodes, that are gone.
    fn forget_gone(&self) {
        let sets: BTreeSet<String> = self.sets.list().iter().map(|set| meta::uid(&set.metadata).to_owned()).collect();
        let known = |node: &String| self.nodes.get(&ObjectKey::new("", node.as_str())).is_some();
        self.failed().retain(|(set, node)| sets.contains(set) && known(node));
    }

    fn failed(&self) -> MutexGuard<'_, Backoff<OnNode>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn keeper(set: &DaemonSet) -> Keeper<'_> {
    Keeper {
        metadata: &set.metadata,
        template: set.spec.as_ref().map(|spec| &spec.template),
        reference: owner_reference(set, true),
        hash_label: REVISION_LABEL,
    }
}

/// Revisions beyond the history limit, the oldest first; never one that a pod still has.
fn surplus(
    set: &DaemonSet,
    history: &[Arc<ControllerRevision>],
    current: &ControllerRevision,
    pods: &[Arc<Pod>],
) -> Vec<Arc<ControllerRevision>> {
    let old: Vec<_> = history.iter().filter(|old| old.metadata.uid != current.metadata.uid).collect();
    let limit = set.spec.as_ref().and_then(|spec| spec.revision_history_limit).unwrap_or(10);
    let surplus = old.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
    if surplus == 0 {
        return Vec::new();
    }
    let live: BTreeSet<&str> = pods.iter().filter_map(|pod| meta::label(&pod.metadata, REVISION_LABEL)).collect();
    let is_live =
        |old: &ControllerRevision| meta::label(&old.metadata, REVISION_LABEL).is_some_and(|hash| live.contains(hash));
    old.into_iter().filter(|old| !is_live(old)).take(surplus).cloned().collect()
}

async fn write_status(set: &DaemonSet, status: DaemonSetStatus, context: &Context) -> ApiResult<()> {
    if set.status.as_ref() == Some(&status) {
        return Ok(());
    }
    let set = DaemonSet { status: Some(status), ..set.clone() };
    let api = Api::<DaemonSet>::namespaced(context.client(), meta::namespace(&set.metadata));
    settled(api.replace_status(meta::name(&set.metadata), &PostParams::default(), &set).await)
}
