//! The default scheduler keeps the contract of a scheduler; schedulers that break one promise each are found out.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicU64, Ordering},
};

use orchestrator_core::scheduler::{NodeState, PodInfo, Rejection, Scheduler, Snapshot, Unschedulable, Verdict};
use orchestrator_scheduler::framework::Profile;
use orchestrator_testkit::{scheduler, scheduler_contract};

scheduler_contract!(default_profile, Profile::default);

/// The default scheduler with a fault planted.
struct Planted<F>(Profile, F);

impl<F: Fn(&PodInfo, &Snapshot, Verdict) -> Verdict + Send + Sync + 'static> Scheduler for Planted<F> {
    fn schedule(&self, pod: &PodInfo, cluster: &Snapshot, tie: u64) -> Verdict {
        (self.1)(pod, cluster, self.0.schedule(pod, cluster, tie))
    }
}

/// How often a promise is broken at all: every planted fault is seen by the case that is for it.
fn is_found_out(
    case: fn(&dyn Scheduler),
    fault: impl Fn(&PodInfo, &Snapshot, Verdict) -> Verdict + Send + Sync + 'static,
) {
    let planted = Planted(Profile::default(), fault);
    let outcome = catch_unwind(AssertUnwindSafe(|| case(&planted)));
    assert!(outcome.is_err(), "the fault was not found");
}

/// Takes the first node that is refused for this reason, in spite of it.
fn in_spite_of(reason: &'static str) -> impl Fn(&PodInfo, &Snapshot, Verdict) -> Verdict {
    move |_, cluster, verdict| {
        let Verdict::Unschedulable(why) = &verdict else { return verdict };
        let refused = |node: &NodeState| {
            let rejection = why.of_node(node.name()).cloned().unwrap_or_default();
            rejection.reasons.iter().all(|given| given.contains(reason)) && !rejection.reasons.is_empty()
        };
        let node = cluster.nodes().find(|node| refused(node)).map(|node| node.name().to_owned());
        node.map_or(verdict, Verdict::Node)
    }
}

#[test]
fn whoever_answers_by_chance_is_found_out() {
    let asked = AtomicU64::new(0);
    is_found_out(scheduler::the_same_question_has_the_same_answer, move |_, cluster, _| {
        let count = asked.fetch_add(1, Ordering::Relaxed) as usize;
        let node = cluster.nodes().nth(count % cluster.len().max(1)).map(|node| node.name().to_owned());
        node.map_or_else(|| Unschedulable::new(0).into(), Verdict::Node)
    });
}

#[test]
fn whoever_makes_up_nodes_is_found_out() {
    is_found_out(scheduler::verdicts_name_nodes_of_the_cluster, |_, _, _| Verdict::Node("elsewhere".to_owned()));
    is_found_out(scheduler::verdicts_name_nodes_of_the_cluster, |_, _, _| Unschedulable::new(100).into());
    is_found_out(scheduler::an_empty_cluster_is_said_to_be_empty, |_, _, _| Unschedulable::new(1).into());
}

#[test]
fn whoever_does_not_say_why_is_found_out() {
    is_found_out(scheduler::every_refused_node_has_a_reason, |_, cluster, _| Unschedulable::new(cluster.len()).into());
    is_found_out(scheduler::every_refused_node_has_a_reason, |_, cluster, _| {
        let blank = Some(Rejection::new("", " "));
        Unschedulable { others: blank, ..Unschedulable::new(cluster.len()) }.into()
    });
}

#[test]
fn whoever_overlooks_a_rule_is_found_out() {
    is_found_out(scheduler::nodes_are_not_overcommitted, in_spite_of("Insufficient cpu"));
    is_found_out(scheduler::nodes_are_not_overcommitted, in_spite_of("Insufficient memory"));
    is_found_out(scheduler::nodes_are_not_overcommitted, in_spite_of("Too many pods"));
    is_found_out(scheduler::host_ports_are_taken_once, in_spite_of("free ports"));
    is_found_out(scheduler::closed_nodes_get_no_pods, in_spite_of("unschedulable"));
    is_found_out(scheduler::closed_nodes_get_no_pods, in_spite_of("untolerated taint"));
    is_found_out(scheduler::node_selectors_hold, in_spite_of("affinity/selector"));
}

#[test]
fn whoever_refuses_too_much_or_too_little_is_found_out() {
    is_found_out(scheduler::a_pod_that_fits_is_placed, |_, cluster, verdict| match verdict {
        Verdict::Node(_) if cluster.len() > 2 => {
            let reason = Some(Rejection::new("", "no"));
            Unschedulable { others: reason, ..Unschedulable::new(cluster.len()) }.into()
        }
        other => other,
    });
    is_found_out(scheduler::gated_pods_wait, |_, cluster, verdict| match verdict {
        Verdict::Gated => Unschedulable::new(cluster.len()).into(),
        other => other,
    });
}
