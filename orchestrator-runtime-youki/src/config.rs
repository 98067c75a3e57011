//! What an embedder tells the runtime: directories, images, networks and how helpers start.

use std::{collections::BTreeMap, ops::RangeInclusive, path::PathBuf};

use orchestrator_core::{env::Env, runtime::RuntimeError};
use orchestrator_images::{ImageSource, Registries};

use crate::{
    Ipv4Network, YoukiRuntime,
    images::normalize,
    limits::{USER_RANGES, WRITABLE_LAYER_BYTES},
};

/// Which program a pod's helper process executes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Helper {
    /// The running program itself, which calls [`crate::init`] first in its `main`.
    #[default]
    CurrentExe,
    /// A program whose `main` is [`crate::helper_main`], such as this crate's `orchestrator-pod-helper`.
    Program(PathBuf),
}

/// What an image name means: the machine's own root file system with these defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ImageConfig {
    /// The entry point: program and leading arguments. A container's `command` replaces it and drops `args`.
    pub entrypoint: Vec<String>,
    /// Further arguments; a container's `args` replace them.
    pub args: Vec<String>,
    /// Environment; a container's is added.
    pub environment: Vec<(String, String)>,
    /// Working directory, instead of `/`.
    pub working_directory: Option<String>,
    /// The signal that asks a container to stop, instead of `SIGTERM`.
    pub stop_signal: Option<String>,
    /// The numeric user, instead of 0.
    pub user: Option<i64>,
    /// Files and directories of the machine that every container of the image sees, read-only.
    pub mounts: Vec<ImageMount>,
}

/// A path of the machine that containers of an image see elsewhere, read-only.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ImageMount {
    /// On the machine.
    pub host_path: PathBuf,
    /// In the container; absolute.
    pub container_path: PathBuf,
}

impl ImageConfig {
    /// An image that runs this command by default, in the way of `CMD` in a Dockerfile.
    pub fn command(command: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { args: command.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// Adds a path of the machine, read-only.
    #[must_use]
    pub fn mount(mut self, host_path: impl Into<PathBuf>, container_path: impl Into<PathBuf>) -> Self {
        self.mounts.push(ImageMount { host_path: host_path.into(), container_path: container_path.into() });
        self
    }

    /// Adds a variable of the environment.
    #[must_use]
    pub fn variable(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }
}

/// Builds a [`YoukiRuntime`]; see [`YoukiRuntime::builder`].
#[derive(Clone, Debug)]
pub struct YoukiBuilder {
    pub(crate) root: PathBuf,
    pub(crate) cluster: String,
    pub(crate) images: BTreeMap<String, ImageConfig>,
    pub(crate) sources: Vec<(String, ImageSource)>,
    pub(crate) registries: Option<Registries>,
    pub(crate) image_directory: Option<PathBuf>,
    pub(crate) helper: Helper,
    pub(crate) cluster_network: Ipv4Network,
    pub(crate) pod_network: Option<Ipv4Network>,
    pub(crate) network_directory: Option<PathBuf>,
    pub(crate) cgroup_parent: Option<String>,
    pub(crate) hidden_paths: Vec<PathBuf>,
    pub(crate) writable_layer_bytes: u64,
    pub(crate) seccomp_profiles: Option<PathBuf>,
    pub(crate) apparmor_profile: Option<String>,
    pub(crate) user_ranges: RangeInclusive<u16>,
}

impl YoukiBuilder {
    pub(crate) fn new(root: PathBuf) -> Self {
        let cluster_network = match "10.244.0.0/16".parse() {
            Ok(network) => network,
            Err(_) => unreachable!("the default network is one"),
        };
        Self {
            root,
            cluster: "default".to_owned(),
            images: BTreeMap::new(),
            sources: Vec::new(),
            registries: Some(Registries::default()),
            image_directory: None,
            helper: Helper::default(),
            cluster_network,
            pod_network: None,
            network_directory: None,
            cgroup_parent: None,
            hidden_paths: Vec::new(),
            writable_layer_bytes: WRITABLE_LAYER_BYTES,
            seccomp_profiles: None,
            apparmor_profile: None,
            user_ranges: 1..=USER_RANGES,
        }
    }

    /// The cluster's name; it names the cgroup parent. `default` unless given.
    #[must_use]
    pub fn cluster(mut self, name: impl Into<String>) -> Self {
        self.cluster = name.into();
        self
    }

    /// Makes a name mean the machine's own root file system. The tag is not part of it: `nginx` also stands for
    /// `docker.io/library/nginx:1.27`.
    #[must_use]
    pub fn image(mut self, name: impl AsRef<str>, image: ImageConfig) -> Self {
        self.images.insert(normalize(name.as_ref()), image);
        self
    }

    /// Names several images, see [`Self::image`].
    #[must_use]
    pub fn images(mut self, images: BTreeMap<String, ImageConfig>) -> Self {
        self.images.extend(images.into_iter().map(|(name, image)| (normalize(&name), image)));
        self
    }

    /// Says where an image comes from, instead of a registry. `nginx` stands for `docker.io/library/nginx:latest`.
    #[must_use]
    pub fn source(mut self, name: impl Into<String>, source: impl Into<ImageSource>) -> Self {
        self.sources.push((name.into(), source.into()));
        self
    }

    /// How registries are reached that images are pulled from; `None` for a runtime that asks none.
    #[must_use]
    pub fn registries(mut self, registries: impl Into<Option<Registries>>) -> Self {
        self.registries = registries.into();
        self
    }

    /// Where images are kept. Runtimes with the same directory share them: give it to all nodes that run on this machine.
    /// `images` in the root directory unless given.
    #[must_use]
    pub fn image_directory(mut self, path: impl Into<PathBuf>) -> Self {
        self.image_directory = Some(path.into());
        self
    }

    /// Which program the helpers execute.
    #[must_use]
    pub fn helper(mut self, helper: Helper) -> Self {
        self.helper = helper;
        self
    }

    /// The network of all pods of the cluster, the same on every node of it. `10.244.0.0/16` unless given.
    #[must_use]
    pub fn cluster_network(mut self, network: Ipv4Network) -> Self {
        self.cluster_network = network;
        self
    }

    /// The part of the cluster's network that this node's pods get addresses from; all of it unless given.
    #[must_use]
    pub fn pod_network(mut self, network: Ipv4Network) -> Self {
        self.pod_network = Some(network);
        self
    }

    /// Where the cluster's bridge and leases are kept. Runtimes with the same directory share one bridge: give it
    /// to all nodes of a cluster that run on this machine. `network` in the root directory unless given.
    #[must_use]
    pub fn network_directory(mut self, path: impl Into<PathBuf>) -> Self {
        self.network_directory = Some(path.into());
        self
    }

    /// The cgroup under which all pods are made, a plain name. `orchestrator-<cluster>` unless given.
    #[must_use]
    pub fn cgroup_parent(mut self, name: impl Into<String>) -> Self {
        self.cgroup_parent = Some(name.into());
        self
    }

    /// Hides a directory of the machine from all containers, as the root directory of the runtime is hidden.
    #[must_use]
    pub fn hide(mut self, path: impl Into<PathBuf>) -> Self {
        self.hidden_paths.push(path.into());
        self
    }

    /// The directory in which a container's seccomp profile is a file, as the kubelet's `seccomp`. Without one, such profiles are
    /// refused.
    #[must_use]
    pub fn seccomp_profiles(mut self, directory: impl Into<PathBuf>) -> Self {
        self.seccomp_profiles = Some(directory.into());
        self
    }

    /// Which users of the machine pods have that have a user namespace: each gets 65,536 that no other has, range 1 those from
    /// 65,536 on. Taken ranges are known to all runtimes in the machine's network namespace. 1 to 1,024 unless given; range
    /// 0 is the machine's own and refused.
    #[must_use]
    pub fn user_ranges(mut self, numbers: RangeInclusive<u16>) -> Self {
        self.user_ranges = numbers;
        self
    }

    /// The AppArmor profile of containers that name none: `RuntimeDefault` to Kubernetes. The machine has loaded it; on a kernel
    /// without AppArmor it means nothing. None unless given.
    #[must_use]
    pub fn apparmor_profile(mut self, name: impl Into<String>) -> Self {
        self.apparmor_profile = Some(name.into());
        self
    }

    /// The most that a container can write to its root file system, in bytes of memory. One GiB unless given.
    #[must_use]
    pub fn writable_layer_bytes(mut self, bytes: u64) -> Self {
        self.writable_layer_bytes = bytes;
        self
    }

    /// Makes the runtime. Nothing happens on the machine yet; ask [`YoukiRuntime::check_machine`] whether it can.
    pub fn build(self, env: Env) -> Result<YoukiRuntime, RuntimeError> {
        YoukiRuntime::new(self, env)
    }
}
