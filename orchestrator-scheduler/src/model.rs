//! What the scheduler knows: the cluster, the pods that wait, and the pods it has placed but not yet seen placed.
//!
//! Pure: changes and the time come in, decisions come out; nothing here calls the API.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::{
    core::v1::{Node, Pod},
    resource::v1::ResourceClaim,
};
use orchestrator_core::{
    object::ObjectKey,
    scheduler::{ClusterChange, PodInfo, Scheduler, Snapshot, Unschedulable, Verdict},
};

use crate::{framework::Profile, guard, limits::ASSUMED_LONGEST, queue::Queue};

/// What the scheduler knows.
pub struct Model {
    schedulers: BTreeMap<String, Deciding>,
    cluster: Snapshot,
    queue: Queue,
    /// Pods that were given a node and not seen there yet.
    assumed: BTreeMap<ObjectKey, Assumed>,
    /// When they stop to be counted, of those that are bound.
    expiries: BTreeSet<(Duration, ObjectKey)>,
}

/// A scheduler, and the plugins that act on what it decides.
#[derive(Clone)]
pub struct Deciding {
    /// Decides.
    pub scheduler: Arc<dyn Scheduler>,
    /// Whose plugins act.
    pub profile: Arc<Profile>,
}

#[derive(Clone, Debug)]
struct Assumed {
    uid: String,
    /// Once bound: until when it is counted without being seen.
    until: Option<Duration>,
}

/// What is to be done about a pod.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Decision {
    /// It is to be bound to this node, where it is counted from now on.
    Bind(Arc<PodInfo>, String),
    /// It is to be told that it cannot run, and why; room may have to be made.
    Refuse {
        /// The pod.
        pod: Arc<PodInfo>,
        /// Why it cannot run.
        why: Arc<Unschedulable>,
        /// Less important pods to which the node is no longer promised that the pod is to get.
        void: Vec<Arc<PodInfo>>,
    },
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let schedulers: Vec<_> = self.schedulers.keys().collect();
        f.debug_struct("Model")
            .field("schedulers", &schedulers)
            .field("queue", &self.queue)
            .field("assumed", &self.assumed.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Deciding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deciding").field("profile", &self.profile).finish_non_exhaustive()
    }
}

impl Model {
    /// Knows nothing yet. The schedulers are found by the names that pods ask for.
    pub fn new(schedulers: BTreeMap<String, Deciding>, queue: Queue) -> Self {
        Self { schedulers, cluster: Snapshot::default(), queue, assumed: BTreeMap::new(), expiries: BTreeSet::new() }
    }

    /// The cluster as it is known, with what has been decided and not seen yet.
    pub fn cluster(&self) -> &Snapshot {
        &self.cluster
    }

    /// The pods that wait.
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Changes the parts of the cluster that are not nodes and pods.
    pub fn change_cluster(&mut self, change: impl FnOnce(&mut Snapshot), event: &ClusterChange<'_>, now: Duration) {
        change(&mut self.cluster);
        self.wake(event, now);
    }

    /// Changes parts of the cluster that make nobody schedulable.
    pub fn change_quietly(&mut self, change: impl FnOnce(&mut Snapshot)) {
        change(&mut self.cluster);
    }

    /// Who decides about a pod.
    pub fn deciding(&self, pod: &PodInfo) -> Option<&Deciding> {
        self.schedulers.get(scheduler_name(pod))
    }

    /// A node came, changed or went.
    pub fn change_node(&mut self, old: Option<&Arc<Node>>, new: Option<&Arc<Node>>, now: Duration) {
        match (old, new) {
            (_, Some(new)) => self.cluster.set_node(new.clone()),
            (Some(old), None) => self.cluster.remove_node(old.metadata.name.as_deref().unwrap_or_default()),
            (None, None) => return,
        }
        if old.zip(new).is_some_and(|(old, new)| !matters(old, new)) {
            return;
        }
        self.wake(&ClusterChange::Node { old: old.map(AsRef::as_ref), new: new.map(AsRef::as_ref) }, now);
    }

    /// A claim of devices came, changed or went.
    pub fn change_claim(
        &mut self,
        key: &ObjectKey,
        old: Option<&Arc<ResourceClaim>>,
        new: Option<&Arc<ResourceClaim>>,
        now: Duration,
    ) {
        self.cluster.devices.set_claim(key.clone(), new.cloned());
        let change = ClusterChange::ResourceClaim { old: old.map(AsRef::as_ref), new: new.map(AsRef::as_ref) };
        self.wake(&change, now);
        if new.is_some() {
            let (schedulers, cluster) = (&self.schedulers, &self.cluster);
            let gated = |pod: &PodInfo| {
                schedulers.get(scheduler_name(pod)).is_some_and(|deciding| deciding.profile.is_gated(pod, cluster))
            };
            self.queue.open_gates(&key.namespace, now, gated);
        }
    }

    /// A pod came, changed or went.
    pub fn change_pod(&mut self, key: &ObjectKey, new: Option<&Arc<Pod>>, now: Duration) {
        match new.filter(|pod| !has_ended(pod)).map(|pod| PodInfo::new(pod.clone())) {
            None => self.pod_gone(key, now),
            Some(pod) => match pod.node_name().map(str::to_owned) {
                Some(node) => self.pod_on_node(Arc::new(pod), &node, now),
                None => self.pod_without_node(Arc::new(pod), now),
            },
        }
    }

    fn pod_gone(&mut self, key: &ObjectKey, now: Duration) {
        self.queue.remove(key);
        self.forget_assumed(key);
        self.cluster.forget_nomination(key);
        if let Some(old) = self.cluster.remove_pod(key) {
            self.wake(&ClusterChange::AssignedPod { old: Some(&old), new: None }, now);
        }
    }

    fn pod_on_node(&mut self, pod: Arc<PodInfo>, node: &str, now: Duration) {
        self.queue.remove(pod.key());
        self.cluster.forget_nomination(pod.key());
        let was_assumed = self.forget_assumed(pod.key());
        let old = self.cluster.pod(pod.key()).cloned();
        self.cluster.put_pod(pod.clone(), node);
        // Others were decided about with an assumed pod in mind already; but its coming may be awaited.
        let old = old.filter(|_| !was_assumed);
        self.wake(
            &ClusterChange::AssignedPod { old: old.as_deref().map(|old| old.pod().as_ref()), new: Some(&pod) },
            now,
        );
    }

    fn pod_without_node(&mut self, pod: Arc<PodInfo>, now: Duration) {
        if let Some(assumed) = self.assumed.get(pod.key()) {
            if assumed.uid == pod.uid() {
                return;
            }
            self.forget_assumed(pod.key());
        }
        if let Some(other) = self.cluster.remove_pod(pod.key()) {
            self.wake(&ClusterChange::AssignedPod { old: Some(&other), new: None }, now);
        }
        if pod.is_terminating() || !self.schedulers.contains_key(scheduler_name(&pod)) {
            self.queue.remove(pod.key());
            self.cluster.forget_nomination(pod.key());
            return;
        }
        match pod.nominated_node_name() {
            Some(node) => self.cluster.nominate(pod.clone(), node),
            None => self.cluster.forget_nomination(pod.key()),
        }
        let old = self.queue.get(pod.key()).cloned().filter(|old| old.uid() == pod.uid());
        let key = pod.key().clone();
        let gated = self.deciding(&pod).is_some_and(|deciding| deciding.profile.is_gated(&pod, &self.cluster));
        self.queue.put(pod.clone(), gated, now);
        if let Some(old) = old.filter(|old| may_matter(old, &pod)) {
            let change = ClusterChange::WaitingPod { old: &old, new: &pod };
            let schedulers = &self.schedulers;
            self.queue.wake_one(&key, now, |pod, why| may_help(schedulers, &change, pod, why));
        }
    }

    fn wake(&mut self, change: &ClusterChange<'_>, now: Duration) {
        let schedulers = &self.schedulers;
        self.queue.wake(now, |pod, why| may_help(schedulers, change, pod, why));
    }

    /// Decides about the next pod, and counts it where it goes. `tie` breaks ties.
    pub fn decide(&mut self, now: Duration, tie: u64) -> Option<Decision> {
        let (pod, deciding) = self.next(now)?;
        let verdict = guard::schedule(&*deciding.scheduler, &pod, &self.cluster, tie);
        self.conclude(pod, &deciding, verdict, now)
    }

    /// The next pod, and who decides about it.
    pub(crate) fn next(&mut self, now: Duration) -> Option<(Arc<PodInfo>, Deciding)> {
        let pod = self.queue.pop(now)?;
        match self.deciding(&pod).cloned() {
            Some(deciding) => Some((pod, deciding)),
            None => {
                self.queue.remove(pod.key());
                None
            }
        }
    }

    /// Counts the pod where it goes, or lets it wait.
    pub(crate) fn conclude(
        &mut self,
        pod: Arc<PodInfo>,
        deciding: &Deciding,
        verdict: Verdict,
        now: Duration,
    ) -> Option<Decision> {
        match verdict {
            Verdict::Node(node) => {
                let mut reserve = deciding.profile.reserve.iter();
                if let Some(rejection) = reserve.find_map(|plugin| plugin.reserve(&pod, &node, &mut self.cluster)) {
                    self.unreserve(&pod, &node);
                    let mut why = Unschedulable::new(self.cluster.len());
                    if rejection.failed {
                        let (plugin, reasons) = (rejection.plugin, rejection.reasons.join(", "));
                        why.failure = Some(format!("running Reserve plugin {plugin:?}: {reasons}"));
                    }
                    why.per_node.insert(&node, rejection);
                    return Some(self.refuse(pod, why, now));
                }
                self.cluster.put_pod(pod.clone(), &node);
                self.assumed.insert(pod.key().clone(), Assumed { uid: pod.uid().to_owned(), until: None });
                Some(Decision::Bind(pod, node))
            }
            Verdict::Unschedulable(why) => Some(self.refuse(pod, *why, now)),
            Verdict::Gated => {
                // The API server has told users so when the pod was created.
                self.queue.gate(pod.key());
                None
            }
            _ => {
                self.queue.retry(pod.key(), now);
                None
            }
        }
    }

    fn refuse(&mut self, pod: Arc<PodInfo>, why: Unschedulable, now: Duration) -> Decision {
        let mut void = Vec::new();
        if let Some(preemption) = &why.preemption {
            let less = self.cluster.nominated(&preemption.node).filter(|other| other.priority() < pod.priority());
            void = less.cloned().collect();
            void.iter().for_each(|other| self.cluster.forget_nomination(other.key()));
            self.cluster.nominate(pod.clone(), &preemption.node);
        } else if why.clear_nomination {
            self.cluster.forget_nomination(pod.key());
        }
        if why.failure.is_some() {
            self.queue.retry(pod.key(), now);
        } else {
            self.refused(&pod, &why, now);
        }
        let why = Arc::new(why);
        Decision::Refuse { pod, why, void }
    }

    /// The pod was bound. It is counted until it is seen.
    pub fn bound(&mut self, pod: &PodInfo, now: Duration) {
        self.cluster.devices.settle(pod.uid());
        // By now another pod of that name may be waiting.
        if self.queue.get(pod.key()).is_some_and(|waiting| waiting.uid() == pod.uid()) {
            self.queue.remove(pod.key());
            self.cluster.forget_nomination(pod.key());
        }
        if let Some(assumed) = self.assumed.get_mut(pod.key()).filter(|assumed| assumed.uid == pod.uid()) {
            let until = now + ASSUMED_LONGEST;
            if let Some(before) = assumed.until.replace(until) {
                self.expiries.remove(&(before, pod.key().clone()));
            }
            self.expiries.insert((until, pod.key().clone()));
        }
    }

    /// The pod was not bound: it is no longer counted. With a reason, it waits until something may help; without, it
    /// is tried again after a while.
    pub fn not_bound(&mut self, pod: &PodInfo, node: &str, why: Option<Unschedulable>, now: Duration) {
        self.unreserve(pod, node);
        if self.assumed.get(pod.key()).is_none_or(|assumed| assumed.uid != pod.uid()) {
            return;
        }
        self.forget_assumed(pod.key());
        if let Some(old) = self.cluster.remove_pod(pod.key()) {
            // What was kept for it is free for others.
            self.wake(&ClusterChange::AssignedPod { old: Some(&old), new: None }, now);
        }
        match why {
            Some(why) => self.refused(pod, &why, now),
            None => self.queue.retry(pod.key(), now),
        }
    }

    fn refused(&mut self, pod: &PodInfo, why: &Unschedulable, now: Duration) {
        let (schedulers, cluster, why) = (&self.schedulers, &self.cluster, Arc::new(summary(why)));
        let alike = |a: &PodInfo, b: &PodInfo| {
            let deciding = schedulers.get(scheduler_name(a)).filter(|_| scheduler_name(a) == scheduler_name(b));
            deciding.is_some_and(|deciding| guard::wait_alike(&*deciding.scheduler, (a, b), &why, cluster))
        };
        self.queue.refuse(pod.key(), why.clone(), now, alike);
    }

    fn unreserve(&mut self, pod: &PodInfo, node: &str) {
        let profile = self.deciding(pod).map(|deciding| deciding.profile.clone());
        let plugins = profile.iter().flat_map(|profile| profile.reserve.iter().rev());
        plugins.for_each(|plugin| plugin.unreserve(pod, node, &mut self.cluster));
        self.cluster.devices.settle(pod.uid());
    }

    /// Pods that were bound long ago and never seen: they are no longer counted, and should be looked at anew.
    pub fn expire(&mut self, now: Duration) -> Vec<ObjectKey> {
        let expired = self.expiries.iter().take_while(|(until, _)| *until <= now);
        let expired: Vec<_> = expired.map(|(_, key)| key.clone()).collect();
        for key in &expired {
            self.forget_assumed(key);
            self.cluster.remove_pod(key);
        }
        expired
    }

    /// Whether the pod was assumed.
    fn forget_assumed(&mut self, key: &ObjectKey) -> bool {
        let assumed = self.assumed.remove(key);
        if let Some(until) = assumed.as_ref().and_then(|assumed| assumed.until) {
            self.expiries.remove(&(until, key.clone()));
        }
        assumed.is_some()
    }

    /// When the model has to be looked at again, if nothing happens before.
    pub fn next_time(&self, now: Duration) -> Option<Duration> {
        let expiry = self.expiries.first().map(|(until, _)| *until);
        self.queue.next_time(now).into_iter().chain(expiry).min()
    }
}

/// What is kept of the reasons while a pod waits: of the nodes that are refused alike, one.
fn summary(why: &Unschedulable) -> Unschedulable {
    let (whole, others) = (why.whole.clone(), why.others.clone());
    Unschedulable { whole, others, per_node: why.per_node.examples(), ..Unschedulable::new(why.nodes) }
}

/// Whether a waiting pod has changed in anything that scheduling looks at.
fn may_matter(old: &Pod, new: &Pod) -> bool {
    let claims = |pod: &Pod| pod.status.as_ref().and_then(|status| status.resource_claim_statuses.clone());
    old.spec != new.spec || old.metadata.labels != new.metadata.labels || claims(old) != claims(new)
}

fn may_help(
    schedulers: &BTreeMap<String, Deciding>,
    change: &ClusterChange<'_>,
    pod: &PodInfo,
    why: &Unschedulable,
) -> bool {
    schedulers.get(scheduler_name(pod)).is_some_and(|deciding| guard::may_help(&*deciding.scheduler, change, pod, why))
}

/// The scheduler that a pod asks for.
fn scheduler_name(pod: &Pod) -> &str {
    let name = pod.spec.as_ref().and_then(|spec| spec.scheduler_name.as_deref()).unwrap_or_default();
    if name.is_empty() { crate::framework::DEFAULT_SCHEDULER_NAME } else { name }
}

/// Whether a pod has ended, and takes nothing from its node any more.
fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Whether a node has changed in anything that scheduling looks at: heartbeats do not matter.
fn matters(old: &Node, new: &Node) -> bool {
    let allocatable = |node: &Node| node.status.as_ref().and_then(|status| status.allocatable.clone());
    let images = |node: &Node| node.status.as_ref().and_then(|status| status.images.clone());
    old.spec != new.spec
        || old.metadata.labels != new.metadata.labels
        || old.metadata.annotations != new.metadata.annotations
        || allocatable(old) != allocatable(new)
        || images(old) != images(new)
}
