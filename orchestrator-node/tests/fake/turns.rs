//! A runtime that does one thing at a time, so that a call may have to wait until another one goes on.

use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use orchestrator_core::{
    env::Env,
    runtime::{
        AttachOptions, ContainerConfig, ContainerId, ContainerRuntime, ContainerStats, ContainerStatus, Duplex,
        ExecOptions, Image, ImageService, LogLine, LogOptions, PullRequest, RuntimeError, RuntimeEvent, RuntimeStatus,
        SandboxConfig, SandboxId, SandboxStatus, Session,
    },
};
use orchestrator_runtime_sim::SimRuntime;
use tokio::sync::Mutex;

/// How long a call keeps the others waiting.
const TURN: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(crate) struct TakingTurns {
    env: Env,
    runtime: SimRuntime,
    turn: Mutex<()>,
}

impl TakingTurns {
    pub(crate) fn new(env: &Env, runtime: SimRuntime) -> Self {
        Self { env: env.clone(), runtime, turn: Mutex::default() }
    }

    async fn next<T>(&self, call: impl Future<Output = T>) -> T {
        let _turn = self.turn.lock().await;
        self.env.sleep(TURN).await;
        call.await
    }
}

#[async_trait]
impl ContainerRuntime for TakingTurns {
    async fn status(&self) -> Result<RuntimeStatus, RuntimeError> {
        self.next(self.runtime.status()).await
    }

    async fn run_sandbox(&self, config: &SandboxConfig) -> Result<SandboxStatus, RuntimeError> {
        self.next(self.runtime.run_sandbox(config)).await
    }

    async fn stop_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        self.next(self.runtime.stop_sandbox(id)).await
    }

    async fn remove_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        self.next(self.runtime.remove_sandbox(id)).await
    }

    async fn list_sandboxes(&self) -> Result<Vec<SandboxStatus>, RuntimeError> {
        self.next(self.runtime.list_sandboxes()).await
    }

    async fn create_container(
        &self,
        sandbox: &SandboxId,
        config: &ContainerConfig,
    ) -> Result<ContainerId, RuntimeError> {
        self.next(self.runtime.create_container(sandbox, config)).await
    }

    async fn start_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.next(self.runtime.start_container(id)).await
    }

    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<(), RuntimeError> {
        self.next(self.runtime.stop_container(id, grace)).await
    }

    async fn remove_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.next(self.runtime.remove_container(id)).await
    }

    async fn list_containers(&self) -> Result<Vec<ContainerStatus>, RuntimeError> {
        self.next(self.runtime.list_containers()).await
    }

    async fn inspect_container(&self, id: &ContainerId) -> Result<ContainerStatus, RuntimeError> {
        self.next(self.runtime.inspect_container(id)).await
    }

    async fn exec(&self, id: &ContainerId, options: ExecOptions) -> Result<Session, RuntimeError> {
        self.runtime.exec(id, options).await
    }

    async fn attach(&self, id: &ContainerId, options: AttachOptions) -> Result<Session, RuntimeError> {
        self.runtime.attach(id, options).await
    }

    async fn port_forward(&self, id: &SandboxId, port: u16) -> Result<Box<dyn Duplex>, RuntimeError> {
        self.runtime.port_forward(id, port).await
    }

    async fn logs(
        &self,
        id: &ContainerId,
        options: LogOptions,
    ) -> Result<BoxStream<'static, Result<LogLine, RuntimeError>>, RuntimeError> {
        self.runtime.logs(id, options).await
    }

    async fn stats(&self, id: &ContainerId) -> Result<Option<ContainerStats>, RuntimeError> {
        self.runtime.stats(id).await
    }

    fn events(&self) -> BoxStream<'static, RuntimeEvent> {
        self.runtime.events()
    }
}

#[async_trait]
impl ImageService for TakingTurns {
    async fn pull_image(&self, request: &PullRequest) -> Result<Image, RuntimeError> {
        self.next(self.runtime.pull_image(request)).await
    }

    async fn image_status(&self, name: &str) -> Result<Option<Image>, RuntimeError> {
        self.next(self.runtime.image_status(name)).await
    }

    async fn list_images(&self) -> Result<Vec<Image>, RuntimeError> {
        self.next(self.runtime.list_images()).await
    }

    async fn remove_image(&self, name: &str) -> Result<(), RuntimeError> {
        self.next(self.runtime.remove_image(name)).await
    }
}
