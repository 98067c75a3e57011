//! Events: what happened to an object, written for people.
//!
//! [`EventRecorder`] writes core/v1 Events as upstream's components do: repeats are counted on the event that is there,
//! floods are combined or cut off, and nobody ever waits for an event to be written.

mod correlate;
pub mod limits;

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicI64, AtomicU64, Ordering},
};

use k8s_openapi::{
    api::core::v1::{Event as ApiEvent, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use tokio::sync::{mpsc, oneshot};

use self::correlate::{Correlator, Decision, Key};
use crate::{
    client::{Call, Client, PatchBody, Request, Resource, WriteOptions},
    env::{Env, TaskHandle},
    object::{self, Object},
    status::{ApiError, ApiResult, Reason},
};

/// Writes Events about objects. Cheap to clone; never fails or blocks the caller. Its task ends with the last clone.
#[derive(Clone, Debug)]
pub struct EventRecorder {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    env: Env,
    source: EventSource,
    sender: mpsc::Sender<Message>,
    task: Mutex<Option<TaskHandle>>,
    dropped: AtomicU64,
    /// The time in the newest event's name; no two events of a recorder have the same.
    last_name: AtomicI64,
}

#[derive(Debug)]
enum Message {
    Event(Box<ApiEvent>),
    Flush(oneshot::Sender<()>),
}

/// Whether an event is good or bad news.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum EventKind {
    /// Things go as they should.
    #[default]
    Normal,
    /// Somebody may have to look.
    Warning,
}

impl EventKind {
    /// As an Event's `type` has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// What happened.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Event {
    /// Good or bad news.
    pub kind: EventKind,
    /// Why, in one CamelCase word.
    pub reason: String,
    /// What happened, for people.
    pub message: String,
    /// What was done, in one CamelCase word; may be empty.
    pub action: String,
    /// A second object that it is about.
    pub related: Option<ObjectReference>,
}

impl Event {
    /// Good news.
    pub fn normal(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self { kind: EventKind::Normal, reason: reason.into(), message: message.into(), ..Default::default() }
    }

    /// Bad news.
    pub fn warning(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self { kind: EventKind::Warning, reason: reason.into(), message: message.into(), ..Default::default() }
    }
}

impl EventRecorder {
    /// A recorder for a component, such as `kubelet`, on a host (may be empty).
    pub fn new(client: &Client, env: &Env, component: &str, host: &str) -> Self {
        let (sender, receiver) = mpsc::channel(limits::QUEUED_EVENTS);
        let writer = Writer { client: client.clone(), env: env.clone(), correlator: Correlator::new() };
        let task = env.spawn("events", writer.run(receiver));
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let shared = Shared {
            env: env.clone(),
            source: EventSource { component: text(component), host: text(host) },
            sender,
            task: Mutex::new(Some(task)),
            dropped: AtomicU64::new(0),
            last_name: AtomicI64::new(0),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Records an event. Never waits: what there is no room for is dropped.
    pub async fn publish(&self, regarding: &ObjectReference, event: Event) {
        self.record(regarding, event);
    }

    /// As [`Self::publish`], where nothing can be awaited.
    pub fn record(&self, regarding: &ObjectReference, event: Event) {
        let event = Box::new(self.event(regarding, event));
        if self.shared.sender.try_send(Message::Event(event)).is_err() {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many events there was no room for.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// Waits until everything recorded so far is written or given up.
    pub async fn flush(&self) {
        let (sender, receiver) = oneshot::channel();
        if self.shared.sender.send(Message::Flush(sender)).await.is_ok() {
            let _ = receiver.await;
        }
    }

    /// Writes what waits, within [`limits::SHUTDOWN_TIME`], and ends the task. Later events are dropped.
    pub async fn shutdown(&self) {
        let task = self.shared.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            let flushed = Box::pin(self.flush());
            if self.shared.env.timeout(limits::SHUTDOWN_TIME, flushed).await.is_err() {
                tracing::debug!("events were not written in time");
            }
            task.stop().await;
        }
    }

    fn event(&self, regarding: &ObjectReference, event: Event) -> ApiEvent {
        let now = self.shared.env.now();
        let namespace = regarding.namespace.clone().filter(|namespace| !namespace.is_empty());
        let name = regarding.name.as_deref().unwrap_or_default();
        let source = &self.shared.source;
        ApiEvent {
            metadata: ObjectMeta {
                name: Some(event_name(name, self.unique_time(now))),
                namespace: Some(namespace.unwrap_or_else(|| "default".to_owned())),
                ..Default::default()
            },
            involved_object: regarding.clone(),
            reason: Some(event.reason),
            message: Some(event.message),
            type_: Some(event.kind.as_str().to_owned()),
            action: Some(event.action).filter(|action| !action.is_empty()),
            related: event.related,
            count: Some(1),
            first_timestamp: Some(object::time(now)),
            last_timestamp: Some(object::time(now)),
            reporting_component: Some(source.component.clone().unwrap_or_default()),
            reporting_instance: Some(source.host.clone().unwrap_or_default()),
            source: Some(source.clone()),
            ..Default::default()
        }
    }

    /// The time in nanoseconds, or a little later where it was used already.
    fn unique_time(&self, now: jiff::Timestamp) -> i64 {
        let now = i64::try_from(now.as_nanosecond()).unwrap_or(i64::MAX);
        let later = |last: i64| Some(now.max(last.saturating_add(1)));
        let last = self.shared.last_name.fetch_update(Ordering::Relaxed, Ordering::Relaxed, later);
        last.ok().and_then(later).unwrap_or(now)
    }
}

/// `web.18a2b3c4d5e6f708`: the object's name and a time in nanoseconds.
fn event_name(object: &str, nanoseconds: i64) -> String {
    format!("{object}.{nanoseconds:x}")
}

/// The task behind a recorder.
struct Writer {
    client: Client,
    env: Env,
    correlator: Correlator,
}

impl Writer {
    async fn run(mut self, mut receiver: mpsc::Receiver<Message>) {
        while let Some(message) = receiver.recv().await {
            match message {
                // Boxed, because a recorder mostly waits and there is one for each node.
                Message::Event(event) => Box::pin(self.write(*event)).await,
                Message::Flush(done) => {
                    let _ = done.send(());
                }
            }
        }
    }

    async fn write(&mut self, event: ApiEvent) {
        let now = correlate::seconds(self.env.now());
        let decision = self.correlator.decide(event, now);
        for _ in 0..limits::WRITE_TRIES {
            match self.apply(&decision).await {
                Ok(Some((key, event))) => return self.correlator.wrote(key, &event),
                Ok(None) => return,
                Err(error) if unreachable(&error) => self.env.sleep(limits::WRITE_PAUSE).await,
                Err(error) => {
                    tracing::debug!(%error, "an event is refused");
                    return;
                }
            }
        }
    }

    async fn apply(&self, decision: &Decision) -> ApiResult<Option<(Key, ApiEvent)>> {
        match decision {
            Decision::Drop => Ok(None),
            Decision::Create(event, key) => Ok(Some((*key, self.create(event).await?))),
            Decision::Repeat(event, key) => match self.patch(event).await {
                Err(error) if error.is_not_found() => Ok(Some((*key, self.create(event).await?))),
                result => result.map(|()| Some((*key, (**event).clone()))),
            },
        }
    }

    async fn create(&self, event: &ApiEvent) -> ApiResult<ApiEvent> {
        let mut event = event.clone();
        let options = WriteOptions::default;
        let body = |event: &ApiEvent| Object::from_typed(Arc::new(event.clone()));
        for _ in 1..limits::NAME_TRIES {
            match self.send(&event, None, Call::Create { object: body(&event), options: options() }).await {
                // Another component wrote about the same object at the same time.
                Err(error) if error.is_already_exists() => {
                    let name = event.involved_object.name.as_deref().unwrap_or_default();
                    let now = i64::try_from(self.env.now().as_nanosecond()).unwrap_or(i64::MAX);
                    let chance = i64::try_from(self.env.random_below(1_000_000)).unwrap_or_default();
                    event.metadata.name = Some(event_name(name, now.saturating_add(chance)));
                }
                result => return result.map(|()| event),
            }
        }
        self.send(&event, None, Call::Create { object: body(&event), options: options() }).await.map(|()| event)
    }

    async fn patch(&self, event: &ApiEvent) -> ApiResult<()> {
        let patch = serde_json::json!({
            "count": event.count, "lastTimestamp": event.last_timestamp, "message": event.message,
        });
        let call = Call::Patch { patch: PatchBody::Strategic(patch), options: WriteOptions::default() };
        self.send(event, event.metadata.name.clone(), call).await
    }

    /// Not through `Api`, which would decode the answer: nobody looks at it.
    async fn send(&self, event: &ApiEvent, name: Option<String>, call: Call) -> ApiResult<()> {
        let (resource, namespace) = (Resource::of::<ApiEvent>(&()), event.metadata.namespace.clone());
        let request = Request { user: None, resource, namespace, name, subresource: None, call };
        self.client.request(request).await.map(drop)
    }
}

/// Worth another try: the server did not get to answer.
fn unreachable(error: &ApiError) -> bool {
    matches!(error.reason(), Reason::ServiceUnavailable | Reason::Timeout | Reason::ServerTimeout)
}
