//! What the cases share: configurations, and waiting event by event.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::StreamExt;
use orchestrator_core::{
    env::Env,
    runtime::{
        ContainerConfig, ContainerId, ContainerKey, ContainerRuntime, ContainerState, DnsConfig, LogLine, LogOptions,
        NamespaceOptions, PullRequest, Resources, RuntimeError, SandboxConfig, SandboxKey, SandboxStatus,
        SecurityContext,
    },
};

use super::{Program, Workbench};

/// How long something may take that is bound to happen.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// A grace that nobody uses up.
pub(super) const LONG_GRACE: Duration = Duration::from_secs(600);

/// A workbench with a runtime at work.
pub(super) struct Stage<'a> {
    pub(super) workbench: &'a dyn Workbench,
    pub(super) env: &'a Env,
    pub(super) runtime: Arc<dyn ContainerRuntime>,
}

/// A container that runs these words, and wants nothing else.
pub fn container(name: &str, image: &str, command: &[&str]) -> ContainerConfig {
    ContainerConfig {
        key: ContainerKey { name: name.to_owned(), attempt: 0 },
        image: image.to_owned(),
        command: command.iter().map(ToString::to_string).collect(),
        args: Vec::new(),
        working_directory: None,
        environment: Vec::new(),
        mounts: Vec::new(),
        resources: Resources::default(),
        security: SecurityContext::default(),
        tty: false,
        stdin: false,
        stdin_once: false,
        stop_signal: None,
        labels: BTreeMap::from([("container".to_owned(), name.to_owned())]).into(),
        annotations: Arc::default(),
    }
}

/// The sandbox of a pod.
pub(super) fn sandbox(name: &str) -> SandboxConfig {
    SandboxConfig {
        key: SandboxKey { pod_uid: format!("uid-{name}"), attempt: 0 },
        namespace: "default".to_owned(),
        name: name.to_owned(),
        hostname: name.to_owned(),
        dns: DnsConfig::default(),
        namespaces: NamespaceOptions::default(),
        resources: Resources::default(),
        sysctls: BTreeMap::new(),
        labels: BTreeMap::from([("pod".to_owned(), name.to_owned())]).into(),
        annotations: BTreeMap::from([("example.org/pod".to_owned(), name.to_owned())]).into(),
    }
}

/// A program that ends at once.
pub(super) fn exit(code: i32) -> Program {
    Program::Exit { after: Duration::ZERO, code }
}

impl<'a> Stage<'a> {
    pub(super) fn new(workbench: &'a dyn Workbench, env: &'a Env) -> Self {
        Self { workbench, env, runtime: workbench.runtime() }
    }

    /// The agent dies, and another one begins.
    pub(super) fn again(&mut self) {
        self.runtime = self.workbench.runtime();
    }

    /// A pod with its sandbox.
    pub(super) async fn pod(&self, name: &str) -> SandboxStatus {
        self.runtime.run_sandbox(&sandbox(name)).await.expect("a sandbox")
    }

    /// A container that was made and not started. Its image is there.
    pub(super) async fn create(&self, pod: &SandboxStatus, name: &str, program: &Program) -> ContainerId {
        let config = self.workbench.container(name, program);
        let request = PullRequest { image: config.image.clone(), credentials: Vec::new() };
        self.runtime.pull_image(&request).await.expect("the image of the workbench");
        self.runtime.create_container(&pod.id, &config).await.expect("a container")
    }

    /// A container at work.
    pub(super) async fn start(&self, pod: &SandboxStatus, name: &str, program: &Program) -> ContainerId {
        let id = self.create(pod, name, program).await;
        self.runtime.start_container(&id).await.expect("the start");
        id
    }

    /// A container that has said that it is ready.
    pub(super) async fn ready(&self, pod: &SandboxStatus, name: &str, program: &Program) -> ContainerId {
        let id = self.start(pod, name, program).await;
        let options = LogOptions { follow: true, ..LogOptions::default() };
        let mut lines = self.runtime.logs(&id, options).await.expect("a log");
        let said = async {
            while let Some(line) = lines.next().await {
                if line.expect("a line").content == "ready" {
                    return;
                }
            }
            panic!("{name} ended before it was ready");
        };
        self.in_time(said).await;
        id
    }

    pub(super) async fn state(&self, id: &ContainerId) -> ContainerState {
        self.runtime.inspect_container(id).await.expect("the container").state
    }

    /// Waits for the container's end, event by event.
    pub(super) async fn ended(&self, id: &ContainerId) -> ContainerState {
        let mut events = self.runtime.events();
        let end = async {
            loop {
                let state = self.state(id).await;
                if state.exit_code().is_some() {
                    return state;
                }
                events.next().await.expect("events do not end");
            }
        };
        self.in_time(end).await
    }

    /// A part of the log, as text.
    pub(super) async fn log(&self, id: &ContainerId, options: LogOptions) -> Vec<String> {
        let lines = self.lines(id, options).await;
        lines.iter().map(|line| String::from_utf8_lossy(&line.content).into_owned()).collect()
    }

    pub(super) async fn lines(&self, id: &ContainerId, options: LogOptions) -> Vec<LogLine> {
        let lines = self.runtime.logs(id, options).await.expect("a log");
        self.in_time(lines.map(|line| line.expect("a line")).collect()).await
    }

    pub(super) async fn in_time<T>(&self, future: impl Future<Output = T>) -> T {
        self.env.timeout(PATIENCE, future).await.expect("what is bound to happen happens")
    }
}

/// Whether a call says that there is no such thing.
pub(super) fn not_found<T>(result: Result<T, RuntimeError>) -> bool {
    matches!(result, Err(RuntimeError::NotFound { .. }))
}

/// Whether a call says that the thing is not in a state for it.
pub(super) fn wrong_state<T>(result: Result<T, RuntimeError>) -> bool {
    matches!(result, Err(RuntimeError::WrongState(_)))
}
