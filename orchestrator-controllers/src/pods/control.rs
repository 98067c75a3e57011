//! Creates and deletes pods for an owner, and tells of it in Events.

use std::sync::Arc;

use futures::future::join_all;
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use orchestrator_core::{
    client::{Api, Call, Client, WriteOptions},
    controller::{Context, Kind},
    events::{Event, EventRecorder},
    meta::{self, object_reference},
    object::Object,
    status::{ApiError, ApiResult},
};

use super::{is_namespace_terminating, only};

/// The pods of one owner, to be written.
pub(crate) struct PodControl<'a> {
    client: &'a Client,
    recorder: &'a EventRecorder,
    owner: ObjectReference,
    namespace: &'a str,
}

/// What came of writes.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// The pods that were made, or that are going.
    pub done: Vec<Arc<Pod>>,
    /// The first write that failed. That the namespace is going away is no failure.
    pub error: Option<ApiError>,
}

impl Outcome {
    /// Fails with the first failure.
    pub(crate) fn into_result(self) -> ApiResult<Vec<Arc<Pod>>> {
        match self.error {
            Some(error) => Err(error),
            None => Ok(self.done),
        }
    }
}

impl<'a> PodControl<'a> {
    pub(crate) fn new<O: Kind>(context: &'a Context, recorder: &'a EventRecorder, owner: &'a O) -> Self {
        let namespace = meta::namespace(owner.meta());
        Self { client: context.client(), recorder, owner: object_reference(owner), namespace }
    }

    /// Creates pods, first one, then two, four and so on, so that a cause of failure that all share costs one request
    /// and not all of them. After a failure no further batch begins.
    pub(crate) async fn create(&self, pods: &[Object]) -> Outcome {
        let mut outcome = Outcome::default();
        let mut left = pods;
        for size in batches(pods.len()) {
            let (batch, rest) = left.split_at(size);
            left = rest;
            if !self.create_batch(batch, &mut outcome).await {
                break;
            }
        }
        outcome
    }

    /// Whether all of them came into being.
    async fn create_batch(&self, pods: &[Object], outcome: &mut Outcome) -> bool {
        let api = Api::<Pod>::namespaced(self.client, self.namespace);
        let create = |pod: &Object| Call::Create { object: pod.clone(), options: WriteOptions::default() };
        let results = join_all(pods.iter().map(|pod| api.send(None, None, create(pod)))).await;
        let mut complete = true;
        for result in results {
            complete &= result.is_ok();
            match result.and_then(|pod| Ok(pod.shared::<Pod>()?)) {
                Ok(pod) => {
                    let name = meta::name(&pod.metadata);
                    self.record(Event::normal("SuccessfulCreate", format!("Created pod: {name}")));
                    outcome.done.push(pod);
                }
                Err(error) if is_namespace_terminating(&error) => {}
                Err(error) => {
                    self.record(Event::warning("FailedCreate", format!("Error creating: {}", error.message())));
                    outcome.error.get_or_insert(error);
                }
            }
        }
        complete
    }

    /// Deletes the very pods that were seen. One that is gone already counts as deleted.
    pub(crate) async fn delete(&self, pods: &[Arc<Pod>]) -> Outcome {
        let api = Api::<Pod>::namespaced(self.client, self.namespace);
        let delete = |pod: &Arc<Pod>| {
            let (api, pod) = (api.clone(), pod.clone());
            async move { api.delete(meta::name(&pod.metadata), &only(&pod.metadata)).await }
        };
        let results = join_all(pods.iter().map(delete)).await;
        let mut outcome = Outcome::default();
        for (pod, result) in pods.iter().zip(results) {
            match result {
                Ok(()) => {
                    let name = meta::name(&pod.metadata);
                    self.record(Event::normal("SuccessfulDelete", format!("Deleted pod: {name}")));
                    outcome.done.push(pod.clone());
                }
                Err(error) if error.is_not_found() => outcome.done.push(pod.clone()),
                Err(error) => {
                    self.record(Event::warning("FailedDelete", format!("Error deleting: {}", error.message())));
                    outcome.error.get_or_insert(error);
                }
            }
        }
        outcome
    }

    /// Tells of the owner.
    pub(crate) fn record(&self, event: Event) {
        self.recorder.record(&self.owner, event);
    }
}

/// The sizes in which pods are created.
fn batches(total: usize) -> impl Iterator<Item = usize> {
    let mut left = total;
    let mut next = 1;
    std::iter::from_fn(move || {
        let size = next.min(left);
        left -= size;
        next *= 2;
        (size > 0).then_some(size)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_grow() {
        assert_eq!(batches(10).collect::<Vec<_>>(), [1, 2, 4, 3]);
        assert_eq!(batches(0).count(), 0);
    }
}
