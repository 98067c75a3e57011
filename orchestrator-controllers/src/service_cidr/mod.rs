//! The service CIDR controller: ranges of service addresses that are ready, and that go after their addresses.

mod decide;

use async_trait::async_trait;
use k8s_openapi::{
    api::networking::v1::{IPAddress, ServiceCIDR},
    apimachinery::pkg::apis::meta::v1::Condition,
};
use kube_core::params::{Patch, PatchParams, PostParams};
use orchestrator_core::{
    client::Api,
    controller::{Action, Cache, Context, Controller, Reconciler},
    events::{Event, EventRecorder},
    meta::{self, object_reference},
    object::ObjectKey,
    status::{ApiError, ApiResult},
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use self::decide::{Decision, FINALIZER};
use crate::{context::ControllerContext, writes::settled};

/// Runs the controller until the shutdown.
pub(crate) async fn run(context: ControllerContext, shutdown: CancellationToken) {
    let caches = &context.caches;
    let ranges = caches.cache::<ServiceCIDR>();
    let (others, going) = (ranges.clone(), ranges.clone());
    let reconciler = Ranges { ranges, addresses: caches.cache(), recorder: context.recorder.clone() };
    Controller::new("service-cidr", caches)
        .reconciles::<ServiceCIDR>()
        // One range may wait for another one to take its addresses over, or for its addresses to go.
        .watches::<ServiceCIDR>(move |_| waiting(&others))
        .watches::<IPAddress>(move |change| if change.new.is_none() { waiting(&going) } else { Vec::new() })
        .run(reconciler, shutdown)
        .await;
}

/// The ranges that are to go.
fn waiting(ranges: &Cache<ServiceCIDR>) -> Vec<ObjectKey> {
    let going = ranges.list().into_iter().filter(|range| meta::is_deleting(&range.metadata));
    going.map(|range| ObjectKey::of(&range.metadata)).collect()
}

struct Ranges {
    ranges: Cache<ServiceCIDR>,
    addresses: Cache<IPAddress>,
    recorder: EventRecorder,
}

#[async_trait]
impl Reconciler for Ranges {
    type Object = ServiceCIDR;
    type Error = ApiError;

    async fn reconcile(&self, key: &ObjectKey, context: &Context) -> ApiResult<Action> {
        let Some(range) = self.ranges.get(key) else { return Ok(Action::Done) };
        let now = context.env().now();
        match decide::decide(&range, &self.ranges.list(), &self.addresses.list(), now) {
            Decision::Settled => Ok(Action::Done),
            Decision::Wait(left) => Ok(Action::RequeueAfter(left)),
            Decision::Protect => {
                let mut metadata = range.metadata.clone();
                meta::add_finalizer(&mut metadata, FINALIZER);
                write_finalizers(&metadata, context).await?;
                Ok(Action::RequeueAfter(std::time::Duration::ZERO))
            }
            Decision::Release => {
                let mut metadata = range.metadata.clone();
                meta::remove_finalizer(&mut metadata, FINALIZER);
                write_finalizers(&metadata, context).await?;
                Ok(Action::Done)
            }
            Decision::Tell(condition) => {
                self.tell(&range, condition, context).await?;
                Ok(Action::Done)
            }
        }
    }
}

impl Ranges {
    async fn tell(&self, range: &ServiceCIDR, condition: Condition, context: &Context) -> ApiResult<()> {
        let is_ready = condition.status == "True";
        let mut new = range.clone();
        let conditions = new.status.get_or_insert_default().conditions.get_or_insert_default();
        meta::set_condition(conditions, condition);
        let api = Api::<ServiceCIDR>::all(context.client());
        match api.replace_status(meta::name(&range.metadata), &PostParams::default(), &new).await {
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => {
                if is_ready {
                    let message = "The ServiceCIDR Status can not be set to Ready=True";
                    let event = Event::warning("KubernetesServiceCIDRError", message);
                    self.recorder.record(&object_reference(range), event);
                }
                Err(error)
            }
            Ok(_) => Ok(()),
        }
    }
}

async fn write_finalizers(
    metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
    context: &Context,
) -> ApiResult<()> {
    let body = json!({"metadata": {
        "uid": metadata.uid, "resourceVersion": metadata.resource_version, "finalizers": metadata.finalizers,
    }});
    let api = Api::<ServiceCIDR>::all(context.client());
    settled(api.patch(meta::name(metadata), &PatchParams::default(), &Patch::Merge(body)).await)
}
