//! The framework: small traits, one for each point at which a plugin takes part in scheduling.
//!
//! In upstream's order: [`PreEnqueue`], [`QueueSort`], [`PreFilter`] (which gives a [`Filter`]), [`PostFilter`], [`PreScore`] (which
//! gives a [`Score`]), then, once a node is chosen, [`Reserve`], [`Permit`], [`PreBind`], [`Bind`], [`PostBind`]. What
//! comes before the choice decides purely; what comes after may act. A [`Profile`] puts plugins together and is a
//! [`Scheduler`](orchestrator_core::scheduler::Scheduler).
//!
//! <https://kubernetes.io/docs/concepts/scheduling-eviction/scheduling-framework/>

mod domains;
mod filters;
mod memory;
mod profile;
mod tournament;

use std::{cmp::Ordering, collections::BTreeSet, sync::Arc};

use async_trait::async_trait;
use k8s_openapi::api::resource::v1::ResourceClaim;
use orchestrator_core::{
    controller::Caches,
    events::EventRecorder,
    scheduler::{ClusterChange, NodeState, PodInfo, Preemption, Rejection, Snapshot, Unschedulable},
    status::ApiError,
};

use crate::extender::{ExtenderError, Offer};

pub(crate) use domains::Sums;
pub use filters::Filters;
pub use memory::Remembering;
pub use profile::{DEFAULT_SCHEDULER_NAME, Profile};

/// The best score of a node.
pub const MAX_SCORE: i64 = 100;

/// What all plugins have.
pub trait Plugin: Send + Sync + 'static {
    /// Its name, as upstream's configuration has it.
    fn name(&self) -> &'static str;

    /// Whether a change of the cluster may make schedulable a pod that this plugin refused.
    fn may_help(&self, _change: &ClusterChange<'_>, _pod: &PodInfo) -> bool {
        true
    }

    /// The kinds of events after which [`Self::may_help`] may say so, in upstream's words: for people.
    fn waits_for(&self) -> &'static [&'static str] {
        &["*"]
    }

    /// `Some` if what it says about nodes can be kept from one pod to the next.
    fn lasting(&self, _pod: &PodInfo, _cluster: &Snapshot) -> Option<&dyn Lasting> {
        None
    }
}

/// What lets answers about nodes be kept from one pod to the next. They follow from the pod and the node alone, and from
/// what [`Self::standing_filter`] and [`Self::standing_score`] know of the other nodes, and are never failures.
pub trait Lasting {
    /// Whether two pods get the same answer about every node, and [`Plugin::may_help`] says the same of both.
    fn alike(&self, a: &PodInfo, b: &PodInfo) -> bool;

    /// Numbers of the whole cluster that the answers follow from as well: if they change, nothing is kept.
    fn facts(&self, _pod: &PodInfo, _cluster: &Snapshot) -> Vec<i64> {
        Vec::new()
    }

    /// Takes the place of the filter for pods like this one, if the filter looks at more than single nodes.
    fn standing_filter(&self, _pod: &PodInfo, _cluster: &Snapshot) -> Option<Box<dyn StandingFilter>> {
        None
    }

    /// Takes the place of the score for pods like this one, if the score looks at more than single nodes.
    fn standing_score(&self, _pod: &PodInfo, _cluster: &Snapshot) -> Option<Box<dyn StandingScore>> {
        None
    }
}

/// Knows of each node what it means to the others, for pods of one kind. Nodes go by numbers from 0.
pub trait Standing: Send {
    /// Learns what a node means now.
    fn learn(&mut self, at: usize, node: &NodeState, cluster: &Snapshot);

    /// All that has changed has been learned.
    fn settle(&mut self, _cluster: &Snapshot) {}

    /// Whether it has nothing to say about any node at present.
    fn is_idle(&self) -> bool {
        false
    }
}

/// A filter that looks at more than single nodes, kept up to date.
pub trait StandingFilter: Standing {
    /// Whether the node is refused.
    fn refuses(&self, at: usize) -> bool;
}

/// A score that looks at more than single nodes, kept up to date.
pub trait StandingScore: Standing {
    /// How good these nodes are, each between 0 and [`MAX_SCORE`]; `None` if they are all alike.
    fn score(&self, nodes: &[usize]) -> Option<Vec<i64>>;
}

/// What a plugin is to pods that it has nothing to say about: they are all alike.
#[derive(Clone, Copy, Debug)]
pub struct Indifferent;

impl Lasting for Indifferent {
    fn alike(&self, _a: &PodInfo, _b: &PodInfo) -> bool {
        true
    }
}

/// Keeps pods out of the queue until they or their claims change.
pub trait PreEnqueue: Plugin {
    /// Why the pod must not be scheduled yet. Asked again when the pod or any claim of devices in its namespace changes.
    fn pre_enqueue(&self, pod: &PodInfo, cluster: &Snapshot) -> Option<Rejection>;
}

/// Orders the pods that wait for scheduling.
pub trait QueueSort: Plugin {
    /// Which comes first, given since when each waits (time since the environment's fixed point).
    fn order(&self, a: (&PodInfo, std::time::Duration), b: (&PodInfo, std::time::Duration)) -> Ordering;
}

/// Looks at a pod and the cluster once, before nodes are looked at one by one.
pub trait PreFilter: Plugin {
    /// Prepares the filter for a pod.
    fn pre_filter<'a>(&'a self, pod: &'a PodInfo, cluster: &'a Snapshot) -> Prepared<'a>;
}

/// What a plugin knows before nodes are looked at one by one.
pub enum Prepared<'a> {
    /// It has no objections to any node.
    Skip,
    /// No node can be right.
    Refuse(Rejection),
    /// Nodes are to be looked at.
    Filter {
        /// Only these nodes can be right.
        only: Option<BTreeSet<String>>,
        /// Looks at one node.
        filter: Box<dyn Filter + 'a>,
    },
}

impl std::fmt::Debug for Prepared<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Skip => f.write_str("Skip"),
            Self::Refuse(rejection) => f.debug_tuple("Refuse").field(rejection).finish(),
            Self::Filter { only, .. } => f.debug_struct("Filter").field("only", only).finish_non_exhaustive(),
        }
    }
}

impl<'a> Prepared<'a> {
    /// A filter that needs nothing but the node.
    pub fn per_node(filter: impl Fn(&NodeState) -> Option<Rejection> + 'a) -> Self {
        Self::filter(PerNode(filter))
    }

    /// A filter for all nodes.
    pub fn filter(filter: impl Filter + 'a) -> Self {
        Self::Filter { only: None, filter: Box::new(filter) }
    }
}

/// Looks at one node for one pod.
pub trait Filter {
    /// Why the node is refused; `None` if it is right.
    fn filter(&self, node: &NodeState) -> Option<Rejection>;

    /// From now on, suppose that this pod were on the node. Undone by [`Self::remove_pod`].
    fn add_pod(&mut self, _pod: &PodInfo, _node: &NodeState) {}

    /// From now on, suppose that this pod were not on the node. Undone by [`Self::add_pod`].
    fn remove_pod(&mut self, _pod: &PodInfo, _node: &NodeState) {}
}

struct PerNode<F>(F);

impl<F: Fn(&NodeState) -> Option<Rejection>> Filter for PerNode<F> {
    fn filter(&self, node: &NodeState) -> Option<Rejection> {
        (self.0)(node)
    }
}

/// Does something about a pod for which no node is right.
pub trait PostFilter: Plugin {
    /// What can be done.
    fn post_filter(
        &self,
        pod: &PodInfo,
        cluster: &Snapshot,
        why: &Unschedulable,
        filters: &mut Filters<'_>,
        tie: u64,
    ) -> Afterwards;

    /// All the room among which [`Self::post_filter`] chooses, for extenders to look at.
    fn offers(
        &self,
        _pod: &PodInfo,
        _cluster: &Snapshot,
        _why: &Unschedulable,
        _filters: &mut Filters<'_>,
        _tie: u64,
    ) -> Vec<Offer> {
        Vec::new()
    }

    /// The best of the room that extenders left.
    fn choose(&self, offers: Vec<Offer>) -> Option<Preemption> {
        offers.into_iter().next().map(|offer| offer.preemption)
    }

    /// Takes the place of the post-filter for pods of one kind and priority that all nodes refuse, if what it does follows
    /// from what it finds on each node. `why` says why they are refused at first.
    fn standing(&self, _cluster: &Snapshot, _why: &Unschedulable) -> Option<Box<dyn StandingPostFilter>> {
        None
    }
}

/// A post-filter that remembers what it found on nodes. Nodes go by numbers from 0, in the order of their names.
pub trait StandingPostFilter: Send {
    /// A node is other than it was, and refused for this; `None` if it is not refused.
    fn learn(&mut self, at: usize, refusal: Option<&Rejection>);

    /// Does what [`PostFilter::post_filter`] does.
    fn post_filter(
        &mut self,
        pod: &PodInfo,
        cluster: &Snapshot,
        why: &Unschedulable,
        filters: &mut Filters<'_>,
        tie: u64,
    ) -> Afterwards;
}

/// What can be done about a pod for which no node is right.
#[derive(Clone, Debug)]
pub enum Afterwards {
    /// Room can be made.
    Preempt(Preemption),
    /// Devices can be given back that this claim has and nobody uses; in words.
    GiveBack(Arc<ResourceClaim>, String),
    /// Nothing, in words.
    Nothing(String),
    /// Nothing, in words, and what was promised to the pod before is void.
    Hopeless(String),
}

/// Looks at a pod and the nodes that are right for it once, before they are scored one by one.
pub trait PreScore: Plugin {
    /// Prepares the score for a pod; `None` if all nodes are alike.
    fn pre_score<'a>(
        &'a self,
        pod: &'a PodInfo,
        cluster: &'a Snapshot,
        nodes: &[&'a NodeState],
    ) -> Option<Box<dyn Score + 'a>>;
}

/// Says how good a node is for one pod.
pub trait Score {
    /// How good, in any unit that [`Self::normalize`] understands.
    fn score(&self, node: &NodeState) -> i64;

    /// How the scores are brought between 0 and [`MAX_SCORE`].
    fn scaling(&self) -> Scaling {
        Scaling::Own
    }

    /// Brings the scores of all nodes (in the same order) between 0 and [`MAX_SCORE`]; as [`Self::scaling`] says, unless
    /// that is [`Scaling::Own`].
    fn normalize(&self, _nodes: &[&NodeState], scores: &mut [i64]) {
        if let Scaling::ToLargest { reverse } = self.scaling() {
            scale(scores, reverse);
        }
    }
}

/// How scores are brought between 0 and [`MAX_SCORE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scaling {
    /// They are there already.
    None,
    /// The largest becomes [`MAX_SCORE`]; reversed, 0.
    ToLargest {
        /// Fewer is better.
        reverse: bool,
    },
    /// As [`Score::normalize`] does it.
    Own,
}

/// Scales scores so that the largest becomes [`MAX_SCORE`]; reversed, so that the largest becomes 0.
pub fn scale(scores: &mut [i64], reverse: bool) {
    let largest = scores.iter().copied().max().unwrap_or(0);
    scores.iter_mut().for_each(|score| *score = scaled(*score, largest, reverse));
}

/// One of these scores.
fn scaled(score: i64, largest: i64, reverse: bool) -> i64 {
    let scaled = if largest == 0 { 0 } else { score * MAX_SCORE / largest };
    if reverse { MAX_SCORE - scaled } else { scaled }
}

/// What plugins act with once a node is chosen.
#[derive(Clone, Debug)]
pub struct Binding {
    /// The pod.
    pub pod: Arc<PodInfo>,
    /// The node it goes to.
    pub node: String,
    /// What exists, with the client and the environment.
    pub caches: Caches,
    /// Tells users.
    pub events: EventRecorder,
}

/// Something kept a pod from being bound.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BindError {
    /// A plugin refuses after all.
    #[error("{}", .0.reasons.join(", "))]
    Refused(Rejection),
    /// What a plugin had to do before has failed; its name, and why.
    #[error("running PreBind plugin {0:?}: {1}")]
    Failed(&'static str, String),
    /// An extender was to bind the pod, and did not.
    #[error(transparent)]
    Extender(#[from] ExtenderError),
    /// A call failed.
    #[error(transparent)]
    Api(#[from] ApiError),
}

/// Notes what a pod will use on its node, until it is bound.
pub trait Reserve: Plugin {
    /// Called once a node is chosen. `Some` sends the pod back. What others must know of may be noted in the cluster.
    fn reserve(&self, pod: &PodInfo, node: &str, cluster: &mut Snapshot) -> Option<Rejection>;

    /// Called when the pod is not bound after all. May be called without [`Self::reserve`], and more than once.
    fn unreserve(&self, pod: &PodInfo, node: &str, cluster: &mut Snapshot);
}

/// Lets a pod wait before it is bound.
#[async_trait]
pub trait Permit: Plugin {
    /// Resolves when the pod may go on. It must end by itself, with a refusal if need be.
    async fn permit(&self, binding: &Binding) -> Result<(), Rejection>;
}

/// Does what must be done before a pod is bound.
#[async_trait]
pub trait PreBind: Plugin {
    /// Acts.
    async fn pre_bind(&self, binding: &Binding) -> Result<(), BindError>;

    /// Takes back what can be, when the pod is not bound after all. May be called without [`Self::pre_bind`].
    async fn undo(&self, _binding: &Binding) {}
}

/// Binds a pod to its node.
#[async_trait]
pub trait Bind: Plugin {
    /// Acts. `false` leaves it to the next plugin.
    async fn bind(&self, binding: &Binding) -> Result<bool, BindError>;
}

/// Is told that a pod was bound.
#[async_trait]
pub trait PostBind: Plugin {
    /// Acts.
    async fn post_bind(&self, binding: &Binding);
}
