//! The promises, each over many clusters.

use std::sync::Arc;

use k8s_openapi::api::core::v1::PodSchedulingGate;
use orchestrator_core::scheduler::{NodeState, PodInfo, Scheduler, Snapshot, Verdict, matching};
use proptest::{
    prelude::*,
    test_runner::{TestCaseError, TestRunner},
};

use super::clusters::{ClusterCase, NodeCase, PodCase, clusters};

/// Clusters that each promise is held against.
const CLUSTERS: u32 = 256;

type Checked = Result<(), TestCaseError>;

fn check(case: impl Fn(&ClusterCase) -> Checked) {
    let config = ProptestConfig { cases: CLUSTERS, failure_persistence: None, ..ProptestConfig::default() };
    TestRunner::new(config).run(&clusters(), |cluster| case(&cluster)).unwrap_or_else(|error| panic!("{error}"));
}

/// Decides about the waiting pods one after the other. Whoever gets a node is on it when the next one is decided about.
fn decide(
    scheduler: &dyn Scheduler,
    case: &ClusterCase,
    check: impl Fn(&PodInfo, &Snapshot, &Verdict) -> Checked,
) -> Checked {
    let mut cluster = case.snapshot();
    for (number, pod) in case.waiting.iter().enumerate() {
        let name = format!("p{number}");
        let waiting = pod.waiting(&name);
        let verdict = scheduler.schedule(&waiting, &cluster, number as u64);
        check(&waiting, &cluster, &verdict)?;
        if let Verdict::Node(node) = verdict {
            cluster.put_pod(Arc::new(PodInfo::from(pod.pod(&name, Some(&node)))), &node);
        }
    }
    Ok(())
}

/// Checks what a verdict says of the node that it chooses.
fn check_nodes(scheduler: &dyn Scheduler, right: impl Fn(&PodInfo, &NodeState) -> Checked) {
    check(|case| {
        decide(scheduler, case, |pod, cluster, verdict| match verdict {
            Verdict::Node(name) => match cluster.node(name) {
                Some(node) => right(pod, node),
                None => Err(TestCaseError::fail(format!("{pod:?} on the node {name}, which is not there"))),
            },
            _ => Ok(()),
        })
    });
}

/// The verdict follows from pod, cluster and tie alone.
pub fn the_same_question_has_the_same_answer(scheduler: &dyn Scheduler) {
    check(|case| {
        decide(scheduler, case, |pod, cluster, verdict| {
            let tie: u64 = pod.key().name[1..].parse().unwrap_or_default();
            let told = format!("{verdict:?}");
            for _ in 0..3 {
                prop_assert_eq!(&format!("{:?}", scheduler.schedule(pod, &cluster.clone(), tie)), &told);
            }
            Ok(())
        })
    });
}

/// Nodes and victims of a verdict are those of the cluster.
pub fn verdicts_name_nodes_of_the_cluster(scheduler: &dyn Scheduler) {
    check(|case| {
        decide(scheduler, case, |pod, cluster, verdict| match verdict {
            Verdict::Node(name) => {
                prop_assert!(cluster.node(name).is_some(), "{pod:?} on the node {name}, which is not there");
                Ok(())
            }
            Verdict::Unschedulable(why) => {
                prop_assert_eq!(why.nodes, cluster.len(), "so many nodes are there");
                for (name, _) in why.per_node.iter() {
                    prop_assert!(cluster.node(name).is_some(), "a reason for the node {name}, which is not there");
                }
                if let Some(preemption) = &why.preemption {
                    prop_assert!(cluster.node(&preemption.node).is_some(), "room on a node that is not there");
                    for victim in &preemption.victims {
                        prop_assert_eq!(cluster.place(victim.key()), Some(preemption.node.as_str()));
                        prop_assert!(victim.priority() < pod.priority(), "{victim:?} is as important as {pod:?}");
                    }
                }
                Ok(())
            }
            _ => Err(TestCaseError::fail(format!("{pod:?} has no gates: {verdict:?}"))),
        })
    });
}

/// Without nodes there is no node, and the user is told so.
pub fn an_empty_cluster_is_said_to_be_empty(scheduler: &dyn Scheduler) {
    let pod = PodCase::default().waiting("p0");
    match scheduler.schedule(&pod, &Snapshot::default(), 0) {
        Verdict::Unschedulable(why) => assert_eq!(why.message(), "no nodes available to schedule pods"),
        other => panic!("{other:?} in a cluster without nodes"),
    }
}

/// Whoever refuses a node says why.
pub fn every_refused_node_has_a_reason(scheduler: &dyn Scheduler) {
    check(|case| {
        decide(scheduler, case, |pod, cluster, verdict| {
            let Verdict::Unschedulable(why) = verdict else { return Ok(()) };
            for node in cluster.nodes() {
                let reasons =
                    why.of_node(node.name()).map(|rejection| rejection.reasons.as_slice()).unwrap_or_default();
                let told = !reasons.is_empty() && reasons.iter().all(|reason| !reason.trim().is_empty());
                prop_assert!(told, "{pod:?} is refused by {} without a reason", node.name());
            }
            Ok(())
        })
    });
}

/// What a pod asks for is there, on top of what the others on the node ask for; and a place for one more pod.
pub fn nodes_are_not_overcommitted(scheduler: &dyn Scheduler) {
    check_nodes(scheduler, |pod, node| {
        let (wanted, used, room) = (pod.requests(), node.requested(), node.allocatable());
        for resource in ["cpu", "memory"] {
            let (wanted, used, room) = (wanted.get(resource), used.get(resource), room.get(resource));
            let fits = wanted == 0 || used + wanted <= room;
            prop_assert!(fits, "{pod:?} wants {wanted} of {resource} on {}: {used} of {room} are used", node.name());
        }
        let count = node.pods().len() as i64;
        prop_assert!(count < room.pods, "{pod:?} on {}, which has {count} of {} pods", node.name(), room.pods);
        Ok(())
    });
}

/// No two pods of a node take the same port of it.
pub fn host_ports_are_taken_once(scheduler: &dyn Scheduler) {
    check_nodes(scheduler, |pod, node| {
        let taken = node.used_ports().find(|used| pod.host_ports().iter().any(|port| port.conflicts(used)));
        prop_assert!(taken.is_none(), "{pod:?} on {}, where {taken:?} is taken", node.name());
        Ok(())
    });
}

/// Nodes that are closed, by their own word or by a taint, get only pods that tolerate it.
pub fn closed_nodes_get_no_pods(scheduler: &dyn Scheduler) {
    check_nodes(scheduler, |pod, node| {
        let spec = node.node().spec.clone().unwrap_or_default();
        prop_assert!(spec.unschedulable != Some(true), "{pod:?} on {}, which is closed", node.name());
        let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.clone()).unwrap_or_default();
        for taint in spec.taints.iter().flatten().filter(|taint| taint.effect != "PreferNoSchedule") {
            let tolerated = tolerations.iter().any(|toleration| toleration.key.as_ref() == Some(&taint.key));
            prop_assert!(tolerated, "{pod:?} on {} in spite of {}:{}", node.name(), taint.key, taint.effect);
        }
        Ok(())
    });
}

/// Node selector and required node affinity hold.
pub fn node_selectors_hold(scheduler: &dyn Scheduler) {
    check_nodes(scheduler, |pod, node| {
        let matches = pod.spec.as_ref().is_some_and(|spec| matching::node_affinity_matches(spec, node.node()));
        prop_assert!(matches, "{pod:?} on {}, which it does not want", node.name());
        Ok(())
    });
}

/// Where an empty node is open to all and has room, a pod without wishes gets a node.
pub fn a_pod_that_fits_is_placed(scheduler: &dyn Scheduler) {
    check(|case| {
        let mut case = case.clone();
        case.nodes.push(NodeCase::roomy());
        let cluster = case.snapshot();
        for pod in &case.waiting {
            let plain =
                PodCase { milli_cpu: pod.milli_cpu, memory_mebibytes: pod.memory_mebibytes, ..PodCase::default() };
            let verdict = scheduler.schedule(&plain.waiting("p0"), &cluster, 0);
            prop_assert!(matches!(verdict, Verdict::Node(_)), "{plain:?} gets no node: {verdict:?}");
        }
        Ok(())
    });
}

/// Whatever else is true, a pod with gates waits.
pub fn gated_pods_wait(scheduler: &dyn Scheduler) {
    check(|case| {
        let mut case = case.clone();
        case.nodes.push(NodeCase::roomy());
        for cluster in [case.snapshot(), Snapshot::default()] {
            for pod in &case.waiting {
                let mut pod = pod.pod("p0", None);
                let gate = PodSchedulingGate { name: "example.org/wait".to_owned() };
                pod.spec.get_or_insert_default().scheduling_gates = Some(vec![gate]);
                let verdict = scheduler.schedule(&PodInfo::from(pod), &cluster, 0);
                prop_assert!(matches!(verdict, Verdict::Gated), "a gated pod: {verdict:?}");
            }
        }
        Ok(())
    });
}
