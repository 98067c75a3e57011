//! The Endpoints controller: for each service with a selector, the addresses of its pods in one object.
//!
//! Upstream deprecated them in favour of slices (KEP-4974), and keeps them for those who read them.

mod decide;

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
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

use self::decide::{decide, is_election, is_managed};
use crate::{
    context::ControllerContext,
    endpointslice::{TriggerTimes, concerned, is_selected, selects},
    pods::{is_namespace_terminating, only},
    writes::settled,
};

/// Runs the controller until the shutdown.
pub(crate) async fn run(context: ControllerContext, shutdown: CancellationToken) {
    let caches = &context.caches;
    let reconciler = Addresses {
        services: caches.cache(),
        pods: caches.cache(),
        endpoints: caches.cache(),
        recorder: context.recorder.clone(),
        seen: Mutex::default(),
        times: TriggerTimes::default(),
    };
    let services = reconciler.services.clone();
    Controller::new("endpoints", caches)
        .reconciles::<Service>()
        .watches::<Pod>(move |change| concerned(&services, change))
        .watches::<Endpoints>(|change| vec![change.key.clone()])
        .run(reconciler, shutdown)
        .await;
}

struct Addresses {
    services: Cache<Service>,
    pods: Cache<Pod>,
    endpoints: Cache<Endpoints>,
    recorder: EventRecorder,
    /// Services that are there: with one of them all of its endpoints go, whoever made them.
    seen: Mutex<BTreeSet<ObjectKey>>,
    times: TriggerTimes,
}

#[async_trait]
impl Reconciler for Addresses {
    type Object = Service;
    type Error = ApiError;

    async fn reconcile(&self, key: &ObjectKey, context: &Context) -> ApiResult<Action> {
        let present = self.endpoints.get(key);
        let api = Api::<Endpoints>::namespaced(context.client(), &key.namespace);
        let Some(service) = self.services.get(key) else {
            self.times.forget(key);
            let was_seen = self.seen().remove(key);
            if let Some(present) = present.filter(|present| (was_seen || is_managed(present)) && !is_election(present))
            {
                settled(api.delete(&key.name, &only(&present.metadata)).await)?;
            }
            return Ok(Action::Done);
        };
        self.seen().insert(key.clone());
        if !is_selected(&service) {
            return Ok(Action::Done);
        }
        let mut pods = self.pods.list_namespace(&key.namespace);
        pods.retain(|pod| selects(&service, pod));
        let trigger = self.times.next(key, &service, &pods);
        if let Some(endpoints) = decide(&service, &pods, present.as_deref(), trigger) {
            self.write(&api, endpoints, present.is_some()).await?;
        }
        Ok(Action::Done)
    }
}

impl Addresses {
    fn seen(&self) -> MutexGuard<'_, BTreeSet<ObjectKey>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn write(&self, api: &Api<Endpoints>, endpoints: Endpoints, are_there: bool) -> ApiResult<()> {
        let (namespace, name) = (meta::namespace(&endpoints.metadata), meta::name(&endpoints.metadata));
        let (result, reason, what) = match are_there {
            true => {
                let result = api.replace(name, &PostParams::default(), &endpoints).await;
                (result, "FailedToUpdateEndpoint", "update endpoint")
            }
            false => {
                let result = api.create(&PostParams::default(), &endpoints).await;
                (result, "FailedToCreateEndpoint", "create endpoint for service")
            }
        };
        match result {
            Err(error) if !are_there && is_namespace_terminating(&error) => Ok(()),
            Err(error) => {
                let message = format!("Failed to {what} {namespace}/{name}: {}", error.message());
                self.recorder.record(&object_reference(&endpoints), Event::warning(reason, message));
                Err(error)
            }
            Ok(_) => Ok(()),
        }
    }
}
