//! What a node is like.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use k8s_openapi::{
    api::core::v1::{NodeSystemInfo, Taint},
    apimachinery::pkg::api::resource::Quantity,
};

/// What a node is like, and how it treats pods. Values, no lookups: see [`crate::machine`] for those of this machine.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeConfig {
    /// Labels of the Node object, besides host name, operating system and architecture.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the Node object.
    pub annotations: BTreeMap<String, String>,
    /// Taints of the Node object, set when it is made.
    pub taints: Vec<Taint>,
    /// What the machine has: `cpu`, `memory`, `ephemeral-storage`, `pods`, and extended resources.
    pub capacity: BTreeMap<String, Quantity>,
    /// What pods may use of it; all of it when empty.
    pub allocatable: BTreeMap<String, Quantity>,
    /// The machine's addresses, the first one primary.
    pub addresses: Vec<IpAddr>,
    /// The machine's name in its network; the node's name when `None`.
    pub hostname: Option<String>,
    /// The network that pods get addresses from, if the node brings its own.
    pub pod_cidr: Option<String>,
    /// The machine's name at its provider.
    pub provider_id: Option<String>,
    /// Addresses of the cluster's name servers.
    pub cluster_dns: Vec<String>,
    /// The cluster's domain.
    pub cluster_domain: String,
    /// What the machine runs.
    pub system: NodeSystemInfo,
    /// The longest time that containers get to end when the node is shut down.
    pub shutdown_grace: Duration,
    /// When images are removed that nobody needs.
    pub image_collection: ImageCollection,
}

/// When images are removed that nobody needs: upstream's `imageGC…` of the kubelet's configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageCollection {
    /// Images are removed once this much of their disk is in use, in percent; 100 switches that off.
    pub high_threshold_percent: u8,
    /// Down to this much, in percent.
    pub low_threshold_percent: u8,
    /// Images that are younger stay.
    pub minimum_age: Duration,
    /// Images that nobody used for so long are removed however much space there is.
    pub maximum_age: Option<Duration>,
}

impl Default for ImageCollection {
    fn default() -> Self {
        Self {
            high_threshold_percent: 85,
            low_threshold_percent: 80,
            minimum_age: Duration::from_secs(120),
            maximum_age: None,
        }
    }
}

impl Default for NodeConfig {
    fn default() -> Self {
        let quantity = |text: &str| Quantity(text.to_owned());
        let capacity = [("cpu", "4"), ("memory", "8Gi"), ("ephemeral-storage", "100Gi"), ("pods", "110")];
        Self {
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            taints: Vec::new(),
            capacity: capacity.iter().map(|(name, text)| ((*name).to_owned(), quantity(text))).collect(),
            allocatable: BTreeMap::new(),
            addresses: Vec::new(),
            hostname: None,
            pod_cidr: None,
            provider_id: None,
            cluster_dns: Vec::new(),
            cluster_domain: "cluster.local".to_owned(),
            system: NodeSystemInfo {
                architecture: "amd64".to_owned(),
                operating_system: "linux".to_owned(),
                ..NodeSystemInfo::default()
            },
            shutdown_grace: Duration::from_secs(5),
            image_collection: ImageCollection::default(),
        }
    }
}

impl NodeConfig {
    /// Sets what the machine has of a resource.
    #[must_use]
    pub fn with_capacity(mut self, resource: &str, amount: &str) -> Self {
        self.capacity.insert(resource.to_owned(), Quantity(amount.to_owned()));
        self
    }

    /// Sets a label of the Node object.
    #[must_use]
    pub fn with_label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// What pods may use.
    pub(crate) fn allocatable(&self) -> BTreeMap<String, Quantity> {
        let mut allocatable = self.capacity.clone();
        allocatable.extend(self.allocatable.clone());
        allocatable
    }
}
