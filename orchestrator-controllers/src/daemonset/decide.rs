//! What a daemon set wants done: where pods are missing, which ones are to go, and what its status says.
//!
//! Upstream: <https://kubernetes.io/docs/tasks/manage-daemon/update-daemon-set/>.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        apps::v1::{DaemonSet, DaemonSetStatus, RollingUpdateDaemonSet},
        core::v1::{Node, Pod},
    },
    apimachinery::pkg::util::intstr::IntOrString,
};
use orchestrator_core::meta;

use super::placement::{Fit, Placement, is_updated, target_node};
use crate::{
    limits::DAEMON_PODS_PER_RUN,
    pods::{
        REVISION_LABEL, count, is_available, is_deleting, is_finished, is_ready, next_available, nonzero, phase, scaled,
    },
};

/// What is known when a set is decided on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Observed<'a> {
    /// The set.
    pub set: &'a DaemonSet,
    /// All nodes.
    pub nodes: &'a [Arc<Node>],
    /// The set's pods.
    pub pods: &'a [Arc<Pod>],
    /// The hash of the revision that the set's template is.
    pub hash: &'a str,
    /// Nodes whose failed pods stay a while longer, and how long.
    pub waiting: &'a BTreeMap<String, Duration>,
    /// The time.
    pub now: Timestamp,
}

/// What to do.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Decision {
    /// The nodes that get a pod.
    pub create: Vec<String>,
    /// The pods that go.
    pub delete: Vec<Arc<Pod>>,
    /// Those of them that failed or succeeded, with their nodes, to be told of.
    pub ended: Vec<(String, Arc<Pod>)>,
    /// When time alone may change the decision.
    pub look_again: Option<Duration>,
}

/// Decides on one run. Pods are replaced by an update only once every node has what it is to have.
pub(crate) fn decide(observed: Observed<'_>) -> Decision {
    let plan = Plan::of(observed);
    let mut decision = plan.manage();
    if decision.create.is_empty() && decision.delete.is_empty() && plan.is_rolling() {
        plan.roll(&mut decision);
    }
    decision.create.truncate(DAEMON_PODS_PER_RUN);
    decision.delete.truncate(DAEMON_PODS_PER_RUN);
    let available = next_available(observed.pods.iter().map(Arc::as_ref), plan.min_ready_seconds, observed.now);
    decision.look_again = decision.look_again.into_iter().chain(available).min();
    decision
}

/// The status of what is observed. As upstream's, it is of this generation even where pods could not be written.
pub(crate) fn status(observed: Observed<'_>, collisions: i32) -> DaemonSetStatus {
    let plan = Plan::of(observed);
    let known = observed.set.status.as_ref();
    let (mut desired, mut current, mut misscheduled, mut ready, mut available, mut updated) = (0, 0, 0, 0, 0, 0);
    for (node, fit) in &plan.nodes {
        let first = plan.on_node.get(node).and_then(|pods| pods.first());
        if *fit != Fit::Runs {
            misscheduled += i32::from(first.is_some());
            continue;
        }
        desired += 1;
        let Some(pod) = first else { continue };
        current += 1;
        ready += i32::from(is_ready(pod));
        available += i32::from(plan.is_available(pod));
        updated += i32::from(plan.is_updated(pod));
    }
    DaemonSetStatus {
        desired_number_scheduled: desired,
        current_number_scheduled: current,
        number_misscheduled: misscheduled,
        number_ready: ready,
        number_available: nonzero(available),
        number_unavailable: nonzero(desired - available),
        updated_number_scheduled: nonzero(updated),
        observed_generation: observed.set.metadata.generation,
        collision_count: known.and_then(|status| status.collision_count).max(nonzero(collisions)),
        conditions: known.and_then(|status| status.conditions.clone()),
    }
}

/// The updated and the outdated pod of a node.
type Pair<'a> = (Option<&'a Arc<Pod>>, Option<&'a Arc<Pod>>);

/// The nodes and the pods on them.
struct Plan<'a> {
    observed: Observed<'a>,
    min_ready_seconds: i32,
    nodes: BTreeMap<&'a str, Fit>,
    /// By node, the pods that count, the oldest first.
    on_node: BTreeMap<&'a str, Vec<&'a Arc<Pod>>>,
}

impl<'a> Plan<'a> {
    fn of(observed: Observed<'a>) -> Self {
        let placement = Placement::of(observed.set);
        let fit = |node: &'a Arc<Node>| (meta::name(&node.metadata), placement.fit(node));
        let mut on_node: BTreeMap<&str, Vec<&Arc<Pod>>> = BTreeMap::new();
        // What has ended and is going is in the hands of others.
        for pod in observed.pods.iter().filter(|pod| !(is_finished(pod) && is_deleting(pod))) {
            if let Some(node) = target_node(pod) {
                on_node.entry(node).or_default().push(pod);
            }
        }
        for pods in on_node.values_mut() {
            pods.sort_by_key(|pod| {
                let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
                (!is_scheduled(pod), created, pod.metadata.name.as_deref())
            });
        }
        let min_ready_seconds = observed.set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
        Self { observed, min_ready_seconds, nodes: observed.nodes.iter().map(fit).collect(), on_node }
    }

    fn is_available(&self, pod: &Pod) -> bool {
        is_available(pod, self.min_ready_seconds, self.observed.now)
    }

    fn is_updated(&self, pod: &Pod) -> bool {
        is_updated(self.observed.set, &pod.metadata, self.observed.hash)
    }

    /// Gives every node the pods that it is to have, whatever their revisions.
    fn manage(&self) -> Decision {
        let mut decision = Decision::default();
        let surges = self.allows_surge();
        for (node, fit) in &self.nodes {
            let pods = self.on_node.get(node).map(Vec::as_slice).unwrap_or_default();
            match fit {
                Fit::Runs if pods.is_empty() => decision.create.push((*node).to_owned()),
                Fit::Not => decision.delete.extend(living(pods)),
                Fit::Runs | Fit::Keeps => {
                    let running = self.without_ended(node, pods, &mut decision);
                    if !surges {
                        decision.delete.extend(running.iter().skip(1).map(|pod| Arc::clone(pod)));
                    } else if running.is_empty() && *fit == Fit::Runs {
                        decision.create.push((*node).to_owned());
                    } else {
                        self.prune_surge(&running, &mut decision);
                    }
                }
            }
        }
        let nowhere = self.on_node.iter().filter(|(node, _)| !self.nodes.contains_key(*node));
        let waiting = nowhere.flat_map(|(_, pods)| living(pods)).filter(|pod| !is_scheduled(pod));
        decision.delete.extend(waiting);
        decision
    }

    /// Lets ended pods go, failed ones after a pause, and gives the others.
    fn without_ended(&self, node: &str, pods: &[&'a Arc<Pod>], decision: &mut Decision) -> Vec<&'a Arc<Pod>> {
        let mut running = Vec::new();
        let mut wait = self.observed.waiting.get(node).copied();
        for pod in pods.iter().copied().filter(|pod| !is_deleting(pod)) {
            match phase(pod) {
                "Failed" if wait.is_some() => {
                    decision.look_again = decision.look_again.into_iter().chain(wait).min();
                    continue;
                }
                // Another one that failed here waits for its turn.
                "Failed" => wait = Some(Duration::ZERO),
                "Succeeded" => {}
                _ => {
                    running.push(pod);
                    continue;
                }
            }
            decision.ended.push((node.to_owned(), pod.clone()));
            decision.delete.push(pod.clone());
        }
        running
    }

    /// Two pods may run on a node that surges only while the old one serves and the new one does not yet.
    fn prune_surge(&self, running: &[&'a Arc<Pod>], decision: &mut Decision) {
        if running.len() <= 1 {
            return;
        }
        let is_new = |pod: &&&Arc<Pod>| meta::label(&pod.metadata, REVISION_LABEL) == Some(self.observed.hash);
        let (mut new, mut old) = (running.iter().filter(is_new), running.iter().filter(|pod| !is_new(pod)));
        let (newest, oldest) = (new.next(), old.next());
        decision.delete.extend(new.chain(old).map(|pod| Arc::clone(pod)));
        if let (Some(new), Some(old)) = (newest, oldest)
            && (!is_ready(old) || self.is_available(new))
        {
            decision.delete.push(Arc::clone(old));
        }
    }

    fn is_rolling(&self) -> bool {
        let strategy = self.observed.set.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref());
        strategy.and_then(|strategy| strategy.type_.as_deref()).unwrap_or("RollingUpdate") == "RollingUpdate"
    }

    fn bound(&self, of: fn(&RollingUpdateDaemonSet) -> Option<&IntOrString>, total: i32) -> Option<i32> {
        let strategy = self.observed.set.spec.as_ref()?.update_strategy.as_ref()?;
        let value = of(strategy.rolling_update.as_ref()?)?;
        Some(scaled(value, total, true))
    }

    fn desired(&self) -> i32 {
        count(self.nodes.values().filter(|fit| **fit == Fit::Runs).count())
    }

    fn surge_of(&self, total: i32) -> i32 {
        if self.is_rolling() { self.bound(|rolling| rolling.max_surge.as_ref(), total).unwrap_or(0) } else { 0 }
    }

    fn max_surge(&self) -> i32 {
        self.surge_of(self.desired())
    }

    /// Whether there may be two pods on a node, however few nodes there are.
    fn allows_surge(&self) -> bool {
        self.surge_of(1) > 0
    }

    fn max_unavailable(&self) -> i32 {
        let bound = self.bound(|rolling| rolling.max_unavailable.as_ref(), self.desired()).unwrap_or(1);
        if self.max_surge() == 0 && self.desired() > 0 { bound.max(1) } else { bound }
    }

    /// The updated and the outdated pod of a node; `None` when there are more, which are to be pruned first.
    fn pair(&self, pods: &[&'a Arc<Pod>]) -> Option<Pair<'a>> {
        let (mut new, mut old) = (None, None);
        for pod in pods.iter().copied().filter(|pod| !is_deleting(pod)) {
            let place = if self.is_updated(pod) { &mut new } else { &mut old };
            if place.replace(pod).is_some() {
                return None;
            }
        }
        Some((new, old))
    }

    /// The nodes that count for an update, with their pods.
    fn rolling_nodes(&self) -> impl Iterator<Item = (&'a str, &[&'a Arc<Pod>])> {
        let wanted = self.nodes.iter().filter(|(node, fit)| **fit == Fit::Runs || self.on_node.contains_key(*node));
        wanted.map(|(node, _)| (*node, self.on_node.get(node).map(Vec::as_slice).unwrap_or_default()))
    }

    fn roll(&self, decision: &mut Decision) {
        match self.max_surge() {
            0 => decision.delete = self.replace(),
            max_surge => self.surge(max_surge, decision),
        }
    }

    /// The outdated pods that go: all that do not serve, which count as missing, and as many of the others as may be.
    fn replace(&self) -> Vec<Arc<Pod>> {
        let (mut unavailable, mut replaced, mut candidates) = (0, Vec::new(), Vec::new());
        for (_, pods) in self.rolling_nodes() {
            match self.pair(pods) {
                Some((Some(new), None)) => unavailable += i32::from(!self.is_available(new)),
                Some((None, Some(old))) if self.is_available(old) => candidates.push(old.clone()),
                Some((None, Some(old))) => {
                    unavailable += 1;
                    replaced.push(old.clone());
                }
                _ => unavailable += 1,
            }
        }
        candidates.truncate(usize::try_from(self.max_unavailable() - unavailable).unwrap_or(0));
        replaced.extend(candidates);
        replaced
    }

    /// New pods beside outdated ones: where those do not serve, and on as many other nodes as may have two. Outdated pods on
    /// nodes that get none any more go when they do not serve, or as far as enough others do.
    fn surge(&self, max_surge: i32, decision: &mut Decision) {
        let (mut surging, mut available) = (0, 0);
        let (mut allowed, mut candidates, mut misplaced) = (Vec::new(), Vec::new(), Vec::new());
        for (node, pods) in self.rolling_nodes() {
            let Some((new, old)) = self.pair(pods) else {
                surging += 1;
                continue;
            };
            available += i32::from(old.or(new).is_some_and(|pod| self.is_available(pod)));
            let runs = self.nodes.get(node) == Some(&Fit::Runs);
            match (new, old) {
                (_, None) => {}
                (None, Some(old)) => match (self.is_available(old), runs) {
                    (true, true) => candidates.push(node.to_owned()),
                    (false, true) => allowed.push(node.to_owned()),
                    (true, false) => misplaced.push(old.clone()),
                    (false, false) => decision.delete.push(old.clone()),
                },
                (Some(new), Some(old)) if self.is_available(new) => decision.delete.push(old.clone()),
                _ => surging += 1,
            }
        }
        misplaced.truncate(usize::try_from(available - self.desired()).unwrap_or(0));
        decision.delete.extend(misplaced);
        candidates.truncate(usize::try_from(max_surge - surging).unwrap_or(0));
        allowed.extend(candidates);
        decision.create = allowed;
    }
}

fn is_scheduled(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).is_some_and(|name| !name.is_empty())
}

fn living(pods: &[&Arc<Pod>]) -> Vec<Arc<Pod>> {
    pods.iter().filter(|pod| !is_deleting(pod)).map(|pod| Arc::clone(pod)).collect()
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
