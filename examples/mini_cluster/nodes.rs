//! The cluster's three nodes, on the runtime that was asked for, or on what the machine allows.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

use orchestrator::{
    NodeSpec,
    env::Env,
    node::{
        DirectoryVolumes, NodeConfig,
        machine::{Detector, ThisMachine},
    },
    runtime::ContainerRuntime,
    runtime_docker::{DockerRuntime, PackedImage},
    runtime_sim::{MachineConfig, SimMachine},
    runtime_youki::{ImageConfig, YoukiRuntime},
};

use crate::{Failure, web_server};

const NAMES: [&str; 3] = ["node-1", "node-2", "node-3"];

/// What the manifests, and the tour's update, call the web server.
const NGINX: [&str; 3] = ["nginx", "nginx:1.7.9", "nginx:1.9.1"];

/// The nodes, and what stays of them when their agents end.
pub(crate) struct Nodes {
    env: Env,
    kind: Kind,
}

/// What makes the containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Runtime {
    /// youki, without a daemon.
    Youki,
    /// The machine's Docker Engine.
    Docker,
    /// Nothing: containers are simulated.
    Simulated,
}

impl FromStr for Runtime {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "youki" => Ok(Self::Youki),
            "docker" => Ok(Self::Docker),
            "simulated" => Ok(Self::Simulated),
            other => Err(format!("no runtime {other}; there are youki, docker and simulated")),
        }
    }
}

enum Kind {
    Youki { nodes: Vec<(YoukiRuntime, PathBuf)> },
    Docker { nodes: Vec<(DockerRuntime, PathBuf)> },
    Simulated { machines: Vec<SimMachine>, why: String },
}

impl Nodes {
    pub(crate) fn new(env: &Env, directory: &Path, name: &str, wanted: Option<Runtime>) -> Result<Self, Failure> {
        let (runtime, why) = match (wanted, YoukiRuntime::check_machine()) {
            (Some(runtime), _) => (runtime, "as asked for".to_owned()),
            (None, Ok(())) => (Runtime::Youki, String::new()),
            (None, Err(why)) => (Runtime::Simulated, why),
        };
        let kind = match runtime {
            Runtime::Youki => Kind::Youki { nodes: youki_nodes(env, directory, name)? },
            Runtime::Docker => Kind::Docker { nodes: docker_nodes(env, directory, name)? },
            Runtime::Simulated => {
                let machine = |index| {
                    let subnet = Ipv4Addr::new(10, 244, index, 0);
                    SimMachine::new(env, MachineConfig { subnet, prefix: 24 })
                };
                Kind::Simulated { machines: (1..=3).map(machine).collect(), why }
            }
        };
        Ok(Self { env: env.clone(), kind })
    }

    pub(crate) fn description(&self) -> String {
        match &self.kind {
            Kind::Youki { .. } => "real ones, by youki".to_owned(),
            Kind::Docker { .. } => "real ones, by Docker".to_owned(),
            Kind::Simulated { why, .. } => format!("simulated ({why})"),
        }
    }

    /// What each node is started from, the first time and again.
    pub(crate) fn specs(&self) -> Vec<NodeSpec> {
        NAMES.iter().enumerate().map(|(index, name)| self.spec(index, name)).collect()
    }

    fn spec(&self, index: usize, name: &str) -> NodeSpec {
        let node = NodeSpec::new(name, self.runtime(index));
        let node = match &self.kind {
            Kind::Youki { nodes } => {
                let volumes = DirectoryVolumes::new(&self.env, nodes[index].1.clone());
                node.volumes(Arc::new(volumes)).runtime_name("youki")
            }
            Kind::Docker { nodes } => {
                let volumes = DirectoryVolumes::new(&self.env, nodes[index].1.clone());
                node.volumes(Arc::new(volumes)).runtime_name("docker")
            }
            Kind::Simulated { .. } => node.runtime_name("sim"),
        };
        // All three are this machine.
        let config = NodeConfig { addresses: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)], ..NodeConfig::default() };
        node.config(ThisMachine.detect(config).with_capacity("cpu", "4"))
    }

    /// What runs a node's containers, for those who come past the cluster.
    pub(crate) fn runtime(&self, index: usize) -> Arc<dyn ContainerRuntime> {
        match &self.kind {
            Kind::Youki { nodes } => Arc::new(nodes[index].0.clone()),
            Kind::Docker { nodes } => Arc::new(nodes[index].0.clone()),
            Kind::Simulated { machines, .. } => Arc::new(machines[index].runtime()),
        }
    }

    /// Which of the nodes has this name.
    pub(crate) fn index(name: &str) -> Option<usize> {
        NAMES.iter().position(|known| *known == name)
    }

    /// Removes what a node that was stopped left behind, and the network that all share.
    pub(crate) async fn remove(&self) -> Result<(), Failure> {
        if matches!(self.kind, Kind::Simulated { .. }) {
            return Ok(());
        }
        for index in 0..NAMES.len() {
            let runtime = self.runtime(index);
            for sandbox in runtime.list_sandboxes().await? {
                runtime.stop_sandbox(&sandbox.id).await?;
                runtime.remove_sandbox(&sandbox.id).await?;
            }
        }
        match &self.kind {
            Kind::Youki { nodes } => {
                if let Some((runtime, _)) = nodes.first() {
                    runtime.remove_network().await?;
                }
            }
            Kind::Docker { nodes } => {
                for (runtime, _) in nodes {
                    runtime.remove_leftovers().await?;
                }
            }
            Kind::Simulated { .. } => {}
        }
        Ok(())
    }
}

/// `busybox` and `nginx` are packed from programs of this machine: a shell, and a small web server that this program contains.
fn docker_nodes(env: &Env, directory: &Path, name: &str) -> Result<Vec<(DockerRuntime, PathBuf)>, Failure> {
    let busybox = PackedImage::new().executable("/bin/sh").executable("/bin/sleep").args(["/bin/sh"]);
    let nginx = PackedImage::new()
        .executable_at(std::env::current_exe()?, web_server::PATH)
        .args([web_server::PATH, web_server::ARGUMENT]);
    let node = |node_name: &&str| -> Result<_, Failure> {
        let root = directory.join(node_name);
        let mut builder = DockerRuntime::builder(root.join("runtime"))
            .cluster(name)
            .node(*node_name)
            .image("busybox", busybox.clone());
        for tag in NGINX {
            builder = builder.image(tag, nginx.clone());
        }
        Ok((builder.build(env.clone())?, root.join("volumes")))
    };
    NAMES.iter().map(node).collect()
}

/// Offline, `busybox` is the machine itself, and `nginx` a small web server that this program contains.
fn youki_nodes(env: &Env, directory: &Path, name: &str) -> Result<Vec<(YoukiRuntime, PathBuf)>, Failure> {
    let nginx = ImageConfig::command([web_server::PATH, web_server::ARGUMENT])
        .mount(std::env::current_exe()?, web_server::PATH);
    let node = |node_name: &&str| -> Result<_, Failure> {
        let root = directory.join(node_name);
        let runtime = YoukiRuntime::builder(root.join("runtime"))
            .cluster(name)
            .network_directory(directory.join("network"))
            .hide(directory)
            .image("host", ImageConfig::command(["sh"]))
            .image("busybox", ImageConfig::command(["sh"]))
            .image("nginx", nginx.clone())
            .build(env.clone())?;
        Ok((runtime, root.join("volumes")))
    };
    NAMES.iter().map(node).collect()
}
