//! The loop: takes in what has changed, decides, and has the decisions carried out.
//!
//! Decisions are made one after another, each with all earlier ones in mind; carrying them out happens at the same
//! time, within bounds. Being killed anywhere is harmless: what is not bound is decided again.

use std::{collections::BTreeMap, fmt, mem::take, sync::Arc, time::Duration};

use futures::{
    FutureExt,
    future::{Either, pending, select},
};
use orchestrator_core::{
    controller::Caches,
    env::{Env, TaskGroup},
    events::EventRecorder,
    object::ObjectKey,
    scheduler::{ClusterChange, PodInfo, Scheduler, Snapshot, Unschedulable, Verdict},
};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::{
    apply::{Apply, Outcome},
    config::Configuration,
    extender::Answers,
    framework::{Profile, Remembering},
    guard,
    inbox::{Changes, Inbox, Pending},
    limits::{BACKOFF_LONGEST, BACKOFF_START, CONCURRENT_BINDINGS, CONCURRENT_REPORTS},
    model::{Deciding, Decision, Model},
    queue::Queue,
};

/// Who manages the fields that the scheduler writes; upstream's name.
const FIELD_MANAGER: &str = "kube-scheduler";

/// A running scheduler, once [`Self::run`].
///
/// ```no_run
/// # async fn example(caches: orchestrator_core::controller::Caches, env: orchestrator_core::env::Env) {
/// use orchestrator_scheduler::Scheduling;
///
/// let shutdown = tokio_util::sync::CancellationToken::new();
/// Scheduling::builder(&caches, &env).build().run(shutdown).await;
/// # }
/// ```
#[derive(Debug)]
pub struct Scheduling {
    caches: Caches,
    env: Env,
    model: Model,
}

/// Puts a scheduler together. Without anything else it is upstream's default.
pub struct Builder {
    caches: Caches,
    env: Env,
    deciding: BTreeMap<String, Deciding>,
    backoff: (Duration, Duration),
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("deciding", &self.deciding).finish_non_exhaustive()
    }
}

impl Builder {
    /// As upstream's configuration says.
    #[must_use]
    pub fn configuration(mut self, configuration: &Configuration) -> Self {
        self.backoff = (configuration.backoff_start, configuration.backoff_longest);
        configuration.profiles.iter().cloned().fold(self, Self::profile)
    }

    /// Decides about the pods that ask for this profile's name.
    #[must_use]
    pub fn profile(mut self, profile: Profile) -> Self {
        let profile = Arc::new(profile);
        let deciding = Deciding { scheduler: Arc::new(Remembering::new(profile.clone())), profile: profile.clone() };
        self.deciding.insert(profile.name.clone(), deciding);
        self
    }

    /// Another scheduler decides about the pods that ask for no scheduler in particular.
    #[must_use]
    pub fn scheduler(self, scheduler: Box<dyn Scheduler>) -> Self {
        self.scheduler_named(crate::framework::DEFAULT_SCHEDULER_NAME, scheduler)
    }

    /// A scheduler decides about the pods that ask for this name. What is done once a node is chosen is as in the
    /// default profile.
    #[must_use]
    pub fn scheduler_named(mut self, name: &str, scheduler: Box<dyn Scheduler>) -> Self {
        let profile = Arc::new(Profile { name: name.to_owned(), ..Profile::default() });
        self.deciding.insert(name.to_owned(), Deciding { scheduler: scheduler.into(), profile });
        self
    }

    /// Ready to run.
    pub fn build(mut self) -> Scheduling {
        if self.deciding.is_empty() {
            self = self.profile(Profile::default());
        }
        let sort = self.deciding.values().next().map(|deciding| deciding.profile.queue_sort.clone());
        let queue = Queue::new(sort.unwrap_or_else(|| Profile::default().queue_sort));
        let queue = queue.with_backoff(self.backoff.0, self.backoff.1);
        Scheduling { caches: self.caches, env: self.env, model: Model::new(self.deciding, queue) }
    }
}

impl Scheduling {
    /// A scheduler over these caches.
    pub fn builder(caches: &Caches, env: &Env) -> Builder {
        Builder {
            caches: caches.clone(),
            env: env.clone(),
            deciding: BTreeMap::new(),
            backoff: (BACKOFF_START, BACKOFF_LONGEST),
        }
    }

    /// Schedules until asked to end. Then everything it started is gone.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self { caches, env, model } = self;
        let caches = caches.with_field_manager(FIELD_MANAGER);
        let (inbox, synced) = Inbox::new(&caches);
        if shutdown.run_until_cancelled(synced).await.is_none() {
            return;
        }
        let events = EventRecorder::new(caches.client(), &env, "default-scheduler", "");
        let (outcomes, finished) = mpsc::channel(CONCURRENT_BINDINGS);
        let running = Running {
            apply: Apply::new(&caches, &env, events.clone()),
            env: env.clone(),
            model,
            inbox,
            tasks: TaskGroup::new(&env),
            bindings: Arc::new(Semaphore::new(CONCURRENT_BINDINGS)),
            reports: Arc::new(Semaphore::new(CONCURRENT_REPORTS)),
            outcomes,
            finished,
        };
        running.until(shutdown).await;
        events.shutdown().await;
    }
}

struct Running {
    apply: Apply,
    env: Env,
    model: Model,
    inbox: Inbox,
    tasks: TaskGroup,
    bindings: Arc<Semaphore>,
    reports: Arc<Semaphore>,
    outcomes: mpsc::Sender<Outcome>,
    finished: mpsc::Receiver<Outcome>,
}

impl Running {
    async fn until(mut self, shutdown: CancellationToken) {
        while !shutdown.is_cancelled() {
            if shutdown.run_until_cancelled(self.step()).await.is_none() {
                break;
            }
        }
        self.tasks.stop().await;
    }

    /// Takes in what has happened, decides about one pod, or waits until there is something to do.
    async fn step(&mut self) {
        let now = self.env.monotonic();
        // What a binding wrote is taken in before its end, which says that it is there to be seen.
        let outcomes: Vec<Outcome> = std::iter::from_fn(|| self.finished.try_recv().ok()).collect();
        self.take_in(now);
        outcomes.into_iter().for_each(|outcome| self.take_outcome(outcome));
        if self.model.next_time(now).is_some_and(|time| time <= now) {
            let decision = self.decide(now).await;
            self.expire();
            if let Some(decision) = decision {
                self.carry_out(decision).await;
            }
            return;
        }
        let sleep = match self.model.next_time(now) {
            Some(time) => self.env.sleep(time.saturating_sub(now)),
            None => pending().boxed(),
        };
        let outcome = {
            let changed = Box::pin(self.inbox.changed());
            let finished = Box::pin(self.finished.recv());
            match select(select(changed, sleep), finished).await {
                Either::Right((outcome, _)) => outcome,
                Either::Left(_) => None,
            }
        };
        if let Some(outcome) = outcome {
            self.take_in(self.env.monotonic());
            self.take_outcome(outcome);
        }
    }

    async fn decide(&mut self, now: Duration) -> Option<Decision> {
        let tie = self.env.random();
        let (pod, deciding) = self.model.next(now)?;
        if !deciding.profile.asks_about(&pod) {
            let verdict = guard::schedule(&*deciding.scheduler, &pod, self.model.cluster(), tie);
            return self.model.conclude(pod, &deciding, verdict, now);
        }
        let verdict = self.decide_with_extenders(&pod, &deciding.profile, tie).await;
        self.model.conclude(pod, &deciding, verdict, self.env.monotonic())
    }

    /// As upstream, nothing else is decided meanwhile, and nothing is taken in: all answers are about one cluster.
    async fn decide_with_extenders(&self, pod: &PodInfo, profile: &Profile, tie: u64) -> Verdict {
        let (cluster, mut answers) = (self.model.cluster(), Answers::default());
        loop {
            match guard::decide(profile, pod, cluster, tie, &answers) {
                Ok(verdict) => return verdict,
                Err(question) => answers.ask(question, &profile.extenders, pod, cluster, &self.env).await,
            }
        }
    }

    fn expire(&mut self) {
        let now = self.env.monotonic();
        for key in self.model.expire(now) {
            self.model.change_pod(&key, self.inbox.pod(&key).as_ref(), now);
        }
    }

    fn take_in(&mut self, now: Duration) {
        let mut pending = self.inbox.take();
        let model = &mut self.model;
        for (key, (_, new)) in take(&mut pending.namespaces) {
            let labels = new.map(|namespace| namespace.metadata.labels.clone().unwrap_or_default());
            let change = |cluster: &mut Snapshot| cluster.set_namespace(&key.name, labels);
            model.change_cluster(change, &ClusterChange::Namespace(&key.name), now);
        }
        take_in_volumes(model, &mut pending, now);
        take_in_devices(model, &mut pending, now);
        take_in_workloads(model, &mut pending);
        for (old, new) in pending.nodes.into_values() {
            model.change_node(old.as_ref(), new.as_ref(), now);
        }
        for (key, (_, new)) in pending.pods {
            model.change_pod(&key, new.as_ref(), now);
        }
    }

    fn take_outcome(&mut self, outcome: Outcome) {
        let now = self.env.monotonic();
        match outcome {
            Outcome::Bound(pod) => self.model.bound(&pod, now),
            Outcome::Refused(pod, node, rejection) => {
                let mut why = Unschedulable::new(self.model.cluster().len());
                why.per_node.insert(&node, rejection);
                self.model.not_bound(&pod, &node, Some(why), now);
                self.look_again(&pod);
            }
            Outcome::Failed(pod, node) => {
                self.model.not_bound(&pod, &node, None, now);
                self.look_again(&pod);
            }
        }
    }

    /// What was seen of a pod while it was assumed has been left aside.
    fn look_again(&mut self, pod: &PodInfo) {
        let newest = self.inbox.pod(pod.key());
        self.model.change_pod(pod.key(), newest.as_ref(), self.env.monotonic());
    }

    async fn carry_out(&mut self, decision: Decision) {
        let apply = self.apply.clone();
        match decision {
            Decision::Bind(pod, node) => {
                let Some(profile) = self.model.deciding(&pod).map(|deciding| deciding.profile.clone()) else { return };
                let permit = self.bindings.clone().acquire_owned().await;
                let outcomes = self.outcomes.clone();
                self.tasks.spawn("bind", async move {
                    let outcome = apply.bind(&profile, pod, node).await;
                    // The permit is held until there is room to say how it ended.
                    let _ = outcomes.send(outcome).await;
                    drop(permit);
                });
            }
            Decision::Refuse { pod, why, void } => {
                let permit = self.reports.clone().acquire_owned().await;
                self.tasks.spawn("refuse", async move {
                    apply.refuse(&pod, &why).await;
                    for other in void {
                        apply.clear_nomination(&other).await;
                    }
                    drop(permit);
                });
            }
        }
    }
}

fn take_in_volumes(model: &mut Model, pending: &mut Pending, now: Duration) {
    change(model, take(&mut pending.claims), now, |cluster, key, new| set(&mut cluster.volumes.claims, key, new));
    change(model, take(&mut pending.volumes), now, |cluster, key, new| {
        set(&mut cluster.volumes.volumes, key.name, new);
    });
    change(model, take(&mut pending.classes), now, |cluster, key, new| {
        set(&mut cluster.volumes.classes, key.name, new);
    });
    change(model, take(&mut pending.csi_nodes), now, |cluster, key, new| {
        set(&mut cluster.volumes.csi_nodes, key.name, new);
    });
    change(model, take(&mut pending.csi_drivers), now, |cluster, key, new| {
        set(&mut cluster.volumes.csi_drivers, key.name, new);
    });
    change(model, take(&mut pending.capacities), now, |cluster, key, new| {
        set(&mut cluster.volumes.capacities, key, new);
    });
    change(model, take(&mut pending.attachments), now, |cluster, key, new| {
        set(&mut cluster.volumes.attachments, key.name, new);
    });
}

fn take_in_devices(model: &mut Model, pending: &mut Pending, now: Duration) {
    for (key, (_, new)) in take(&mut pending.device_classes) {
        let change = |cluster: &mut Snapshot| set(&mut cluster.devices.classes, key.name, new);
        model.change_cluster(change, &ClusterChange::Devices, now);
    }
    for (key, (_, new)) in take(&mut pending.resource_slices) {
        let change = |cluster: &mut Snapshot| set(&mut cluster.devices.slices, key.name, new);
        model.change_cluster(change, &ClusterChange::Devices, now);
    }
    for (key, (old, new)) in take(&mut pending.resource_claims) {
        model.change_claim(&key, old.as_ref(), new.as_ref(), now);
    }
}

/// What makes nobody schedulable, but decides where pods go and who makes room.
fn take_in_workloads(model: &mut Model, pending: &mut Pending) {
    quietly(model, take(&mut pending.budgets), |cluster, key, new| set(&mut cluster.budgets, key, new));
    quietly(model, take(&mut pending.services), |cluster, key, new| set(&mut cluster.workloads.services, key, new));
    quietly(model, take(&mut pending.replication_controllers), |cluster, key, new| {
        set(&mut cluster.workloads.replication_controllers, key, new);
    });
    quietly(model, take(&mut pending.replica_sets), |cluster, key, new| {
        set(&mut cluster.workloads.replica_sets, key, new);
    });
    quietly(model, take(&mut pending.stateful_sets), |cluster, key, new| {
        set(&mut cluster.workloads.stateful_sets, key, new);
    });
}

type Set<K> = fn(&mut Snapshot, ObjectKey, Option<Arc<K>>);

fn change<K>(model: &mut Model, changes: Changes<K>, now: Duration, set: Set<K>) {
    for (key, (_, new)) in changes {
        model.change_cluster(|cluster| set(cluster, key, new), &ClusterChange::Volumes, now);
    }
}

fn quietly<K>(model: &mut Model, changes: Changes<K>, set: Set<K>) {
    for (key, (_, new)) in changes {
        model.change_quietly(|cluster| set(cluster, key, new));
    }
}

fn set<I: Ord, V>(map: &mut BTreeMap<I, V>, key: I, value: Option<V>) {
    match value {
        Some(value) => drop(map.insert(key, value)),
        None => drop(map.remove(&key)),
    }
}
