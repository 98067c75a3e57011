//! The node IPAM controller: gives each node its ranges of addresses for pods.

mod decide;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Node, ObjectReference};
use kube_core::params::{Patch, PatchParams};
use orchestrator_core::{
    client::Api,
    controller::{Action, Cache, Context, Controller, Reconciler},
    events::{Event, EventRecorder},
    meta,
    object::ObjectKey,
    status::{ApiError, Reason},
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use self::decide::{Exhausted, Ranges};
use crate::{addresses::Prefix, context::ControllerContext, limits};

/// Runs the controller until the shutdown, where the cluster has addresses to give.
pub(crate) async fn run(context: ControllerContext, shutdown: CancellationToken) {
    let ranges = match ranges(&context) {
        Ok(Some(ranges)) => Arc::new(Mutex::new(ranges)),
        Ok(None) => return shutdown.cancelled().await,
        Err(error) => {
            tracing::error!(error, "nodes get no addresses for their pods");
            return shutdown.cancelled().await;
        }
    };
    let nodes = context.caches.cache::<Node>();
    let seen = ranges.clone();
    let _changes = nodes.on_change(move |change| {
        let mut ranges = lock(&seen);
        match &change.new {
            None => ranges.release(&change.key.name),
            Some(node) if !pod_ranges(node).is_empty() => ranges.observe(&change.key.name, pod_ranges(node)),
            Some(_) => {}
        }
    });
    // One after another, so that what is free is given away once.
    Controller::new("node-ipam", &context.caches)
        .reconciles::<Node>()
        .concurrency(1)
        .run(Allocation { nodes, ranges, recorder: context.recorder }, shutdown)
        .await;
}

/// The ranges that nodes get theirs of; none when the cluster has none.
fn ranges(context: &ControllerContext) -> Result<Option<Ranges>, String> {
    let parse = |texts: &[String]| -> Result<Vec<Prefix>, String> {
        texts
            .iter()
            .map(|text| text.parse().map_err(|error: crate::addresses::InvalidPrefix| error.to_string()))
            .collect()
    };
    let options = &context.options;
    let cluster = parse(&options.cluster_cidrs)?.into_iter().map(|whole| {
        let length = if whole.is_ipv6() { limits::NODE_PREFIX_IPV6 } else { limits::NODE_PREFIX_IPV4 };
        match length.checked_sub(whole.length()) {
            None => Err(format!("{whole} has no room for a node, which gets a /{length}")),
            Some(bits) if bits > limits::NODES_OF_A_RANGE_BITS => {
                Err(format!("{whole} is too large for nodes that get a /{length} each"))
            }
            Some(_) => Ok((whole, length)),
        }
    });
    let cluster = cluster.collect::<Result<Vec<_>, _>>()?;
    let services = parse(&options.service_cidrs)?;
    Ok((!cluster.is_empty()).then(|| Ranges::new(&cluster, &services)))
}

fn lock(ranges: &Mutex<Ranges>) -> MutexGuard<'_, Ranges> {
    ranges.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The ranges that a node has.
fn pod_ranges(node: &Node) -> Vec<Prefix> {
    let ranges = node.spec.as_ref().and_then(|spec| spec.pod_cidrs.as_ref());
    ranges.into_iter().flatten().filter_map(|range| range.parse().ok()).collect()
}

struct Allocation {
    nodes: Cache<Node>,
    ranges: Arc<Mutex<Ranges>>,
    recorder: EventRecorder,
}

#[async_trait]
impl Reconciler for Allocation {
    type Object = Node;
    type Error = ApiError;

    async fn reconcile(&self, key: &ObjectKey, context: &Context) -> Result<Action, ApiError> {
        let node = self.nodes.get(key).filter(|node| pod_ranges(node).is_empty());
        let Some(node) = node else { return Ok(Action::Done) };
        let allocated = lock(&self.ranges).allocate(&key.name);
        let ranges = match allocated {
            Ok(ranges) => ranges,
            Err(Exhausted { index }) => {
                self.tell(&node, "CIDRNotAvailable");
                let message = format!(
                    "failed to allocate cidr from cluster cidr at idx:{index}: CIDR allocation failed; \
                                       there are no remaining CIDRs left to allocate in the accepted range"
                );
                return Err(ApiError::new(Reason::Unknown, message));
            }
        };
        let ranges: Vec<String> = ranges.iter().map(ToString::to_string).collect();
        let body = Patch::Merge(json!({"spec": {"podCIDR": ranges.first(), "podCIDRs": ranges}}));
        match Api::<Node>::all(context.client()).patch(&key.name, &PatchParams::default(), &body).await {
            Ok(_) => Ok(Action::Done),
            Err(error) if error.is_not_found() => {
                lock(&self.ranges).release(&key.name);
                Ok(Action::Done)
            }
            Err(error) => {
                // It may have come to pass nevertheless, so that the node keeps what it was meant to have.
                self.tell(&node, "CIDRAssignmentFailed");
                Err(error)
            }
        }
    }
}

impl Allocation {
    fn tell(&self, node: &Node, state: &str) {
        let name = meta::name(&node.metadata);
        let reference = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            name: Some(name.to_owned()),
            uid: node.metadata.uid.clone(),
            ..Default::default()
        };
        self.recorder.record(&reference, Event::normal(state, format!("Node {name} status is now: {state}")));
    }
}
