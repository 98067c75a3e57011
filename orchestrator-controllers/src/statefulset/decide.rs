//! What a stateful set wants done: pods and claims to make and remove, in order, and its status.
//!
//! Upstream: <https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/#deployment-and-scaling-guarantees>.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        apps::v1::{
            ControllerRevision, RollingUpdateStatefulSetStrategy, StatefulSet, StatefulSetSpec, StatefulSetStatus,
        },
        core::v1::{PersistentVolumeClaim, Pod, PodTemplateSpec},
    },
    apimachinery::pkg::{apis::meta::v1::OwnerReference, util::intstr::IntOrString},
};

use super::{
    identity::{
        Retention, belongs_to_former_pod, claim_names, has_identity, identity_labels, is_controlled_by_other,
        make_claims, make_pod, ordinal_of, ordinals, pod_name,
    },
    revisions::{pod_revision, template_of},
};
use crate::pods::{count, is_available, is_deleting, is_finished, is_ready, next_available, nonzero, phase};

/// What is known when a set is decided on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Observed<'a> {
    /// The set.
    pub set: &'a StatefulSet,
    /// The revision that pods are updated from.
    pub current: &'a ControllerRevision,
    /// The revision that pods are updated to.
    pub update: &'a ControllerRevision,
    /// How often revisions with the same name differed.
    pub collisions: i32,
    /// The set's pods.
    pub pods: &'a [Arc<Pod>],
    /// The claims of the set's namespace, by name.
    pub claims: &'a BTreeMap<String, Arc<PersistentVolumeClaim>>,
    /// The time.
    pub now: Timestamp,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    /// Make a claim for a pod of this name.
    CreateClaim(Box<PersistentVolumeClaim>, String),
    /// A claim for a pod of this name has to be gone before it can be made.
    AwaitClaim(Arc<PersistentVolumeClaim>, String),
    /// Tell that the retention policy does not matter for the claim of this name.
    TellConflict(String),
    /// Change who owns a claim.
    OwnClaim(Arc<PersistentVolumeClaim>, Vec<OwnerReference>),
    /// Make a pod.
    CreatePod(Box<Pod>),
    /// Give a pod its identity back.
    LabelPod(Arc<Pod>, BTreeMap<String, String>),
    /// Delete a pod.
    DeletePod(Arc<Pod>, Why),
}

/// Why a pod is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// It failed, and is made anew.
    Failed,
    /// It ended, and is made anew.
    Ended,
    /// There are to be fewer.
    Scaled,
    /// It has an old revision.
    Outdated,
}

/// What to do, in this order.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Decision {
    /// The steps. In order, a step that fails ends the run; in parallel, others go on, as far as [`may_follow`] says.
    pub steps: Vec<Step>,
    /// The set's status.
    pub status: StatefulSetStatus,
    /// When time alone may change the decision.
    pub look_again: Option<Duration>,
}

/// What the steps of a run are about, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Wanted,
    Scaled,
    Outdated,
}

impl Step {
    fn stage(&self) -> Stage {
        match self {
            Self::DeletePod(_, Why::Scaled) => Stage::Scaled,
            Self::DeletePod(_, Why::Outdated) => Stage::Outdated,
            _ => Stage::Wanted,
        }
    }

    /// The place of its pod among those that are wanted.
    fn place(&self, set: &StatefulSet) -> Option<usize> {
        let name = match self {
            Self::CreateClaim(_, pod) | Self::AwaitClaim(_, pod) => pod,
            Self::CreatePod(pod) => pod.metadata.name.as_ref()?,
            Self::LabelPod(pod, _) | Self::DeletePod(pod, _) => pod.metadata.name.as_ref()?,
            Self::TellConflict(_) | Self::OwnClaim(..) => return None,
        };
        usize::try_from(ordinal_of(set, name)? - ordinals(set).start).ok()
    }
}

/// Whether a step may still be taken after another one has failed, in parallel. Wanted pods are served in batches of one,
/// two, four and so on: what fails for all of them is not tried with each of them.
pub(crate) fn may_follow(set: &StatefulSet, failed: &Step, step: &Step) -> bool {
    if failed.stage() != step.stage() {
        return step.stage() < failed.stage();
    }
    let end_of_batch = |place: usize| place.saturating_add(2).next_power_of_two() - 1;
    match (failed.place(set), step.place(set)) {
        (Some(failed), Some(place)) if step.stage() == Stage::Wanted => place < end_of_batch(failed),
        _ => true,
    }
}

/// Decides on one run.
pub(crate) fn decide(observed: Observed<'_>) -> Decision {
    let plan = Plan::of(observed);
    let status = plan.status();
    let min_ready = plan.min_ready_seconds();
    let look_again = next_available(observed.pods.iter().map(Arc::as_ref), min_ready, observed.now);
    let mut steps = Vec::new();
    if observed.set.metadata.deletion_timestamp.is_none() {
        steps = plan.steps();
    }
    Decision { steps, status, look_again }
}

/// Whether pods come and go one after the other.
pub(crate) fn is_ordered(set: &StatefulSet) -> bool {
    set.spec.as_ref().and_then(|spec| spec.pod_management_policy.as_deref()) != Some("Parallel")
}

/// The pods, sorted into those that are wanted and those that are not, and the steps so far.
struct Plan<'a> {
    observed: Observed<'a>,
    spec: StatefulSetSpec,
    /// By ordinal, from the first.
    replicas: Vec<(i32, Option<Arc<Pod>>)>,
    /// The highest ordinal first.
    condemned: Vec<(i32, Arc<Pod>)>,
    steps: Vec<Step>,
    deleted: BTreeSet<i32>,
}

impl<'a> Plan<'a> {
    fn of(observed: Observed<'a>) -> Self {
        let set = observed.set;
        let mut by_ordinal: BTreeMap<i32, Arc<Pod>> = BTreeMap::new();
        for pod in observed.pods {
            if let Some(ordinal) = ordinal_of(set, pod.metadata.name.as_deref().unwrap_or_default()) {
                by_ordinal.insert(ordinal, pod.clone());
            }
        }
        let replicas = ordinals(set).map(|ordinal| (ordinal, by_ordinal.remove(&ordinal))).collect();
        let condemned = by_ordinal.into_iter().rev().collect();
        let spec = set.spec.clone().unwrap_or_default();
        Self { observed, spec, replicas, condemned, steps: Vec::new(), deleted: BTreeSet::new() }
    }

    fn min_ready_seconds(&self) -> i32 {
        self.spec.min_ready_seconds.unwrap_or(0)
    }

    fn is_running(&self, pod: &Pod) -> bool {
        phase(pod) == "Running" && is_ready(pod)
    }

    fn is_available(&self, pod: &Pod) -> bool {
        self.is_running(pod) && is_available(pod, self.min_ready_seconds(), self.observed.now)
    }

    /// What counts towards the pods that others may rely on.
    fn serves(&self, pod: &Pod) -> bool {
        self.is_available(pod) && !is_deleting(pod)
    }

    fn steps(mut self) -> Vec<Step> {
        let _ = self.plan();
        self.steps
    }

    fn plan(&mut self) -> ControlFlow<()> {
        let ordered = is_ordered(self.observed.set);
        for (ordinal, pod) in self.replicas.clone() {
            let flow = match pod {
                None => self.create(ordinal),
                Some(pod) => self.keep(ordinal, &pod),
            };
            if ordered {
                flow?;
            }
        }
        for (ordinal, pod) in self.condemned.clone() {
            self.own_claims(ordinal, &pod, true);
        }
        let first_unhealthy = self.first_unhealthy();
        for (ordinal, pod) in self.condemned.clone() {
            let flow = self.condemn(ordinal, &pod, ordered && first_unhealthy != Some(ordinal));
            if ordered {
                flow?;
            }
        }
        self.update();
        ControlFlow::Continue(())
    }

    /// The lowest ordinal that does not serve, among the wanted pods and else among the others.
    fn first_unhealthy(&self) -> Option<i32> {
        let wanted = self.replicas.iter().find(|(_, pod)| !pod.as_ref().is_some_and(|pod| self.serves(pod)));
        let condemned = self.condemned.iter().rev().find(|(_, pod)| !self.serves(pod));
        wanted.map(|(ordinal, _)| *ordinal).or_else(|| condemned.map(|(ordinal, _)| *ordinal))
    }

    /// A pod that is missing. Claims come first; one that goes with an earlier pod of this name must be gone before.
    fn create(&mut self, ordinal: i32) -> ControlFlow<()> {
        let set = self.observed.set;
        let claims = claim_names(set, ordinal);
        let mut claims = claims.iter().filter_map(|(_, name)| self.observed.claims.get(name));
        if Retention::of(set).deletes_when_scaled()
            && claims.any(|claim| belongs_to_former_pod(claim, &pod_name(set, ordinal)))
        {
            return ControlFlow::Break(());
        }
        self.create_claims(ordinal);
        let (template, revision) = self.template_for(ordinal);
        self.steps.push(Step::CreatePod(Box::new(make_pod(self.observed.set, ordinal, &template, &revision))));
        ControlFlow::Break(())
    }

    /// The template of a new pod: below the partition the current one.
    fn template_for(&self, ordinal: i32) -> (PodTemplateSpec, String) {
        let set = self.observed.set;
        let index = ordinal - ordinals(set).start;
        let reserved = match self.rolling_update() {
            None => 0,
            Some(rolling) => rolling.partition.unwrap_or(0),
        };
        let revision = if index < reserved { self.observed.current } else { self.observed.update };
        let template = template_of(revision).map_or_else(|| self.spec.template.clone(), Arc::unwrap_or_clone);
        (template, revision.metadata.name.clone().unwrap_or_default())
    }

    /// The parameters of the rolling update; `None` with the strategy `OnDelete`.
    fn rolling_update(&self) -> Option<RollingUpdateStatefulSetStrategy> {
        let strategy = self.spec.update_strategy.clone().unwrap_or_default();
        (strategy.type_.as_deref() != Some("OnDelete")).then(|| strategy.rolling_update.unwrap_or_default())
    }

    /// A pod that exists and is wanted. Breaks when the pods after it must wait for it.
    fn keep(&mut self, ordinal: i32, pod: &Arc<Pod>) -> ControlFlow<()> {
        if is_finished(pod) {
            if !is_deleting(pod) {
                let why = if phase(pod) == "Failed" { Why::Failed } else { Why::Ended };
                self.delete(ordinal, pod, why);
            }
            return ControlFlow::Break(());
        }
        let is_pending = phase(pod) == "Pending";
        if is_pending {
            self.create_claims(ordinal);
            self.own_claims(ordinal, pod, false);
        }
        if is_ordered(self.observed.set) && !self.serves(pod) {
            return ControlFlow::Break(());
        }
        if !is_deleting(pod) {
            // A pod is written with its claims, even where nothing of its own changes.
            let is_changed = !is_pending && self.own_claims(ordinal, pod, false);
            if is_changed || !has_identity(pod) {
                self.steps.push(Step::LabelPod(pod.clone(), identity_labels(self.observed.set, ordinal)));
            }
        }
        ControlFlow::Continue(())
    }

    fn create_claims(&mut self, ordinal: i32) {
        let set = self.observed.set;
        let pod_name = pod_name(set, ordinal);
        for claim in make_claims(set, ordinal) {
            match self.observed.claims.get(claim.metadata.name.as_deref().unwrap_or_default()) {
                None => self.steps.push(Step::CreateClaim(Box::new(claim), pod_name.clone())),
                Some(known) if known.metadata.deletion_timestamp.is_some() => {
                    self.steps.push(Step::AwaitClaim(known.clone(), pod_name.clone()));
                }
                Some(_) => {}
            }
        }
    }

    /// Whether a claim of the pod gets other owners.
    fn own_claims(&mut self, ordinal: i32, pod: &Arc<Pod>, scaled_down: bool) -> bool {
        let set = self.observed.set;
        let mut changed = false;
        for (_, name) in claim_names(set, ordinal) {
            let Some(claim) = self.observed.claims.get(&name) else { continue };
            let owners = claim.metadata.owner_references.as_deref().unwrap_or_default();
            let wanted = Retention::of(set).owners(set, Some(pod), scaled_down, owners);
            let changes = wanted != owners && claim.metadata.deletion_timestamp.is_none();
            if (changes || phase(pod) == "Pending") && is_controlled_by_other(set, Some(pod), owners) {
                self.steps.push(Step::TellConflict(name));
            }
            if changes {
                self.steps.push(Step::OwnClaim(claim.clone(), wanted));
                changed = true;
            }
        }
        changed
    }

    /// A pod that is no longer wanted. In order it waits until the pods before it serve, and so does it itself,
    /// unless it is the one that everybody waits for, or has ended and never will.
    fn condemn(&mut self, ordinal: i32, pod: &Arc<Pod>, must_serve: bool) -> ControlFlow<()> {
        if !is_deleting(pod) && (!must_serve || is_finished(pod) || self.is_available(pod)) {
            self.delete(ordinal, pod, Why::Scaled);
        }
        ControlFlow::Break(())
    }

    /// Deletes pods of old revisions, the highest ordinal first: one, once all above it serve; or as many as `maxUnavailable`
    /// lets be down, where that is more than one (KEP-961; upstream's 1.36 has the feature off, and the field with it).
    fn update(&mut self) {
        let Some(rolling) = self.rolling_update() else { return };
        let first = usize::try_from(rolling.partition.unwrap_or(0)).unwrap_or(0);
        let update = self.observed.update.metadata.name.as_deref();
        let in_range = self.replicas.get(first..).unwrap_or_default();
        let allowed = max_unavailable(rolling.max_unavailable.as_ref(), self.replicas.len());
        if allowed > 1 {
            for (ordinal, pod) in self.outdated(in_range, update, allowed) {
                self.delete(ordinal, &pod, Why::Outdated);
            }
            return;
        }
        let next = in_range
            .iter()
            .rev()
            .find(|(_, pod)| !pod.as_ref().is_some_and(|pod| pod_revision(pod) == update && self.serves(pod)));
        let Some((ordinal, Some(pod))) = next.cloned() else { return };
        if pod_revision(&pod) != update && !is_deleting(&pod) && !self.deleted.contains(&ordinal) {
            self.delete(ordinal, &pod, Why::Outdated);
        }
    }

    /// Pods of old revisions that may go, so that at most so many are down. One that does not serve costs nothing.
    fn outdated(
        &self,
        replicas: &[(i32, Option<Arc<Pod>>)],
        update: Option<&str>,
        allowed: usize,
    ) -> Vec<(i32, Arc<Pod>)> {
        let down = replicas.iter().filter(|(_, pod)| !pod.as_ref().is_some_and(|pod| self.serves(pod))).count();
        let mut budget = allowed.saturating_sub(down);
        let mut outdated = Vec::new();
        for (ordinal, pod) in replicas.iter().rev() {
            let Some(pod) = pod else { continue };
            if pod_revision(pod) == update || is_deleting(pod) || self.deleted.contains(ordinal) {
                continue;
            }
            if self.serves(pod) {
                if budget == 0 {
                    continue;
                }
                budget -= 1;
            }
            outdated.push((*ordinal, pod.clone()));
        }
        outdated
    }

    fn delete(&mut self, ordinal: i32, pod: &Arc<Pod>, why: Why) {
        self.deleted.insert(ordinal);
        self.steps.push(Step::DeletePod(pod.clone(), why));
    }

    fn status(&self) -> StatefulSetStatus {
        let Observed { set, current, update, .. } = self.observed;
        let wanted = self.replicas.iter().filter_map(|(_, pod)| pod.as_ref());
        let pods: Vec<&Arc<Pod>> =
            wanted.chain(self.condemned.iter().map(|(_, pod)| pod)).filter(|pod| !phase(pod).is_empty()).collect();
        let of = |counts: &dyn Fn(&Pod) -> bool| count(pods.iter().filter(|pod| counts(pod)).count());
        let at = |revision: &ControllerRevision| {
            of(&|pod| !is_deleting(pod) && pod_revision(pod) == revision.metadata.name.as_deref())
        };
        let (ready, updated) = (of(&|pod| self.is_running(pod)), at(update));
        let (mut current_replicas, mut current_revision) = (at(current), current.metadata.name.clone());
        let replicas = count(self.replicas.len());
        let done = updated == replicas && ready == replicas && count(pods.len()) == replicas;
        if done && self.rolling_update().is_some() {
            (current_replicas, current_revision) = (updated, update.metadata.name.clone());
        }
        StatefulSetStatus {
            observed_generation: set.metadata.generation,
            replicas: count(pods.len()),
            ready_replicas: nonzero(ready),
            available_replicas: Some(of(&|pod| self.is_available(pod))),
            current_replicas: nonzero(current_replicas),
            updated_replicas: nonzero(updated),
            current_revision,
            update_revision: update.metadata.name.clone(),
            collision_count: Some(self.observed.collisions),
            conditions: set.status.as_ref().and_then(|status| status.conditions.clone()),
        }
    }
}

/// How many pods may be down for an update: a number, or a percentage rounded down; at least one, and one by default.
fn max_unavailable(value: Option<&IntOrString>, replicas: usize) -> usize {
    let total = i64::try_from(replicas).unwrap_or(i64::MAX);
    let number = match value {
        None => 1,
        Some(IntOrString::Int(number)) => i64::from(*number),
        Some(IntOrString::String(text)) => {
            let percent = text.strip_suffix('%').and_then(|text| text.parse::<i64>().ok()).unwrap_or(0);
            total.saturating_mul(percent) / 100
        }
    };
    usize::try_from(number.max(1)).unwrap_or(1)
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
