//! The kinds that keep a number of equal pods: replica sets, and the replication controllers that came before them.

use std::sync::Arc;

use k8s_openapi::{
    api::{
        apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetSpec, ReplicaSetStatus},
        core::v1::{
            ReplicationController, ReplicationControllerCondition, ReplicationControllerSpec,
            ReplicationControllerStatus,
        },
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
};
use orchestrator_core::{controller::Kind, selector};

use crate::pods::selects;

/// A kind that is looked after as replica sets are.
pub(super) trait Replicated: Kind {
    /// The object as the replica set that it amounts to.
    fn as_set(self: &Arc<Self>) -> Arc<ReplicaSet>;

    /// Whether it selects a pod.
    fn selects(&self, pod: &ObjectMeta) -> bool;

    /// The object with a status; `None` when it has that status already.
    fn with_status(&self, status: ReplicaSetStatus) -> Option<Self>;
}

impl Replicated for ReplicaSet {
    fn as_set(self: &Arc<Self>) -> Arc<Self> {
        self.clone()
    }

    fn selects(&self, pod: &ObjectMeta) -> bool {
        selects(self.spec.as_ref().map(|spec| &spec.selector), pod)
    }

    fn with_status(&self, status: ReplicaSetStatus) -> Option<Self> {
        let status = Some(status);
        (self.status != status).then(|| Self { status, ..self.clone() })
    }
}

impl Replicated for ReplicationController {
    fn as_set(self: &Arc<Self>) -> Arc<ReplicaSet> {
        Arc::new(ReplicaSet {
            metadata: self.metadata.clone(),
            spec: self.spec.as_ref().map(set_spec),
            status: self.status.as_ref().map(set_status),
        })
    }

    fn selects(&self, pod: &ObjectMeta) -> bool {
        let wanted = self.spec.as_ref().and_then(|spec| spec.selector.as_ref()).filter(|wanted| !wanted.is_empty());
        let empty = Default::default();
        let labels = pod.labels.as_ref().unwrap_or(&empty);
        wanted.is_some_and(|wanted| selector::LabelSelector::from_labels(wanted).matches(labels))
    }

    fn with_status(&self, status: ReplicaSetStatus) -> Option<Self> {
        let status = Some(controller_status(status));
        (self.status != status).then(|| Self { status, ..self.clone() })
    }
}

fn set_spec(spec: &ReplicationControllerSpec) -> ReplicaSetSpec {
    ReplicaSetSpec {
        replicas: spec.replicas,
        min_ready_seconds: spec.min_ready_seconds,
        selector: LabelSelector { match_labels: spec.selector.clone(), match_expressions: None },
        template: spec.template.clone(),
    }
}

fn set_status(status: &ReplicationControllerStatus) -> ReplicaSetStatus {
    let condition = |condition: &ReplicationControllerCondition| ReplicaSetCondition {
        type_: condition.type_.clone(),
        status: condition.status.clone(),
        reason: condition.reason.clone(),
        message: condition.message.clone(),
        last_transition_time: condition.last_transition_time.clone(),
    };
    ReplicaSetStatus {
        replicas: status.replicas,
        fully_labeled_replicas: status.fully_labeled_replicas,
        ready_replicas: status.ready_replicas,
        available_replicas: status.available_replicas,
        terminating_replicas: None,
        observed_generation: status.observed_generation,
        conditions: status.conditions.as_ref().map(|known| known.iter().map(condition).collect()),
    }
}

/// Replication controllers do not count the pods that go away.
fn controller_status(status: ReplicaSetStatus) -> ReplicationControllerStatus {
    let condition = |condition: ReplicaSetCondition| ReplicationControllerCondition {
        type_: condition.type_,
        status: condition.status,
        reason: condition.reason,
        message: condition.message,
        last_transition_time: condition.last_transition_time,
    };
    ReplicationControllerStatus {
        replicas: status.replicas,
        fully_labeled_replicas: status.fully_labeled_replicas,
        ready_replicas: status.ready_replicas,
        available_replicas: status.available_replicas,
        observed_generation: status.observed_generation,
        conditions: status.conditions.map(|known| known.into_iter().map(condition).collect()),
    }
}

#[cfg(test)]
mod tests {
    use orchestrator_core::object::time;

    use super::*;
    use crate::pods::fixtures::at;

    fn controller(selector: &[(&str, &str)]) -> ReplicationController {
        let selector = selector.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let spec = ReplicationControllerSpec { selector: Some(selector), replicas: Some(2), ..Default::default() };
        ReplicationController { spec: Some(spec), ..Default::default() }
    }

    #[test]
    fn a_controller_selects_what_its_replica_set_would() {
        let labels = [("app".to_owned(), "a".to_owned()), ("tier".to_owned(), "b".to_owned())].into();
        let pod = ObjectMeta { labels: Some(labels), ..Default::default() };
        for (selector, expected) in
            [(&[("app", "a")][..], true), (&[("app", "a"), ("tier", "c")][..], false), (&[][..], false)]
        {
            let controller = Arc::new(controller(selector));
            assert_eq!(controller.selects(&pod), expected, "{selector:?}");
            assert_eq!(controller.as_set().selects(&pod), expected, "{selector:?}");
        }
    }

    #[test]
    fn a_status_goes_there_and_back() {
        let condition = ReplicaSetCondition {
            type_: "ReplicaFailure".to_owned(),
            status: "True".to_owned(),
            reason: Some("FailedCreate".to_owned()),
            message: Some("no".to_owned()),
            last_transition_time: Some(time(at(1))),
        };
        let status = ReplicaSetStatus {
            replicas: 3,
            fully_labeled_replicas: Some(3),
            ready_replicas: Some(2),
            available_replicas: Some(1),
            terminating_replicas: Some(0),
            observed_generation: Some(4),
            conditions: Some(vec![condition]),
        };
        let written = controller(&[]).with_status(status.clone()).unwrap();
        let expected = ReplicaSetStatus { terminating_replicas: None, ..status.clone() };
        assert_eq!(set_status(written.status.as_ref().unwrap()), expected);
        assert_eq!(written.with_status(status), None, "what is known is not written again");
    }
}
