//! Changes as the engine tells of them: one connection for all who listen.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bollard::{models::EventMessage, query_parameters::EventsOptions};
use futures::{
    StreamExt,
    stream::{BoxStream, unfold},
};
use jiff::Timestamp;
use orchestrator_core::{
    env::TaskHandle,
    runtime::{ContainerId, RuntimeEvent, SandboxId},
};
use tokio::sync::broadcast;

use crate::{
    engine::Engine,
    limits::{EVENT_BACKLOG, RECONNECT_PAUSE_MAX, RECONNECT_PAUSE_MIN},
    names::{Owner, Record},
};

/// What happens to a container that changes what is seen of it. Podman has words of its own for an end and a removal.
const ACTIONS: [&str; 10] =
    ["create", "start", "die", "died", "oom", "pause", "unpause", "rename", "destroy", "remove"];

/// Passes on what the engine tells. It listens from the first subscription on, for as long as it lives.
#[derive(Debug)]
pub(crate) struct Hub {
    engine: Arc<Engine>,
    owner: Owner,
    sender: broadcast::Sender<RuntimeEvent>,
    listening: Mutex<Option<TaskHandle>>,
}

impl Hub {
    pub(crate) fn new(engine: Arc<Engine>, owner: Owner) -> Self {
        Self { engine, owner, sender: broadcast::channel(EVENT_BACKLOG).0, listening: Mutex::default() }
    }

    /// What happens from now on.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<RuntimeEvent> {
        let receiver = self.sender.subscribe();
        let mut listening = self.listening.lock().unwrap_or_else(PoisonError::into_inner);
        if listening.is_none() {
            let listener = Listener {
                engine: Arc::clone(&self.engine),
                owner: self.owner.clone(),
                sender: self.sender.clone(),
                since: self.engine.env.now(),
            };
            *listening = Some(self.engine.env.spawn("docker-events", listener.run()));
        }
        receiver
    }

    /// The same as a stream. Who is too slow is told so.
    pub(crate) fn events(&self) -> BoxStream<'static, RuntimeEvent> {
        unfold(self.subscribe(), |mut receiver| async move {
            match receiver.recv().await {
                Ok(event) => Some((event, receiver)),
                Err(broadcast::error::RecvError::Lagged(_)) => Some((RuntimeEvent::Lagged, receiver)),
                Err(broadcast::error::RecvError::Closed) => None,
            }
        })
        .boxed()
    }
}

struct Listener {
    engine: Arc<Engine>,
    owner: Owner,
    sender: broadcast::Sender<RuntimeEvent>,
    /// Everything before this time was told, or can be seen by whoever looks.
    since: Timestamp,
}

impl Listener {
    async fn run(mut self) {
        let mut pause = RECONNECT_PAUSE_MIN;
        loop {
            if self.listen().await {
                pause = RECONNECT_PAUSE_MIN;
            }
            pause = self.wait_for_engine(pause).await;
        }
    }

    /// Passes on events until the connection breaks. Whether there were any.
    async fn listen(&mut self) -> bool {
        let Ok(client) = self.engine.client().await else { return false };
        let mut events = std::pin::pin!(client.events(Some(self.options())));
        let mut some = false;
        loop {
            match events.next().await {
                Some(Ok(message)) => {
                    some = true;
                    if let Some(event) = event(&self.owner, &message) {
                        // Nobody listening is no failure.
                        let _ = self.sender.send(event);
                    }
                }
                Some(Err(error)) => {
                    tracing::debug!(%error, "the engine's events broke off");
                    return some;
                }
                None => return some,
            }
        }
    }

    /// Waits until the engine answers, and says that something may have been missed: the engine forgets its events when it
    /// ends. What happens from then on is asked for.
    async fn wait_for_engine(&mut self, mut pause: Duration) -> Duration {
        loop {
            self.engine.env.sleep(pause).await;
            pause = (pause * 2).min(RECONNECT_PAUSE_MAX);
            let before = self.engine.env.now();
            if self.engine.call(|client| async move { client.ping().await }).await.is_ok() {
                self.since = before;
                let _ = self.sender.send(RuntimeEvent::Lagged);
                return pause;
            }
        }
    }

    fn options(&self) -> EventsOptions {
        let nanoseconds = self.since.subsec_nanosecond();
        let filters = [
            ("type", vec!["container".to_owned()]),
            ("label", self.owner.filters()),
            ("event", ACTIONS.map(str::to_owned).to_vec()),
        ];
        EventsOptions {
            since: Some(format!("{}.{nanoseconds:09}", self.since.as_second())),
            filters: Some(filters.map(|(name, values)| (name.to_owned(), values)).into()),
            ..EventsOptions::default()
        }
    }
}

/// Containers tell of themselves; what happens to a sandbox's container happens to the sandbox.
fn event(owner: &Owner, message: &EventMessage) -> Option<RuntimeEvent> {
    let attributes = message.actor.as_ref()?.attributes.as_ref()?;
    let (sandbox, record) = owner.record(|name| attributes.get(name))?;
    Some(match record {
        Record::Sandbox(record) => RuntimeEvent::Sandbox { id: SandboxId(sandbox.0), pod_uid: record.key.pod_uid },
        Record::Container(record) => RuntimeEvent::Container {
            id: ContainerId(attributes.get("name")?.clone()),
            pod_uid: record.sandbox.pod_uid,
        },
    })
}
