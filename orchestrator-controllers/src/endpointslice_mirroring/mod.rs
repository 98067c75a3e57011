//! The EndpointSlice mirroring controller: slices for Endpoints that people write.
//!
//! Upstream: <https://kubernetes.io/docs/concepts/services-networking/service/#endpointslice-mirroring>.

mod decide;

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::{
    core::v1::{Endpoints, Service},
    discovery::v1::EndpointSlice,
};
use kube_core::params::PostParams;
use orchestrator_core::{
    client::Api,
    controller::{Action, Cache, Context, Controller, Reconciler},
    events::{Event, EventRecorder},
    meta::{self, object_reference},
    object::ObjectKey,
    status::{ApiError, ApiResult},
};
use tokio_util::sync::CancellationToken;

use self::decide::{Decision, MANAGER, decide, is_mirrored};
use crate::{
    context::ControllerContext,
    endpointslice::{MANAGED_BY, SERVICE_NAME},
    limits::ADDRESSES_PER_ENDPOINTS,
    pods::{is_namespace_terminating, only},
    writes::settled,
};

const BY_ENDPOINTS: &str = "endpointslice mirroring/endpoints";

/// Runs the controller until the shutdown.
pub(crate) async fn run(context: ControllerContext, shutdown: CancellationToken) {
    let caches = &context.caches;
    let mirrors = Mirrors {
        endpoints: caches.cache(),
        services: caches.cache(),
        slices: caches.cache(),
        recorder: context.recorder.clone(),
    };
    mirrors.slices.add_index(BY_ENDPOINTS, |slice| mirrored(slice).map(|key| key.to_string()).into_iter().collect());
    Controller::new("endpointslice-mirroring", caches)
        .reconciles::<Endpoints>()
        .watches::<Service>(|change| vec![change.key.clone()])
        .watches::<EndpointSlice>(|change| {
            let mut keys: Vec<ObjectKey> = change.objects().filter_map(|slice| mirrored(slice)).collect();
            keys.dedup();
            keys
        })
        .run(mirrors, shutdown)
        .await;
}

/// The endpoints that a slice mirrors.
fn mirrored(slice: &EndpointSlice) -> Option<ObjectKey> {
    let name = meta::label(&slice.metadata, SERVICE_NAME)?;
    let is_mirror = meta::label(&slice.metadata, MANAGED_BY) == Some(MANAGER);
    is_mirror.then(|| ObjectKey::new(meta::namespace(&slice.metadata), name))
}

struct Mirrors {
    endpoints: Cache<Endpoints>,
    services: Cache<Service>,
    slices: Cache<EndpointSlice>,
    recorder: EventRecorder,
}

#[async_trait]
impl Reconciler for Mirrors {
    type Object = Endpoints;
    type Error = ApiError;

    async fn reconcile(&self, key: &ObjectKey, context: &Context) -> ApiResult<Action> {
        let service = self.services.get(key);
        let endpoints = self.endpoints.get(key);
        let endpoints = endpoints.zip(service).filter(|(endpoints, service)| is_mirrored(endpoints, service));
        let endpoints = endpoints.map(|(endpoints, _)| endpoints);
        let slices = self.slices.by_index(BY_ENDPOINTS, &key.to_string());
        let decision = decide(endpoints.as_deref(), &slices);
        if let Some(endpoints) = &endpoints {
            self.tell(endpoints, &decision);
        }
        let api = Api::<EndpointSlice>::namespaced(context.client(), &key.namespace);
        for slice in decision.create {
            match api.create(&PostParams::default(), &slice).await {
                Err(error) if is_namespace_terminating(&error) => return Ok(Action::Done),
                result => drop(result?),
            }
        }
        for slice in decision.replace {
            api.replace(meta::name(&slice.metadata), &PostParams::default(), &slice).await?;
        }
        for slice in decision.delete {
            settled(api.delete(meta::name(&slice.metadata), &only(&slice.metadata)).await)?;
        }
        Ok(Action::Done)
    }
}

impl Mirrors {
    /// Tells of addresses that are not mirrored, when slices change.
    fn tell(&self, endpoints: &Arc<Endpoints>, decision: &Decision) {
        if decision.create.is_empty() && decision.replace.is_empty() {
            return;
        }
        let record = |event: Event| self.recorder.record(&object_reference(&**endpoints), event);
        if decision.invalid > 0 {
            let message = format!("Skipped {} invalid IP addresses when mirroring to EndpointSlices", decision.invalid);
            record(Event::warning("InvalidIPAddress", message));
        }
        if decision.skipped > 0 {
            let message = format!(
                "A max of {ADDRESSES_PER_ENDPOINTS} addresses can be mirrored to EndpointSlices per Endpoints subset. {} \
                 addresses were skipped",
                decision.skipped + decision.invalid
            );
            record(Event::warning("TooManyAddressesToMirror", message));
        }
    }
}
