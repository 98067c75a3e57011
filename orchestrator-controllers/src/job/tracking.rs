//! Counts a job's pods, each exactly once, and ends the job.
//!
//! A pod keeps a finalizer until it stands in the job's status: first by its UID among those not counted yet, and, once
//! the finalizer is gone, in a number. A job gets its last condition when nothing is left to be counted.
//!
//! Upstream: <https://kubernetes.io/docs/concepts/workloads/controllers/job/#job-tracking-with-finalizers>.

use std::{collections::BTreeSet, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::api::{
    batch::v1::{JobCondition, JobStatus},
    core::v1::Pod,
};
use orchestrator_core::{
    events::Event,
    meta::{self, condition},
    object::time,
};

use super::{
    decide::{Decision, ending, is_so, is_suspended},
    pods::{has_failed, is_indexed, is_tracked},
    policies,
};
use crate::{
    limits::UNCOUNTED_PODS,
    pods::{count, is_ready, nonzero, phase},
};

/// What the actions of a run came to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Done {
    /// Pods that are going now.
    pub deleted: Vec<Arc<Pod>>,
    /// UIDs of those that lost their finalizer before, so that they are not counted.
    pub released: BTreeSet<String>,
    /// Pods that there are now.
    pub created: usize,
}

/// What is to be written before pods lose their finalizers.
#[derive(Clone, Debug)]
pub(crate) struct Tracked {
    /// The status.
    pub status: JobStatus,
    /// What happened.
    pub events: Vec<Event>,
    /// The pods that are counted and lose their finalizer.
    pub release: Vec<Arc<Pod>>,
    /// UIDs of all pods that have the finalizer.
    tracked: BTreeSet<String>,
    /// The last condition, if the job ends.
    ending: Option<JobCondition>,
}

impl Decision<'_> {
    /// Counts what has ended, after the actions.
    pub(crate) fn track(mut self, done: &Done) -> Tracked {
        let now = self.observed.now;
        let mut events = Vec::new();
        if self.verdict.is_some() && done.deleted.len() != self.active.len() {
            self.verdict = None;
        } else if self.verdict.is_none() {
            self.verdict = self.completion(done);
            if self.verdict.is_none() && self.observed.job.metadata.deletion_timestamp.is_none() {
                self.note_suspension(&mut events);
            }
        }
        self.count_living(done);
        let is_to_count = |pod: &&Arc<Pod>| is_tracked(pod) && !done.released.contains(meta::uid(&pod.metadata));
        let pods: Vec<&Arc<Pod>> = self.observed.pods.iter().filter(is_to_count).collect();
        let tracked: BTreeSet<String> = pods.iter().map(|pod| meta::uid(&pod.metadata).to_owned()).collect();
        count_released(&mut self.status, &tracked);
        let (release, complete) = self.count_ended(pods);
        let ending = self.announce(now).filter(|_| complete);
        Tracked { status: self.status, events, release, tracked, ending }
    }

    /// Whether the pods that succeeded are enough, and no others run.
    fn completion(&self, done: &Done) -> Option<JobCondition> {
        let enough = match self.spec.completions {
            None => self.succeeded > 0,
            Some(completions) => self.succeeded >= completions,
        };
        if !enough || self.active_after(done) > 0 {
            return None;
        }
        let message = "Reached expected number of succeeded pods";
        Some(is_so("SuccessCriteriaMet", "CompletionsReached", message, self.observed.now))
    }

    fn active_after(&self, done: &Done) -> i32 {
        count((self.active.len() + done.created).saturating_sub(done.deleted.len()))
    }

    fn note_suspension(&mut self, events: &mut Vec<Event>) {
        let suspended = is_suspended(&self.spec);
        let (status, reason, message, event) = match suspended {
            true => ("True", "JobSuspended", "Job suspended", "Suspended"),
            false => ("False", "JobResumed", "Job resumed", "Resumed"),
        };
        let conditions = self.status.conditions.get_or_insert_default();
        let known = condition(conditions, "Suspended").map(|known| known.status.clone());
        if known.as_deref() != Some(status) && (suspended || known.is_some()) {
            let now = self.observed.now;
            let condition = JobCondition { status: status.to_owned(), ..is_so("Suspended", reason, message, now) };
            meta::set_condition(conditions, condition);
            events.push(Event::normal(event, message));
            if !suspended {
                // Its deadline counts from here.
                self.status.start_time = Some(time(now));
            }
        }
        if suspended {
            self.status.start_time = None;
        }
        self.status.conditions.take_if(|conditions| conditions.is_empty());
    }

    fn count_living(&mut self, done: &Done) {
        let ready = |pods: &[Arc<Pod>]| count(pods.iter().filter(|pod| is_ready(pod)).count());
        self.status.active = nonzero(self.active_after(done));
        self.status.ready = Some(ready(&self.active) - ready(&done.deleted));
        self.status.terminating = Some(self.terminating() + count(done.deleted.len()));
    }

    /// Puts pods that have ended among those to be counted. Gives the pods that may lose their finalizer, and whether
    /// these are all that have ended.
    fn count_ended(&mut self, mut pods: Vec<&Arc<Pod>>) -> (Vec<Arc<Pod>>, bool) {
        let indexed = is_indexed(&self.spec);
        if indexed {
            pods.sort_by_key(|pod| self.index(pod));
        }
        let (mut release, mut indexes, mut complete) = (Vec::new(), BTreeSet::new(), true);
        let uncounted = self.status.uncounted_terminated_pods.get_or_insert_default();
        let (mut succeeded, mut failed) =
            (uncounted.succeeded.take().unwrap_or_default(), uncounted.failed.take().unwrap_or_default());
        for pod in pods {
            if !self.may_go(pod) {
                continue;
            }
            release.push(pod.clone());
            let uid = meta::uid(&pod.metadata);
            if phase(pod) == "Succeeded" && !self.uncounted_failed.contains(uid) {
                match self.index(pod) {
                    Some(index) if indexed => drop(indexes.insert(index)),
                    None if indexed => {}
                    _ if self.uncounted_succeeded.contains(uid) => {}
                    _ => succeeded.push(uid.to_owned()),
                }
            } else if self.counts_as_failed(pod) && !self.uncounted_failed.contains(uid) {
                failed.push(uid.to_owned());
            }
            if indexes.len() + succeeded.len() + failed.len() >= UNCOUNTED_PODS {
                complete = false;
                break;
            }
        }
        if indexed {
            let counted = self.counted_indexes.with(indexes);
            self.status.succeeded = nonzero(counted.count());
            self.status.completed_indexes = Some(counted.to_string()).filter(|text| !text.is_empty());
            self.status.failed_indexes = self.failed_indexes.as_ref().map(ToString::to_string);
        }
        let uncounted = self.status.uncounted_terminated_pods.get_or_insert_default();
        uncounted.succeeded = Some(succeeded).filter(|uids| !uids.is_empty());
        uncounted.failed = Some(failed).filter(|uids| !uids.is_empty());
        (release, complete)
    }

    /// Whether a pod need not be kept any longer.
    fn may_go(&self, pod: &Pod) -> bool {
        if self.observed.job.metadata.deletion_timestamp.is_some()
            || self.verdict.is_some()
            || phase(pod) == "Succeeded"
        {
            return true;
        }
        let kept = self.index(pod).and_then(|index| self.kept.get(&index));
        has_failed(&self.spec, pod) && kept.is_none_or(|kept| kept.metadata.uid != pod.metadata.uid)
    }

    /// Whether a pod counts as failed; in a job that fails every pod does that has not succeeded.
    fn counts_as_failed(&self, pod: &Pod) -> bool {
        let job_fails =
            self.verdict.as_ref().is_some_and(|verdict| matches!(&*verdict.type_, "FailureTarget" | "Failed"));
        (job_fails || has_failed(&self.spec, pod))
            && (!is_indexed(&self.spec) || self.index(pod).is_some())
            && policies::failure(&self.spec, pod).counts()
    }

    /// Shows how the job is going to end. Gives the condition with which it does.
    fn announce(&mut self, now: Timestamp) -> Option<JobCondition> {
        let verdict = self.verdict.take()?;
        let last = match &*verdict.type_ {
            "FailureTarget" => "Failed",
            "SuccessCriteriaMet" => "Complete",
            _ => return Some(verdict),
        };
        let ending = ending(&verdict, last, now);
        self.status.conditions.get_or_insert_default().push(verdict);
        Some(ending)
    }
}

impl Tracked {
    /// The status after these pods have lost their finalizers, and what happened if the job has ended by that.
    pub(crate) fn finish(mut self, released: &BTreeSet<String>, completions: Option<i32>) -> (JobStatus, Vec<Event>) {
        self.tracked.retain(|uid| !released.contains(uid));
        count_released(&mut self.status, &self.tracked);
        let mut events = Vec::new();
        if let Some(ending) = self.ending.filter(|_| is_counted(&self.status)) {
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            if ending.type_ == "Complete" {
                self.status.completion_time = ending.last_transition_time.clone();
                if completions.is_some_and(|wanted| self.status.succeeded.unwrap_or(0) > wanted) {
                    let message = "Too many succeeded pods running after completion count reached";
                    events.push(Event::warning("TooManySucceededPods", message));
                }
                events.push(Event::normal("Completed", "Job completed"));
            } else {
                events.push(Event::warning(text(&ending.reason), text(&ending.message)));
            }
            meta::set_condition(self.status.conditions.get_or_insert_default(), ending);
        }
        (self.status, events)
    }
}

/// Whether all pods have ended and are in the numbers.
fn is_counted(status: &JobStatus) -> bool {
    let uncounted = status.uncounted_terminated_pods.as_ref();
    let waiting = uncounted.is_some_and(|uncounted| uncounted.succeeded.is_some() || uncounted.failed.is_some());
    !waiting && status.terminating.unwrap_or(0) == 0
}

/// Moves pods that have lost their finalizer from those to be counted into the numbers.
fn count_released(status: &mut JobStatus, tracked: &BTreeSet<String>) {
    let Some(uncounted) = &mut status.uncounted_terminated_pods else { return };
    for (uids, number) in
        [(&mut uncounted.succeeded, &mut status.succeeded), (&mut uncounted.failed, &mut status.failed)]
    {
        let before = uids.as_ref().map_or(0, Vec::len);
        if let Some(uids) = uids {
            uids.retain(|uid| tracked.contains(uid));
        }
        let released = before - uids.as_ref().map_or(0, Vec::len);
        uids.take_if(|uids| uids.is_empty());
        *number = nonzero(number.unwrap_or(0).saturating_add(count(released)));
    }
}
