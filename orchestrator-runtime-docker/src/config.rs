//! What an embedder tells the runtime: whose it is, where the engine listens, networks and images.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf, time::Duration};

use orchestrator_core::{env::Env, runtime::RuntimeError};

use orchestrator_images::ImageSource;

use crate::{DockerRuntime, limits::CALL_TIME};

/// Where the engine listens unless told otherwise.
const SOCKET: &str = "/var/run/docker.sock";

/// Which of the engine's networks pods get their addresses from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodNetwork {
    /// A bridge of the cluster's own, `orchestrator-<cluster>`, which all of its nodes on this engine share. It is made
    /// for the first pod, and there until [`DockerRuntime::remove_leftovers`].
    Cluster {
        /// Its addresses, such as `10.244.0.0/16`; the engine's choice when `None`.
        subnet: Option<String>,
    },
    /// A network that somebody else has made, by its name: `bridge` is the engine's own.
    Existing(String),
}

impl PodNetwork {
    /// Refuses addresses that are not those of a network.
    pub(crate) fn check(&self) -> Result<(), RuntimeError> {
        let Self::Cluster { subnet: Some(subnet) } = self else { return Ok(()) };
        let parts = subnet.split_once('/').and_then(|(address, prefix)| {
            let address: IpAddr = address.parse().ok()?;
            Some((address, prefix.parse::<u8>().ok()?))
        });
        let fits = parts.is_some_and(|(address, prefix)| prefix <= if address.is_ipv4() { 32 } else { 128 });
        let message = || format!("{subnet:?} is not a network such as 10.244.0.0/16");
        if fits { Ok(()) } else { Err(RuntimeError::Invalid(message())) }
    }
}

/// Builds a [`DockerRuntime`]; see [`DockerRuntime::builder`].
#[derive(Clone, Debug)]
pub struct DockerBuilder {
    pub(crate) directory: PathBuf,
    pub(crate) cluster: String,
    pub(crate) node: String,
    pub(crate) socket: PathBuf,
    pub(crate) call_time: Duration,
    pub(crate) network: PodNetwork,
    pub(crate) cgroup_parent: Option<String>,
    pub(crate) images: BTreeMap<String, ImageSource>,
    pub(crate) seccomp_profiles: Option<PathBuf>,
}

impl DockerBuilder {
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            cluster: "default".to_owned(),
            node: "node".to_owned(),
            socket: PathBuf::from(SOCKET),
            call_time: CALL_TIME,
            network: PodNetwork::Cluster { subnet: None },
            cgroup_parent: None,
            images: BTreeMap::new(),
            seccomp_profiles: None,
        }
    }

    /// The cluster's name. Clusters on one engine are told apart by it: no two may have the same. `default` unless given.
    #[must_use]
    pub fn cluster(mut self, name: impl Into<String>) -> Self {
        self.cluster = name.into();
        self
    }

    /// The node's name in the cluster. `node` unless given.
    #[must_use]
    pub fn node(mut self, name: impl Into<String>) -> Self {
        self.node = name.into();
        self
    }

    /// Path of the engine's socket. `/var/run/docker.sock` unless given.
    #[must_use]
    pub fn socket(mut self, path: impl Into<PathBuf>) -> Self {
        self.socket = path.into();
        self
    }

    /// How long one call to the engine may take. Two minutes unless given, as the kubelet's `runtimeRequestTimeout`.
    #[must_use]
    pub fn call_timeout(mut self, time: Duration) -> Self {
        self.call_time = time;
        self
    }

    /// Where pods get their addresses from. A network of the cluster's own unless given.
    #[must_use]
    pub fn network(mut self, network: PodNetwork) -> Self {
        self.network = network;
        self
    }

    /// The cgroup under which the engine makes those of the containers, in the notation of its cgroup driver. The engine's
    /// choice unless given.
    #[must_use]
    pub fn cgroup_parent(mut self, name: impl Into<String>) -> Self {
        self.cgroup_parent = Some(name.into());
        self
    }

    /// Says where an image comes from, instead of a registry. `nginx` stands for `docker.io/library/nginx:latest`, as on the
    /// command line.
    #[must_use]
    pub fn image(mut self, name: impl Into<String>, source: impl Into<ImageSource>) -> Self {
        self.images.insert(name.into(), source.into());
        self
    }

    /// The directory in which a container's seccomp profile is a file, as the kubelet's `seccomp`. Without one, such profiles
    /// are refused.
    #[must_use]
    pub fn seccomp_profiles(mut self, directory: impl Into<PathBuf>) -> Self {
        self.seccomp_profiles = Some(directory.into());
        self
    }

    /// Makes the runtime. Nothing happens on the engine yet; ask [`orchestrator_core::runtime::ContainerRuntime::status`]
    /// whether it is there.
    pub fn build(self, env: Env) -> Result<DockerRuntime, RuntimeError> {
        DockerRuntime::new(self, env)
    }
}
