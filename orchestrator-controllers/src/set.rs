//! Starts the controllers, each as a task of its own, and keeps them running.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use orchestrator_core::{
    client::ResourceDiscovery,
    controller::Caches,
    env::{Env, TaskEnd, TaskGroup},
    events::EventRecorder,
};
use tokio_util::sync::CancellationToken;

use crate::{Options, context::ControllerContext, limits};

/// Who manages the fields that the controllers write; upstream's name.
const FIELD_MANAGER: &str = "kube-controller-manager";

/// One controller of the table.
pub(crate) struct Entry {
    /// As upstream's `--controllers` has it.
    pub(crate) name: &'static str,
    /// As its Events have it.
    pub(crate) component: &'static str,
    pub(crate) run: fn(ControllerContext, CancellationToken) -> BoxFuture<'static, ()>,
}

/// Running controllers. They end with [`Self::shutdown`]; dropping this cancels them where they stand.
#[derive(Debug)]
pub struct Controllers {
    tasks: TaskGroup,
    shutdown: CancellationToken,
    states: Arc<Mutex<BTreeMap<&'static str, ControllerState>>>,
}

/// How a controller fares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ControllerState {
    /// It runs, or waits to be started again.
    pub running: bool,
    /// How often it was started again after a panic.
    pub restarts: u64,
    /// What its last panic said.
    pub last_panic: Option<String>,
}

/// Which controllers to start, and how.
#[derive(Debug)]
pub struct ControllersBuilder {
    caches: Caches,
    discovery: Arc<dyn ResourceDiscovery>,
    enabled: BTreeSet<&'static str>,
    options: Options,
}

/// There is no controller of this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not in the list of known controllers")]
pub struct UnknownController(pub String);

fn on_by_default() -> impl Iterator<Item = &'static str> {
    let names = crate::TABLE.iter().map(|entry| entry.name);
    names.filter(|name| !crate::OFF_BY_DEFAULT.contains(name))
}

impl ControllersBuilder {
    pub(crate) fn new(caches: &Caches, discovery: Arc<dyn ResourceDiscovery>) -> Self {
        let enabled = on_by_default().collect();
        let caches = caches.with_field_manager(FIELD_MANAGER);
        Self { caches, discovery, enabled, options: Options::default() }
    }

    /// Which controllers to start, as upstream's `--controllers`: `*` is all but those that have to be named, `name` adds one,
    /// `-name` takes one away. Without a `*` only those named are started.
    pub fn controllers<S: AsRef<str>>(mut self, names: &[S]) -> Result<Self, UnknownController> {
        let known = |name: &str| {
            let entry = crate::TABLE.iter().find(|entry| entry.name == name);
            entry.map(|entry| entry.name).ok_or_else(|| UnknownController(name.to_owned()))
        };
        let names = || names.iter().map(AsRef::as_ref);
        self.enabled = match names().any(|name| name == "*") {
            true => on_by_default().collect(),
            false => BTreeSet::new(),
        };
        for name in names().filter(|name| *name != "*" && !name.starts_with('-')) {
            self.enabled.insert(known(name)?);
        }
        for name in names().filter_map(|name| name.strip_prefix('-')) {
            self.enabled.remove(known(name)?);
        }
        Ok(self)
    }

    /// What the controllers are told.
    #[must_use]
    pub fn options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// Starts them.
    pub fn start(self) -> Controllers {
        let Self { caches, discovery, enabled, options } = self;
        let options = Arc::new(options);
        let mut controllers = Controllers {
            tasks: TaskGroup::new(caches.env()),
            shutdown: CancellationToken::new(),
            states: Arc::default(),
        };
        for entry in crate::TABLE.iter().filter(|entry| enabled.contains(entry.name)) {
            let supervisor = Supervisor {
                entry,
                caches: caches.clone(),
                discovery: discovery.clone(),
                options: options.clone(),
                states: controllers.states.clone(),
            };
            let shutdown = controllers.shutdown.clone();
            controllers.tasks.spawn(entry.name, async move { supervisor.supervise(shutdown).await });
        }
        controllers
    }
}

impl Controllers {
    /// Controllers on these caches, all of them unless told otherwise.
    pub fn builder(caches: &Caches, discovery: Arc<dyn ResourceDiscovery>) -> ControllersBuilder {
        ControllersBuilder::new(caches, discovery)
    }

    /// The names of all controllers there are, as upstream's `--controllers` has them.
    pub fn names() -> impl Iterator<Item = &'static str> {
        crate::TABLE.iter().map(|entry| entry.name)
    }

    /// How each controller fares.
    pub fn states(&self) -> BTreeMap<&'static str, ControllerState> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks all controllers to end, lets running reconciles finish within bounds, and joins everything.
    pub async fn shutdown(mut self) {
        self.shutdown.cancel();
        self.tasks.join().await;
    }
}

/// Runs one controller, again after a panic.
struct Supervisor {
    entry: &'static Entry,
    caches: Caches,
    discovery: Arc<dyn ResourceDiscovery>,
    options: Arc<Options>,
    states: Arc<Mutex<BTreeMap<&'static str, ControllerState>>>,
}

impl Supervisor {
    async fn supervise(self, shutdown: CancellationToken) {
        self.note(|state| state.running = true);
        let mut pause = limits::RESTART_FIRST;
        while !shutdown.is_cancelled() {
            let TaskEnd::Panicked(message) = self.run(&shutdown).await else { break };
            tracing::error!(controller = self.entry.name, message, "controller panicked and starts again");
            self.note(|state| {
                state.restarts += 1;
                state.last_panic = Some(message);
            });
            self.pause(&shutdown, pause).await;
            pause = (pause * 2).min(limits::RESTART_LONGEST);
        }
        self.note(|state| state.running = false);
    }

    async fn run(&self, shutdown: &CancellationToken) -> TaskEnd {
        let env: &Env = self.caches.env();
        let recorder = EventRecorder::new(self.caches.client(), env, self.entry.component, "");
        let context = ControllerContext {
            caches: self.caches.clone(),
            discovery: self.discovery.clone(),
            recorder: recorder.clone(),
            options: self.options.clone(),
        };
        let end = env.spawn(self.entry.name, (self.entry.run)(context, shutdown.clone())).join().await;
        recorder.shutdown().await;
        end
    }

    async fn pause(&self, shutdown: &CancellationToken, pause: Duration) {
        shutdown.run_until_cancelled(self.caches.env().sleep(pause).boxed()).await;
    }

    fn note(&self, change: impl FnOnce(&mut ControllerState)) {
        change(self.states.lock().unwrap_or_else(PoisonError::into_inner).entry(self.entry.name).or_default());
    }
}
