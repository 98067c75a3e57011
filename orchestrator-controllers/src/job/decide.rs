//! What a job wants done: pods to make and to delete.
//!
//! Upstream: <https://kubernetes.io/docs/concepts/workloads/controllers/job/>. What comes of it is counted in
//! [`super::tracking`].

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::api::{
    batch::v1::{Job, JobCondition, JobSpec, JobStatus, UncountedTerminatedPods},
    core::v1::Pod,
};
use orchestrator_core::{
    meta::{self, condition, is_condition_true},
    object::time,
};

use super::{
    indexes::Indexes,
    pods::{
        Failures, failures_before, has_failed, index_of, is_indexed, is_tracked, pause_after, pause_of_index,
        replaces_failed_only, restarts,
    },
    policies::{self, Failure},
};
use crate::{
    limits::JOB_PODS_PER_RUN,
    pods::{count, is_active, is_terminating, phase, rank_alone},
};

/// What is known when a job is decided on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Observed<'a> {
    /// The job.
    pub job: &'a Job,
    /// Its pods.
    pub pods: &'a [Arc<Pod>],
    /// Failures up to the last run.
    pub failures: Failures,
    /// The time.
    pub now: Timestamp,
}

/// What to do.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Actions {
    /// The pods to delete.
    pub delete: Vec<Arc<Pod>>,
    /// Those do not count as failed: the job itself has no use for them.
    pub uncounted: bool,
    /// The pods to make: their indexes, with the pod of it that failed before, or none where pods have no index.
    pub create: Vec<(Option<i32>, Option<Arc<Pod>>)>,
    /// When time alone may change the decision.
    pub look_again: Option<Duration>,
}

/// What is to be done, and why.
pub(crate) struct Decision<'a> {
    pub(super) observed: Observed<'a>,
    pub(super) spec: JobSpec,
    /// As it is written, apart from what this run counts.
    pub(super) status: JobStatus,
    pub(super) active: Vec<Arc<Pod>>,
    pub(super) uncounted_failed: BTreeSet<String>,
    pub(super) uncounted_succeeded: BTreeSet<String>,
    pub(super) succeeded: i32,
    /// Indexes that had succeeded before this run, and those that have now.
    pub(super) counted_indexes: Indexes,
    pub(super) succeeded_indexes: Indexes,
    /// Where each index has a limit of its own.
    pub(super) failed_indexes: Option<Indexes>,
    /// By index, the failed pod that is kept until there is another, because it knows the number of failures.
    pub(super) kept: BTreeMap<i32, Arc<Pod>>,
    /// Failures up to now.
    pub failures: Failures,
    /// How the job ends: `FailureTarget`, `SuccessCriteriaMet` or, once that was shown, `Failed` or `Complete`.
    pub(super) verdict: Option<JobCondition>,
    /// What to do.
    pub actions: Actions,
}

/// Whether a job has ended.
pub(crate) fn is_finished(job: &Job) -> bool {
    let conditions = job.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    is_condition_true(conditions, "Complete") || is_condition_true(conditions, "Failed")
}

/// Whether a job waits.
pub(crate) fn is_suspended(spec: &JobSpec) -> bool {
    spec.suspend == Some(true)
}

/// A condition that is true.
pub(super) fn is_so(type_: &str, reason: &str, message: &str, now: Timestamp) -> JobCondition {
    JobCondition {
        type_: type_.to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_probe_time: Some(time(now)),
        last_transition_time: Some(time(now)),
    }
}

/// Decides on one run of a job that has not ended.
pub(crate) fn decide(observed: Observed<'_>) -> Decision<'_> {
    let mut decision = Decision::observe(observed);
    decision.verdict = decision.judge();
    decision.actions = decision.act();
    decision
}

impl<'a> Decision<'a> {
    fn observe(observed: Observed<'a>) -> Self {
        let spec = observed.job.spec.clone().unwrap_or_default();
        let mut status = observed.job.status.clone().unwrap_or_default();
        if status.start_time.is_none() && !is_suspended(&spec) {
            status.start_time = Some(time(observed.now));
        }
        let uncounted = status.uncounted_terminated_pods.get_or_insert_with(UncountedTerminatedPods::default);
        let set = |uids: &Option<Vec<String>>| uids.iter().flatten().cloned().collect();
        let (uncounted_succeeded, uncounted_failed) = (set(&uncounted.succeeded), set(&uncounted.failed));
        let mut decision = Self {
            observed,
            spec,
            active: observed.pods.iter().filter(|pod| is_active(pod)).cloned().collect(),
            uncounted_succeeded,
            uncounted_failed,
            succeeded: 0,
            counted_indexes: Indexes::default(),
            succeeded_indexes: Indexes::default(),
            failed_indexes: None,
            kept: BTreeMap::new(),
            failures: observed.failures,
            verdict: None,
            actions: Actions::default(),
            status,
        };
        let succeeded = decision.new_pods(&decision.uncounted_succeeded, |pod| phase(pod) == "Succeeded");
        let failed = decision.new_pods(&decision.uncounted_failed, |pod| has_failed(&decision.spec, pod));
        decision.failures = observed.failures.after(&succeeded, &failed);
        decision.succeeded =
            decision.status.succeeded.unwrap_or(0) + count(succeeded.len()) + count(decision.uncounted_succeeded.len());
        if is_indexed(&decision.spec) {
            decision.observe_indexes();
        }
        decision
    }

    pub(super) fn completions(&self) -> i32 {
        self.spec.completions.unwrap_or(0)
    }

    /// The index of a pod, if it is one of the job's.
    pub(super) fn index(&self, pod: &Pod) -> Option<i32> {
        index_of(pod).filter(|index| *index < self.completions())
    }

    /// The pods that pass a filter and are counted nowhere yet.
    fn new_pods(&self, uncounted: &BTreeSet<String>, passes: impl Fn(&Pod) -> bool) -> Vec<&'a Arc<Pod>> {
        let is_new = |pod: &&Arc<Pod>| {
            is_tracked(pod)
                && !uncounted.contains(meta::uid(&pod.metadata))
                && (!is_indexed(&self.spec) || self.index(pod).is_some())
        };
        self.observed.pods.iter().filter(is_new).filter(|pod| passes(pod)).collect()
    }

    fn observe_indexes(&mut self) {
        let completions = self.completions();
        self.counted_indexes =
            Indexes::parse(self.status.completed_indexes.as_deref().unwrap_or_default(), completions);
        let done = self.observed.pods.iter().filter(|pod| phase(pod) == "Succeeded" && is_tracked(pod));
        self.succeeded_indexes = self.counted_indexes.with(done.filter_map(|pod| self.index(pod)));
        self.succeeded = self.succeeded_indexes.count();
        let Some(limit) = self.spec.backoff_limit_per_index else { return };
        let before = Indexes::parse(self.status.failed_indexes.as_deref().unwrap_or_default(), completions);
        let fails = |pod: &&Arc<Pod>| {
            is_tracked(pod)
                && has_failed(&self.spec, pod)
                && match policies::failure(&self.spec, pod) {
                    Failure::FailsIndex => true,
                    failure => failure.counts() && failures_before(pod).0 >= limit,
                }
        };
        let failed = self.observed.pods.iter().filter(fails).filter_map(|pod| self.index(pod));
        self.failed_indexes = Some(before.with(failed));
        self.kept = self.kept_pods();
    }

    fn kept_pods(&self) -> BTreeMap<i32, Arc<Pod>> {
        let active: BTreeSet<i32> = self.active.iter().filter_map(|pod| self.index(pod)).collect();
        let order = |pod: &Pod| {
            let (counted, ignored) = failures_before(pod);
            (counted.saturating_add(ignored), super::pods::ended_at(pod))
        };
        let mut kept: BTreeMap<i32, Arc<Pod>> = BTreeMap::new();
        for pod in self.new_pods(&BTreeSet::new(), |pod| has_failed(&self.spec, pod)) {
            let Some(index) = self.index(pod) else { continue };
            if active.contains(&index) || self.is_over(index) {
                continue;
            }
            match kept.get(&index) {
                Some(known) if order(known) > order(pod) => {}
                _ => drop(kept.insert(index, pod.clone())),
            }
        }
        kept
    }

    /// Whether an index has succeeded, or failed for good.
    fn is_over(&self, index: i32) -> bool {
        let failed = self.failed_indexes.as_ref();
        self.succeeded_indexes.contains(index) || failed.is_some_and(|failed| failed.contains(index))
    }

    fn failed(&self) -> i32 {
        let failed = self.new_pods(&self.uncounted_failed, |pod| {
            has_failed(&self.spec, pod) && policies::failure(&self.spec, pod).counts()
        });
        self.status.failed.unwrap_or(0) + count(failed.len()) + count(self.uncounted_failed.len())
    }

    /// How the job ends, if it does.
    fn judge(&self) -> Option<JobCondition> {
        let now = self.observed.now;
        let conditions = self.status.conditions.as_deref().unwrap_or_default();
        for (interim, last) in [("SuccessCriteriaMet", "Complete"), ("FailureTarget", "Failed")] {
            if let Some(known) = condition(conditions, interim).filter(|known| known.status == "True") {
                return Some(ending(known, last, now));
            }
        }
        let failed = |reason: &str, message: &str| Some(is_so("FailureTarget", reason, message, now));
        if let Some(message) = self.failure_by_policy() {
            return failed("PodFailurePolicy", &message);
        }
        if self.is_past_backoff_limit() {
            return failed("BackoffLimitExceeded", "Job has reached the specified backoff limit");
        }
        if self.until_deadline() == Some(Duration::ZERO) {
            return failed("DeadlineExceeded", "Job was active longer than specified deadline");
        }
        let failed_indexes = self.failed_indexes.as_ref().map_or(0, Indexes::count);
        if self.spec.max_failed_indexes.is_some_and(|most| failed_indexes > most) {
            let message = "Job has exceeded the specified maximal number of failed indexes";
            return failed("MaxFailedIndexesExceeded", message);
        }
        if failed_indexes > 0 && failed_indexes + self.succeeded_indexes.count() >= self.completions() {
            return failed("FailedIndexes", "Job has failed indexes");
        }
        let met = policies::success(&self.spec, &self.succeeded_indexes)?;
        Some(is_so("SuccessCriteriaMet", "SuccessPolicy", &met, now))
    }

    fn failure_by_policy(&self) -> Option<String> {
        self.spec.pod_failure_policy.as_ref()?;
        let mut failed = self.observed.pods.iter().filter(|pod| has_failed(&self.spec, pod));
        failed.find_map(|pod| match policies::failure(&self.spec, pod) {
            Failure::FailsJob(message) => Some(message),
            _ => None,
        })
    }

    fn is_past_backoff_limit(&self) -> bool {
        let limit = self.spec.backoff_limit.unwrap_or(i32::MAX);
        let restarts_in_place =
            self.spec.template.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()) == Some("OnFailure");
        let running = self.observed.pods.iter().filter(|pod| matches!(phase(pod), "Running" | "Pending"));
        let all = || running.map(|pod| restarts(pod)).fold(0, i32::saturating_add);
        self.failed() > limit || restarts_in_place && all() >= limit.max(1)
    }

    /// How long the job may still be active; `None` when nothing limits that.
    fn until_deadline(&self) -> Option<Duration> {
        let allowed = Duration::from_secs(u64::try_from(self.spec.active_deadline_seconds?).unwrap_or(0));
        let started = self.status.start_time.as_ref().filter(|_| !is_suspended(&self.spec))?.0;
        let active = Duration::try_from(self.observed.now.duration_since(started)).unwrap_or(Duration::ZERO);
        Some(allowed.saturating_sub(active))
    }

    fn act(&self) -> Actions {
        if self.verdict.is_some() {
            return Actions { delete: self.active.clone(), ..Actions::default() };
        }
        if self.observed.job.metadata.deletion_timestamp.is_some() {
            return Actions::default();
        }
        let mut actions = self.manage();
        actions.look_again = actions.look_again.into_iter().chain(self.until_deadline()).min();
        actions
    }

    /// Brings the number of active pods to what is wanted. Pods are either deleted or made, never both in one run.
    fn manage(&self) -> Actions {
        let active = count(self.active.len());
        if is_suspended(&self.spec) {
            return Actions { delete: self.active.clone(), uncounted: true, ..Actions::default() };
        }
        let parallelism = self.spec.parallelism.unwrap_or(1);
        let wanted = match self.spec.completions {
            None if self.succeeded > 0 => active,
            None => parallelism,
            Some(completions) => (completions - self.succeeded).clamp(0, parallelism.max(0)),
        };
        let mut delete = self.surplus(usize::try_from(active - wanted).unwrap_or(0));
        delete.truncate(JOB_PODS_PER_RUN);
        if !delete.is_empty() {
            return Actions { delete, uncounted: true, ..Actions::default() };
        }
        let terminating = if replaces_failed_only(&self.spec) { self.terminating() } else { 0 };
        match usize::try_from(wanted - terminating - active) {
            Ok(missing @ 1..) => self.create(missing.min(JOB_PODS_PER_RUN)),
            _ => Actions::default(),
        }
    }

    /// How many pods are going, but have not ended.
    pub(super) fn terminating(&self) -> i32 {
        count(self.observed.pods.iter().filter(|pod| is_terminating(pod)).count())
    }

    fn create(&self, missing: usize) -> Actions {
        let now = self.observed.now;
        let by_index = self.spec.backoff_limit_per_index.is_some();
        let pause = if by_index { Duration::ZERO } else { pause_after(self.failures.count, self.failures.last, now) };
        if !pause.is_zero() {
            return Actions { look_again: Some(pause), ..Actions::default() };
        }
        if !is_indexed(&self.spec) {
            return Actions { create: vec![(None, None); missing], ..Actions::default() };
        }
        let mut actions = Actions::default();
        for index in self.pending_indexes(missing) {
            let failed = self.kept.get(&index);
            let pause = pause_of_index(failed, now);
            if pause.is_zero() {
                actions.create.push((Some(index), failed.cloned()));
            } else {
                actions.look_again = actions.look_again.into_iter().chain([pause]).min();
            }
        }
        actions
    }

    /// The first indexes that nobody works at.
    fn pending_indexes(&self, most: usize) -> Vec<i32> {
        let going = self.observed.pods.iter().filter(|pod| replaces_failed_only(&self.spec) && is_terminating(pod));
        let busy = self.active.iter().chain(going).filter_map(|pod| self.index(pod));
        let busy = self.succeeded_indexes.with(busy);
        let busy = self.failed_indexes.as_ref().map_or(busy.clone(), |failed| busy.and(failed));
        busy.missing(self.completions(), most)
    }

    /// At least so many active pods to delete: of an index that has several, all but the best; those of no index; then
    /// whichever cost least.
    fn surplus(&self, least: usize) -> Vec<Arc<Pod>> {
        let ranked = rank_alone(&self.active);
        if !is_indexed(&self.spec) {
            return ranked.into_iter().take(least).collect();
        }
        let mut best: BTreeMap<i32, &Arc<Pod>> = BTreeMap::new();
        for pod in &ranked {
            if let Some(index) = self.index(pod) {
                best.insert(index, pod);
            }
        }
        let is_best = |pod: &Arc<Pod>| {
            let of_index = self.index(pod).and_then(|index| best.get(&index));
            of_index.is_some_and(|best| best.metadata.uid == pod.metadata.uid)
        };
        let (left, mut surplus): (Vec<_>, Vec<_>) = ranked.iter().cloned().partition(is_best);
        let more = least.saturating_sub(surplus.len());
        surplus.extend(left.into_iter().take(more));
        surplus
    }
}

/// The last condition of a job, after one that announced it.
pub(super) fn ending(interim: &JobCondition, type_: &str, now: Timestamp) -> JobCondition {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    is_so(type_, &text(&interim.reason), &text(&interim.message), now)
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
