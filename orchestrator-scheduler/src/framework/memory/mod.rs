//! What was found out about nodes for one pod, kept for the next pod like it.
//!
//! Of pods of one template, each decision would look at all nodes only to find what the last one found, except about the
//! one node that got the last pod. So the answers of [`Lasting`] plugins are kept, looked up anew for the nodes that have
//! changed, and the best node stands at the root of a [`Tournament`]. Where a plugin has something to say that follows from
//! other nodes, the nodes that are left are compared one by one. The verdict is the one of looking at every node.

mod column;
mod kind;
mod prepare;

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use orchestrator_core::scheduler::{ClusterChange, PodInfo, Scheduler, Snapshot, Unschedulable, Verdict};

use self::{kind::Kind, prepare::Plugins};
use super::{Filters, Profile};
use crate::limits::{REMEMBERED_ANSWERS, REMEMBERED_KINDS};

/// A [`Profile`] that remembers. Its verdicts are the profile's own.
pub struct Remembering {
    profile: Arc<Profile>,
    /// What is remembered, of the pods that came last.
    kinds: Mutex<VecDeque<Kind>>,
}

impl fmt::Debug for Remembering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Remembering").field(&self.profile).finish()
    }
}

impl Scheduler for Remembering {
    fn schedule(&self, pod: &PodInfo, cluster: &Snapshot, tie: u64) -> Verdict {
        if self.profile.is_gated(pod, cluster) || cluster.is_empty() {
            return self.profile.schedule(pod, cluster, tie);
        }
        let on_promised = self.on_promised(pod, cluster).map(Verdict::Node);
        let known = on_promised.or_else(|| self.answer(pod, cluster, tie));
        known.unwrap_or_else(|| self.profile.schedule(pod, cluster, tie))
    }

    fn may_help(&self, change: &ClusterChange<'_>, pod: &PodInfo, why: &Unschedulable) -> bool {
        self.profile.may_help(change, pod, why)
    }

    fn wait_alike(&self, a: &PodInfo, b: &PodInfo, why: &Unschedulable, cluster: &Snapshot) -> bool {
        self.profile.wait_alike(a, b, why, cluster)
    }
}

impl Remembering {
    /// Decides as a profile does.
    pub fn new(profile: Arc<Profile>) -> Self {
        Self { profile, kinds: Mutex::default() }
    }

    /// The node that a pod was promised is looked at alone, and first.
    fn on_promised(&self, pod: &PodInfo, cluster: &Snapshot) -> Option<String> {
        pod.nominated_node_name().filter(|name| cluster.node(name).is_some())?;
        let (mut filters, refusal) = Filters::prepare(&self.profile.filters, pod, cluster);
        if refusal.is_some() { None } else { filters.promised_node() }
    }

    /// `None` if nothing is known: some plugin's answers cannot be kept, or it lets the pod onto some nodes only.
    fn answer(&self, pod: &PodInfo, cluster: &Snapshot, tie: u64) -> Option<Verdict> {
        let plugins = Plugins::of(&self.profile, pod, cluster)?;
        let facts = plugins.facts(pod, cluster);
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let known = kinds.iter().position(|kind| kind.is_of(&plugins, pod, &facts));
        let mut kind =
            known.and_then(|at| kinds.remove(at)).unwrap_or_else(|| Kind::new(pod, facts, &plugins, cluster));
        if !kind.update(&self.profile, pod, cluster) {
            return None;
        }
        let alone = kind.is_alone(pod, cluster);
        // Promised pods may mean something to other nodes as well, which only the filters themselves know.
        let refused = if alone { Some(Vec::new()) } else { self.refused_for_promises(pod, cluster) };
        let answer = refused.and_then(|refused| match kind.best(&refused, tie) {
            Some(best) => Some(Verdict::Node(best.to_owned())),
            None if alone => kind.refuse(&self.profile, pod, cluster, tie),
            None => None,
        });
        kinds.push_front(kind);
        kinds.truncate((REMEMBERED_ANSWERS / cluster.len().max(1)).clamp(1, REMEMBERED_KINDS));
        answer
    }

    /// The nodes that are refused once the pods are there that they were promised to, as far as these go before the pod.
    /// `None` if all nodes are refused.
    fn refused_for_promises<'c>(&self, pod: &PodInfo, cluster: &'c Snapshot) -> Option<Vec<&'c str>> {
        let goes_before = |other: &Arc<PodInfo>| other.priority() >= pod.priority() && other.key() != pod.key();
        let promised = cluster.promises().filter(|(_, pods)| pods.values().any(goes_before));
        let promised: Vec<_> = promised.filter_map(|(name, _)| Some((name, cluster.node(name)?))).collect();
        if promised.is_empty() {
            return Some(Vec::new());
        }
        let (mut filters, None) = Filters::prepare(&self.profile.filters, pod, cluster) else { return None };
        let refused = promised.into_iter().filter(|(_, node)| filters.refusal(node).is_some());
        Some(refused.map(|(name, _)| name).collect())
    }
}
