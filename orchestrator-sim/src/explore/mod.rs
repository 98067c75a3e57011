//! Explores a reconciler under faults: crashes, stale reads, lost answers, conflicts, deterministically and in virtual time.
//!
//! Start at [`explore`]. It takes what begins the process under test, most often a
//! [`Controller`](orchestrator_core::controller::Controller), and gives an [`Explorer`] to be told what is there, what
//! people do, and what has to hold. [`Explorer::run`] first lets everything go well, then kills the process after each of its
//! writes in turn, tries every other single fault where they are not too many, and then draws several at once from seeds. All of it goes through the real pipeline of the API server.
//!
//! ```
//! use k8s_openapi::api::core::v1::ConfigMap;
//! use kube_core::params::{Patch, PatchParams};
//! use orchestrator_core::client::Api;
//! use orchestrator_sim::explore::explore;
//! use serde_json::json;
//!
//! // Writes a greeting into a config map, once.
//! let greeter = |process: orchestrator_sim::explore::Process| async move {
//!     let maps: Api<ConfigMap> = Api::namespaced(process.client(), "default");
//!     while maps.patch("a", &PatchParams::default(), &Patch::Merge(json!({"data": {"hello": "world"}}))).await.is_err() {
//!         process.env().sleep(std::time::Duration::from_secs(1)).await;
//!     }
//! };
//! let map: ConfigMap =
//!     serde_json::from_value(json!({"metadata": {"name": "a", "namespace": "default"}})).unwrap();
//! let report = explore(greeter)
//!     .creates(&map)
//!     .eventually("it is greeted", |objects| {
//!         objects.get::<ConfigMap>("default", "a").is_some_and(|map| map.data.is_some())
//!     })
//!     .seeds(5)
//!     .run()
//!     .unwrap();
//! assert!(report.runs > 6);
//! ```
//!
//! A counterexample names the property, the faults and actions that are needed for it and no others, and everything that
//! was written; [`Explorer::replay`] repeats it.

mod action;
mod budget;
mod drawn;
mod exploration;
pub mod generate;
mod limits;
mod plan;
mod property;
mod ready;
mod server;
mod shrink;
mod timeline;
mod wire;
mod world;

use std::{fmt, sync::Arc, time::Duration};

use orchestrator_core::{
    client::Request,
    controller::{Kind, Reconciler},
};
use proptest::strategy::Strategy;
use serde_json::Value;

pub use plan::{Extent, Fault, NoPlan, Plan};
pub use world::WorldError;

pub use crate::{objects::Objects, process::Process};

use action::Action;
use drawn::Draw;
use property::{Property, Rule};

use crate::{
    process::{self, Begin},
    requests,
};

/// Explores what a process does, each life of which begins with this function.
pub fn explore<F>(begin: impl Fn(Process) -> F + Send + Sync + 'static) -> Explorer
where
    F: Future<Output = ()> + Send + 'static,
{
    Explorer::new(process::begin(begin))
}

/// Explores a reconciler that looks at its own kind only. One that also watches others is begun by [`explore`], with the
/// controller that it needs.
pub fn explore_reconciler<R: Reconciler>(make: impl Fn() -> R + Send + Sync + 'static) -> Explorer {
    Explorer::new(process::begin_reconciler("explored", make))
}

/// Explores a program on kube-rs as it is, such as a `kube::runtime::Controller`, each life of which begins with this function.
///
/// Its timers, and tasks that it gives to tokio, are part of the world: see [`Explorer::beside_tokio`]. Two runs of a seed are the same as
/// far as the program is: kube-rs draws the pauses before it tries again itself, and its maps have no order. A counterexample shows
/// what happened in the run that it tells of.
///
/// ```
/// use futures::StreamExt;
/// use k8s_openapi::api::core::v1::ConfigMap;
/// use kube::{Api, Client, api::{Patch, PatchParams}, runtime::{Controller, controller::Action, watcher}};
/// use orchestrator_sim::explore::explore_kube;
/// use serde_json::json;
/// use std::{sync::Arc, time::Duration};
///
/// // Writes a greeting into each config map.
/// async fn greet(map: Arc<ConfigMap>, client: Arc<Client>) -> Result<Action, kube::Error> {
///     let maps: Api<ConfigMap> = Api::namespaced((*client).clone(), "default");
///     if map.data.is_none() {
///         let patch = Patch::Merge(json!({"data": {"hello": "world"}}));
///         maps.patch(map.metadata.name.as_deref().unwrap_or_default(), &PatchParams::default(), &patch).await?;
///     }
///     Ok(Action::await_change())
/// }
/// let map: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "a", "namespace": "default"}})).unwrap();
/// explore_kube(|client| async {
///     let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
///     Controller::new(maps, watcher::Config::default())
///         .run(greet, |_, _, _| Action::requeue(Duration::from_secs(1)), Arc::new(client))
///         .for_each(|_| async {})
///         .await;
/// })
/// .creates(&map)
/// .eventually("it is greeted", |objects| {
///     objects.get::<ConfigMap>("default", "a").is_some_and(|map| map.data.is_some())
/// })
/// .seeds(5)
/// .run()
/// .unwrap();
/// ```
pub fn explore_kube<F>(begin: impl Fn(kube::Client) -> F + Send + Sync + 'static) -> Explorer
where
    F: Future<Output = ()> + Send + 'static,
{
    explore(move |process| begin(process.kube_client())).beside_tokio()
}

/// What is to be explored, and what has to hold.
#[must_use = "it explores nothing until it runs"]
#[derive(Clone)]
pub struct Explorer {
    setup: Setup,
    given: Vec<Request>,
    actions: Vec<Action>,
    same_end: bool,
    as_found: bool,
    writes_per_action: Option<usize>,
    seeds: u64,
    budget: Option<Duration>,
    hear: Arc<dyn Fn(Progress) + Send + Sync>,
    wrong_clocks: bool,
    faults_per_run: usize,
    passes: Arc<dyn Fn(&Fault) -> bool + Send + Sync>,
}

/// What all runs have in common.
#[derive(Clone)]
struct Setup {
    begin: Begin,
    beside: Vec<Begin>,
    properties: Vec<Property>,
    beside_tokio: bool,
}

/// How far an exploration is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Runs that were made.
    pub runs: usize,
    /// Seeds that have drawn their faults.
    pub seeds: u64,
}

/// What was explored without finding anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// How many runs there were.
    pub runs: usize,
    /// How many seeds drew faults: all of them, unless the time was up before.
    pub seeds: u64,
    /// What the process does when all goes well.
    pub extent: Extent,
}

/// Why an exploration did not end well.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Something does not hold.
    #[error(transparent)]
    Broken(#[from] Box<Counterexample>),
    /// The world could not be made.
    #[error(transparent)]
    World(#[from] WorldError),
    /// What was to be repeated is no plan.
    #[error(transparent)]
    Plan(#[from] NoPlan),
}

/// A run in which something does not hold, with nothing in it that is not needed for that.
#[derive(Debug, thiserror::Error)]
pub struct Counterexample {
    /// The name of what does not hold.
    pub property: String,
    /// What goes wrong.
    pub plan: Plan,
    /// The seed of everything else: times, order, drawn names.
    pub seed: u64,
    /// What people do.
    pub actions: Vec<String>,
    /// The objects that were drawn, whole, to be pasted into a test of their own.
    pub drawn: Vec<String>,
    /// What happened.
    pub timeline: Vec<String>,
}

impl fmt::Display for Counterexample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "this does not hold: {}", self.property)?;
        writeln!(f, "to repeat it: .replay({}, \"{}\")", self.seed, self.plan)?;
        if self.plan.faults.is_empty() {
            writeln!(f, "no fault is needed")?;
        }
        writeln!(f, "what people do:")?;
        self.actions.iter().try_for_each(|action| writeln!(f, "  {action}"))?;
        self.drawn.iter().try_for_each(|object| writeln!(f, "drawn: {object}"))?;
        writeln!(f, "what happened:")?;
        self.timeline.iter().try_for_each(|line| writeln!(f, "  {line}"))
    }
}

impl fmt::Debug for Explorer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Explorer")
            .field("given", &self.given)
            .field("actions", &self.actions)
            .field("properties", &self.setup.properties)
            .field("seeds", &self.seeds)
            .finish_non_exhaustive()
    }
}

/// The world.
impl Explorer {
    fn new(begin: Begin) -> Self {
        Self {
            setup: Setup { begin, beside: Vec::new(), properties: Vec::new(), beside_tokio: false },
            given: Vec::new(),
            actions: Vec::new(),
            same_end: false,
            as_found: false,
            writes_per_action: None,
            seeds: limits::SEEDS,
            budget: None,
            hear: Arc::new(|_| {}),
            wrong_clocks: false,
            faults_per_run: limits::FAULTS_PER_RUN,
            passes: Arc::new(|_| true),
        }
    }

    /// An object that is there from the start.
    pub fn given<K: Kind>(mut self, object: &K) -> Self {
        self.given.push(requests::create(object));
        self
    }

    /// Another process, to which nothing happens: what the one under test relies on, or what plays the nodes.
    pub fn beside<F>(mut self, begin: impl Fn(Process) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.setup.beside.push(process::begin(begin));
        self
    }
}

/// Other runtimes.
impl Explorer {
    /// Lets the processes use tokio as well: its timers follow the world's clock, and its tasks run on the world's thread. It
    /// takes the exploration out of asynchronous code, where tokio does not let another runtime begin.
    pub fn beside_tokio(mut self) -> Self {
        self.setup.beside_tokio = true;
        self
    }
}

/// What people do, in order, with short pauses that the seed draws.
impl Explorer {
    /// Somebody creates an object.
    pub fn creates<K: Kind>(self, object: &K) -> Self {
        self.then(requests::create(object).into())
    }

    /// Somebody creates an object that each seed draws, such as one from [`generate`]. What the server refuses is drawn anew. A
    /// counterexample shows the simplest object that was found to fail.
    pub fn creates_any<K, S>(self, objects: S) -> Self
    where
        K: Kind,
        S: Strategy<Value = K> + Send + Sync + 'static,
        S::Tree: 'static,
    {
        self.then(Action::Drawn(Draw::new(objects)))
    }

    /// Somebody changes an object by a JSON merge patch. What belongs to the cluster has an empty namespace.
    pub fn patches<K: Kind>(self, namespace: &str, name: &str, patch: Value) -> Self {
        self.then(requests::merge_patch::<K>(namespace, name, patch).into())
    }

    /// Somebody deletes an object.
    pub fn deletes<K: Kind>(self, namespace: &str, name: &str) -> Self {
        self.then(requests::delete::<K>(namespace, name).into())
    }

    /// Nobody does anything for a while.
    pub fn waits(self, time: Duration) -> Self {
        self.then(Action::Wait(time))
    }

    /// Nobody does anything until nothing is written any more.
    pub fn settles(self) -> Self {
        self.then(Action::Settle)
    }

    fn then(mut self, action: Action) -> Self {
        self.actions.push(action);
        self
    }
}

/// What has to hold. That it settles, and then writes nothing, always has to.
impl Explorer {
    /// Something that holds at every moment: after each write of anybody.
    pub fn always(self, name: &str, check: impl Fn(&Objects) -> bool + Send + Sync + 'static) -> Self {
        self.property(name, Rule::Always(Arc::new(check)))
    }

    /// Something that never holds.
    pub fn never(self, name: &str, check: impl Fn(&Objects) -> bool + Send + Sync + 'static) -> Self {
        self.property(name, Rule::Always(Arc::new(move |objects| !check(objects))))
    }

    /// Something that holds at the end, when nothing is written any more.
    pub fn eventually(self, name: &str, check: impl Fn(&Objects) -> bool + Send + Sync + 'static) -> Self {
        self.property(name, Rule::Eventually(Arc::new(check)))
    }

    /// Whenever the one holds, so does the other, not later than after this time.
    pub fn leads_to(
        self,
        name: &str,
        cause: impl Fn(&Objects) -> bool + Send + Sync + 'static,
        effect: impl Fn(&Objects) -> bool + Send + Sync + 'static,
        within: Duration,
    ) -> Self {
        self.property(name, Rule::LeadsTo { cause: Arc::new(cause), effect: Arc::new(effect), within })
    }

    /// Every run ends as the one in which all goes well, but for what chance has to do with: drawn names, identities,
    /// versions and times (the differential oracle of Sieve, OSDI 2022).
    pub fn ends_the_same(mut self) -> Self {
        self.same_end = true;
        self
    }

    fn property(mut self, name: &str, rule: Rule) -> Self {
        self.setup.properties.push(Property { name: name.to_owned(), rule });
        self
    }
}

/// The exploration.
impl Explorer {
    /// So many seeds draw faults; 100 unless something else is said.
    pub fn seeds(mut self, seeds: u64) -> Self {
        self.seeds = seeds;
        self
    }

    /// Ends after this time on the clock of the machine, however many seeds are left then.
    pub fn for_at_most(mut self, time: Duration) -> Self {
        self.budget = Some(time);
        self
    }

    /// Tells how far it is, after every run.
    pub fn tells(mut self, hear: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        self.hear = Arc::new(hear);
        self
    }

    /// Tells of the first run in which something does not hold as it is. It is not made smaller, for whoever wants to know only
    /// whether there is one, such as a test of a test.
    pub fn as_found(mut self) -> Self {
        self.as_found = true;
        self
    }

    /// Only faults that pass.
    pub fn faults(mut self, passes: impl Fn(&Fault) -> bool + Send + Sync + 'static) -> Self {
        self.passes = Arc::new(passes);
        self
    }

    /// How many faults a seed draws at most for its run; 4 unless something else is said.
    pub fn faults_per_run(mut self, most: usize) -> Self {
        self.faults_per_run = most;
        self
    }

    /// The clock of the process may also be wrong. What goes by the time of day alone may then rightly be done too early or too
    /// late, so that no clock is unless this is said.
    pub fn wrong_clocks(mut self) -> Self {
        self.wrong_clocks = true;
        self
    }

    fn may_strike(&self, fault: &Fault) -> bool {
        (self.wrong_clocks || !fault.is_of_the_clock()) && (self.passes)(fault)
    }
}
