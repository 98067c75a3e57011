//! The runtime as an agent sees it.

use std::{io::Cursor, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::{
    FutureExt, StreamExt,
    stream::{self, BoxStream},
};
use orchestrator_core::{
    env::{Env, Watched},
    runtime::{
        AttachOptions, ContainerConfig, ContainerId, ContainerRuntime, ContainerState, ContainerStats, ContainerStatus,
        Duplex, ExecOptions, Image, ImageService, ImageUser, LogLine, LogOptions, PullRequest, RuntimeError,
        RuntimeEvent, RuntimeStatus, SandboxConfig, SandboxId, SandboxState, SandboxStatus, Session,
    },
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{broadcast::error::RecvError, mpsc},
};

use crate::{
    http_answer::HttpAnswer,
    limits::STREAM_BUFFER_BYTES,
    logs,
    machine::{End, Machine, Verb},
    script::{ExecAnswer, OnStop, PortAnswer},
    state::{Container, Sandbox, State, container_id, sandbox_id},
};

/// A runtime on a simulated machine. It holds nothing of its own.
#[derive(Clone, Debug)]
pub struct SimRuntime(Arc<Machine>);

impl SimRuntime {
    pub(crate) fn new(machine: Arc<Machine>) -> Self {
        Self(machine)
    }
}

#[async_trait]
impl ContainerRuntime for SimRuntime {
    async fn status(&self) -> Result<RuntimeStatus, RuntimeError> {
        let state = self.0.begin(Verb::Status)?;
        let ready = state.not_ready.clone().map_or(Ok(()), Err);
        Ok(RuntimeStatus { name: "sim".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned(), ready })
    }

    async fn run_sandbox(&self, config: &SandboxConfig) -> Result<SandboxStatus, RuntimeError> {
        let mut state = self.0.begin(Verb::RunSandbox)?;
        if let Some(sandbox) = state.sandboxes.get(&config.key) {
            return match sandbox.status.state {
                SandboxState::Ready => Ok(sandbox.status.clone()),
                SandboxState::NotReady => {
                    Err(RuntimeError::WrongState(format!("sandbox {} has stopped", sandbox.status.id)))
                }
            };
        }
        let address = if config.namespaces.host_network {
            None
        } else {
            let address = state.take_address(self.0.config.subnet, self.0.config.prefix);
            Some(address.ok_or_else(|| RuntimeError::Missing("a free pod address".to_owned()))?)
        };
        let status = SandboxStatus {
            id: sandbox_id(&config.key),
            key: config.key.clone(),
            namespace: config.namespace.clone(),
            name: config.name.clone(),
            state: SandboxState::Ready,
            created_at: self.0.env.now(),
            addresses: address.iter().map(|(_, address)| *address).collect(),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
        };
        state.sandbox_keys.insert(status.id.clone(), config.key.clone());
        let sandbox = Sandbox { status: status.clone(), address_index: address.map(|(index, _)| index) };
        state.sandboxes.insert(config.key.clone(), Box::new(sandbox));
        self.0.tell_sandbox(&status);
        Ok(status)
    }

    async fn stop_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        drop(self.0.begin(Verb::StopSandbox)?);
        self.0.stop_sandbox(id);
        Ok(())
    }

    async fn remove_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        drop(self.0.begin(Verb::RemoveSandbox)?);
        self.0.stop_sandbox(id);
        let mut state = self.0.lock();
        for container in state.containers_of(id) {
            state.containers.remove(&container);
        }
        if let Some(key) = state.sandbox_keys.remove(id)
            && let Some(sandbox) = state.sandboxes.remove(&key)
        {
            self.0.tell_sandbox(&sandbox.status);
        }
        Ok(())
    }

    async fn list_sandboxes(&self) -> Result<Vec<SandboxStatus>, RuntimeError> {
        let state = self.0.begin(Verb::ListSandboxes)?;
        Ok(state.sandboxes.values().map(|sandbox| sandbox.status.clone()).collect())
    }

    async fn inspect_sandbox(&self, id: &SandboxId) -> Result<SandboxStatus, RuntimeError> {
        let state = self.0.lock();
        state.sandbox(id).map(|sandbox| sandbox.status.clone()).ok_or_else(|| RuntimeError::no_sandbox(id))
    }

    async fn create_container(
        &self,
        sandbox: &SandboxId,
        config: &ContainerConfig,
    ) -> Result<ContainerId, RuntimeError> {
        let mut state = self.0.begin(Verb::CreateContainer)?;
        if let Some(container) = state.find_container(sandbox, &config.key) {
            return Ok(container.status.id.clone());
        }
        let place = state.sandbox(sandbox).ok_or_else(|| RuntimeError::no_sandbox(sandbox))?.status.clone();
        if place.state != SandboxState::Ready {
            return Err(RuntimeError::WrongState(format!("sandbox {sandbox} is not ready")));
        }
        if !state.image_present(&config.image) {
            return Err(RuntimeError::NotFound { kind: "image", id: config.image.clone() });
        }
        let script = state.script_for(config, &place)?;
        let status = ContainerStatus {
            id: container_id(sandbox, &config.key),
            sandbox: sandbox.clone(),
            key: config.key.clone(),
            image: config.image.clone(),
            image_id: image_id(&config.image),
            created_at: self.0.env.now(),
            state: ContainerState::Created,
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
        };
        let id = status.id.clone();
        let ended = Watched::new(false);
        let container = Container { status, config: config.clone(), script, due: None, ended };
        state.containers.insert(id.clone(), Box::new(container));
        self.0.tell_container(&state, sandbox, &id);
        Ok(id)
    }

    async fn start_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let delay = {
            let state = self.0.begin(Verb::StartContainer)?;
            let container = state.containers.get(id).ok_or_else(|| RuntimeError::no_container(id))?;
            container.script.start_delay
        };
        if !delay.is_zero() {
            self.0.env.sleep(delay).await;
        }
        let mut state = self.0.lock();
        self.start(&mut state, id)
    }

    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<(), RuntimeError> {
        let ended = {
            let mut state = self.0.begin(Verb::StopContainer)?;
            let container = state.containers.get(id).ok_or_else(|| RuntimeError::no_container(id))?;
            if !container.status.state.is_running() {
                return Ok(());
            }
            let ended = container.ended.watcher();
            if let OnStop::Exit { after, code } = container.script.on_stop
                && !grace.is_zero()
            {
                self.0.finish_after(&mut state, id, after, End::exit(code));
            }
            ended
        };
        let waited = self.0.env.timeout(grace, ended.wait_for(|ended| *ended)).await;
        if waited.is_err() {
            self.0.finish(id, &End::killed());
        }
        Ok(())
    }

    async fn remove_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        drop(self.0.begin(Verb::RemoveContainer)?);
        self.0.finish(id, &End::killed());
        let mut state = self.0.lock();
        if let Some(container) = state.containers.remove(id) {
            self.0.tell_container(&state, &container.status.sandbox, id);
        }
        Ok(())
    }

    async fn list_containers(&self) -> Result<Vec<ContainerStatus>, RuntimeError> {
        let state = self.0.begin(Verb::ListContainers)?;
        let mut list: Vec<_> = state.containers.values().map(|container| container.status.clone()).collect();
        list.sort_by(|a, b| (&a.key, &a.sandbox).cmp(&(&b.key, &b.sandbox)));
        Ok(list)
    }

    async fn inspect_container(&self, id: &ContainerId) -> Result<ContainerStatus, RuntimeError> {
        let state = self.0.begin(Verb::InspectContainer)?;
        state.containers.get(id).map(|it| it.status.clone()).ok_or_else(|| RuntimeError::no_container(id))
    }

    async fn exec(&self, id: &ContainerId, options: ExecOptions) -> Result<Session, RuntimeError> {
        let state = self.0.begin(Verb::Exec)?;
        let container = running(&state, id)?;
        Ok(exec_session(&self.0.env, container.script.answer(&options.command), &options))
    }

    async fn attach(&self, id: &ContainerId, options: AttachOptions) -> Result<Session, RuntimeError> {
        let ended = {
            let state = self.0.begin(Verb::Attach)?;
            running(&state, id)?.ended.watcher()
        };
        let log = logs::read(&self.0, id, &LogOptions { follow: true, tail_lines: Some(0), since: None })?;
        let text = log.map(|line| match line {
            Ok(line) => Ok(Cursor::new([&line.content[..], b"\n"].concat())),
            Err(error) => Err(std::io::Error::other(error)),
        });
        let (machine, id) = (self.0.clone(), id.clone());
        let exit = async move {
            let _ = ended.wait_for(|ended| *ended).await;
            let state = machine.lock();
            Ok(state.containers.get(&id).and_then(|it| it.status.state.exit_code()).unwrap_or(137))
        };
        let stdin: Box<dyn AsyncWrite + Send + Unpin> = Box::new(tokio::io::sink());
        let stdout: Box<dyn AsyncRead + Send + Unpin> = Box::new(tokio_stream_reader(text.boxed()));
        let stderr: Box<dyn AsyncRead + Send + Unpin> = Box::new(tokio::io::empty());
        Ok(Session {
            stdin: options.stdin.then_some(stdin),
            stdout: options.stdout.then_some(stdout),
            stderr: (options.stderr && !options.tty).then_some(stderr),
            resize: None,
            exit: exit.boxed(),
        })
    }

    async fn port_forward(&self, id: &SandboxId, port: u16) -> Result<Box<dyn Duplex>, RuntimeError> {
        let state = self.0.begin(Verb::PortForward)?;
        state.sandbox(id).ok_or_else(|| RuntimeError::no_sandbox(id))?;
        let mut containers = state.containers.values().filter(|it| it.status.sandbox == *id);
        let answer = containers
            .find_map(|it| if it.status.state.is_running() { it.script.ports.get(&port) } else { None })
            .ok_or_else(|| {
                RuntimeError::WrongState(format!("dial tcp4 127.0.0.1:{port}: connect: connection refused"))
            })?;
        Ok(match answer {
            PortAnswer::Echo => {
                let (reader, writer) = tokio::io::simplex(STREAM_BUFFER_BYTES);
                Box::new(tokio::io::join(reader, writer))
            }
            PortAnswer::Http { status, body } => Box::new(HttpAnswer::new(*status, body)),
        })
    }

    async fn logs(
        &self,
        id: &ContainerId,
        options: LogOptions,
    ) -> Result<BoxStream<'static, Result<LogLine, RuntimeError>>, RuntimeError> {
        drop(self.0.begin(Verb::Logs)?);
        logs::read(&self.0, id, &options)
    }

    async fn stats(&self, id: &ContainerId) -> Result<Option<ContainerStats>, RuntimeError> {
        let state = self.0.begin(Verb::Stats)?;
        let container = state.containers.get(id).ok_or_else(|| RuntimeError::no_container(id))?;
        let ContainerState::Running { started_at } = container.status.state else { return Ok(None) };
        let now = self.0.env.now();
        let millis = u64::try_from(now.duration_since(started_at).as_millis()).unwrap_or(0);
        Ok(Some(ContainerStats {
            timestamp: now,
            // A thousandth of a core for a millisecond is a thousand nanoseconds.
            cpu_nanoseconds: millis.saturating_mul(container.script.cpu_millis).saturating_mul(1_000),
            memory_working_set_bytes: container.script.memory_bytes,
            pids: 1,
        }))
    }

    fn events(&self) -> BoxStream<'static, RuntimeEvent> {
        stream::unfold(self.0.events.subscribe(), |mut receiver| async move {
            match receiver.recv().await {
                Ok(event) => Some((event, receiver)),
                Err(RecvError::Lagged(_)) => Some((RuntimeEvent::Lagged, receiver)),
                Err(RecvError::Closed) => None,
            }
        })
        .boxed()
    }
}

#[async_trait]
impl ImageService for SimRuntime {
    async fn pull_image(&self, request: &PullRequest) -> Result<Image, RuntimeError> {
        let script = {
            let state = self.0.begin(Verb::PullImage)?;
            state.images.get(&request.image).cloned().unwrap_or_default()
        };
        if !script.pull_delay.is_zero() {
            self.0.env.sleep(script.pull_delay).await;
        }
        if let Some(message) = script.pull_failure {
            return Err(RuntimeError::ImagePull(message));
        }
        let mut state = self.0.lock();
        state.pulled.insert(request.image.clone());
        state.removed.remove(&request.image);
        Ok(image(&state, &request.image))
    }

    async fn image_status(&self, name: &str) -> Result<Option<Image>, RuntimeError> {
        let state = self.0.begin(Verb::ImageStatus)?;
        Ok(state.image_present(name).then(|| image(&state, name)))
    }

    async fn list_images(&self) -> Result<Vec<Image>, RuntimeError> {
        let state = self.0.begin(Verb::ListImages)?;
        let mut names: Vec<&String> = state.images.keys().chain(&state.pulled).collect();
        names.extend(state.containers.values().map(|container| &container.config.image));
        names.sort();
        names.dedup();
        Ok(names.into_iter().filter(|name| state.image_present(name)).map(|name| image(&state, name)).collect())
    }

    async fn remove_image(&self, name: &str) -> Result<(), RuntimeError> {
        let mut state = self.0.begin(Verb::RemoveImage)?;
        state.pulled.remove(name);
        state.removed.insert(name.to_owned());
        Ok(())
    }
}

impl SimRuntime {
    fn start(&self, state: &mut State, id: &ContainerId) -> Result<(), RuntimeError> {
        let now = self.0.env.now();
        let container = state.containers.get_mut(id).ok_or_else(|| RuntimeError::no_container(id))?;
        if container.status.state != ContainerState::Created {
            return Ok(());
        }
        let sandbox = container.status.sandbox.clone();
        let failure = container.script.start_failure.clone();
        container.status.state = match &failure {
            None => ContainerState::Running { started_at: now },
            Some(message) => {
                container.ended.set(true);
                ContainerState::Exited {
                    started_at: None,
                    finished_at: now,
                    exit_code: 128,
                    signal: None,
                    reason: "StartError".to_owned(),
                    message: message.clone(),
                }
            }
        };
        let script = &container.script;
        let end = if script.out_of_memory { End::out_of_memory() } else { End::exit(script.exit_code) };
        let run_for = script.run_for.filter(|_| failure.is_none());
        if let Some(run_for) = run_for {
            self.0.finish_after(state, id, run_for, end);
        }
        self.0.tell_container(state, &sandbox, id);
        failure.map_or(Ok(()), |message| Err(RuntimeError::StartFailed(message)))
    }
}

fn running<'a>(state: &'a State, id: &ContainerId) -> Result<&'a Container, RuntimeError> {
    let container = state.containers.get(id).ok_or_else(|| RuntimeError::no_container(id))?;
    if container.status.state.is_running() {
        Ok(container)
    } else {
        Err(RuntimeError::WrongState(format!("container {id} is not running")))
    }
}

fn image_id(name: &str) -> String {
    format!("sim://{name}")
}

fn image(state: &State, name: &str) -> Image {
    let script = state.images.get(name).cloned().unwrap_or_default();
    Image {
        name: name.to_owned(),
        id: image_id(name),
        size_bytes: script.size_bytes,
        user: script.user.map(ImageUser::Id),
        pinned: false,
    }
}

fn exec_session(env: &Env, answer: ExecAnswer, options: &ExecOptions) -> Session {
    let sleep = env.sleep(answer.delay);
    let code = answer.exit_code;
    let (reader, writer) = tokio::io::simplex(STREAM_BUFFER_BYTES);
    let stdin: Box<dyn AsyncWrite + Send + Unpin> =
        if answer.echo { Box::new(writer) } else { Box::new(tokio::io::sink()) };
    let stdout: Box<dyn AsyncRead + Send + Unpin> = if answer.echo && options.stdin {
        Box::new(tokio::io::AsyncReadExt::chain(Cursor::new(answer.stdout.into_bytes()), reader))
    } else {
        Box::new(Cursor::new(answer.stdout.into_bytes()))
    };
    let stderr: Box<dyn AsyncRead + Send + Unpin> = Box::new(Cursor::new(answer.stderr.into_bytes()));
    let (resize, _) = mpsc::channel(1);
    Session {
        stdin: options.stdin.then_some(stdin),
        stdout: options.stdout.then_some(stdout),
        stderr: (options.stderr && !options.tty).then_some(stderr),
        resize: options.tty.then_some(resize),
        exit: async move {
            sleep.await;
            Ok(code)
        }
        .boxed(),
    }
}

/// Reads the pieces of a stream one after the other.
fn tokio_stream_reader(
    pieces: BoxStream<'static, Result<Cursor<Vec<u8>>, std::io::Error>>,
) -> impl AsyncRead + Send + Unpin {
    PieceReader { pieces, current: Cursor::new(Vec::new()) }
}

struct PieceReader {
    pieces: BoxStream<'static, Result<Cursor<Vec<u8>>, std::io::Error>>,
    current: Cursor<Vec<u8>>,
}

impl AsyncRead for PieceReader {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        use std::task::Poll;
        loop {
            let rest = self.current.get_ref().get(self.current.position() as usize..).unwrap_or_default();
            if !rest.is_empty() {
                let count = rest.len().min(buffer.remaining());
                buffer.put_slice(&rest[..count]);
                let position = self.current.position() + count as u64;
                self.current.set_position(position);
                return Poll::Ready(Ok(()));
            }
            match self.pieces.poll_next_unpin(context) {
                Poll::Ready(Some(piece)) => self.current = piece?,
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
