//! The cluster's three nodes, on youki where the machine allows it, and on simulated containers elsewhere.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
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
    runtime_sim::{MachineConfig, SimMachine},
    runtime_youki::{ImageConfig, YoukiRuntime},
};

use crate::{Failure, web_server};

const NAMES: [&str; 3] = ["node-1", "node-2", "node-3"];

/// The nodes, and what stays of them when their agents end.
pub(crate) struct Nodes {
    env: Env,
    kind: Kind,
}

enum Kind {
    Youki { nodes: Vec<(YoukiRuntime, PathBuf)> },
    Simulated { machines: Vec<SimMachine>, why: String },
}

impl Nodes {
    pub(crate) fn new(env: &Env, directory: &Path, name: &str, simulated: bool) -> Result<Self, Failure> {
        let machine = if simulated { Err("as asked for".to_owned()) } else { YoukiRuntime::check_machine() };
        let kind = match machine {
            Ok(()) => Kind::Youki { nodes: youki_nodes(env, directory, name)? },
            Err(why) => {
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
            Kind::Simulated { machines, .. } => Arc::new(machines[index].runtime()),
        }
    }

    /// Which of the nodes has this name.
    pub(crate) fn index(name: &str) -> Option<usize> {
        NAMES.iter().position(|known| *known == name)
    }

    /// Removes what a node that was stopped left behind, and the network that all share.
    pub(crate) async fn remove(&self) -> Result<(), Failure> {
        let Kind::Youki { nodes } = &self.kind else { return Ok(()) };
        for (runtime, _) in nodes {
            for sandbox in runtime.list_sandboxes().await? {
                runtime.stop_sandbox(&sandbox.id).await?;
                runtime.remove_sandbox(&sandbox.id).await?;
            }
        }
        match nodes.first() {
            Some((runtime, _)) => Ok(runtime.remove_network().await?),
            None => Ok(()),
        }
    }
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
