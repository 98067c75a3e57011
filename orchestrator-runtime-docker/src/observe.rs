//! Looking at what is on the engine, and waiting until it has changed.

use bollard::{
    models::ContainerSummary,
    query_parameters::{KillContainerOptions, RemoveContainerOptions},
};
use futures::{StreamExt, TryStreamExt};
use orchestrator_core::runtime::{ContainerId, ContainerStatus, RuntimeError, RuntimeEvent, SandboxId, SandboxState};
use tokio::sync::broadcast;

use crate::{
    error::EngineError,
    http,
    limits::{EXEC_PAUSE_MAX, EXEC_PAUSE_MIN, INSPECTIONS, KILL_TIME, LOOK_PAUSE},
    names::SANDBOX,
    runtime::Inner,
    status::{Observed, ObservedContainer, ObservedSandbox, observe},
};

impl Inner {
    /// What is under this name, if it is this node's.
    async fn look(&self, name: &str) -> Result<Option<Observed>, RuntimeError> {
        if !self.owner().may_own(name) {
            return Ok(None);
        }
        self.look_at(name).await
    }

    async fn look_at(&self, name: &str) -> Result<Option<Observed>, RuntimeError> {
        match self.engine().get(&format!("/containers/{name}/json")).await {
            Ok(answer) => Ok(observe(self.owner(), answer)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.during(format!("looking at {name}"))),
        }
    }

    pub(crate) async fn find_sandbox(&self, id: &SandboxId) -> Result<Option<ObservedSandbox>, RuntimeError> {
        match self.look(&id.0).await? {
            Some(Observed::Sandbox(sandbox)) => Ok(Some(sandbox)),
            _ => Ok(None),
        }
    }

    pub(crate) async fn sandbox(&self, id: &SandboxId) -> Result<ObservedSandbox, RuntimeError> {
        self.find_sandbox(id).await?.ok_or_else(|| RuntimeError::no_sandbox(id))
    }

    pub(crate) async fn find_container(&self, id: &ContainerId) -> Result<Option<ObservedContainer>, RuntimeError> {
        match self.look(&id.0).await? {
            Some(Observed::Container(container)) => Ok(Some(container)),
            _ => Ok(None),
        }
    }

    pub(crate) async fn container(&self, id: &ContainerId) -> Result<ObservedContainer, RuntimeError> {
        self.find_container(id).await?.ok_or_else(|| RuntimeError::no_container(id))
    }

    /// A container that takes commands.
    pub(crate) async fn running_container(&self, id: &ContainerId) -> Result<ObservedContainer, RuntimeError> {
        let container = self.container(id).await?;
        if container.status.state.is_running() {
            return Ok(container);
        }
        Err(RuntimeError::WrongState(format!("the container {id} is not running")))
    }

    /// The engine's names of all that is this node's, or of what is in one sandbox: its own container is among them.
    pub(crate) async fn engine_list(&self, sandbox: Option<&SandboxId>) -> Result<Vec<ContainerSummary>, RuntimeError> {
        let mut labels = self.owner().filters();
        labels.extend(sandbox.map(|id| format!("{SANDBOX}={id}")));
        let filters = http::query(&serde_json::json!({ "label": labels }).to_string());
        let list = self.engine().get(&format!("/containers/json?all=1&filters={filters}")).await;
        list.map_err(|error| error.during("listing containers"))
    }

    /// All that is this node's, or in one sandbox, as it is now.
    pub(crate) async fn observe_all(&self, sandbox: Option<&SandboxId>) -> Result<Vec<Observed>, RuntimeError> {
        let ids = self.engine_list(sandbox).await?.into_iter().filter_map(|summary| summary.id);
        let looks = futures::stream::iter(ids).map(|id| async move { self.look_at(&id).await }).buffered(INSPECTIONS);
        // What has gone since the list was made is not there.
        looks.try_filter_map(|observed| async move { Ok(observed) }).try_collect().await
    }

    /// Waits until a container has ended, and tells how; `None` when it is gone.
    pub(crate) async fn ended(&self, id: &ContainerId) -> Result<Option<ContainerStatus>, RuntimeError> {
        let mut events = self.subscribe();
        loop {
            let Some(container) = self.find_container(id).await? else { return Ok(None) };
            if !container.status.state.is_running() {
                return Ok(Some(container.status));
            }
            self.happened(&mut events, |event| matches!(event, RuntimeEvent::Container { id: of, .. } if of == id))
                .await;
        }
    }

    /// Waits until a sandbox is not ready any more, or gone.
    pub(crate) async fn not_ready(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        let mut events = self.subscribe();
        while self.find_sandbox(id).await?.is_some_and(|now| now.status.state == SandboxState::Ready) {
            self.happened(&mut events, |event| matches!(event, RuntimeEvent::Sandbox { id: of, .. } if of == id)).await;
        }
        Ok(())
    }

    /// Until such an event comes, or it cannot be known whether one has: the engine's events say when to look, and time does,
    /// in case that they do not come.
    async fn happened(&self, events: &mut broadcast::Receiver<RuntimeEvent>, is_it: impl Fn(&RuntimeEvent) -> bool) {
        let told = async {
            loop {
                match events.recv().await {
                    Ok(RuntimeEvent::Lagged) | Err(broadcast::error::RecvError::Lagged(_)) => return,
                    Ok(event) if is_it(&event) => return,
                    Ok(_) => {}
                    Err(broadcast::error::RecvError::Closed) => return std::future::pending().await,
                }
            }
        };
        // Either way somebody looks.
        let _ = self.env().timeout(LOOK_PAUSE, told).await;
    }

    /// Sends a signal. What does not run, or is gone, needs none.
    pub(crate) async fn kill(&self, engine_id: &str, signal: &str) -> Result<(), RuntimeError> {
        let options = KillContainerOptions { signal: signal.to_owned() };
        let killed = self.engine().call(|client| async move { client.kill_container(engine_id, Some(options)).await });
        match killed.await {
            Ok(()) => Ok(()),
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            Err(error) => Err(error.during(format!("sending {signal}"))),
        }
    }

    /// Removes a container of the engine, running or not, with the volumes that its image made.
    pub(crate) async fn remove(&self, engine_id: &str) -> Result<(), RuntimeError> {
        let since = self.env().monotonic();
        let mut pause = EXEC_PAUSE_MIN;
        loop {
            let options = RemoveContainerOptions { v: true, force: true, link: false };
            let removed =
                self.engine().call(|client| async move { client.remove_container(engine_id, Some(options)).await });
            match removed.await {
                Ok(()) => return Ok(()),
                Err(error) if error.is_not_found() => return Ok(()),
                // Somebody else is at it: their end is the end.
                Err(error) if error.is_conflict() && self.env().monotonic().saturating_sub(since) < KILL_TIME => {}
                Err(error) => return Err(error.during("removing a container")),
            }
            self.env().sleep(pause).await;
            pause = (pause * 2).min(EXEC_PAUSE_MAX);
        }
    }

    /// Starts a container of the engine that has not been started.
    pub(crate) async fn start(&self, engine_id: &str) -> Result<(), EngineError> {
        self.engine().call(|client| async move { client.start_container(engine_id, None).await }).await
    }
}
