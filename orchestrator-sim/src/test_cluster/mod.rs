//! A cluster for ordinary tests of controllers: [`TestCluster`].

mod builder;
mod expectation;
mod gate;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::StreamExt;
use orchestrator_controllers::UnknownController;
use orchestrator_core::{
    client::{Client, Reply, Request},
    controller::{Kind, Reconciler, RunTrace},
    env::{Env, Stuck, TaskHandle},
    status::ApiError,
    store::StoreError,
};
use serde_json::Value;

pub use builder::TestClusterBuilder;
pub use expectation::Unexpected;

use crate::{
    builder::BuildError,
    cluster::SimCluster,
    history::Record,
    invariants::{Silence, is_sign_of_life, noise},
    limits,
    lock::lock,
    objects::Objects,
    process::{self, Begin, Lives, Process},
    requests,
};
use gate::Gate;

/// A cluster in virtual time in which nothing happens but what a test wants: it steps, or lets time pass, or waits until
/// all is settled; it looks at the objects; it freezes a process, or goes on twice from one state.
///
/// Its methods block: there is no other thread, and no time passes between them.
///
/// ```
/// use k8s_openapi::api::{apps::v1::ReplicaSet, core::v1::Pod};
/// use orchestrator_sim::TestCluster;
/// use serde_json::json;
///
/// let cluster = TestCluster::builder().controllers(&["replicaset-controller"]).build()?;
/// let web: ReplicaSet = serde_json::from_value(json!({
///     "metadata": {"name": "web", "namespace": "default"},
///     "spec": {
///         "replicas": 2,
///         "selector": {"matchLabels": {"app": "web"}},
///         "template": {
///             "metadata": {"labels": {"app": "web"}},
///             "spec": {"containers": [{"name": "main", "image": "web:1"}]},
///         },
///     },
/// }))
/// .unwrap();
/// cluster.create(&web)?;
/// cluster.settle()?;
/// assert_eq!(cluster.list::<Pod>().len(), 2);
/// cluster.expect::<ReplicaSet>("default", "web", json!({"status": {"replicas": 2, "readyReplicas": null}}))?;
///
/// // What if it were scaled down just when the controller hangs?
/// let other = cluster.fork()?;
/// other.freeze("replicaset-controller")?;
/// other.patch::<ReplicaSet>("default", "web", json!({"spec": {"replicas": 0}}))?;
/// other.settle()?;
/// assert_eq!(other.list::<Pod>().len(), 2);
/// other.thaw("replicaset-controller")?;
/// other.settle()?;
/// assert_eq!(other.list::<Pod>().len(), 0);
/// # Ok::<(), orchestrator_sim::TestError>(())
/// ```
pub struct TestCluster {
    /// Killed before the cluster goes.
    processes: Mutex<BTreeMap<&'static str, Resident>>,
    seen: Mutex<Seen>,
    cluster: SimCluster,
}

/// A process in a cluster.
struct Resident {
    begin: Begin,
    gate: Gate,
    lives: Lives,
    life: Option<TaskHandle>,
}

/// The objects as of a place in the history.
#[derive(Default)]
struct Seen {
    objects: Objects,
    records: usize,
    /// How far the test has stepped.
    stepped: usize,
}

/// A test cannot go on. Both as text and for debugging it is what a person wants to read.
#[derive(thiserror::Error)]
pub enum TestError {
    /// Every task waits for another.
    #[error(transparent)]
    Stuck(#[from] Stuck),
    /// The cluster did not start.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The store failed.
    #[error("the store failed: {0}")]
    Store(#[from] StoreError),
    /// The server refused what the test asked for.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The server's answer is no object of the kind that the test asked for.
    #[error("the answer is no {0}: {1}")]
    Answer(&'static str, String),
    /// Something is still written. These were the last changes.
    #[error("it does not settle; what was written last:\n  {}", .0.join("\n  "))]
    Unsettled(Vec<String>),
    /// Something did not come to hold in time.
    #[error("within {1:?} it did not happen that {0}")]
    Never(String, Duration),
    /// An object is not as it should be.
    #[error(transparent)]
    Unexpected(#[from] Unexpected),
    /// There is no controller of this name.
    #[error(transparent)]
    UnknownController(#[from] UnknownController),
    /// There is no process of this name.
    #[error("there is no process {0:?}")]
    NoProcess(String),
    /// There is a process of this name.
    #[error("there is a process {0:?} already")]
    Taken(&'static str),
}

impl fmt::Debug for TestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for TestCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let processes = lock(&self.processes).keys().copied().collect::<Vec<_>>();
        f.debug_struct("TestCluster").field("cluster", &self.cluster).field("processes", &processes).finish()
    }
}

impl TestCluster {
    /// An API server and nothing else.
    ///
    /// # Errors
    /// It does not start.
    pub fn new() -> Result<Self, TestError> {
        Self::builder().build()
    }

    /// A cluster with more in it.
    pub fn builder() -> TestClusterBuilder {
        TestClusterBuilder::default()
    }

    fn around(cluster: SimCluster) -> Result<Self, TestError> {
        let seen = Seen { objects: Objects::of(&cluster.entries()?), ..Seen::default() };
        let cluster = Self { processes: Mutex::default(), seen: Mutex::new(seen), cluster };
        cluster.skip();
        Ok(cluster)
    }

    /// The cluster below, for those who kill nodes and servers.
    pub fn cluster(&self) -> &SimCluster {
        &self.cluster
    }

    /// Time, chance and tasks of this world.
    pub fn env(&self) -> &Env {
        self.cluster.env()
    }

    /// A client, as administrator, for what the methods here do not do; see [`Self::run`].
    pub fn client(&self) -> Client {
        self.cluster.client()
    }

    /// Lets the world go on until this future ends.
    ///
    /// # Errors
    /// It waits for something that never happens.
    pub fn run<F: Future>(&self, future: F) -> Result<F::Output, TestError> {
        Ok(self.cluster.run(future)?)
    }

    /// Another world that begins with the state of this one: what its store and its machines hold, and the time. Every
    /// process that lives begins again there, as after a crash; what is frozen stays so. What a process keeps outside of
    /// its life is shared.
    ///
    /// # Errors
    /// It does not start.
    pub fn fork(&self) -> Result<Self, TestError> {
        self.fork_with(self.cluster.seed())
    }

    /// The same, with another seed.
    ///
    /// # Errors
    /// It does not start.
    pub fn fork_with(&self, seed: u64) -> Result<Self, TestError> {
        let fork = Self::around(self.cluster.image().start(seed)?)?;
        for (name, process) in &*lock(&self.processes) {
            let gate = Gate::default();
            gate.set_shut(process.gate.is_shut());
            let lives = Lives::new(fork.cluster.env());
            let mut process = Resident { begin: process.begin.clone(), gate, lives, life: None };
            process.live(&fork.cluster);
            lock(&fork.processes).insert(name, process);
        }
        Ok(fork)
    }
}

/// What people do.
impl TestCluster {
    /// Creates an object, and gives it as the server made it.
    ///
    /// # Errors
    /// The server refuses.
    pub fn create<K: Kind>(&self, object: &K) -> Result<K, TestError> {
        answer(self.write(requests::create(object))?)
    }

    /// Changes an object by a JSON merge patch. What belongs to the cluster has an empty namespace.
    ///
    /// # Errors
    /// The server refuses.
    pub fn patch<K: Kind>(&self, namespace: &str, name: &str, patch: Value) -> Result<K, TestError> {
        answer(self.write(requests::merge_patch::<K>(namespace, name, patch))?)
    }

    /// Changes the status of an object by a JSON merge patch, as who looks after it does.
    ///
    /// # Errors
    /// The server refuses.
    pub fn patch_status<K: Kind>(&self, namespace: &str, name: &str, status: Value) -> Result<K, TestError> {
        let patch = serde_json::json!({ "status": status });
        let request = requests::merge_patch::<K>(namespace, name, patch);
        answer(self.write(Request { subresource: Some("status".to_owned()), ..request })?)
    }

    /// Deletes an object.
    ///
    /// # Errors
    /// The server refuses.
    pub fn delete<K: Kind>(&self, namespace: &str, name: &str) -> Result<(), TestError> {
        self.write(requests::delete::<K>(namespace, name)).map(drop)
    }

    fn write(&self, request: Request) -> Result<Reply, TestError> {
        let reply = self.run(self.client().request(request))??;
        self.skip();
        Ok(reply)
    }

    /// Goes over what was written so far, for [`Self::step`].
    fn skip(&self) {
        lock(&self.seen).stepped = self.cluster.history(|history| history.records().len());
    }
}

fn answer<K: Kind>(reply: Reply) -> Result<K, TestError> {
    let none = |what: String| TestError::Answer(std::any::type_name::<K>(), what);
    let Reply::Object { object, .. } = reply else { return Err(none("a collection".to_owned())) };
    object.typed::<K>().map(Arc::unwrap_or_clone).map_err(|error| none(error.to_string()))
}

/// Processes: what is to be tested, and what belongs to the cluster.
impl TestCluster {
    /// Starts a process, each life of which begins with this function.
    ///
    /// # Errors
    /// There is one of that name.
    pub fn start<F>(
        &self,
        name: &'static str,
        begin: impl Fn(Process) -> F + Send + Sync + 'static,
    ) -> Result<(), TestError>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.enter(name, process::begin(begin))
    }

    /// Starts a reconciler that looks at its own kind only, as a process of this name.
    ///
    /// # Errors
    /// There is one of that name.
    pub fn start_reconciler<R: Reconciler>(
        &self,
        name: &'static str,
        make: impl Fn() -> R + Send + Sync + 'static,
    ) -> Result<(), TestError> {
        self.enter(name, process::begin_reconciler(name, make))
    }

    fn enter(&self, name: &'static str, begin: Begin) -> Result<(), TestError> {
        let mut processes = lock(&self.processes);
        if processes.contains_key(name) {
            return Err(TestError::Taken(name));
        }
        let lives = Lives::new(self.cluster.env());
        let mut process = Resident { begin, gate: Gate::default(), lives, life: None };
        process.live(&self.cluster);
        processes.insert(name, process);
        Ok(())
    }

    /// Kills a process where it stands.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn kill(&self, name: &str) -> Result<(), TestError> {
        self.process(name, |process| process.life = None)
    }

    /// Kills a process if it lives, and begins its next life.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn restart(&self, name: &str) -> Result<(), TestError> {
        self.process(name, |process| process.live(&self.cluster))
    }

    /// From now on a process hears nothing, and nothing that it asks for reaches the server.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn freeze(&self, name: &str) -> Result<(), TestError> {
        self.process(name, |process| process.gate.set_shut(true))
    }

    /// What was held up for a process goes on its way.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn thaw(&self, name: &str) -> Result<(), TestError> {
        self.process(name, |process| process.gate.set_shut(false))
    }

    /// What the controllers of a process did last, each run with its reasons, reads and writes, in order of time. At most
    /// [`TRACED_RUNS`](orchestrator_core::controller::limits::TRACED_RUNS) of each controller are known.
    ///
    /// # Errors
    /// There is no process of that name.
    pub fn runs(&self, name: &str) -> Result<Vec<Arc<RunTrace>>, TestError> {
        let controllers = self.process(name, |process| process.lives.controllers())?;
        let mut runs: Vec<_> = controllers.iter().flat_map(|controller| controller.recent_runs()).collect();
        runs.sort_by_key(|run| run.began);
        Ok(runs)
    }

    fn process<T>(&self, name: &str, act: impl FnOnce(&mut Resident) -> T) -> Result<T, TestError> {
        let mut processes = lock(&self.processes);
        let process = processes.get_mut(name).ok_or_else(|| TestError::NoProcess(name.to_owned()))?;
        Ok(act(process))
    }
}

impl Resident {
    fn live(&mut self, cluster: &SimCluster) {
        // The life before ends first.
        self.life = None;
        let link = cluster.link();
        let way = self.gate.way(&link);
        let process = Process::new(Client::new(way.clone()), way, link.seat(), cluster.env(), &self.lives);
        self.life = Some(cluster.env().spawn("process", (self.begin)(process)));
    }
}

/// Time.
impl TestCluster {
    /// Lets things happen until somebody else than the test writes something, and gives that change; after a while in which
    /// nothing is written, nothing. Signs of life, such as leases, do not count.
    ///
    /// # Errors
    /// The world is stuck, or its store fails.
    pub fn step(&self) -> Result<Option<Record>, TestError> {
        let end = self.env().monotonic() + limits::CALM;
        let mut changes = self.run(self.cluster.changes())??;
        loop {
            if let Some(next) = self.next_change() {
                return Ok(Some(next));
            }
            let left = end.saturating_sub(self.env().monotonic());
            if left.is_zero() || self.run(self.env().timeout(left, changes.next()))?.is_err() {
                return Ok(None);
            }
        }
    }

    /// The first change that was written already and that the test has not stepped over.
    fn next_change(&self) -> Option<Record> {
        let mut seen = lock(&self.seen);
        self.cluster.history(|history| {
            let ahead = &history.records()[seen.stepped..];
            let found = ahead.iter().position(|record| !is_sign_of_life(record));
            seen.stepped += found.map_or(ahead.len(), |index| index + 1);
            found.map(|index| ahead[index].clone())
        })
    }

    /// Lets time pass.
    ///
    /// # Errors
    /// The world is stuck.
    pub fn advance(&self, time: Duration) -> Result<(), TestError> {
        self.run(self.env().sleep(time))?;
        self.skip();
        Ok(())
    }

    /// Waits until nothing has been written for a while (90 s), signs of life such as leases aside. Gives the time after
    /// which nothing more was.
    ///
    /// # Errors
    /// It does not settle within an hour.
    pub fn settle(&self) -> Result<Duration, TestError> {
        let start = self.env().monotonic();
        let mut silence = Silence::new(lock(&self.seen).stepped, start);
        loop {
            self.run(self.env().sleep(limits::GLANCE))?;
            let now = self.env().monotonic();
            let silent_since = self.cluster.history(|history| silence.since(history.records(), now));
            if now >= silent_since + limits::CALM {
                self.skip();
                return Ok(silent_since - start);
            }
            if now >= start + limits::SETTLE {
                return Err(TestError::Unsettled(self.last_changes()));
            }
        }
    }

    fn last_changes(&self) -> Vec<String> {
        self.cluster.history(|history| {
            let loud = noise(history.records()).collect::<Vec<_>>();
            loud.iter().rev().take(limits::SHOWN_CHANGES).rev().map(ToString::to_string).collect()
        })
    }

    /// Waits until something holds of the objects.
    ///
    /// # Errors
    /// It does not within this time.
    pub fn eventually(&self, what: &str, within: Duration, holds: impl Fn(&Objects) -> bool) -> Result<(), TestError> {
        let end = self.env().monotonic() + within;
        loop {
            if self.look(&holds) {
                return Ok(());
            }
            let left = end.saturating_sub(self.env().monotonic());
            if left.is_zero() {
                return Err(TestError::Never(what.to_owned(), within));
            }
            self.run(self.env().sleep(left.min(limits::GLANCE)))?;
            self.skip();
        }
    }
}

/// What can be seen.
impl TestCluster {
    /// All objects there are.
    pub fn objects(&self) -> Objects {
        self.look(Objects::clone)
    }

    /// All objects of a kind, in order of namespace and name.
    pub fn list<K: Kind>(&self) -> Vec<K> {
        self.look(Objects::list::<K>)
    }

    /// One object, if it is there. What belongs to the cluster has no namespace.
    pub fn get<K: Kind>(&self, namespace: &str, name: &str) -> Option<K> {
        self.look(|objects| objects.get::<K>(namespace, name))
    }

    /// Compares an object with what is expected of it. Members that are not named may be there; `null` expects that there is
    /// no such member; lists are compared item by item.
    ///
    /// # Errors
    /// It is not there, or not so; every place that differs is told.
    pub fn expect<K: Kind>(&self, namespace: &str, name: &str, expected: Value) -> Result<(), Unexpected> {
        let found = self.get::<K>(namespace, name).and_then(|object| serde_json::to_value(object).ok());
        let differences = match found {
            Some(found) => expectation::differences(&expected, &found),
            None => vec!["it is not there".to_owned()],
        };
        let place = if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") };
        let object = format!("{} {place}", K::kind(&()));
        if differences.is_empty() { Ok(()) } else { Err(Unexpected { object, differences }) }
    }

    fn look<T>(&self, look: impl FnOnce(&Objects) -> T) -> T {
        let mut seen = lock(&self.seen);
        let Seen { objects, records, .. } = &mut *seen;
        self.cluster.history(|history| {
            history.records()[*records..].iter().for_each(|record| objects.follow(record));
            *records = history.records().len();
        });
        look(objects)
    }
}
