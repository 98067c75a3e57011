//! What a cron job wants done: which time to serve, which jobs to forget, and what its status says.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use jiff::{Timestamp, tz::TimeZone};
use k8s_openapi::api::{
    batch::v1::{CronJob, CronJobSpec, CronJobStatus, Job},
    core::v1::ObjectReference,
};
use kube_core::ResourceExt;
use orchestrator_core::{
    cron::{Schedule, ScheduleError},
    events::Event,
    meta::{self, is_condition_true, object_reference, owner_reference},
    object::time,
};

use super::times::Times;

/// The annotation of a job that has the time it serves.
const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

/// What is known when a cron job is decided on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Observed<'a> {
    /// The cron job.
    pub cron: &'a CronJob,
    /// Its jobs.
    pub jobs: &'a [Arc<Job>],
    /// UIDs of jobs that it takes for active and that are gone for sure.
    pub missing: &'a BTreeSet<String>,
    /// The time.
    pub now: Timestamp,
}

/// What to do.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Decision {
    /// Ended jobs beyond what is kept. They go first, and it is not told that they have ended.
    pub forget: Vec<Arc<Job>>,
    /// The status, before anything is started.
    pub status: CronJobStatus,
    /// What happened.
    pub events: Vec<Event>,
    /// Active jobs that make way for the new one.
    pub replace: Vec<ObjectReference>,
    /// The time to serve, and the job for it.
    pub start: Option<(Timestamp, Box<Job>)>,
    /// When the next time comes.
    pub look_again: Option<Duration>,
}

/// Decides on one run.
pub(crate) fn decide(observed: Observed<'_>) -> Decision {
    let spec = &observed.cron.spec;
    let mut decision = Decision {
        status: observed.cron.status.clone().unwrap_or_default(),
        forget: surplus(spec, observed.jobs),
        ..Decision::default()
    };
    decision.look_at_jobs(&observed);
    if observed.cron.metadata.deletion_timestamp.is_none() {
        decision.look_at_time(&observed, spec);
    }
    decision
}

fn ended(job: &Job) -> Option<&'static str> {
    let conditions = job.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    ["Complete", "Failed"].into_iter().find(|type_| is_condition_true(conditions, type_))
}

impl Decision {
    fn look_at_jobs(&mut self, observed: &Observed<'_>) {
        let mut active = self.status.active.take().unwrap_or_default();
        let is_forgotten = |uid: &Option<String>| self.forget.iter().any(|job| job.metadata.uid == *uid);
        active.retain(|known| !is_forgotten(&known.uid));
        for job in observed.jobs {
            let (uid, name) = (job.metadata.uid.as_ref(), meta::name(&job.metadata));
            let is_active = active.iter().any(|known| known.uid.as_ref() == uid);
            match ended(job) {
                None if !is_active => {
                    let message = format!("Saw a job that the controller did not create or forgot: {name}");
                    self.events.push(Event::warning("UnexpectedJob", message));
                }
                Some(condition) if is_active => {
                    active.retain(|known| known.uid.as_ref() != uid);
                    let message = format!("Saw completed job: {name}, condition: {condition}");
                    self.events.push(Event::normal("SawCompletedJob", message));
                }
                _ => {}
            }
            if ended(job) == Some("Complete") {
                let completed = job.status.as_ref().and_then(|status| status.completion_time.as_ref());
                let newest = self.status.last_successful_time.as_ref().max(completed).cloned();
                self.status.last_successful_time = newest;
            }
        }
        active.retain(|known| {
            let missing = known.uid.as_ref().is_some_and(|uid| observed.missing.contains(uid));
            if missing {
                let name = known.name.as_deref().unwrap_or_default();
                self.events.push(Event::normal("MissingJob", format!("Active job went missing: {name}")));
            }
            !missing
        });
        self.status.active = Some(active).filter(|active| !active.is_empty());
    }

    fn look_at_time(&mut self, observed: &Observed<'_>, spec: &CronJobSpec) {
        let (cron, now) = (observed.cron, observed.now);
        let name = spec.time_zone.as_deref().unwrap_or("UTC");
        let zone = match TimeZone::get(name) {
            Ok(zone) => zone,
            Err(_) => {
                let message = format!("invalid timeZone: {name:?}: unknown time zone {name}");
                return self.events.push(Event::warning("UnknownTimeZone", message));
            }
        };
        if spec.suspend == Some(true) {
            return;
        }
        let schedule = match self.schedule(spec) {
            Ok(schedule) => schedule,
            Err(error) => {
                let message = format!("unparseable schedule: {:?} : {error}", spec.schedule);
                return self.events.push(Event::warning("UnparseableSchedule", message));
            }
        };
        let times = Times { cron, schedule: &schedule, zone: &zone, now };
        let due = match times.due() {
            Ok(due) => due,
            Err(error) => {
                let message = format!("invalid schedule: {} : {error}", spec.schedule);
                return self.events.push(Event::warning("InvalidSchedule", message));
            }
        };
        if due.missed_many {
            let message =
                "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
            self.events.push(Event::warning("TooManyMissedTimes", message));
        }
        self.look_again = times.until_next();
        if let Some(due) = due.time.filter(|due| self.may_serve(*due, observed, spec)) {
            if spec.concurrency_policy.as_deref() == Some("Replace") {
                self.replace = self.status.active.clone().unwrap_or_default();
            }
            self.start = Some((due, Box::new(job(cron, spec, due, &zone))));
            // What is served counts as such from now on.
            let mut served = cron.clone();
            served.status.get_or_insert_default().last_schedule_time = Some(time(due));
            self.look_again = Times { cron: &served, ..times }.until_next();
        }
    }

    fn schedule(&mut self, spec: &CronJobSpec) -> Result<Schedule, ScheduleError> {
        if spec.schedule.contains("TZ") {
            let message = format!(
                "CRON_TZ or TZ used in schedule {:?} is not officially supported, see \
                 https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details",
                spec.schedule
            );
            self.events.push(Event::warning("UnsupportedSchedule", message));
        }
        spec.schedule.parse()
    }

    /// Whether a time that has come is to be served now.
    fn may_serve(&mut self, due: Timestamp, observed: &Observed<'_>, spec: &CronJobSpec) -> bool {
        let late = observed.now.duration_since(due);
        if spec.starting_deadline_seconds.is_some_and(|deadline| late > jiff::SignedDuration::from_secs(deadline)) {
            let due = due.strftime("%a, %d %b %Y %H:%M:%S +0000");
            let message = format!("Missed scheduled time to start a job: {due}");
            self.events.push(Event::warning("MissSchedule", message));
            return false;
        }
        let name = job_name(observed.cron, due);
        let mut active = self.status.active.iter().flatten();
        let is_served = active.any(|job| job.name.as_deref() == Some(&name))
            || self.status.last_schedule_time.as_ref().is_some_and(|last| last.0 == due);
        if is_served {
            return false;
        }
        if spec.concurrency_policy.as_deref() == Some("Forbid") && self.status.active.is_some() {
            let message = "Not starting job because prior execution is running and concurrency policy is Forbid";
            self.events.push(Event::normal("JobAlreadyActive", message));
            return false;
        }
        true
    }

    /// The status after a job was started.
    pub(crate) fn started(&mut self, due: Timestamp, job: &Job) {
        self.status.active.get_or_insert_default().push(object_reference(job));
        self.status.last_schedule_time = Some(time(due));
    }

    /// The status after an active job was deleted.
    pub(crate) fn deleted(&mut self, uid: &str) {
        if let Some(active) = &mut self.status.active {
            active.retain(|known| known.uid.as_deref() != Some(uid));
        }
        self.status.active.take_if(|active| active.is_empty());
    }
}

fn job_name(cron: &CronJob, due: Timestamp) -> String {
    format!("{}-{}", meta::name(&cron.metadata), due.as_second().div_euclid(60))
}

/// The job for a time. Its name comes from the time, so that no time is served twice.
fn job(cron: &CronJob, spec: &CronJobSpec, due: Timestamp, zone: &TimeZone) -> Job {
    let template = spec.job_template.clone();
    let metadata = template.metadata.unwrap_or_default();
    let mut job = Job { spec: template.spec, ..Job::default() };
    job.metadata.namespace = cron.namespace();
    job.metadata.name = Some(job_name(cron, due));
    job.metadata.labels = metadata.labels;
    job.metadata.annotations = metadata.annotations;
    let local = due.to_zoned(zone.clone());
    let form = if local.offset().is_zero() { "%Y-%m-%dT%H:%M:%SZ" } else { "%Y-%m-%dT%H:%M:%S%:z" };
    let annotations = job.metadata.annotations.get_or_insert_default();
    annotations.insert(SCHEDULED.to_owned(), local.strftime(form).to_string());
    job.metadata.owner_references = Some(vec![owner_reference(cron, true)]);
    job
}

/// The ended jobs that are not kept, the oldest first.
fn surplus(spec: &CronJobSpec, jobs: &[Arc<Job>]) -> Vec<Arc<Job>> {
    let mut surplus = Vec::new();
    let limits = [("Complete", spec.successful_jobs_history_limit), ("Failed", spec.failed_jobs_history_limit)];
    for (condition, limit) in limits {
        let Some(limit) = limit else { continue };
        let mut of: Vec<_> = jobs.iter().filter(|job| ended(job) == Some(condition)).collect();
        of.sort_by_key(|job| {
            let started = job.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|time| time.0);
            (started.is_none(), started, job.metadata.name.clone())
        });
        let more = of.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        surplus.extend(of.into_iter().take(more).filter(|job| job.metadata.deletion_timestamp.is_none()).cloned());
    }
    surplus
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
