//! The taint eviction controller: deletes pods that do not tolerate a `NoExecute` taint of their node.

mod decide;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube_core::params::PostParams;
use orchestrator_core::{
    client::Api,
    controller::{Action, Cache, Change, Context, Controller, Reconciler},
    events::{Event, EventRecorder},
    meta,
    object::ObjectKey,
    status::{ApiError, ApiResult},
};
use tokio_util::sync::CancellationToken;

use self::decide::{Stay, decide};
use crate::{
    context::ControllerContext,
    pods::{disruption_target, only},
    writes::settled,
};

const BY_NODE: &str = "taint-eviction/node";

pub(crate) async fn run(context: ControllerContext, shutdown: CancellationToken) {
    let caches = &context.caches;
    let eviction = Eviction { pods: caches.cache(), nodes: caches.cache(), recorder: context.recorder.clone() };
    eviction.pods.add_index(BY_NODE, |pod| node_name(pod).map(str::to_owned).into_iter().collect());
    let pods = eviction.pods.clone();
    let controller = Controller::new("taint-eviction-controller", caches)
        .reconciles::<Pod>()
        .filter(|change: &Change<Pod>| {
            // Nothing but where a pod runs and what it tolerates matters.
            let facts = |pod: &Option<Arc<Pod>>| {
                let spec = pod.as_ref()?.spec.as_ref()?;
                Some((spec.node_name.clone()?, spec.tolerations.clone()))
            };
            facts(&change.new).is_some() && facts(&change.old) != facts(&change.new)
        })
        .watches::<Node>(move |change| {
            let taints = |node: &Option<Arc<Node>>| node.as_ref().and_then(|node| node.spec.as_ref()?.taints.clone());
            if taints(&change.old).unwrap_or_default() == taints(&change.new).unwrap_or_default() {
                return Vec::new();
            }
            pods.by_index(BY_NODE, &change.key.name).iter().map(|pod| ObjectKey::of(&pod.metadata)).collect()
        });
    controller.run(eviction, shutdown).await;
}

fn node_name(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}

struct Eviction {
    pods: Cache<Pod>,
    nodes: Cache<Node>,
    recorder: EventRecorder,
}

#[async_trait]
impl Reconciler for Eviction {
    type Object = Pod;
    type Error = ApiError;

    async fn reconcile(&self, key: &ObjectKey, context: &Context) -> Result<Action, ApiError> {
        let Some(pod) = self.pods.get(key).filter(|pod| !meta::is_deleting(&pod.metadata)) else {
            return Ok(Action::Done);
        };
        let node = node_name(&pod).and_then(|name| self.nodes.get(&ObjectKey::new("", name)));
        let Some(node) = node else { return Ok(Action::Done) };
        let now = context.env().now();
        match decide(&pod, &node, now) {
            Stay::Forever => Ok(Action::Done),
            Stay::Until(end) if end > now => {
                Ok(Action::RequeueAfter(Duration::try_from(end.duration_since(now)).unwrap_or_default()))
            }
            Stay::Until(_) => {
                let event = Event::normal("TaintManagerEviction", format!("Marking for deletion Pod {key}"));
                self.recorder.record(&meta::object_reference(&*pod), event);
                let message = "Taint manager: deleting due to NoExecute taint";
                disrupt(context, pod, "DeletionByTaintManager", message).await?;
                Ok(Action::Done)
            }
        }
    }
}

/// Says on a pod why it is disrupted, and deletes it.
async fn disrupt(context: &Context, pod: Arc<Pod>, reason: &str, message: &str) -> ApiResult<()> {
    let api = Api::<Pod>::namespaced(context.client(), meta::namespace(&pod.metadata));
    let name = meta::name(&pod.metadata);
    let mut new = (*pod).clone();
    let target = disruption_target(&pod, reason, message, context.env().now());
    let conditions = new.status.get_or_insert_default().conditions.get_or_insert_default();
    let changed = meta::set_condition(conditions, target);
    let result = async {
        if changed {
            api.replace_status(name, &PostParams::default(), &new).await?;
        }
        api.delete(name, &only(&pod.metadata)).await
    };
    settled(result.await)
}
