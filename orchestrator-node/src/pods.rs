//! All pods of one node: gives each its worker, tells it what changed, and looks after what nobody knows.

use std::{
    collections::BTreeMap,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use futures::{FutureExt, StreamExt, stream::BoxStream};
use k8s_openapi::{
    api::core::v1::{Node as ApiNode, Pod, PodSpec},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use orchestrator_core::{
    env::{TaskEnd, TaskHandle, Watcher},
    events::Event,
    object::ObjectKey,
    runtime::{RuntimeError, RuntimeEvent, SandboxStatus},
};
use tokio::sync::Notify;

use crate::{
    admission::{Place, admit},
    first::first,
    limits::{API_RETRY, RELIST},
    node::Node,
    pod::{self, decide::Wanted, mailbox::Mailbox, observed::Observed, status::NodeFacts, worker::Worker},
    registration::standard_labels,
    source::{PodSource, Sink},
};

/// The workers of a node, by the UID of their pod.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    workers: Mutex<BTreeMap<String, Member>>,
    ended: Mutex<Vec<String>>,
    changed: Notify,
}

#[derive(Debug)]
struct Member {
    mailbox: Arc<Mailbox>,
    task: TaskHandle,
    rejected: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Roster {
    pub(crate) fn mailbox(&self, uid: &str) -> Option<Arc<Mailbox>> {
        lock(&self.workers).get(uid).map(|member| member.mailbox.clone())
    }

    /// Those of all pods, by UID.
    pub(crate) fn mailboxes(&self) -> BTreeMap<String, Arc<Mailbox>> {
        lock(&self.workers).iter().map(|(uid, member)| (uid.clone(), member.mailbox.clone())).collect()
    }

    /// Cancels all workers and waits until they are gone. Containers stay as they are.
    pub(crate) async fn stop(&self) {
        let workers = std::mem::take(&mut *lock(&self.workers));
        for member in workers.into_values() {
            member.task.stop().await;
        }
    }
}

/// What the node's loop is woken by.
enum Step {
    Stop,
    Ended,
    Changed,
    Event(Option<RuntimeEvent>),
    Relist,
}

/// Says that a worker has ended, however it ended. It does not keep the list alive: the workers go with the list.
struct EndNotice(Weak<Roster>, String);

impl Drop for EndNotice {
    fn drop(&mut self) {
        if let Some(roster) = self.0.upgrade() {
            lock(&roster.ended).push(self.1.clone());
            roster.changed.notify_one();
        }
    }
}

/// Waits until somebody asks. An agent that is dropped asks for nothing: its containers stay.
async fn asked_to_stop(shutdown: &Watcher<Option<i64>>) {
    if shutdown.wait_for(Option::is_some).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Everything the runtime holds, by the pod's UID.
async fn observe(node: &Node) -> Result<BTreeMap<String, Observed>, RuntimeError> {
    let containers = node.runtime.list_containers().await?;
    let sandboxes = node.runtime.list_sandboxes().await?;
    let mut by_pod: BTreeMap<String, (Vec<SandboxStatus>, Vec<_>)> = BTreeMap::new();
    let owners: BTreeMap<_, _> =
        sandboxes.iter().map(|sandbox| (sandbox.id.clone(), sandbox.key.pod_uid.clone())).collect();
    for container in containers {
        if let Some(uid) = owners.get(&container.sandbox) {
            by_pod.entry(uid.clone()).or_default().1.push(container);
        }
    }
    for sandbox in sandboxes {
        by_pod.entry(sandbox.key.pod_uid.clone()).or_default().0.push(sandbox);
    }
    Ok(by_pod.into_iter().map(|(uid, (sandboxes, containers))| (uid, Observed::new(sandboxes, containers))).collect())
}

/// Runs the node's pods until it is told to stop them (`Some(grace seconds)`), and then until they are stopped.
pub(crate) struct Pods {
    node: Arc<Node>,
    source: PodSource,
    roster: Arc<Roster>,
    shutdown: Watcher<Option<i64>>,
    /// What the runtime held at the last listing of pods without a worker, for those that get one.
    listed: BTreeMap<String, Observed>,
}

impl Pods {
    pub(crate) fn new(node: Arc<Node>, source: PodSource, roster: Arc<Roster>, shutdown: Watcher<Option<i64>>) -> Self {
        Self { node, source, roster, shutdown, listed: BTreeMap::new() }
    }

    pub(crate) async fn run(mut self) {
        let mut events = self.node.runtime.events();
        let shutdown = self.shutdown.clone();
        // An API server that does not answer does not hold up the end.
        let stopped = pin!(asked_to_stop(&shutdown).map(|()| None));
        let heard = first(pin!(self.hear().map(Some)), stopped).await;
        self.ask_the_runtime().await;
        if let Some(sink) = &heard {
            self.take_in(sink);
        }
        self.adopt_orphans();
        if let Some(sink) = heard {
            self.clean_directories().await;
            self.follow(&sink, &mut events).await;
        }
        self.stop_all().await;
    }

    /// Waits until the API server has told what is to run.
    async fn hear(&self) -> Arc<Sink> {
        let sink = self.source.subscribe(&self.node.name).await;
        // One wait here spares every container's start one.
        self.node.services.synced().await;
        sink
    }

    /// Learns the runtime's name and what it holds.
    async fn ask_the_runtime(&mut self) {
        loop {
            if let Ok(status) = self.node.runtime.status().await
                && self.relist().await
            {
                let addresses = self.node.config.addresses.clone();
                let _ = self.node.facts.set(NodeFacts { runtime: status.name, addresses });
                return;
            }
            self.node.env.sleep(API_RETRY).await;
        }
    }

    async fn follow(&mut self, sink: &Sink, events: &mut BoxStream<'static, RuntimeEvent>) {
        let shutdown = self.shutdown.clone();
        let roster = self.roster.clone();
        let mut relist_in = self.node.env.sleep(RELIST);
        loop {
            let stop = pin!(asked_to_stop(&shutdown).map(|()| Step::Stop));
            let ended = pin!(roster.changed.notified().map(|()| Step::Ended));
            let changed = pin!(sink.changed.notified().map(|()| Step::Changed));
            let event = events.next().map(Step::Event);
            let relist = (&mut relist_in).map(|()| Step::Relist);
            match first(stop, first(ended, first(changed, first(event, relist)))).await {
                Step::Stop => return,
                Step::Ended => self.bury().await,
                Step::Changed => self.take_in(sink),
                Step::Event(Some(event)) => self.route(event).await,
                Step::Event(None) => {
                    self.node.env.sleep(API_RETRY).await;
                    *events = self.node.runtime.events();
                }
                Step::Relist => {
                    self.relist().await;
                    self.adopt_orphans();
                    relist_in = self.node.env.sleep(RELIST);
                }
            }
        }
    }

    /// Gives all workers a fresh listing. False when the runtime cannot list.
    async fn relist(&mut self) -> bool {
        let Ok(mut listed) = observe(&self.node).await else { return false };
        for (uid, mailbox) in self.roster.mailboxes() {
            mailbox.relisted(listed.remove(&uid).unwrap_or_default());
        }
        self.listed = listed;
        true
    }

    async fn route(&mut self, event: RuntimeEvent) {
        match event {
            RuntimeEvent::Sandbox { id, pod_uid } => {
                if let Some(mailbox) = self.roster.mailbox(&pod_uid) {
                    mailbox.sandbox_changed(id);
                }
            }
            RuntimeEvent::Container { id, pod_uid } => {
                if let Some(mailbox) = self.roster.mailbox(&pod_uid) {
                    mailbox.container_changed(id);
                }
            }
            RuntimeEvent::Lagged => drop(self.relist().await),
        }
    }

    /// Takes in what the API says. Pods that run already come first: they keep their place.
    fn take_in(&mut self, sink: &Sink) {
        let mut changes: Vec<(String, Option<Arc<Pod>>)> = sink.take().into_iter().collect();
        changes.sort_by_key(|(uid, pod)| match pod {
            Some(pod) => (!self.is_known(uid, pod), pod.metadata.creation_timestamp.clone()),
            None => (false, None),
        });
        for (uid, pod) in changes {
            match (self.roster.mailbox(&uid), pod) {
                (Some(mailbox), Some(pod)) => mailbox.pod_changed(pod),
                (Some(mailbox), None) => mailbox.pod_gone(),
                (None, Some(pod)) => self.hire(pod, Wanted::Yes),
                (None, None) => {}
            }
        }
    }

    fn is_known(&self, uid: &str, pod: &Pod) -> bool {
        pod::status_of(pod).start_time.is_some() || self.listed.contains_key(uid)
    }

    /// Starts a pod's worker.
    fn hire(&mut self, pod: Arc<Pod>, wanted: Wanted) {
        let uid = pod::uid(&pod).to_owned();
        let known = self.is_known(&uid, &pod) || wanted != Wanted::Yes;
        let over = pod::is_terminal(pod::status_of(&pod).phase.as_deref());
        let rejection =
            if known || over || pod.metadata.deletion_timestamp.is_some() { None } else { self.check(&pod) };
        if let Some((reason, message)) = &rejection {
            self.node.tell(&pod, Event::warning(reason, message));
        }
        let rejected = rejection.is_some();
        let mailbox = Arc::new(Mailbox::new(pod, wanted));
        let observed = self.listed.remove(&uid).unwrap_or_default();
        let worker = Box::new(Worker::new(self.node.clone(), mailbox.clone(), observed, rejection));
        let notice = EndNotice(Arc::downgrade(&self.roster), uid.clone());
        let task = self.node.env.spawn("pod worker", async move {
            let _notice = notice;
            worker.run().await;
        });
        lock(&self.roster.workers).insert(uid, Member { mailbox, task, rejected });
    }

    fn check(&self, pod: &Pod) -> Option<(String, String)> {
        let taken: Vec<Arc<Pod>> = {
            let workers = lock(&self.roster.workers);
            let active = workers.values().filter(|member| !member.rejected);
            active
                .filter(|member| !pod::is_terminal(member.mailbox.seen().1.phase.as_deref()))
                .map(|member| member.mailbox.pod())
                .collect()
        };
        let taken: Vec<&Pod> = taken.iter().map(Arc::as_ref).collect();
        let api = self.source.caches().cache::<ApiNode>().get(&ObjectKey::new("", &self.node.name));
        let mut labels = standard_labels(&self.node);
        labels.extend(api.as_ref().and_then(|node| node.metadata.labels.clone()).unwrap_or_default());
        let taints = api.and_then(|node| node.spec.as_ref().and_then(|spec| spec.taints.clone()));
        let taints = taints.unwrap_or_else(|| self.node.config.taints.clone());
        let place = Place {
            node: &self.node.name,
            labels: &labels,
            taints: &taints,
            allocatable: &self.node.allocatable,
            operating_system: &self.node.config.system.operating_system,
        };
        admit(pod, &place, &taken).err().map(|rejection| (rejection.reason, rejection.message))
    }

    /// Ends what belongs to pods that the API does not know.
    fn adopt_orphans(&mut self) {
        let orphans: Vec<Arc<Pod>> = self
            .listed
            .iter()
            .filter(|(uid, _)| self.roster.mailbox(uid).is_none())
            .filter_map(|(uid, observed)| {
                let sandbox = observed.newest_sandbox()?;
                Some(Arc::new(Pod {
                    metadata: ObjectMeta {
                        name: Some(sandbox.name.clone()),
                        namespace: Some(sandbox.namespace.clone()),
                        uid: Some(uid.clone()),
                        ..ObjectMeta::default()
                    },
                    spec: Some(PodSpec::default()),
                    status: None,
                }))
            })
            .collect();
        for pod in orphans {
            self.hire(pod, Wanted::Gone);
        }
        self.listed.clear();
    }

    /// Removes the directories of pods that are no more.
    async fn clean_directories(&self) {
        for uid in self.node.volumes.pods().await.unwrap_or_default() {
            if self.roster.mailbox(&uid).is_none()
                && let Err(error) = self.node.volumes.remove_pod(&uid).await
            {
                tracing::warn!(pod = uid, %error, "the directory of a pod that is no more cannot be removed");
            }
        }
    }

    /// Takes workers off the list that have ended. One that panicked gets a successor.
    async fn bury(&mut self) {
        let ended = std::mem::take(&mut *lock(&self.roster.ended));
        for uid in ended {
            let member = lock(&self.roster.workers).remove(&uid);
            let Some(member) = member else { continue };
            if let TaskEnd::Panicked(message) = member.task.join().await {
                let pod = member.mailbox.pod();
                tracing::error!(pod = pod::describe(&pod), message, "a pod's worker panicked and is started anew");
                self.node.env.sleep(API_RETRY).await;
                self.relist().await;
                let present = self.source.find(pod::namespace(&pod), pod::name(&pod));
                let present = present.filter(|present| pod::uid(present) == uid);
                match present {
                    Some(pod) => self.hire(pod, Wanted::Yes),
                    None => self.hire(pod, Wanted::Gone),
                }
            }
        }
    }

    /// Ends all pods' containers and waits for it.
    async fn stop_all(&mut self) {
        let grace = self.shutdown.get().unwrap_or(0);
        for mailbox in self.roster.mailboxes().values() {
            mailbox.shut_down(grace);
        }
        let mut events = self.node.runtime.events();
        self.relist().await;
        while !lock(&self.roster.workers).is_empty() {
            self.bury().await;
            let step = self.node.env.timeout(Duration::from_millis(200), events.next()).await;
            match step {
                Ok(Some(event)) => self.route(event).await,
                Ok(None) => events = self.node.runtime.events(),
                Err(_) => {}
            }
        }
    }
}
