//! Faults, drawn from a world's seed and repaired after a while.

mod people;

use std::{collections::BTreeMap, fmt, time::Duration};

use jiff::SignedDuration;
use orchestrator_core::{client::Resource, object::Object, runtime::RuntimeError};
use orchestrator_runtime_sim::Verb;

use crate::{cluster::SimCluster, invariants::Violation};

/// By how much a clock is wrong.
const CLOCK_JUMP: SignedDuration = SignedDuration::from_hours(1);

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A container crashes.
    Container,
    /// A pod's sandbox dies, with all in it.
    Sandbox,
    /// A machine loses power, and comes back empty.
    Node,
    /// A node's agent is killed and started again; its containers run on.
    Agent,
    /// The link of the nodes that share a process is cut.
    Link,
    /// The controllers are killed, or the process of them that leads.
    Controllers,
    /// The link of the controllers that work is cut.
    ControllersLink,
    /// The scheduler is killed.
    Scheduler,
    /// The controllers, or the process of them that leads, stand still, and go on later as if no time had passed.
    ControllersStandStill,
    /// The time of day of the controllers, or of the process of them that leads, is wrong by an hour.
    ControllersClock,
    /// The scheduler stands still.
    SchedulerStandsStill,
    /// The agent of a node stands still. Its containers run on.
    AgentStandsStill,
    /// The next calls of a node's container runtime fail, each verb once.
    Runtime,
    /// The API server is killed.
    ApiServer,
    /// Somebody changes or removes a workload, or deletes a pod. No fault, but it comes at a bad time.
    People,
}

/// Which faults come, how often, and for how long.
#[derive(Clone, Debug)]
pub struct Chaos {
    /// How long faults come.
    pub time: Duration,
    /// The longest time between two faults.
    pub pause: Duration,
    /// The longest time until a fault is repaired.
    pub outage: Duration,
    /// The faults, each with its share.
    pub faults: Vec<(Fault, u64)>,
}

/// What undoes a fault.
#[derive(Debug)]
enum Repair {
    Agent(String),
    Link(String),
    Controllers,
    ControllersLink,
    ControllersClock,
    Scheduler,
    ApiServer,
    /// A workload that was removed is made again.
    Workload(Resource, Box<Object>),
}

impl Chaos {
    /// Containers and nodes fail.
    pub fn of_nodes() -> Self {
        Self {
            time: Duration::from_secs(200),
            pause: Duration::from_secs(8),
            outage: Duration::from_secs(150),
            faults: vec![
                (Fault::Container, 6),
                (Fault::Sandbox, 2),
                (Fault::Node, 3),
                (Fault::Agent, 1),
                (Fault::AgentStandsStill, 1),
                (Fault::Runtime, 1),
            ],
        }
    }

    /// Controllers fail while people change things.
    pub fn of_controllers() -> Self {
        let faults = vec![
            (Fault::Controllers, 2),
            (Fault::ControllersLink, 2),
            (Fault::ControllersStandStill, 2),
            (Fault::ControllersClock, 1),
            (Fault::ApiServer, 1),
            (Fault::Container, 1),
            (Fault::People, 3),
        ];
        Self { outage: Duration::from_secs(60), faults, ..Self::of_nodes() }
    }

    /// Everything fails.
    pub fn of_everything() -> Self {
        let rest = [
            Fault::Link,
            Fault::Controllers,
            Fault::ControllersStandStill,
            Fault::ControllersClock,
            Fault::Scheduler,
            Fault::SchedulerStandsStill,
            Fault::ApiServer,
            Fault::People,
        ];
        let mut chaos = Self::of_nodes();
        chaos.faults.extend(rest.map(|fault| (fault, 1)));
        chaos
    }

    /// Lets faults come for their time, and repairs everything in the end. After each event whatever has to hold at every
    /// moment is checked; the first violations end it.
    pub async fn strike(&self, cluster: &SimCluster) -> Result<(), Vec<Violation>> {
        let env = cluster.env().clone();
        let end = env.monotonic() + self.time;
        let mut repairs: BTreeMap<(Duration, u64), Repair> = BTreeMap::new();
        let mut next = env.monotonic() + self.below(cluster, self.pause);
        let mut faults = 0;
        loop {
            let now = env.monotonic();
            if let Some(repair) = repairs.first_entry().filter(|entry| entry.key().0 <= now) {
                self.repair(cluster, repair.remove()).await;
            } else if next <= now && now < end {
                if let Some(repair) = self.fault(cluster).await {
                    faults += 1;
                    repairs.insert((now + self.below(cluster, self.outage), faults), repair);
                }
                next = now + self.below(cluster, self.pause);
            } else if now >= end && repairs.is_empty() {
                return Ok(());
            } else {
                let repair = repairs.first_key_value().map(|((at, _), _)| *at);
                let fault = (now < end).then_some(next.min(end));
                let until = repair.into_iter().chain(fault).min().unwrap_or(end);
                env.sleep(until.saturating_sub(now)).await;
                continue;
            }
            let broken = cluster.broken();
            if !broken.is_empty() {
                return Err(broken);
            }
        }
    }

    fn below(&self, cluster: &SimCluster, bound: Duration) -> Duration {
        Duration::from_millis(cluster.env().random_below(bound.as_millis() as u64))
    }

    /// Draws a fault and lets it happen, where it can.
    async fn fault(&self, cluster: &SimCluster) -> Option<Repair> {
        let mut lot = cluster.env().random_below(self.faults.iter().map(|(_, share)| share).sum());
        let mut faults = self.faults.iter();
        let fault = faults.find_map(|(fault, share)| {
            let hit = lot < *share;
            lot = lot.saturating_sub(*share);
            hit.then_some(*fault)
        })?;
        let names = cluster.node_names();
        let node = names.get(cluster.env().random_below(names.len() as u64) as usize)?.clone();
        match fault {
            Fault::People => people::act(cluster).await,
            fault => self.happen(cluster, fault, &node),
        }
    }

    async fn repair(&self, cluster: &SimCluster, repair: Repair) {
        match &repair {
            Repair::Workload(resource, _) => cluster.note(format_args!("make one of {resource} again")),
            other => cluster.note(format_args!("repair {other:?}")),
        }
        match repair {
            Repair::Agent(node) => cluster.start_agent(&node),
            Repair::Link(node) => cluster.set_reachable(&node, true),
            Repair::Controllers => cluster.start_controllers(),
            Repair::ControllersLink => cluster.set_controllers_reachable(true),
            Repair::ControllersClock => cluster.mend_controllers_clocks(),
            Repair::Scheduler => cluster.start_scheduler(),
            Repair::Workload(resource, object) => people::create(cluster, resource, *object).await,
            Repair::ApiServer => {
                if let Err(error) = cluster.start_api_server().await {
                    cluster.note(format_args!("the API server does not start: {error}"));
                }
            }
        }
    }

    /// For how long somebody stands still.
    fn standstill(&self, cluster: &SimCluster, who: impl fmt::Display) -> Duration {
        let time = self.below(cluster, self.outage);
        cluster.note(format_args!("{who} still for {time:?}"));
        time
    }

    fn happen(&self, cluster: &SimCluster, fault: Fault, node: &str) -> Option<Repair> {
        let down = !cluster.has_agent(node);
        match fault {
            Fault::People => None,
            Fault::Container => {
                kill_container(cluster, node);
                None
            }
            Fault::Sandbox => {
                kill_sandbox(cluster, node);
                None
            }
            // One outage of a node at a time: its end is planned already.
            Fault::Node | Fault::Agent if down => None,
            Fault::Node => {
                cluster.note(format_args!("{node} loses power"));
                cluster.kill_node(node);
                Some(Repair::Agent(node.to_owned()))
            }
            Fault::Agent => {
                cluster.note(format_args!("kill the agent of {node}"));
                cluster.kill_agent(node);
                Some(Repair::Agent(node.to_owned()))
            }
            Fault::Link => {
                cluster.note(format_args!("cut the link of {node} and those with it"));
                cluster.set_reachable(node, false);
                Some(Repair::Link(node.to_owned()))
            }
            Fault::Controllers => {
                cluster.note("kill the controllers");
                cluster.kill_controllers();
                Some(Repair::Controllers)
            }
            Fault::ControllersLink => {
                cluster.note("cut the link of the controllers");
                cluster.set_controllers_reachable(false);
                Some(Repair::ControllersLink)
            }
            Fault::Scheduler => {
                cluster.note("kill the scheduler");
                cluster.kill_scheduler();
                Some(Repair::Scheduler)
            }
            Fault::ControllersStandStill => {
                let time = self.standstill(cluster, "the controllers stand");
                cluster.pause_controllers(time);
                None
            }
            Fault::SchedulerStandsStill => {
                let time = self.standstill(cluster, "the scheduler stands");
                cluster.pause_scheduler(time);
                None
            }
            Fault::AgentStandsStill => {
                let time = self.standstill(cluster, format_args!("the agent of {node} stands"));
                cluster.pause_agent(node, time);
                None
            }
            Fault::ControllersClock => {
                let is_ahead = cluster.env().random_below(2) == 0;
                cluster.note(format_args!(
                    "the clock of the controllers is {}",
                    if is_ahead { "ahead" } else { "behind" }
                ));
                cluster.shift_controllers_clock(if is_ahead { CLOCK_JUMP } else { -CLOCK_JUMP });
                Some(Repair::ControllersClock)
            }
            Fault::Runtime => {
                cluster.note(format_args!("the runtime of {node} fails"));
                fail_runtime(cluster, node);
                None
            }
            Fault::ApiServer => {
                cluster.note("kill the API server");
                cluster.kill_api_server();
                Some(Repair::ApiServer)
            }
        }
    }
}

/// The calls that change something fail, each once.
fn fail_runtime(cluster: &SimCluster, node: &str) {
    let Some(machine) = cluster.machine(node) else { return };
    for verb in [
        Verb::RunSandbox,
        Verb::CreateContainer,
        Verb::StartContainer,
        Verb::StopContainer,
        Verb::RemoveContainer,
        Verb::StopSandbox,
        Verb::RemoveSandbox,
    ] {
        machine.fail_next(verb, RuntimeError::internal("the runtime", "out of order"));
    }
}

fn kill_container(cluster: &SimCluster, node: &str) {
    let Some(machine) = cluster.machine(node) else { return };
    let running: Vec<_> = machine.containers().into_iter().filter(|container| container.state.is_running()).collect();
    if let Some(container) = running.get(cluster.env().random_below(running.len() as u64) as usize) {
        cluster.note(format_args!("kill container {} on {node}", container.id));
        machine.kill_container(&container.id, 137);
    }
}

fn kill_sandbox(cluster: &SimCluster, node: &str) {
    let Some(machine) = cluster.machine(node) else { return };
    let sandboxes = machine.sandboxes();
    if let Some(sandbox) = sandboxes.get(cluster.env().random_below(sandboxes.len() as u64) as usize) {
        cluster.note(format_args!("kill the sandbox of {}/{} on {node}", sandbox.namespace, sandbox.name));
        machine.kill_sandbox(&sandbox.id);
    }
}
