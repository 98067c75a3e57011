//! The service controller: load balancers of a cloud for services of type `LoadBalancer`.

mod decide;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{LoadBalancerIngress, LoadBalancerStatus, Node, Service};
use kube_core::params::{Patch, PatchParams};
use orchestrator_core::{
    client::Api,
    controller::{Action, Cache, Context, Controller, Reconciler},
    events::{Event, EventRecorder},
    meta::{self, object_reference},
    object::ObjectKey,
    status::{ApiError, ApiResult, Reason},
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use self::decide::{Decision, Done, FINALIZER};
use super::{CloudError, CloudProvider, LoadBalancers};
use crate::{context::ControllerContext, writes::settled};

/// Runs the controller until the shutdown, where the cloud has load balancers.
pub(crate) async fn run(context: ControllerContext, shutdown: CancellationToken) {
    let cloud = context.options.cloud.clone().filter(|cloud| cloud.load_balancers().is_some());
    let Some(cloud) = cloud else { return shutdown.cancelled().await };
    let caches = &context.caches;
    let services = caches.cache::<Service>();
    let (all, recorder) = (services.clone(), context.recorder.clone());
    let _changes = services.on_change(move |change| {
        if let (Some(old), Some(new)) = (&change.old, &change.new) {
            let reference = object_reference(&**new);
            decide::events(old, new).into_iter().for_each(|event| recorder.record(&reference, event));
        }
    });
    let reconciler = Balancing {
        services,
        nodes: caches.cache(),
        recorder: context.recorder.clone(),
        cloud,
        done: Mutex::default(),
    };
    Controller::new("service", caches)
        .reconciles::<Service>()
        .watches::<Node>(move |change| {
            let serves = |node: &Option<Arc<Node>>| node.as_ref().is_some_and(|node| decide::serves(node));
            if serves(&change.old) == serves(&change.new) { Vec::new() } else { all.keys() }
        })
        .run(reconciler, shutdown)
        .await;
}

struct Balancing {
    services: Cache<Service>,
    nodes: Cache<Node>,
    recorder: EventRecorder,
    cloud: Arc<dyn CloudProvider>,
    done: Mutex<BTreeMap<ObjectKey, Done>>,
}

#[async_trait]
impl Reconciler for Balancing {
    type Object = Service;
    type Error = ApiError;

    async fn reconcile(&self, key: &ObjectKey, context: &Context) -> ApiResult<Action> {
        let Some(balancers) = self.cloud.load_balancers() else { return Ok(Action::Done) };
        let done = self.done().get(key).cloned();
        let Some(service) = self.services.get(key) else {
            if let Some(done) = done {
                self.remove_orphaned(balancers, &done.service).await?;
                self.done().remove(key);
            }
            return Ok(Action::Done);
        };
        let nodes: Vec<Arc<Node>> = self.nodes.list().into_iter().filter(|node| decide::serves(node)).collect();
        let names: BTreeSet<String> = nodes.iter().map(|node| meta::name(&node.metadata).to_owned()).collect();
        let run = Run { service: &service, balancers, recorder: &self.recorder, context };
        let result = match decide::decide(&service, done.as_ref(), &names) {
            Decision::Nothing => return Ok(Action::Done),
            Decision::Update => run.update(&nodes, &names).await,
            Decision::Ensure => run.ensure(&nodes).await,
            Decision::Remove => {
                run.told(run.remove().await)?;
                self.done().remove(key);
                return Ok(Action::Done);
            }
        };
        run.told(result)?;
        self.done().insert(key.clone(), Done { service: service.clone(), nodes: names });
        Ok(Action::Done)
    }
}

impl Balancing {
    fn done(&self) -> MutexGuard<'_, BTreeMap<ObjectKey, Done>> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The load balancer of a service that went without waiting for it.
    async fn remove_orphaned(&self, balancers: &dyn LoadBalancers, service: &Service) -> ApiResult<()> {
        let tell = |event| self.recorder.record(&object_reference(service), event);
        tell(Event::normal("DeletingLoadBalancer", "Deleting load balancer"));
        if let Err(error) = balancers.delete(service).await {
            tell(Event::warning("DeleteLoadBalancerFailed", format!("Error deleting load balancer: {error}")));
            return Err(ApiError::new(Reason::Unknown, error.to_string()));
        }
        tell(Event::normal("DeletedLoadBalancer", "Deleted load balancer"));
        Ok(())
    }
}

/// The work for one service.
struct Run<'a> {
    service: &'a Service,
    balancers: &'a dyn LoadBalancers,
    recorder: &'a EventRecorder,
    context: &'a Context,
}

impl Run<'_> {
    fn tell(&self, event: Event) {
        self.recorder.record(&object_reference(self.service), event);
    }

    /// Tells of a failure, so that somebody looks at it while it is tried again.
    fn told(&self, result: Result<(), String>) -> ApiResult<()> {
        result.map_err(|error| {
            self.tell(Event::warning("SyncLoadBalancerFailed", format!("Error syncing load balancer: {error}")));
            ApiError::new(Reason::Unknown, error)
        })
    }

    async fn ensure(&self, nodes: &[Arc<Node>]) -> Result<(), String> {
        self.tell(Event::normal("EnsuringLoadBalancer", "Ensuring load balancer"));
        let mut metadata = self.service.metadata.clone();
        if meta::add_finalizer(&mut metadata, FINALIZER) {
            let failed =
                |error: ApiError| format!("failed to add load balancer cleanup finalizer: {}", error.message());
            self.patch(None, json!({"metadata": {"finalizers": metadata.finalizers}})).await.map_err(failed)?;
        }
        if nodes.is_empty() {
            self.tell(no_nodes());
        }
        let status = match self.balancers.ensure(self.service, nodes).await {
            Err(CloudError::ImplementedElsewhere) => return Ok(()),
            Err(error) => return Err(format!("failed to ensure load balancer: {error}")),
            Ok(status) => status,
        };
        self.tell(Event::normal("EnsuredLoadBalancer", "Ensured load balancer"));
        self.write_status(status).await
    }

    async fn update(&self, nodes: &[Arc<Node>], names: &BTreeSet<String>) -> Result<(), String> {
        match self.balancers.update(self.service, nodes).await {
            Ok(()) if nodes.is_empty() => self.tell(no_nodes()),
            Ok(()) => self.tell(Event::normal("UpdatedLoadBalancer", "Updated load balancer with new hosts")),
            Err(CloudError::ImplementedElsewhere) => {}
            Err(error) => {
                if matches!(self.balancers.get(self.service).await, Ok(None)) {
                    return Ok(());
                }
                let names = names.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
                let message = format!("Error updating load balancer with new hosts [{names}]: {error}");
                self.tell(Event::warning("UpdateLoadBalancerFailed", message));
                return Err(format!("failed to update load balancer hosts: {error}"));
            }
        }
        Ok(())
    }

    async fn remove(&self) -> Result<(), String> {
        let known = self.balancers.get(self.service).await;
        let unknown = |error| format!("failed to check if load balancer exists before cleanup: {error}");
        if known.map_err(unknown)?.is_some() {
            self.tell(Event::normal("DeletingLoadBalancer", "Deleting load balancer"));
            let deleted = self.balancers.delete(self.service).await;
            deleted.map_err(|error| format!("failed to delete load balancer: {error}"))?;
        }
        let mut metadata = self.service.metadata.clone();
        if meta::remove_finalizer(&mut metadata, FINALIZER) {
            let failed =
                |error: ApiError| format!("failed to remove load balancer cleanup finalizer: {}", error.message());
            self.patch(None, json!({"metadata": {"finalizers": metadata.finalizers}})).await.map_err(failed)?;
        }
        self.tell(Event::normal("DeletedLoadBalancer", "Deleted load balancer"));
        self.write_status(LoadBalancerStatus::default()).await
    }

    async fn write_status(&self, status: LoadBalancerStatus) -> Result<(), String> {
        let ingress = |status: &LoadBalancerStatus| status.ingress.clone().unwrap_or_default();
        let known = self.service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
        let is_same = |(known, new): (&LoadBalancerIngress, &LoadBalancerIngress)| {
            // How an address is used is the server's to say where the cloud does not.
            let ip_mode = new.ip_mode.clone().or_else(|| known.ip_mode.clone());
            *known == LoadBalancerIngress { ip_mode, ..new.clone() }
        };
        let (before, after) = (known.map(ingress).unwrap_or_default(), ingress(&status));
        if before.len() == after.len() && before.iter().zip(&after).all(is_same) {
            return Ok(());
        }
        let ingress = if after.is_empty() { Value::Null } else { json!(after) };
        let body = json!({"status": {"loadBalancer": {"ingress": ingress}}});
        let failed = |error: ApiError| format!("failed to update load balancer status: {}", error.message());
        self.patch(Some("status"), body).await.map_err(failed)
    }

    /// Changes the very service that was seen. One that is gone needs no change.
    async fn patch(&self, part: Option<&str>, mut body: Value) -> ApiResult<()> {
        body["metadata"]["uid"] = json!(self.service.metadata.uid);
        if part.is_none() {
            // Finalizers are written as a whole, so that nobody else's may have come meanwhile.
            body["metadata"]["resourceVersion"] = json!(self.service.metadata.resource_version);
        }
        let api = Api::<Service>::namespaced(self.context.client(), meta::namespace(&self.service.metadata));
        let (name, params, body) = (meta::name(&self.service.metadata), PatchParams::default(), Patch::Merge(body));
        let result = match part {
            None => api.patch(name, &params, &body).await,
            Some(_) => api.patch_status(name, &params, &body).await,
        };
        settled(result)
    }
}

fn no_nodes() -> Event {
    Event::warning("UnAvailableLoadBalancer", "There are no available nodes for LoadBalancer")
}
