//! What a world is like at one moment: its objects, typed, and what runs on its machines.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet, StatefulSet},
        core::v1::{Node, Pod, Service},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use orchestrator_core::{
    scheduler::{Resources, pod_requests},
    store::Entry,
};
use serde::{Deserialize, de::DeserializeOwned};

use crate::history::Record;

/// A world at one moment. A plain value, so that checks on it are functions and can be tested on planted ones.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// When.
    pub at: Timestamp,
    /// Every object there is, by its key in the store.
    pub objects: BTreeMap<String, Arc<Stored>>,
    /// Sandboxes and containers, by the name of the node.
    pub machines: BTreeMap<String, Vec<PodOnMachine>>,
}

/// An object as the store holds it.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Such as `apps/v1`.
    pub api_version: String,
    /// Such as `Deployment`.
    pub kind: String,
    /// Its metadata.
    pub metadata: ObjectMeta,
    /// The object, where it is of a kind that checks look into.
    pub typed: Typed,
    requests: OnceLock<Resources>,
}

/// The kinds that checks look into.
#[derive(Clone, Debug)]
pub enum Typed {
    /// A pod.
    Pod(Box<Pod>),
    /// A node.
    Node(Box<Node>),
    /// A deployment.
    Deployment(Box<Deployment>),
    /// A replica set.
    ReplicaSet(Box<ReplicaSet>),
    /// A stateful set.
    StatefulSet(Box<StatefulSet>),
    /// A service.
    Service(Box<Service>),
    /// An endpoint slice.
    EndpointSlice(Box<EndpointSlice>),
    /// Anything else.
    Other,
}

/// A pod's sandbox on a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodOnMachine {
    /// The pod's UID.
    pub uid: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// The names of the containers that run in it.
    pub running: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    metadata: ObjectMeta,
}

impl Stored {
    /// Reads an encoded object. `None` for what is none, such as a reserved address.
    pub fn decode(value: &[u8]) -> Option<Self> {
        fn typed<K: DeserializeOwned>(value: &[u8], wrap: fn(Box<K>) -> Typed) -> Option<Typed> {
            serde_json::from_slice(value).ok().map(|object| wrap(Box::new(object)))
        }
        let Head { api_version, kind, metadata } = serde_json::from_slice(value).ok()?;
        let typed = match (api_version.as_str(), kind.as_str()) {
            ("v1", "Pod") => typed(value, Typed::Pod)?,
            ("v1", "Node") => typed(value, Typed::Node)?,
            ("v1", "Service") => typed(value, Typed::Service)?,
            ("apps/v1", "Deployment") => typed(value, Typed::Deployment)?,
            ("apps/v1", "ReplicaSet") => typed(value, Typed::ReplicaSet)?,
            ("apps/v1", "StatefulSet") => typed(value, Typed::StatefulSet)?,
            ("discovery.k8s.io/v1", "EndpointSlice") => typed(value, Typed::EndpointSlice)?,
            _ => Typed::Other,
        };
        Some(Self { api_version, kind, metadata, typed, requests: OnceLock::new() })
    }

    /// What a pod asks for; nothing for other kinds.
    pub(crate) fn requests(&self) -> &Resources {
        self.requests.get_or_init(|| match &self.typed {
            Typed::Pod(pod) => pod_requests(pod),
            _ => Resources::default(),
        })
    }
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $method:ident: $kind:ident;)*) => {$(
        $(#[$doc])*
        pub fn $method(&self) -> impl Iterator<Item = &$kind> {
            self.objects.values().filter_map(|object| match &object.typed {
                Typed::$kind(object) => Some(&**object),
                _ => None,
            })
        }
    )*};
}

impl Snapshot {
    kinds! {
        /// All pods.
        pods: Pod;
        /// All nodes.
        nodes: Node;
        /// All deployments.
        deployments: Deployment;
        /// All replica sets.
        replica_sets: ReplicaSet;
        /// All stateful sets.
        stateful_sets: StatefulSet;
        /// All services.
        services: Service;
        /// All endpoint slices.
        endpoint_slices: EndpointSlice;
    }

    /// Takes in what a store begins with.
    pub(crate) fn begin(&mut self, entries: &[Entry]) {
        let decode = |entry: &Entry| Some((entry.key.to_string(), Arc::new(Stored::decode(&entry.value)?)));
        self.objects = entries.iter().filter_map(decode).collect();
    }

    /// Takes in changes, each key's last one only.
    pub(crate) fn follow(&mut self, records: &[Record]) {
        let newest: BTreeMap<&str, &Record> = records.iter().map(|record| (record.key.as_str(), record)).collect();
        for (key, record) in newest {
            match record.value.as_deref().and_then(Stored::decode) {
                Some(object) => self.objects.insert(key.to_owned(), Arc::new(object)),
                None => self.objects.remove(key),
            };
        }
    }
}
