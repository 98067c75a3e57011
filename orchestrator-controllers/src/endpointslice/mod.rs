//! The EndpointSlice controller: for each service with a selector, the addresses of its pods.

mod decide;
pub(crate) mod endpoints;
mod topology;
mod trigger_time;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use k8s_openapi::api::{
    core::v1::{Node, Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube_core::params::{DeleteParams, PostParams};
use orchestrator_core::{
    client::Api,
    controller::{Action, Cache, Change, Context, Controller, Reconciler},
    events::{Event, EventRecorder},
    meta::{self, object_reference},
    object::ObjectKey,
    status::ApiError,
};
use tokio_util::sync::CancellationToken;

use self::{
    decide::{Decision, MANAGER, Observed, decide},
    endpoints::{Family, Zones},
    topology::{is_topology_aware, ratios},
};
pub(crate) use self::{
    decide::{MANAGED_BY, SERVICE_NAME, TRIGGER_TIME, is_selected},
    trigger_time::TriggerTimes,
};
use crate::{
    context::ControllerContext,
    pods::{is_deleting, is_finished, is_ready},
    serviceaccount::is_terminating,
    writes::settled,
};

const BY_SERVICE: &str = "endpointslice/service";
const BY_NODE: &str = "endpointslice/node";
const ZONE: &str = "topology.kubernetes.io/zone";

pub(crate) async fn run(context: ControllerContext, shutdown: CancellationToken) {
    let caches = &context.caches;
    let slicing = Slicing {
        services: caches.cache(),
        pods: caches.cache(),
        nodes: caches.cache(),
        slices: caches.cache(),
        times: TriggerTimes::default(),
        recorder: context.recorder.clone(),
        hinted: Mutex::default(),
    };
    slicing.slices.add_index(BY_SERVICE, |slice| managed_service(slice).into_iter().collect());
    slicing.pods.add_index(BY_NODE, |pod| pod.spec.iter().filter_map(|spec| spec.node_name.clone()).collect());
    let (by_pod, by_node, node_pods) = (slicing.services.clone(), slicing.services.clone(), slicing.pods.clone());
    let controller = Controller::new("endpointslice-controller", caches)
        .reconciles::<Service>()
        .watches::<Pod>(move |change| concerned(&by_pod, change))
        .watches::<EndpointSlice>(|change| {
            let mut keys: Vec<ObjectKey> = change.objects().filter_map(|slice| service_key(slice)).collect();
            keys.dedup();
            keys
        })
        .watches::<Node>(move |change: &Change<Node>| {
            // With a node that goes its pods do, in their own time.
            let zone = |node: &Option<Arc<Node>>| node.as_ref().map(|node| zone_of(node));
            let mut keys = match change.new.is_none() || zone(&change.old) == zone(&change.new) {
                true => Vec::new(),
                false => selecting(&by_node, &node_pods.by_index(BY_NODE, &change.key.name)),
            };
            if resizes_zones(change) {
                let services = by_node.list().into_iter().filter(|service| is_topology_aware(service));
                keys.extend(services.map(|service| ObjectKey::of(&service.metadata)));
            }
            keys
        });
    controller.run(slicing, shutdown).await;
}

/// Whether zones have another size than before.
fn resizes_zones(change: &Change<Node>) -> bool {
    let size = |node: &Option<Arc<Node>>| {
        let node = node.as_ref()?;
        let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        let cpu = node.status.as_ref().and_then(|status| status.allocatable.as_ref()?.get("cpu").cloned());
        meta::is_condition_true(conditions, "Ready").then(|| (zone_of(node), cpu))
    };
    size(&change.old) != size(&change.new)
}

/// The services that a change of a pod concerns.
pub(crate) fn concerned(services: &Cache<Service>, change: &Change<Pod>) -> Vec<ObjectKey> {
    let is_dull = change.old.as_ref().zip(change.new.as_ref()).is_some_and(|(old, new)| is_same_endpoint(old, new));
    if is_dull { Vec::new() } else { selecting(services, change.objects()) }
}

/// Whether a pod is the same endpoint of the same services as before.
fn is_same_endpoint(old: &Pod, new: &Pod) -> bool {
    fn facts(pod: &Pod) -> impl PartialEq + '_ {
        let spec = pod.spec.as_ref();
        let status = pod.status.as_ref();
        (
            pod.metadata.labels.as_ref(),
            (is_deleting(pod), is_finished(pod), is_ready(pod)),
            spec.map(|spec| (spec.hostname.as_ref(), spec.subdomain.as_ref(), spec.node_name.as_ref())),
            status.map(|status| (status.pod_ip.as_ref(), status.pod_ips.as_ref())),
        )
    }
    facts(old) == facts(new)
}

/// The services that select one of these pods.
fn selecting<'a>(services: &Cache<Service>, pods: impl IntoIterator<Item = &'a Arc<Pod>>) -> Vec<ObjectKey> {
    let mut keys = Vec::new();
    for pod in pods {
        for service in services.list_namespace(meta::namespace(&pod.metadata)) {
            if is_selected(&service) && selects(&service, pod) {
                keys.push(ObjectKey::of(&service.metadata));
            }
        }
    }
    keys.sort();
    keys.dedup();
    keys
}

/// Whether a service selects a pod.
pub(crate) fn selects(service: &Service, pod: &Pod) -> bool {
    let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    let labels = pod.metadata.labels.as_ref();
    let has = |(key, value): (&String, &String)| labels.is_some_and(|labels| labels.get(key) == Some(value));
    selector.is_some_and(|selector| selector.iter().all(has))
}

fn zone_of(node: &Node) -> Option<String> {
    meta::label(&node.metadata, ZONE).filter(|zone| !zone.is_empty()).map(str::to_owned)
}

/// The service of a slice that this controller manages.
fn service_key(slice: &EndpointSlice) -> Option<ObjectKey> {
    if meta::label(&slice.metadata, MANAGED_BY) != Some(MANAGER) {
        return None;
    }
    let service = meta::label(&slice.metadata, SERVICE_NAME)?;
    Some(ObjectKey::new(meta::namespace(&slice.metadata), service))
}

fn managed_service(slice: &EndpointSlice) -> Option<String> {
    service_key(slice).map(|key| key.to_string())
}

struct Slicing {
    services: Cache<Service>,
    pods: Cache<Pod>,
    nodes: Cache<Node>,
    slices: Cache<EndpointSlice>,
    times: TriggerTimes,
    recorder: EventRecorder,
    /// The services whose endpoints have hints by the sizes of zones.
    hinted: Mutex<BTreeSet<ObjectKey>>,
}

#[async_trait]
impl Reconciler for Slicing {
    type Object = Service;
    type Error = ApiError;

    async fn reconcile(&self, key: &ObjectKey, context: &Context) -> Result<Action, ApiError> {
        let Some(service) = self.services.get(key) else {
            // The garbage collector deletes the slices of a service that is gone.
            self.times.forget(key);
            self.hinted.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
            return Ok(Action::Done);
        };
        if !is_selected(&service) {
            return Ok(Action::Done);
        }
        let mut pods = self.pods.list_namespace(&key.namespace);
        pods.retain(|pod| selects(&service, pod));
        let mut slices = self.slices.by_index(BY_SERVICE, &key.to_string());
        slices.retain(|slice| !meta::is_deleting(&slice.metadata));
        let zones = self.zones(&pods);
        let trigger = self.times.next(key, &service, &pods);
        let ratios = is_topology_aware(&service).then(|| ratios(&self.nodes.list())).flatten();
        let decision = decide(Observed {
            service: &service,
            pods: &pods,
            slices: &slices,
            zones: &zones,
            ratios: ratios.as_ref(),
            trigger,
        });
        self.tell(key, &service, &decision);
        let api = Api::<EndpointSlice>::namespaced(context.client(), &key.namespace);
        for slice in decision.create {
            match api.create(&PostParams::default(), &slice).await {
                Err(error) if is_terminating(&error) => return Ok(Action::Done),
                result => drop(result?),
            }
        }
        for slice in decision.replace {
            api.replace(meta::name(&slice.metadata), &PostParams::default(), &slice).await?;
        }
        for name in decision.delete {
            settled(api.delete(&name, &DeleteParams::default()).await)?;
        }
        Ok(Action::Done)
    }
}

impl Slicing {
    /// Tells when endpoints get hints by the sizes of zones, and when they have none although they are asked for, or lose them.
    fn tell(&self, key: &ObjectKey, service: &Service, decision: &Decision) {
        let mut hinted = self.hinted.lock().unwrap_or_else(PoisonError::into_inner);
        let record = |event| self.recorder.record(&object_reference(service), event);
        let disabled = |why: &str, family: Family| {
            let message = format!("{why}, addressType: {}", family.as_str());
            record(Event::warning("TopologyAwareHintsDisabled", message));
        };
        for (family, hints) in &decision.hints {
            match hints {
                Ok(()) if hinted.insert(key.clone()) => {
                    let message = format!("Topology Aware Hints has been enabled, addressType: {}", family.as_str());
                    record(Event::normal("TopologyAwareHintsEnabled", message));
                }
                Ok(()) => {}
                Err(why) => {
                    hinted.remove(key);
                    disabled(why, *family);
                }
            }
        }
        if decision.hints.is_empty() && hinted.remove(key) {
            let family = Family::of(service).first().copied().unwrap_or(Family::V4);
            disabled("Topology Aware Hints has been disabled", family);
        }
    }

    /// The nodes that the pods run on, as far as there are any, with their zones.
    fn zones(&self, pods: &[Arc<Pod>]) -> Zones {
        let node = |pod: &Arc<Pod>| pod.spec.as_ref()?.node_name.clone();
        let zone = |name: String| {
            let zone = zone_of(&*self.nodes.get(&ObjectKey::new("", &*name))?);
            Some((name, zone))
        };
        pods.iter().filter_map(node).filter_map(zone).collect()
    }
}
