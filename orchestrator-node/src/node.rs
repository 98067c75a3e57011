//! What all parts of one node share.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, OnceLock},
};

use k8s_openapi::{
    api::core::v1::{ObjectReference, Pod, Service},
    apimachinery::pkg::api::resource::Quantity as Written,
};
use orchestrator_core::{
    client::Client,
    controller::{Cache, Caches},
    env::Env,
    events::{Event, EventRecorder},
    quantity::Quantity,
    runtime::ContainerRuntime,
};

use crate::{
    config::NodeConfig,
    pod::{self, Role, status::NodeFacts},
    volumes::VolumeHost,
};

/// One node.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) client: Client,
    pub(crate) env: Env,
    pub(crate) caches: Caches,
    pub(crate) runtime: Arc<dyn ContainerRuntime>,
    pub(crate) volumes: Arc<dyn VolumeHost>,
    pub(crate) events: EventRecorder,
    pub(crate) config: NodeConfig,
    /// Known once the runtime has said its name.
    pub(crate) facts: OnceLock<NodeFacts>,
    /// Held, so that its watch goes on between pods.
    pub(crate) services: Cache<Service>,
    pub(crate) allocatable: BTreeMap<String, Written>,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Node {
    /// What pods' statuses say of the node.
    pub(crate) fn facts(&self) -> &NodeFacts {
        self.facts.get_or_init(|| NodeFacts { runtime: "unknown".to_owned(), addresses: self.config.addresses.clone() })
    }

    /// Tells about a pod.
    pub(crate) fn tell(&self, pod: &Pod, event: Event) {
        self.events.record(&reference(pod, None), event);
    }

    /// Tells about a container of a pod.
    pub(crate) fn tell_container(&self, pod: &Pod, container: &str, event: Event) {
        self.events.record(&reference(pod, Some(container)), event);
    }

    /// Tells about the node itself; upstream gives its name for its UID, too.
    pub(crate) fn tell_node(&self, event: Event) {
        let about = ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(self.name.clone()),
            uid: Some(self.name.clone()),
            ..ObjectReference::default()
        };
        self.events.record(&about, event);
    }

    /// The machine's memory, in bytes.
    pub(crate) fn memory_capacity(&self) -> i64 {
        self.config.capacity.get("memory").and_then(|it| Quantity::try_from(it).ok()).map_or(0, |it| it.value())
    }
}

fn reference(pod: &Pod, container: Option<&str>) -> ObjectReference {
    let field_path = container.map(|name| {
        let list = match pod::container(pod, name).map(|(role, _)| role) {
            Some(Role::Init | Role::Sidecar) => "initContainers",
            Some(Role::Ephemeral) => "ephemeralContainers",
            _ => "containers",
        };
        format!("spec.{list}{{{name}}}")
    });
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: pod.metadata.name.clone(),
        namespace: pod.metadata.namespace.clone(),
        uid: pod.metadata.uid.clone(),
        resource_version: pod.metadata.resource_version.clone(),
        field_path,
    }
}
