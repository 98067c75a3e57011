//! The worker of one pod: observes, decides, acts, shows; woken by changes, by its own operations and by time.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use futures::{
    FutureExt, StreamExt,
    future::{AbortHandle, BoxFuture, abortable},
    stream::FuturesUnordered,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use orchestrator_core::{
    client::{Api, Call, PatchBody, WriteOptions},
    events::Event,
    runtime::{ContainerId, ContainerState, ContainerStatus, LogOptions, RuntimeError, SandboxId, SandboxStatus},
    status::ApiResult,
};
use serde_json::Value;

use super::{
    backoff::{Backoff, after},
    decide::{Plan, Situation, Wanted, decide, is_ending},
    mailbox::{Mailbox, Shown},
    memory::{Failure, Hook, Memory, Volumes},
    observed::Observed,
    operation::{Operation, ProbeKind, Slot},
    operations::{Job, Outcome, last_words_file, perform},
    probe::{self, ProbeState},
    status::{self, View, patch::patch},
    status_of,
};
use crate::{
    first::first,
    limits::{
        API_RETRY, PULL_ERROR_SHOWN, RETRY, TERMINATION_LOG_BYTES, TERMINATION_LOG_LINES, TERMINATION_MESSAGE_BYTES,
    },
    node::Node,
    volumes::setup::{Tokens, VolumeSet},
};

enum Done {
    Operation(Slot, u64, Option<Box<Outcome>>),
    Status(Arc<PodStatus>, ApiResult<Arc<Pod>>),
}

type Running = FuturesUnordered<BoxFuture<'static, Done>>;

pub(crate) struct Worker {
    node: Arc<Node>,
    mailbox: Arc<Mailbox>,
    pod: Arc<Pod>,
    wanted: Wanted,
    observed: Arc<Observed>,
    memory: Memory,
    volumes: Arc<VolumeSet>,
    tokens: Arc<Tokens>,
    /// The newest status that the API is known to have, where it is not the one that `pod` has.
    known: Option<Arc<PodStatus>>,
    /// The version of the pod that `known` is from.
    known_version: u64,
    in_flight: BTreeMap<Slot, Operation>,
    handles: BTreeMap<Slot, (u64, AbortHandle)>,
    next_number: u64,
    running: Running,
    writing: bool,
    write_again_at: Option<Timestamp>,
    last_patch: Option<(Value, Timestamp)>,
    final_status_written: bool,
    announced: BTreeMap<String, String>,
    dirty: (BTreeSet<SandboxId>, BTreeSet<ContainerId>),
}

impl Worker {
    pub(crate) fn new(
        node: Arc<Node>,
        mailbox: Arc<Mailbox>,
        observed: Observed,
        rejection: Option<(String, String)>,
    ) -> Self {
        let (pod, wanted) = {
            let mail = mailbox.lock();
            (mail.pod.clone(), mail.wanted)
        };
        Self {
            known_version: version(&pod),
            memory: Memory { rejection, ..Memory::default() },
            node,
            mailbox,
            pod,
            wanted,
            observed: Arc::new(observed),
            volumes: Arc::default(),
            tokens: Arc::default(),
            known: None,
            in_flight: BTreeMap::new(),
            handles: BTreeMap::new(),
            next_number: 0,
            running: FuturesUnordered::new(),
            writing: false,
            write_again_at: None,
            last_patch: None,
            final_status_written: false,
            announced: BTreeMap::new(),
            dirty: Default::default(),
        }
    }

    /// Works until nothing of the pod is left on this node. Boxed, as a future has room for each argument twice.
    pub(crate) async fn run(mut self: Box<Self>) {
        loop {
            self.take_mail();
            // Boxed, because a worker mostly waits and there is one for each pod.
            Box::pin(self.look_and_go_on()).await;
            self.seed_probes();
            self.show();
            let plan = decide(&self.situation());
            if plan.finished && !self.writing {
                return;
            }
            self.announce(&plan);
            let wake_at = plan.wake_at.into_iter().chain(self.write_again_at).min();
            for slot in plan.cancel {
                self.cancel(&slot);
            }
            for operation in plan.start {
                self.begin(operation);
            }
            self.wait(wake_at).await;
        }
    }

    fn situation(&self) -> Situation<'_> {
        Situation {
            pod: &self.pod,
            previous: self.known(),
            observed: &self.observed,
            memory: &self.memory,
            in_flight: &self.in_flight,
            wanted: self.wanted,
            final_status_written: self.final_status_written,
            now: self.node.env.now(),
        }
    }

    /// The newest status that the API is known to have.
    fn known(&self) -> &PodStatus {
        self.known.as_deref().unwrap_or_else(|| status_of(&self.pod))
    }

    // Observing.

    fn take_mail(&mut self) {
        let mailbox = self.mailbox.clone();
        let mut mail = mailbox.lock();
        if !Arc::ptr_eq(&self.pod, &mail.pod) {
            if version(&mail.pod) >= self.known_version {
                self.known_version = version(&mail.pod);
                self.known = None;
            } else if self.known.is_none() {
                self.known = Some(Arc::new(status_of(&self.pod).clone()));
            }
            self.pod = mail.pod.clone();
        }
        self.wanted = mail.wanted;
        self.dirty.0.append(&mut mail.sandboxes);
        self.dirty.1.append(&mut mail.containers);
        if let Some(listed) = mail.relisted.take() {
            drop(mail);
            self.compare(&listed);
        }
    }

    /// What differs from a listing is looked at again: the listing may be older than what is known.
    fn compare(&mut self, listed: &Observed) {
        let sandboxes = listed.sandboxes().iter().chain(self.observed.sandboxes());
        for sandbox in sandboxes {
            if listed.sandbox(&sandbox.id) != self.observed.sandbox(&sandbox.id) {
                self.dirty.0.insert(sandbox.id.clone());
            }
        }
        let containers = listed.containers().iter().chain(self.observed.containers());
        for container in containers {
            if listed.container(&container.id) != self.observed.container(&container.id) {
                self.dirty.1.insert(container.id.clone());
            }
        }
    }

    /// Looks, while operations go on: the runtime may let one call wait for another.
    async fn look_and_go_on(&mut self) {
        while self.has_to_look() && !self.running.is_empty() {
            let mut running = std::mem::take(&mut self.running);
            let done = beside(pin!(self.look()), &mut running).await;
            self.running = running;
            if done.is_empty() {
                return;
            }
            done.into_iter().for_each(|done| self.take_in(done));
        }
        self.look().await;
    }

    fn has_to_look(&self) -> bool {
        !(self.dirty.0.is_empty() && self.dirty.1.is_empty())
    }

    /// Looks at what has changed in the runtime. What cannot be seen now is looked at again later.
    async fn look(&mut self) {
        let (sandboxes, containers) = std::mem::take(&mut self.dirty);
        for id in sandboxes {
            match self.node.runtime.inspect_sandbox(&id).await {
                Ok(status) => Arc::make_mut(&mut self.observed).put_sandbox(&id, Some(status)),
                Err(RuntimeError::NotFound { .. }) => Arc::make_mut(&mut self.observed).put_sandbox(&id, None),
                Err(_) => {
                    self.dirty.0.insert(id);
                }
            }
        }
        for id in containers {
            match self.node.runtime.inspect_container(&id).await {
                Ok(status) => {
                    self.last_words(&status).await;
                    Arc::make_mut(&mut self.observed).put_container(&id, Some(status));
                }
                Err(RuntimeError::NotFound { .. }) => Arc::make_mut(&mut self.observed).put_container(&id, None),
                Err(_) => {
                    self.dirty.1.insert(id);
                }
            }
        }
        self.mailbox.lock().seen.0 = self.observed.clone();
    }

    /// Reads what a container said at its end.
    ///
    /// Upstream: <https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/>.
    async fn last_words(&mut self, status: &ContainerStatus) {
        let key = (status.key.name.clone(), status.key.attempt);
        let Some(code) = status.state.exit_code() else { return };
        if self.memory.last_words.contains_key(&key) {
            return;
        }
        let file = last_words_file(&key.0, key.1);
        let read = self.node.volumes.read_file(super::uid(&self.pod), &file, TERMINATION_MESSAGE_BYTES).await;
        let mut words = read.unwrap_or_default();
        let policy = super::container(&self.pod, &key.0).and_then(|(_, it)| it.termination_message_policy.clone());
        if words.is_empty() && code != 0 && policy.as_deref() == Some("FallbackToLogsOnError") {
            words = log_tail(&self.node, &status.id).await;
        }
        if !words.is_empty() {
            self.memory.last_words.insert(key, words);
        }
    }

    /// Gives running containers their probes. After a restart of the node, what the API says of this very container
    /// still holds.
    fn seed_probes(&mut self) {
        for (role, container) in super::containers(&self.pod) {
            let Some(run) = self.observed.newest_run(&container.name) else { continue };
            let ContainerState::Running { started_at } = run.state else { continue };
            let attempt = run.key.attempt;
            if self.memory.probes.get(&container.name).is_some_and(|(of, _)| *of == attempt) {
                continue;
            }
            let id = format!("{}://{}", self.node.facts().runtime, run.id);
            let api = super::containers::api_status(self.known(), role, &container.name);
            let api = api.filter(|status| status.container_id.as_deref() == Some(&id));
            let states = ProbeKind::ALL.into_iter().filter_map(|kind| {
                let probe = probe::of(&container, kind)?;
                let held = match kind {
                    ProbeKind::Startup => api.is_some_and(|status| status.started == Some(true)),
                    ProbeKind::Readiness => api.is_some_and(|status| status.ready),
                    ProbeKind::Liveness => false,
                };
                Some((kind, ProbeState::new(probe, started_at, held.then_some(true))))
            });
            let states: BTreeMap<_, _> = states.collect();
            if !states.is_empty() {
                self.memory.probes.insert(container.name.clone(), (attempt, states));
            }
        }
    }

    // Showing.

    /// Computes the status and begins to write it if the API does not have it.
    fn show(&mut self) {
        let now = self.node.env.now();
        let ending = is_ending(&self.situation());
        let view = View {
            pod: &self.pod,
            previous: self.known(),
            observed: &self.observed,
            memory: &self.memory,
            node: self.node.facts(),
            ending: ending && self.wanted == Wanted::Yes,
            now,
        };
        let status = Arc::new(status::compute(&view));
        self.mailbox.lock().seen.1 = Shown::Own(status.clone());
        if self.writing {
            self.final_status_written = false;
            return;
        }
        let changes = patch(&self.pod, self.known(), &status);
        let settled = changes.is_none();
        if settled && self.known.is_none() {
            self.mailbox.lock().seen.1 = Shown::OfPod(self.pod.clone());
        }
        if settled {
            self.last_patch = None;
        }
        self.final_status_written = settled && super::is_terminal(status.phase.as_deref());
        let Some(changes) = changes.filter(|_| self.wanted == Wanted::Yes) else {
            self.write_again_at = self.write_again_at.filter(|_| !settled && self.wanted == Wanted::Yes);
            return;
        };
        // A server that does not keep what it was given is not asked again and again.
        if let Some((last, written_at)) = &self.last_patch
            && *last == changes
            && after(*written_at, RETRY) > now
        {
            self.write_again_at = Some(after(*written_at, RETRY));
        }
        if self.write_again_at.is_some_and(|at| at > now) {
            return;
        }
        self.last_patch = Some((changes.clone(), now));
        self.write_again_at = None;
        self.writing = true;
        let api: Api<Pod> = Api::namespaced(&self.node.client, super::namespace(&self.pod));
        let name = super::name(&self.pod).to_owned();
        let write = async move {
            let call = Call::Patch { patch: PatchBody::Strategic(changes), options: WriteOptions::default() };
            let written = api.send(Some(&name), Some("status"), call).await;
            Done::Status(status, written.and_then(|pod| Ok(pod.shared()?)))
        };
        self.running.push(write.boxed());
    }

    fn status_written(&mut self, status: &PodStatus, result: ApiResult<Arc<Pod>>) {
        self.writing = false;
        match result {
            Ok(pod) => {
                if version(&pod) >= self.known_version {
                    self.known_version = version(&pod);
                    // What others wrote is the server's to say.
                    let shown = status_of(&pod);
                    let conditions = shown.conditions.clone().or_else(|| status.conditions.clone());
                    let qos_class = shown.qos_class.clone();
                    self.known = Some(Arc::new(PodStatus { conditions, qos_class, ..status.clone() }));
                }
            }
            Err(error) => {
                tracing::debug!(pod = super::describe(&self.pod), %error, "status was not written");
                self.write_again_at = Some(after(self.node.env.now(), API_RETRY));
                self.last_patch = None;
            }
        }
    }

    /// Tells once per run of a container that it is not started again yet.
    fn announce(&mut self, plan: &Plan) {
        for (container, _) in &plan.backing_off {
            let attempt = self.observed.newest_run(container).map_or(0, |run| run.key.attempt);
            let mark = format!("crash {attempt}");
            if self.announced.insert(container.clone(), mark.clone()) != Some(mark) {
                let pod = super::describe(&self.pod);
                let message = format!("Back-off restarting failed container {container} in pod {pod}");
                self.node.tell_container(&self.pod, container, Event::warning("BackOff", message));
            }
        }
        let now = self.node.env.now();
        for (container, failure) in &self.memory.failures {
            let shown = failure.reason == "ErrImagePull" && after(failure.at, PULL_ERROR_SHOWN) <= now;
            let mark = format!("pull {}", failure.at);
            if shown && self.announced.insert(container.clone(), mark.clone()) != Some(mark) {
                let image = super::container(&self.pod, container).and_then(|(_, it)| it.image.clone());
                let message = format!("Back-off pulling image \"{}\"", image.unwrap_or_default());
                self.node.tell_container(&self.pod, container, Event::normal("BackOff", message));
                self.node.tell_container(&self.pod, container, Event::warning("Failed", "Error: ImagePullBackOff"));
            }
        }
    }

    // Acting.

    fn cancel(&mut self, slot: &Slot) {
        self.in_flight.remove(slot);
        if let Some((_, handle)) = self.handles.remove(slot) {
            handle.abort();
        }
    }

    fn begin(&mut self, operation: Operation) {
        self.prepare(&operation);
        let slot = operation.slot();
        let number = self.next_number;
        self.next_number += 1;
        let status = self.mailbox.lock().seen.1.clone();
        let job = Job {
            node: self.node.clone(),
            pod: self.pod.clone(),
            status,
            volumes: self.volumes.clone(),
            tokens: self.tokens.clone(),
            sandbox: self.observed.ready_sandbox().map(|sandbox| sandbox.id.clone()),
        };
        let (future, handle) = abortable(perform(job, operation.clone()));
        self.in_flight.insert(slot.clone(), operation);
        self.handles.insert(slot.clone(), (number, handle));
        self.running.push(async move { Done::Operation(slot, number, future.await.ok().map(Box::new)) }.boxed());
    }

    /// Counts a restart when it begins.
    fn prepare(&mut self, operation: &Operation) {
        let Operation::Start { container, attempt, .. } = operation else { return };
        let before = self.observed.newest_run(container).filter(|run| run.key.attempt < *attempt);
        if let Some(ContainerState::Exited { finished_at, .. }) = before.map(|run| &run.state) {
            let previous = self.memory.crashes.get(container).copied();
            let next = Backoff::next(previous, *finished_at, self.node.env.now());
            self.memory.crashes.insert(container.clone(), next);
        }
    }

    async fn wait(&mut self, wake_at: Option<Timestamp>) {
        // What could not be seen is looked at again soon.
        let unseen = self.has_to_look();
        let now = self.node.env.now();
        let wait = wake_at.map(|at| Duration::try_from(at.duration_since(now)).unwrap_or_default());
        let wait = wait.into_iter().chain(unseen.then_some(API_RETRY)).min();
        let mailbox = self.mailbox.clone();
        let node = self.node.clone();
        let sleep = pin!(async {
            match wait {
                Some(wait) => node.env.sleep(wait).await,
                None => std::future::pending().await,
            }
        });
        let running = &mut self.running;
        let next = pin!(async { if running.is_empty() { std::future::pending().await } else { running.next().await } });
        let changed = pin!(mailbox.changed());
        let woken = first(changed, sleep).map(|()| None);
        if let Some(done) = first(next, woken).await {
            self.take_in(done);
        }
    }

    fn take_in(&mut self, done: Done) {
        match done {
            // One that was cancelled meanwhile does not count any more.
            Done::Operation(slot, number, outcome)
                if self.handles.get(&slot).is_some_and(|(present, _)| *present == number) =>
            {
                self.handles.remove(&slot);
                self.in_flight.remove(&slot);
                if self.in_flight.is_empty() {
                    // An empty map keeps its room, and most pods have nothing in flight for most of their lives.
                    (self.in_flight, self.handles) = Default::default();
                }
                if let Some(outcome) = outcome {
                    self.absorb(*outcome);
                }
            }
            Done::Status(status, result) => self.status_written(&status, result),
            Done::Operation(..) => {}
        }
    }

    /// Remembers what came of an operation.
    fn absorb(&mut self, outcome: Outcome) {
        let now = self.node.env.now();
        let cleanup = |result: Result<(), String>| result.err().map(|error| Failure::new("Cleanup", error, now, RETRY));
        match outcome {
            Outcome::Volumes(Ok(set)) => {
                self.memory.volumes = Volumes::Ready { refresh_at: set.refresh_at };
                self.volumes = Arc::new(set);
            }
            Outcome::Volumes(Err(message)) => {
                let failure = Failure::new("FailedMount", message, now, RETRY);
                self.memory.volumes = match &self.memory.volumes {
                    // What was there stays usable.
                    Volumes::Ready { .. } => Volumes::Ready { refresh_at: Some(failure.retry_at) },
                    _ => Volumes::Failed(failure),
                };
            }
            Outcome::VolumesGone(result) => {
                if result.is_ok() {
                    self.memory.volumes = Volumes::Gone;
                }
                self.memory.cleanup_failure = cleanup(result);
            }
            Outcome::Sandbox(result) => self.sandbox_made(result, now),
            Outcome::SandboxEnded { id, result } => {
                self.dirty.0.insert(id.clone());
                let containers = self.observed.containers().iter().filter(|run| run.sandbox == id);
                self.dirty.1.extend(containers.map(|run| run.id.clone()));
                self.memory.cleanup_failure = cleanup(result);
            }
            Outcome::Pulled { container, attempt, result } => self.pulled(container, attempt, result, now),
            Outcome::Started { container, attempt, id, result } => self.started(&container, attempt, id, result, now),
            Outcome::Hooked { container, attempt, result } => {
                self.memory.hooks.insert(container.clone(), (attempt, Hook::Done));
                if result.is_err() {
                    let message = format!("Container {container} failed its postStart hook, will be restarted");
                    self.memory.condemned.insert(container, (attempt, message));
                }
            }
            Outcome::Ended { id, result } => {
                self.dirty.1.insert(id);
                self.memory.cleanup_failure = cleanup(result);
            }
            Outcome::Probed { container, attempt, kind, result } => {
                self.probed(container, attempt, kind, result.is_ok(), now);
            }
            Outcome::Deleted(result) => {
                let gone = result.as_ref().is_ok() || result.is_err_and(|error| error.is_not_found());
                let wait = if gone { RETRY * 6 } else { API_RETRY };
                self.memory.delete_again_at = Some(after(now, wait));
            }
        }
    }

    fn sandbox_made(&mut self, result: Result<SandboxStatus, String>, now: Timestamp) {
        match result {
            Ok(status) => {
                self.memory.sandbox_failure = None;
                let id = status.id.clone();
                Arc::make_mut(&mut self.observed).put_sandbox(&id, Some(status));
            }
            Err(message) => {
                self.memory.sandbox_failure = Some(Failure::new("FailedCreatePodSandBox", message, now, RETRY));
            }
        }
    }

    fn pulled(&mut self, container: String, attempt: u32, result: Result<(), (String, String)>, now: Timestamp) {
        let image = super::container(&self.pod, &container).and_then(|(_, it)| it.image.clone()).unwrap_or_default();
        match result {
            Ok(()) => {
                self.memory.pulls.remove(&image);
                self.memory.failures.remove(&container);
                self.memory.pulled.insert(container, attempt);
            }
            Err((reason, message)) => {
                let backoff = Backoff::next(self.memory.pulls.get(&image).copied(), now, now);
                self.memory.pulls.insert(image, backoff);
                self.memory.failures.insert(container, Failure::new(&reason, message, now, backoff.delay));
            }
        }
    }

    fn started(
        &mut self,
        container: &str,
        attempt: u32,
        id: Option<ContainerId>,
        result: Result<(), (String, String)>,
        now: Timestamp,
    ) {
        self.dirty.1.extend(id);
        match result {
            Ok(()) => {
                self.memory.started(container, attempt);
                let spec = super::container(&self.pod, container);
                let hook = spec.and_then(|(_, it)| it.lifecycle.as_ref().and_then(|it| it.post_start.clone()));
                let state = if hook.is_some() { Hook::Due } else { Hook::Done };
                self.memory.hooks.insert(container.to_owned(), (attempt, state));
            }
            Err((reason, message)) => {
                self.memory.pulled.remove(container);
                self.memory.failures.insert(container.to_owned(), Failure::new(&reason, message, now, RETRY));
            }
        }
    }

    fn probed(&mut self, container: String, attempt: u32, kind: ProbeKind, success: bool, now: Timestamp) {
        let Some((_, spec)) = super::container(&self.pod, &container) else { return };
        let Some(probe) = probe::of(&spec, kind) else { return };
        let Some((of, states)) = self.memory.probes.get_mut(&container) else { return };
        if *of != attempt {
            return;
        }
        let Some(state) = states.get_mut(&kind) else { return };
        *state = state.answered(probe, success, now);
        if state.verdict == Some(false) && kind != ProbeKind::Readiness {
            let message =
                format!("Container {container} failed {} probe, will be restarted", kind.title().to_lowercase());
            self.memory.condemned.entry(container).or_insert((attempt, message)).0 = attempt;
        }
    }
}

/// Finishes some work, and gives what ended beside it.
async fn beside(mut work: Pin<&mut impl Future<Output = ()>>, running: &mut Running) -> Vec<Done> {
    let mut done = Vec::new();
    let worked = poll_fn(|context| {
        while let Poll::Ready(Some(ended)) = running.poll_next_unpin(context) {
            done.push(ended);
        }
        work.as_mut().poll(context)
    });
    worked.await;
    done
}

/// The end of a container's log.
async fn log_tail(node: &Node, id: &ContainerId) -> String {
    let options = LogOptions { tail_lines: Some(TERMINATION_LOG_LINES), ..LogOptions::default() };
    let Ok(lines) = node.runtime.logs(id, options).await else { return String::new() };
    let lines: Vec<_> = lines.take(TERMINATION_LOG_LINES).collect().await;
    let text: Vec<u8> = lines
        .into_iter()
        .flatten()
        .flat_map(|line| line.content.into_iter().chain((!line.partial).then_some(b'\n')))
        .collect();
    let start = text.len().saturating_sub(TERMINATION_LOG_BYTES);
    String::from_utf8_lossy(text.get(start..).unwrap_or_default()).into_owned()
}

/// The version of an object, as a number.
fn version(pod: &Pod) -> u64 {
    pod.metadata.resource_version.as_ref().and_then(|version| version.parse().ok()).unwrap_or(0)
}
