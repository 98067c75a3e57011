//! A whole cluster in virtual time: [`SimCluster`].

use std::{
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use jiff::SignedDuration;
use orchestrator_apiserver::ApiServer;
use orchestrator_core::{
    client::Client,
    env::{Env, Simulation, Stuck},
    node_connector::NodeDirectory,
    status::ApiResult,
    store::{Entry, KeyRange, ListOptions, Store, StoreError, WatchOptions, WatchStream},
};
use orchestrator_runtime_sim::SimMachine;
use orchestrator_store_mem::MemStore;

use crate::{
    builder::{BuildError, SimClusterBuilder},
    control_plane::ControlPlane,
    diary::Diary,
    history::History,
    image::Image,
    invariants::{ALWAYS, Invariant, SETTLED, Violation, noise, violations},
    limits,
    link::{Delay, Link, Seat},
    lock::lock,
    nodes::Nodes,
    recorder::Recorder,
    snapshot::Snapshot,
    tokio_timers,
};

/// A cluster in virtual time: API server, store, controllers, scheduler, and nodes on simulated machines, all on one
/// thread and one seed. The same seed and the same calls give the same history, change by change.
///
/// ```
/// use orchestrator_sim::SimCluster;
/// use std::time::Duration;
///
/// let cluster = SimCluster::builder(7).nodes(3).build().unwrap();
/// cluster.run(cluster.settled(Duration::from_secs(300))).unwrap().unwrap();
/// cluster.kill_node("node-1");
/// cluster.run(cluster.env().sleep(Duration::from_secs(120))).unwrap();
/// assert!(cluster.unsettled().iter().any(|violation| violation.detail == "node-1 is not ready"));
/// ```
pub struct SimCluster {
    simulation: Simulation,
    env: Env,
    builder: SimClusterBuilder,
    store: MemStore,
    recorder: Recorder,
    seat: Arc<Seat>,
    directory: NodeDirectory,
    user: Link,
    control_plane: Mutex<ControlPlane>,
    nodes: Mutex<Nodes>,
    seen: Mutex<Seen>,
    diary: Diary,
}

/// The objects as of a place in the history.
#[derive(Default)]
struct Seen {
    snapshot: Snapshot,
    records: usize,
}

impl fmt::Debug for SimCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimCluster").field("seed", &self.builder.seed).field("now", &self.env.now()).finish()
    }
}

impl Drop for SimCluster {
    fn drop(&mut self) {
        // The server reaches nodes, whose agents hold links, which lead to the server.
        self.seat.vacate();
    }
}

impl SimCluster {
    /// A cluster whose every choice follows from the seed.
    pub fn builder(seed: u64) -> SimClusterBuilder {
        SimClusterBuilder::new(seed)
    }

    pub(crate) fn start(builder: SimClusterBuilder, image: &Image) -> Result<Self, BuildError> {
        let simulation = tokio_timers::simulation(builder.seed, image.elapsed, builder.beside_tokio)?;
        let env = simulation.env();
        let store = image.store.fork(&env);
        let recorder = simulation.run(Recorder::start(&env, Arc::new(store.clone())))??;
        let seat: Arc<Seat> = Arc::default();
        let delay = if builder.delays { Delay::Network } else { Delay::None };
        let directory = NodeDirectory::default();
        let mut nodes = Nodes::new(&env, &seat, &directory, delay);
        nodes.add(&builder, &image.machines);
        let (options, diary) = (builder.options.clone(), Diary::new(&env));
        let control_plane = ControlPlane::new(&env, &seat, delay, options, builder.controller_managers, &diary);
        let cluster = Self {
            user: seat.link(&env, Delay::None),
            control_plane: Mutex::new(control_plane),
            nodes: Mutex::new(nodes),
            seen: Mutex::default(),
            diary,
            simulation,
            env,
            builder,
            store,
            recorder,
            seat,
            directory,
        };
        cluster.see_all()?;
        cluster.run(cluster.start_api_server())??;
        if cluster.builder.control_plane {
            cluster.start_controllers();
            cluster.start_scheduler();
        }
        for node in cluster.node_names() {
            cluster.start_agent(&node);
        }
        Ok(cluster)
    }

    /// Takes in what the store begins with.
    fn see_all(&self) -> Result<(), BuildError> {
        lock(&self.seen).snapshot.begin(&self.entries()?);
        Ok(())
    }

    /// Lets the world go on until this future ends. It may use the cluster's own methods.
    pub fn run<F: Future>(&self, future: F) -> Result<F::Output, Stuck> {
        self.simulation.run(future)
    }

    /// Time, chance and tasks of this world.
    pub fn env(&self) -> &Env {
        &self.env
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.builder.seed
    }

    /// A client, as administrator, over a link that takes no time. While the API server is down its calls fail.
    pub fn client(&self) -> Client {
        self.user.client()
    }

    /// How many tasks the world has.
    pub fn tasks(&self) -> usize {
        self.simulation.tasks()
    }

    /// The names of all nodes, in order.
    pub fn node_names(&self) -> Vec<String> {
        lock(&self.nodes).names()
    }

    /// The machine of a node.
    pub fn machine(&self, node: &str) -> Option<SimMachine> {
        lock(&self.nodes).machine(node)
    }

    /// A link of a component that is started from outside.
    pub(crate) fn link(&self) -> Link {
        self.seat.link(&self.env, if self.builder.delays { Delay::Network } else { Delay::None })
    }

    /// What the store holds, whether a server runs or not.
    pub(crate) fn entries(&self) -> Result<Vec<Entry>, BuildError> {
        let listing = self.simulation.run(self.store.list(&KeyRange::prefix(""), ListOptions::default()))??;
        Ok(listing.entries)
    }

    /// Follows everything that is written from now on.
    pub(crate) async fn changes(&self) -> Result<WatchStream, StoreError> {
        self.store.watch(KeyRange::prefix(""), WatchOptions::default()).await
    }

    /// State from which other worlds can begin.
    pub fn image(&self) -> Image {
        Image::of(&self.builder, self.env.monotonic(), &self.store, lock(&self.nodes).machines())
    }
}

/// What can be done to it.
impl SimCluster {
    /// The machine of a node loses power: its containers are gone, and its agent with them.
    pub fn kill_node(&self, node: &str) {
        lock(&self.nodes).kill(node);
    }

    /// Kills the agent of a node. Its containers run on.
    pub fn kill_agent(&self, node: &str) {
        lock(&self.nodes).kill_agent(node);
    }

    /// Starts the agent of a node, unless it runs.
    pub fn start_agent(&self, node: &str) {
        lock(&self.nodes).start_agent(node);
    }

    /// Whether the agent of a node runs.
    pub fn has_agent(&self, node: &str) -> bool {
        lock(&self.nodes).has_agent(node)
    }

    /// Cuts or mends the link of all nodes that share a process with this one.
    pub fn set_reachable(&self, node: &str, reachable: bool) {
        lock(&self.nodes).set_reachable(node, reachable);
    }

    /// Kills the controllers where they stand; of several processes of controllers, the one that leads.
    pub fn kill_controllers(&self) {
        lock(&self.control_plane).kill_controllers();
    }

    /// Cuts the link of the controllers that work, or mends those of all.
    pub fn set_controllers_reachable(&self, reachable: bool) {
        lock(&self.control_plane).set_controllers_reachable(reachable);
    }

    /// Lets the controllers stand still for a while, as by `kill -STOP`; of several processes of controllers, the one that leads.
    pub fn pause_controllers(&self, time: Duration) {
        lock(&self.control_plane).controllers_host().stand_still(time);
    }

    /// Moves the time of day of the controllers, or of the process of them that leads.
    pub fn shift_controllers_clock(&self, by: SignedDuration) {
        lock(&self.control_plane).controllers_host().jump(by);
    }

    /// The clocks of all controllers are right again.
    pub fn mend_controllers_clocks(&self) {
        lock(&self.control_plane).set_clocks();
    }

    /// Lets the scheduler stand still for a while.
    pub fn pause_scheduler(&self, time: Duration) {
        lock(&self.control_plane).scheduler_host().stand_still(time);
    }

    /// Lets the agent of a node stand still for a while. Its containers run on.
    pub fn pause_agent(&self, node: &str, time: Duration) {
        if let Some(host) = lock(&self.nodes).host(node) {
            host.stand_still(time);
        }
    }

    /// Starts the controllers, unless they run.
    pub fn start_controllers(&self) {
        lock(&self.control_plane).start_controllers();
    }

    /// Kills the scheduler where it stands.
    pub fn kill_scheduler(&self) {
        lock(&self.control_plane).kill_scheduler();
    }

    /// Starts the scheduler, unless it runs.
    pub fn start_scheduler(&self) {
        lock(&self.control_plane).start_scheduler();
    }

    /// Kills the API server: every link breaks, and what is under way may or may not have happened.
    pub fn kill_api_server(&self) {
        self.seat.vacate();
    }

    /// Starts an API server on the store, in the place of the one before, if any.
    pub async fn start_api_server(&self) -> ApiResult<()> {
        let server = ApiServer::builder(&self.env, Arc::new(self.recorder.clone()))
            .nodes(Arc::new(self.directory.clone()))
            .build()
            .await?;
        self.seat.vacate();
        self.seat.take(server);
        Ok(())
    }

    /// Notes what is done to the world, for whoever has to find out later.
    pub fn note(&self, what: impl fmt::Display) {
        self.diary.note(what);
    }

    /// What was noted.
    pub fn diary(&self) -> Vec<String> {
        self.diary.lines()
    }
}

/// What can be seen of it.
impl SimCluster {
    /// Looks at the history so far.
    pub fn history<T>(&self, look: impl FnOnce(&History) -> T) -> T {
        self.recorder.history(look)
    }

    /// The world as it is.
    pub fn snapshot(&self) -> Snapshot {
        self.look(Snapshot::clone)
    }

    /// What breaks the invariants that hold at every moment.
    pub fn broken(&self) -> Vec<Violation> {
        self.violations(ALWAYS)
    }

    /// What is not as it should be once the world has settled.
    pub fn unsettled(&self) -> Vec<Violation> {
        self.violations(SETTLED)
    }

    /// What breaks these invariants.
    pub fn violations(&self, invariants: &[Invariant]) -> Vec<Violation> {
        self.look(|snapshot| violations(invariants, snapshot))
    }

    fn look<T>(&self, look: impl FnOnce(&Snapshot) -> T) -> T {
        let mut seen = lock(&self.seen);
        let Seen { snapshot, records } = &mut *seen;
        self.recorder.history(|history| {
            snapshot.follow(&history.records()[*records..]);
            *records = history.records().len();
        });
        snapshot.at = self.env.now();
        snapshot.machines = lock(&self.nodes).on_machines();
        look(snapshot)
    }

    /// Waits until the world has settled and stays so in silence for a while (late effects of a fault, such as a pause
    /// before a link is tried again, may last a minute), and gives the time after which nothing more happened; or what
    /// still is not as it should be. What has to hold at every moment is checked on the way.
    pub async fn settled(&self, limit: Duration) -> Result<Duration, Vec<Violation>> {
        let start = self.env.monotonic();
        let mut calm: Option<(Duration, usize)> = None;
        loop {
            let broken = self.broken();
            if !broken.is_empty() {
                return Err(broken);
            }
            let (now, seen) = (self.env.monotonic(), self.history(|history| history.records().len()));
            let silent = |since: usize| self.history(|history| noise(&history.records()[since..]).next().is_none());
            calm = match calm {
                Some((since, seen)) if silent(seen) => Some((since, seen)),
                _ if self.is_settled() => Some((now, seen)),
                _ => None,
            };
            match calm {
                Some((since, _)) if now >= since + limits::CALM && self.is_settled() => {
                    return Ok(since.saturating_sub(start));
                }
                _ if now >= start + limit && self.is_whole() => return Err(self.unsettled()),
                _ if now >= start + limit => return Err(vec![Violation::incomplete()]),
                _ => self.env.sleep(limits::LOOK).await,
            }
        }
    }

    fn is_settled(&self) -> bool {
        self.is_whole() && self.look(|snapshot| SETTLED.iter().all(|invariant| (invariant.check)(snapshot).is_empty()))
    }

    /// Whether all parts of the control plane run.
    fn is_whole(&self) -> bool {
        lock(&self.control_plane).is_whole() && self.seat.server().is_some()
    }

    /// Waits, and gives what was written in this time that a world at rest does not write.
    pub async fn noise_within(&self, time: Duration) -> Vec<String> {
        let before = self.history(|history| history.records().len());
        self.env.sleep(time).await;
        self.history(|history| noise(&history.records()[before..]).map(ToString::to_string).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_world_outlives_it() {
        let cluster = SimCluster::builder(1).nodes(2).build().unwrap();
        cluster.run(cluster.settled(Duration::from_secs(300))).unwrap().unwrap();
        let (seat, store) = (Arc::downgrade(&cluster.seat), cluster.recorder.downgrade());
        drop(cluster);
        assert!(seat.upgrade().is_none(), "a component still holds a link");
        assert!(store.upgrade().is_none(), "something still holds the store");
    }
}
