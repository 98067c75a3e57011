//! What every controller gets when it starts.

use std::{path::PathBuf, sync::Arc, time::Duration};

use orchestrator_core::{
    client::{Client, ResourceDiscovery},
    controller::Caches,
    env::Env,
    events::EventRecorder,
};

use crate::{CertificateSigner, CloudProvider, MetricsSource, limits, volumes::DirectoryProvisioner};

/// What a controller works with. Cheap to clone.
///
/// Inside of a reconciler write through `Context::client`, which remembers the writes, and not through [`Self::client`].
#[derive(Clone, Debug)]
pub(crate) struct ControllerContext {
    pub(crate) caches: Caches,
    pub(crate) discovery: Arc<dyn ResourceDiscovery>,
    /// Writes Events as this controller.
    pub(crate) recorder: EventRecorder,
    pub(crate) options: Arc<Options>,
}

impl ControllerContext {
    /// The client, for writes outside of a reconciler.
    pub(crate) fn client(&self) -> &Client {
        self.caches.client()
    }

    pub(crate) fn env(&self) -> &Env {
        self.caches.env()
    }
}

/// What the controllers can be told. The defaults are those of `kube-controller-manager`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Certificates (PEM) that clients in pods trust, published as `kube-root-ca.crt`. None: nothing is published.
    pub root_certificates: Option<String>,
    /// How long a node may be silent before it counts as gone.
    pub node_monitor_grace_period: Duration,
    /// How long a node that starts may be silent.
    pub node_startup_grace_period: Duration,
    /// Nodes per second that may get the `NoExecute` taint which evicts their pods.
    pub node_eviction_rate: f64,
    /// Finished pods that are kept before the oldest are collected.
    pub terminated_pods_kept: usize,
    /// Where the provisioner of local directories makes volumes. None: it makes none.
    pub local_volumes: Option<PathBuf>,
    /// Who makes and removes the directories of those volumes. None: the controller itself, on this machine's disk.
    pub local_volume_directories: Option<Arc<dyn DirectoryProvisioner>>,
    /// Where the horizontal pod autoscaler reads metrics. None: from the metrics APIs of the server, which add-ons of a cluster
    /// serve.
    pub metrics: Option<Arc<dyn MetricsSource>>,
    /// The addresses of pods, such as `10.244.0.0/16`, one range of each family, that nodes get theirs of. As upstream's
    /// `--cluster-cidr`. Empty: nodes get none.
    pub cluster_cidrs: Vec<String>,
    /// The addresses of services, which nodes do not get. As upstream's `--service-cluster-ip-range`.
    pub service_cidrs: Vec<String>,
    /// Who signs certificates that are asked for. None: nobody does.
    pub certificate_signer: Option<Arc<dyn CertificateSigner>>,
    /// The cloud that the cluster runs on. None: its controllers have nothing to do.
    pub cloud: Option<Arc<dyn CloudProvider>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            root_certificates: None,
            node_monitor_grace_period: limits::NODE_GRACE_TIME,
            node_startup_grace_period: limits::NODE_STARTUP_GRACE_TIME,
            node_eviction_rate: limits::NODE_EVICTIONS_PER_SECOND,
            terminated_pods_kept: limits::TERMINATED_PODS,
            local_volumes: None,
            local_volume_directories: None,
            metrics: None,
            cluster_cidrs: Vec::new(),
            service_cidrs: Vec::new(),
            certificate_signer: None,
            cloud: None,
        }
    }
}
