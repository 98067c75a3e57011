//! The node lifecycle controller: notices silent nodes, and keeps nodes' taints in line with their conditions.

pub(crate) mod decide;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{Node, ObjectReference, Pod},
    },
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube_core::params::PostParams;
use orchestrator_core::{
    client::Api,
    controller::{Action, Cache, Context, Controller, Reconciler},
    events::Event,
    meta,
    object::{ObjectKey, time},
    status::ApiError,
};
use tokio_util::sync::CancellationToken;

use self::decide::{EvictionRate, Health, Zone, eviction_taint, is_evicting, rate, ready_status, silenced, zone_state};
use crate::{context::ControllerContext, limits, writes::settled};

/// Where the agents renew their leases.
const LEASES: &str = "kube-node-lease";

const BY_NODE: &str = "node-lifecycle/node";

pub(crate) async fn run(context: ControllerContext, shutdown: CancellationToken) {
    let caches = &context.caches;
    let lifecycle = Lifecycle {
        nodes: caches.cache(),
        leases: caches.cache(),
        pods: caches.cache(),
        memory: Arc::default(),
        context: context.clone(),
    };
    lifecycle.pods.add_index(BY_NODE, |pod| pod.spec.iter().filter_map(|spec| spec.node_name.clone()).collect());
    let (memory, env) = (lifecycle.memory.clone(), context.env().clone());
    // A lease says that its node lives; there is nothing to do about it.
    let _renewals = lifecycle.leases.on_change(move |change| {
        if change.key.namespace == LEASES
            && let Some(lease) = &change.new
            && let Some(health) = lock(&memory).health.get_mut(&change.key.name)
        {
            health.renew(renewed(lease), env.monotonic());
        }
    });
    let controller =
        Controller::new("node-lifecycle-controller", caches).reconciles::<Node>().reads::<Lease>().reads::<Pod>();
    controller.run(lifecycle, shutdown).await;
}

fn renewed(lease: &Lease) -> Option<&MicroTime> {
    lease.spec.as_ref()?.renew_time.as_ref()
}

struct Lifecycle {
    nodes: Cache<Node>,
    leases: Cache<Lease>,
    pods: Cache<Pod>,
    memory: Arc<Mutex<Memory>>,
    context: ControllerContext,
}

/// What is only known from watching.
#[derive(Default)]
struct Memory {
    /// The UIDs of the nodes that were there.
    known: BTreeMap<String, String>,
    health: BTreeMap<String, Health>,
    rates: BTreeMap<String, EvictionRate>,
}

#[async_trait]
impl Reconciler for Lifecycle {
    type Object = Node;
    type Error = ApiError;

    async fn reconcile(&self, key: &ObjectKey, context: &Context) -> Result<Action, ApiError> {
        let Some(mut node) = self.nodes.get(key) else {
            let mut memory = lock(&self.memory);
            memory.health.remove(&key.name);
            if let Some(uid) = memory.known.remove(&key.name) {
                let message = format!("Node {0} event: Removing Node {0} from Controller", key.name);
                self.report(&key.name, Some(uid), "RemovingNode", message);
            }
            return Ok(Action::Done);
        };
        let uid = meta::uid(&node.metadata).to_owned();
        if lock(&self.memory).known.insert(key.name.clone(), uid.clone()).is_none() {
            let message = format!("Node {0} event: Registered Node {0} in Controller", key.name);
            self.report(&key.name, Some(uid), "RegisteredNode", message);
        }
        let wait = self.silence(&node);
        let now = time(context.env().now());
        let api = Api::<Node>::all(context.client());
        if wait.is_zero()
            && let Some(status) = silenced(&node, &now)
        {
            let was_ready = ready_status(&node) == "True";
            let new = Node { status: Some(status), ..(*node).clone() };
            node = api.replace_status(&key.name, &PostParams::default(), &new).await?;
            if was_ready {
                let message = format!("Node {} status is now: NodeNotReady", key.name);
                self.report(&key.name, node.metadata.uid.clone(), "NodeNotReady", message);
            }
        }
        if decide::is_silent(&node) {
            self.mark_pods(&node, context).await?;
        }
        let (evict, later) = self.may_evict(&node);
        let (taints, labels) = (decide::wanted_taints(&node, evict, &now), decide::wanted_labels(&node));
        if taints.is_some() || labels.is_some() {
            let mut new = (*node).clone();
            if let Some(taints) = taints {
                new.spec.get_or_insert_default().taints = Some(taints).filter(|taints| !taints.is_empty());
            }
            new.metadata.labels = labels.or(new.metadata.labels);
            api.replace(&key.name, &PostParams::default(), &new).await?;
        }
        let silence = if wait.is_zero() { limits::NODE_MONITOR_PERIOD } else { wait };
        Ok(Action::RequeueAfter(later.map_or(silence, |later| later.min(silence))))
    }
}

impl Lifecycle {
    /// How long until the node counts as silent; zero when it does.
    fn silence(&self, node: &Node) -> Duration {
        let name = meta::name(&node.metadata);
        let lease = self.leases.get(&ObjectKey::new(LEASES, name));
        let now = self.context.env().monotonic();
        let options = &self.context.options;
        let grace = match decide::ready(node) {
            Some(_) => options.node_monitor_grace_period,
            None => options.node_startup_grace_period,
        };
        let mut memory = lock(&self.memory);
        let health = memory.health.entry(name.to_owned()).or_default();
        health.observe(node, lease.as_deref().and_then(renewed), now);
        health.deadline(grace).saturating_sub(now)
    }

    /// Whether the node's pods may be evicted now; else when to ask again.
    fn may_evict(&self, node: &Node) -> (bool, Option<Duration>) {
        if eviction_taint(node).is_none() {
            return (false, None);
        }
        let mut zones: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        for other in self.nodes.list().iter().filter(|node| !decide::is_excluded(node)) {
            let (ready, not_ready) = zones.entry(zone_of(other)).or_default();
            let counted = if ready_status(other) == "True" { ready } else { not_ready };
            *counted += 1;
        }
        let states: BTreeMap<&String, Zone> =
            zones.iter().map(|(zone, (ready, not_ready))| (zone, zone_state(*ready, *not_ready))).collect();
        // When all nodes are gone, it is rather this controller that is cut off.
        if states.values().all(|state| *state == Zone::Full) {
            return (false, Some(limits::NODE_MONITOR_PERIOD));
        }
        if is_evicting(node) {
            return (true, None);
        }
        let zone = zone_of(node);
        let (ready, not_ready) = zones.get(&zone).copied().unwrap_or_default();
        let state = states.get(&zone).copied().unwrap_or(Zone::Normal);
        let rate = rate(state, ready + not_ready, self.context.options.node_eviction_rate);
        if rate <= 0.0 {
            return (false, Some(limits::NODE_MONITOR_PERIOD));
        }
        let now = self.context.env().monotonic();
        let mut memory = lock(&self.memory);
        match memory.rates.entry(zone).or_insert_with(EvictionRate::new).take(rate, now) {
            Ok(()) => (true, None),
            Err(wait) => (false, Some(wait)),
        }
    }

    /// Says on the pods of a silent node that they are not ready.
    async fn mark_pods(&self, node: &Node, context: &Context) -> Result<(), ApiError> {
        let now = time(context.env().now());
        for pod in self.pods.by_index(BY_NODE, meta::name(&node.metadata)) {
            let Some(status) = decide::unready(&pod, &now) else { continue };
            let new = Pod { status: Some(status), ..(*pod).clone() };
            let api = Api::<Pod>::namespaced(context.client(), meta::namespace(&pod.metadata));
            settled(api.replace_status(meta::name(&pod.metadata), &PostParams::default(), &new).await)?;
            let event = Event::warning("NodeNotReady", "Node is not ready");
            self.context.recorder.record(&meta::object_reference(&*pod), event);
        }
        Ok(())
    }

    fn report(&self, node: &str, uid: Option<String>, reason: &str, message: String) {
        let regarding = ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(node.to_owned()),
            uid,
            api_version: Some("v1".to_owned()),
            ..Default::default()
        };
        self.context.recorder.record(&regarding, Event::normal(reason, message));
    }
}

fn zone_of(node: &Node) -> String {
    let label = |name| meta::label(&node.metadata, name).unwrap_or_default();
    format!("{}:{}", label("topology.kubernetes.io/region"), label("topology.kubernetes.io/zone"))
}

fn lock(memory: &Mutex<Memory>) -> MutexGuard<'_, Memory> {
    memory.lock().unwrap_or_else(PoisonError::into_inner)
}
