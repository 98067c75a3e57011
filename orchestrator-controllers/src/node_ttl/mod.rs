//! The TTL controller: tells nodes how long they may use secrets and config maps that they have read.

mod decide;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Node;
use kube_core::params::{Patch, PatchParams};
use orchestrator_core::{
    client::Api,
    controller::{Action, Cache, Context, Controller, Queue, Reconciler},
    meta,
    object::ObjectKey,
    status::ApiError,
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{context::ControllerContext, writes::settled};

const ANNOTATION: &str = "node.alpha.kubernetes.io/ttl";

/// Runs the controller until the shutdown.
pub(crate) async fn run(context: ControllerContext, shutdown: CancellationToken) {
    let nodes = context.caches.cache::<Node>();
    let count = Arc::new(AtomicUsize::new(0));
    let controller = Controller::new("ttlcontroller", &context.caches).reconciles::<Node>();
    let counted = count.clone();
    let _changes = nodes.on_change(move |change| match (&change.old, &change.new) {
        (None, Some(_)) => drop(counted.fetch_add(1, Ordering::Relaxed)),
        (Some(_), None) => drop(counted.fetch_sub(1, Ordering::Relaxed)),
        _ => {}
    });
    let reconciler = TimesToLive { nodes, count, step: AtomicUsize::new(0), queue: controller.queue() };
    controller.run(reconciler, shutdown).await;
}

struct TimesToLive {
    nodes: Cache<Node>,
    count: Arc<AtomicUsize>,
    step: AtomicUsize,
    queue: Queue<ObjectKey>,
}

#[async_trait]
impl Reconciler for TimesToLive {
    type Object = Node;
    type Error = ApiError;

    async fn reconcile(&self, key: &ObjectKey, context: &Context) -> Result<Action, ApiError> {
        let before = self.step.load(Ordering::Relaxed);
        let step = decide::step(before, self.count.load(Ordering::Relaxed));
        if self.step.swap(step, Ordering::Relaxed) != step {
            self.nodes.keys().into_iter().for_each(|key| self.queue.add(key));
        }
        let Some(node) = self.nodes.get(key) else { return Ok(Action::Done) };
        let wanted = decide::seconds(step);
        if meta::annotation(&node.metadata, ANNOTATION) == Some(&wanted) {
            return Ok(Action::Done);
        }
        let body = Patch::Merge(json!({"metadata": {"annotations": {ANNOTATION: wanted}}}));
        settled(Api::<Node>::all(context.client()).patch(&key.name, &PatchParams::default(), &body).await)
            .map(|()| Action::Done)
    }
}
