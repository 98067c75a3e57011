//! Calls of a scheduler that may be somebody else's: a panic is an answer like any other, and the loop goes on.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
};

use orchestrator_core::{
    env::panic_message,
    scheduler::{ClusterChange, PodInfo, Rejection, Scheduler, Snapshot, Unschedulable, Verdict},
};

use crate::{
    extender::{Answers, Question},
    framework::Profile,
};

/// The scheduler's verdict. One that panics refuses the pod, which is tried again as every refused pod is.
pub(crate) fn schedule(scheduler: &dyn Scheduler, pod: &PodInfo, cluster: &Snapshot, tie: u64) -> Verdict {
    let schedule = || scheduler.schedule(pod, cluster, tie);
    catch_unwind(AssertUnwindSafe(schedule)).unwrap_or_else(|panic| panicked(&*panic, pod, cluster))
}

/// The verdict of a profile, or what it has to ask first. As [`schedule`], one that panics refuses the pod.
pub(crate) fn decide(
    profile: &Profile,
    pod: &PodInfo,
    cluster: &Snapshot,
    tie: u64,
    answers: &Answers,
) -> Result<Verdict, Question> {
    let decide = || profile.decide(pod, cluster, tie, answers);
    catch_unwind(AssertUnwindSafe(decide)).unwrap_or_else(|panic| Ok(panicked(&*panic, pod, cluster)))
}

fn panicked(panic: &(dyn Any + Send), pod: &PodInfo, cluster: &Snapshot) -> Verdict {
    let message = panic_message(panic);
    tracing::error!(pod = %pod.key(), message, "the scheduler panicked");
    let mut why = Unschedulable::new(cluster.len());
    why.whole = Some(Rejection::new("", format!("the scheduler panicked: {message}")));
    why.into()
}

/// Whether two pods that were refused wait for the same; a panic means that they do not.
pub(crate) fn wait_alike(
    scheduler: &dyn Scheduler,
    (a, b): (&PodInfo, &PodInfo),
    why: &Unschedulable,
    cluster: &Snapshot,
) -> bool {
    catch_unwind(AssertUnwindSafe(|| scheduler.wait_alike(a, b, why, cluster))).unwrap_or_else(|panic| {
        tracing::error!(pod = %a.key(), message = panic_message(&*panic), "the scheduler panicked");
        false
    })
}

/// Whether the scheduler thinks that a change may help a pod; a panic means that it may.
pub(crate) fn may_help(
    scheduler: &dyn Scheduler,
    change: &ClusterChange<'_>,
    pod: &PodInfo,
    why: &Unschedulable,
) -> bool {
    catch_unwind(AssertUnwindSafe(|| scheduler.may_help(change, pod, why))).unwrap_or_else(|panic| {
        tracing::error!(pod = %pod.key(), message = panic_message(&*panic), "the scheduler panicked");
        true
    })
}
