//! The Endpoints controller: for each service with a selector, the addresses of its pods in one object.
//!
//! Upstream deprecated them in favour of slices (KEP-4974), and keeps them for those who read them.

mod decide;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
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
    endpointslice::{is_selected, selecting, selects},
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
    };
    let services = reconciler.services.clone();
    Controller::new("endpoints", caches)
        .reconciles::<Service>()
        .watches::<Pod>(move |change| selecting(&services, change.objects()))
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
}

#[async_trait]
impl Reconciler for Addresses {
    type Object = Service;
    type Error = ApiError;

    async fn reconcile(&self, key: &ObjectKey, context: &Context) -> ApiResult<Action> {
        let present = self.endpoints.get(key);
        let api = Api::<Endpoints>::namespaced(context.client(), &key.namespace);
        let Some(service) = self.services.get(key) else {
            let was_seen = self.seen().remove(key);
            if let Some(present) = present.filter(|present| (was_seen || is_managed(present)) && !is_election(present))
            {
                settled(api.delete(&key.name, &only(&present.metadata)).await)?;
            }
            return Ok(Action::Done);
        };
        self.seen().insert(key.clone());
        if !is_selected(&service) || meta::is_deleting(&service.metadata) {
            return Ok(Action::Done);
        }
        let mut pods = self.pods.list_namespace(&key.namespace);
        pods.retain(|pod| selects(&service, pod));
        if let Some(endpoints) = decide(&service, &pods, present.as_deref()) {
            self.write(&service, &api, endpoints, present.as_ref()).await?;
        }
        Ok(Action::Done)
    }
}

impl Addresses {
    fn seen(&self) -> MutexGuard<'_, BTreeSet<ObjectKey>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn write(
        &self,
        service: &Service,
        api: &Api<Endpoints>,
        endpoints: Endpoints,
        present: Option<&Arc<Endpoints>>,
    ) -> ApiResult<()> {
        let name = meta::name(&endpoints.metadata);
        let (result, verb) = match present {
            Some(_) => (api.replace(name, &PostParams::default(), &endpoints).await, ("Update", "update")),
            None => (api.create(&PostParams::default(), &endpoints).await, ("Create", "create")),
        };
        match result {
            Err(error) if is_namespace_terminating(&error) => Ok(()),
            Err(error) => {
                let (namespace, why) = (meta::namespace(&endpoints.metadata), error.message());
                let message = format!("Failed to {} endpoint {namespace}/{name}: {why}", verb.1);
                let event = Event::warning(format!("FailedTo{}Endpoint", verb.0), message);
                self.recorder.record(&object_reference(service), event);
                Err(error)
            }
            Ok(_) => Ok(()),
        }
    }
}
