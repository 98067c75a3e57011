//! The taint eviction controller: deletes pods that do not tolerate a `NoExecute` taint of their node.

mod decide;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, ObjectReference, Pod};
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
    let eviction = Eviction {
        pods: caches.cache(),
        nodes: caches.cache(),
        recorder: context.recorder.clone(),
        planned: Mutex::default(),
    };
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
            facts(&change.old) != facts(&change.new)
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
    /// Since when pods are seen to have to go in a while, with their UIDs. It is lost with the controller, as upstream's.
    planned: Mutex<BTreeMap<ObjectKey, (String, Timestamp)>>,
}

#[async_trait]
impl Reconciler for Eviction {
    type Object = Pod;
    type Error = ApiError;

    async fn reconcile(&self, key: &ObjectKey, context: &Context) -> Result<Action, ApiError> {
        let Some(pod) = self.pods.get(key) else {
            self.cancel(key);
            return Ok(Action::Done);
        };
        let node = node_name(&pod).and_then(|name| self.nodes.get(&ObjectKey::new("", name)));
        let Some(node) = node.filter(|_| !meta::is_deleting(&pod.metadata)) else { return Ok(Action::Done) };
        let now = context.env().now();
        match decide(&pod, &node) {
            Stay::Forever => {
                self.cancel(key);
                return Ok(Action::Done);
            }
            Stay::For(time) => {
                let since = self.plan(key, &pod, now);
                let left = time.saturating_sub(Duration::try_from(now.duration_since(since)).unwrap_or_default());
                if !left.is_zero() {
                    return Ok(Action::RequeueAfter(left));
                }
                self.planned().remove(key);
            }
            Stay::No => self.cancel(key),
        }
        self.tell(key, format!("Marking for deletion Pod {key}"));
        let message = "Taint manager: deleting due to NoExecute taint";
        disrupt(context, pod, "DeletionByTaintManager", message).await?;
        Ok(Action::Done)
    }
}

impl Eviction {
    fn planned(&self) -> MutexGuard<'_, BTreeMap<ObjectKey, (String, Timestamp)>> {
        self.planned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Since when a pod is seen to have to go.
    fn plan(&self, key: &ObjectKey, pod: &Pod, now: Timestamp) -> Timestamp {
        let uid = meta::uid(&pod.metadata);
        let mut planned = self.planned();
        let (known, since) = planned.entry(key.clone()).or_insert_with(|| (uid.to_owned(), now));
        if known != uid {
            (*known, *since) = (uid.to_owned(), now);
        }
        *since
    }

    /// A pod may stay after all, or goes for another reason.
    fn cancel(&self, key: &ObjectKey) {
        let was_planned = self.planned().remove(key).is_some();
        if was_planned {
            self.tell(key, format!("Cancelling deletion of Pod {key}"));
        }
    }

    /// Upstream's reference has no UID.
    fn tell(&self, pod: &ObjectKey, message: String) {
        let regarding = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(pod.namespace.clone()),
            name: Some(pod.name.clone()),
            ..Default::default()
        };
        self.recorder.record(&regarding, Event::normal("TaintManagerEviction", message));
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
