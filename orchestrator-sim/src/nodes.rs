//! Machines and their agents; agents share processes.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use orchestrator_core::{controller::Caches, env::Env, node_connector::NodeDirectory};
use orchestrator_node::{NodeAgent, NodeConfig, PodSource};
use orchestrator_runtime_sim::{MachineConfig, SimMachine};

use crate::{
    builder::SimClusterBuilder,
    host::Host,
    link::{Delay, Link, Seat},
    snapshot::PodOnMachine,
};

/// The network that machines have their addresses from.
const MACHINES: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 0);
/// The network that pods have their addresses from: 256 for each machine.
const PODS: Ipv4Addr = Ipv4Addr::new(10, 128, 0, 0);
const PODS_PREFIX: u8 = 24;

/// All nodes of a world.
#[derive(Debug)]
pub(crate) struct Nodes {
    env: Env,
    seat: Arc<Seat>,
    directory: NodeDirectory,
    delay: Delay,
    nodes: BTreeMap<String, Node>,
    processes: Vec<Process>,
}

#[derive(Debug)]
struct Node {
    machine: SimMachine,
    config: NodeConfig,
    /// What the agent runs on; the containers are on the machine.
    host: Host,
    process: usize,
    agent: Option<NodeAgent>,
}

/// What agents of one process share. The source is there while one of them runs.
#[derive(Debug)]
struct Process {
    link: Link,
    pods: Option<PodSource>,
}

impl Nodes {
    pub(crate) fn new(env: &Env, seat: &Arc<Seat>, directory: &NodeDirectory, delay: Delay) -> Self {
        Self {
            env: env.clone(),
            seat: seat.clone(),
            directory: directory.clone(),
            delay,
            nodes: BTreeMap::new(),
            processes: Vec::new(),
        }
    }

    /// Adds the nodes that are asked for, on these machines where they have them already.
    pub(crate) fn add(&mut self, builder: &SimClusterBuilder, machines: &BTreeMap<String, SimMachine>) {
        for index in 0..builder.nodes {
            let process = index / builder.nodes_per_process;
            if process == self.processes.len() {
                self.processes.push(Process { link: self.seat.link(&self.env, self.delay), pods: None });
            }
            let name = format!("node-{index}");
            let number = u32::try_from(index).unwrap_or(u32::MAX);
            let subnet = Ipv4Addr::from(u32::from(PODS).wrapping_add(number << (32 - PODS_PREFIX)));
            let machine = match machines.get(&name) {
                Some(machine) => machine.fork(&self.env),
                None => SimMachine::new(&self.env, MachineConfig { subnet, prefix: PODS_PREFIX }),
            };
            let mut config = builder.node.clone();
            config.addresses = vec![IpAddr::V4(Ipv4Addr::from(u32::from(MACHINES).wrapping_add(number + 1)))];
            config.pod_cidr = Some(format!("{subnet}/{PODS_PREFIX}"));
            self.nodes.insert(name, Node { machine, config, host: Host::new(&self.env), process, agent: None });
        }
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.nodes.keys().cloned().collect()
    }

    pub(crate) fn machine(&self, node: &str) -> Option<SimMachine> {
        self.nodes.get(node).map(|node| node.machine.clone())
    }

    pub(crate) fn machines(&self) -> BTreeMap<String, SimMachine> {
        self.nodes.iter().map(|(name, node)| (name.clone(), node.machine.clone())).collect()
    }

    pub(crate) fn host(&self, node: &str) -> Option<&Host> {
        self.nodes.get(node).map(|node| &node.host)
    }

    pub(crate) fn has_agent(&self, node: &str) -> bool {
        self.nodes.get(node).is_some_and(|node| node.agent.is_some())
    }

    pub(crate) fn start_agent(&mut self, name: &str) {
        let Some(node) = self.nodes.get_mut(name).filter(|node| node.agent.is_none()) else { return };
        let Some(process) = self.processes.get_mut(node.process) else { return };
        let client = process.link.client();
        let pods = process.pods.get_or_insert_with(|| PodSource::new(&Caches::new(&client, &self.env)));
        let agent = NodeAgent::builder(&client, &node.host.env(), Arc::new(node.machine.runtime()), name)
            .config(node.config.clone())
            .pods(pods.clone())
            .start();
        self.directory.insert(name, agent.connector());
        node.agent = Some(agent);
    }

    pub(crate) fn kill_agent(&mut self, name: &str) {
        let Some(node) = self.nodes.get_mut(name) else { return };
        self.directory.remove(name);
        node.agent = None;
        let process = node.process;
        let is_idle = self.nodes.values().all(|node| node.process != process || node.agent.is_none());
        if is_idle && let Some(process) = self.processes.get_mut(process) {
            process.pods = None;
        }
    }

    pub(crate) fn kill(&mut self, name: &str) {
        self.kill_agent(name);
        if let Some(node) = self.nodes.get(name) {
            node.machine.crash_machine();
        }
    }

    pub(crate) fn set_reachable(&mut self, name: &str, reachable: bool) {
        let process = self.nodes.get(name).and_then(|node| self.processes.get(node.process));
        match process {
            Some(process) if reachable => process.link.mend(),
            Some(process) => process.link.cut(),
            None => {}
        }
    }

    /// What is on each machine.
    pub(crate) fn on_machines(&self) -> BTreeMap<String, Vec<PodOnMachine>> {
        self.nodes.iter().map(|(name, node)| (name.clone(), pods_on(&node.machine))).collect()
    }
}

fn pods_on(machine: &SimMachine) -> Vec<PodOnMachine> {
    let mut pods: BTreeMap<String, PodOnMachine> = BTreeMap::new();
    for (sandbox, running) in machine.running() {
        let uid = sandbox.key.pod_uid;
        let pod = pods.entry(uid.clone()).or_insert_with(|| PodOnMachine {
            uid,
            namespace: sandbox.namespace,
            name: sandbox.name,
            running: Vec::new(),
        });
        pod.running.extend(running);
    }
    pods.into_values().collect()
}
