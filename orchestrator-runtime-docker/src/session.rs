//! Commands in running containers, and the streams of a container's own process.

use std::{fs, os::fd::OwnedFd, sync::Arc};

use bollard::{
    exec::{CreateExecOptions, StartExecOptions},
    models::ExecInspectResponse,
    query_parameters::{ResizeContainerTTYOptions, ResizeExecOptions},
};
use futures::{
    FutureExt,
    future::{Either, select},
};
use orchestrator_core::{
    env::TaskHandle,
    runtime::{AttachOptions, ContainerId, ExecOptions, RuntimeError, Session, TerminalSize},
};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::sync::{mpsc, oneshot};

use crate::{
    engine::Engine,
    error::EngineError,
    features::Features,
    limits::{EXEC_PAUSE_MAX, EXEC_PAUSE_MIN, EXPLANATION_BYTES, LOOK_PAUSE},
    pump::{self, Streams, Wanted},
    status::ObservedContainer,
};

/// The engine takes some keys for a wish to leave a terminal, by default one that shells use. These nobody presses in a row.
const DETACH_KEYS: &str = "ctrl-@,ctrl-@,ctrl-@,ctrl-@,ctrl-@,ctrl-@,ctrl-@,ctrl-@";

/// Runs a command in a running container.
pub(crate) async fn exec(
    engine: &Arc<Engine>,
    container: &ObservedContainer,
    options: ExecOptions,
    features: Features,
) -> Result<Session, RuntimeError> {
    let id = container.status.id.clone();
    let wanted = Wanted { stdin: options.stdin, stdout: options.stdout, stderr: options.stderr, tty: options.tty };
    let config = CreateExecOptions {
        attach_stdin: Some(options.stdin),
        // Somebody has to listen, or the engine lets go of the command before it has ended.
        attach_stdout: Some(options.stdout || !options.stderr || options.tty),
        attach_stderr: Some(options.stderr && !options.tty),
        tty: Some(options.tty),
        detach_keys: Some(DETACH_KEYS.to_owned()),
        cmd: Some(options.command),
        ..CreateExecOptions::default()
    };
    let engine_id = container.engine_id.as_str();
    let made = engine.call(|client| async move { client.create_exec(engine_id, config).await }).await;
    let command = made.map_err(|error| refused(&id, error))?.id;
    let start = StartExecOptions { detach: false, tty: options.tty, output_capacity: None };
    let body = serde_json::to_vec(&start).map_err(|error| RuntimeError::internal("running a command", error))?;
    let upgrade = engine.upgrade(&format!("/exec/{command}/start"), body).await.map_err(|error| refused(&id, error))?;
    let begun = begun(engine, &id, &command, features).await?;
    let process = begun.pid.filter(|pid| *pid > 0);
    if process.is_none() && features.tells_beginnings {
        let message = engine
            .env
            .timeout(LOOK_PAUSE, pump::text(upgrade.stream, options.tty, EXPLANATION_BYTES))
            .await
            .unwrap_or_default();
        return Err(not_begun(&id, message));
    }
    let streams = pump::pump(&engine.env, upgrade.stream, wanted);
    let hold = Hold::new(process, &container.engine_id);
    let (sizes, resize) = sizes(options.tty);
    let end =
        End { engine: Arc::clone(engine), id, over: streams.over, sizes, features, _task: Arc::clone(&streams.task) };
    let exit = async move {
        let code = end.of_command(&command).await?;
        // What has ended is not to be killed: its number may be another's by now.
        hold.let_go();
        Ok(code)
    };
    Ok(Session {
        stdin: streams.stdin.map(|stream| Box::new(stream) as _),
        stdout: streams.stdout.map(|stream| Box::new(stream) as _),
        stderr: streams.stderr.map(|stream| Box::new(stream) as _),
        resize,
        exit: exit.boxed(),
    })
}

/// Joins the streams of a running container. `ended` resolves to its exit code.
pub(crate) async fn attach(
    engine: &Arc<Engine>,
    container: &ObservedContainer,
    options: AttachOptions,
    ended: impl Future<Output = Result<i32, RuntimeError>> + Send + 'static,
) -> Result<Session, RuntimeError> {
    let id = container.status.id.clone();
    if options.stdin && !container.stdin {
        return Err(RuntimeError::WrongState(format!("the container {id} has no standard input")));
    }
    let wanted = Wanted { stdin: options.stdin, stdout: options.stdout, stderr: options.stderr, tty: container.tty };
    let path = format!(
        "/containers/{}/attach?stream=1&stdin={}&stdout={}&stderr={}&detachKeys={}",
        container.engine_id,
        u8::from(options.stdin),
        u8::from(options.stdout),
        u8::from(options.stderr && !container.tty),
        DETACH_KEYS.replace(',', "%2C").replace('@', "%40"),
    );
    let upgrade = engine.upgrade(&path, Vec::new()).await.map_err(|error| refused(&id, error))?;
    let Streams { stdin, stdout, stderr, task, .. } = pump::pump(&engine.env, upgrade.stream, wanted);
    let (sizes, resize) = sizes(container.tty);
    let (engine, engine_id) = (Arc::clone(engine), container.engine_id.clone());
    let exit = async move {
        let _task = task;
        let resizing = std::pin::pin!(async move {
            let Some(mut sizes) = sizes else { return };
            while let Some(size) = sizes.recv().await {
                let (options, engine_id) = (container_size(size), engine_id.as_str());
                let call = engine.call(|client| async move { client.resize_container_tty(engine_id, options).await });
                note(call.await);
            }
        });
        match select(std::pin::pin!(ended), resizing).await {
            Either::Left((code, _)) => code,
            Either::Right(((), ended)) => ended.await,
        }
    };
    Ok(Session {
        stdin: stdin.map(|stream| Box::new(stream) as _),
        stdout: stdout.map(|stream| Box::new(stream) as _),
        stderr: stderr.map(|stream| Box::new(stream) as _),
        resize,
        exit: exit.boxed(),
    })
}

/// Looks until the command has begun, or failed to. The engine takes the connection before it tries, and says nothing on it
/// when the try succeeds.
async fn begun(
    engine: &Engine,
    id: &ContainerId,
    command: &str,
    features: Features,
) -> Result<ExecInspectResponse, RuntimeError> {
    let mut pause = EXEC_PAUSE_MIN;
    loop {
        let look = engine.call(|client| async move { client.inspect_exec(command).await }).await;
        let look = look.map_err(|error| refused(id, error))?;
        if look.pid.is_some_and(|pid| pid > 0) || exit_code(&look, features).is_some() {
            return Ok(look);
        }
        engine.env.sleep(pause).await;
        pause = (pause * 2).min(EXEC_PAUSE_MAX);
    }
}

/// The code of a command that has ended, or never began.
fn exit_code(look: &ExecInspectResponse, features: Features) -> Option<i64> {
    let has_ended = look.running != Some(true) && (features.tells_beginnings || look.can_remove == Some(true));
    look.exit_code.filter(|_| has_ended)
}

fn refused(id: &ContainerId, error: EngineError) -> RuntimeError {
    match error {
        error if error.is_not_found() => RuntimeError::no_container(id),
        error if error.is_conflict() => RuntimeError::WrongState(error.to_string()),
        error => error.during(format!("running a command in {id}")),
    }
}

fn not_begun(id: &ContainerId, message: String) -> RuntimeError {
    if message.contains("is not running") {
        return RuntimeError::WrongState(format!("the container {id} is not running"));
    }
    let message = message.strip_prefix("OCI runtime exec failed: ").unwrap_or(&message);
    let message =
        if message.is_empty() { "the engine did not start the command, and does not say why" } else { message };
    RuntimeError::StartFailed(message.to_owned())
}

type Sizes = Option<mpsc::Receiver<TerminalSize>>;

fn sizes(tty: bool) -> (Sizes, Option<mpsc::Sender<TerminalSize>>) {
    let (sender, receiver) = mpsc::channel(1);
    if tty { (Some(receiver), Some(sender)) } else { (None, None) }
}

fn container_size(size: TerminalSize) -> ResizeContainerTTYOptions {
    ResizeContainerTTYOptions { h: size.height.into(), w: size.width.into() }
}

/// A terminal that is gone needs no size.
fn note(resized: Result<(), EngineError>) {
    if let Err(error) = resized {
        tracing::debug!(%error, "a terminal keeps its size");
    }
}

/// What it takes to learn of a command's end.
struct End {
    engine: Arc<Engine>,
    id: ContainerId,
    over: oneshot::Receiver<()>,
    sizes: Sizes,
    features: Features,
    _task: Arc<TaskHandle>,
}

impl End {
    /// Waits for the end of the output, and looks now and then in case that it never comes: a child may keep it open.
    async fn of_command(mut self, command: &str) -> Result<i32, RuntimeError> {
        let mut pause = EXEC_PAUSE_MIN;
        let mut is_over = false;
        loop {
            if !is_over {
                is_over = self.wait(command).await;
            }
            let engine = &self.engine;
            let look = engine.call(|client| async move { client.inspect_exec(command).await }).await;
            let look = look.map_err(|error| refused(&self.id, error))?;
            if let Some(code) = exit_code(&look, self.features) {
                return Ok(i32::try_from(code).unwrap_or(-1));
            }
            if is_over {
                engine.env.sleep(pause).await;
                pause = (pause * 2).min(EXEC_PAUSE_MAX);
            }
        }
    }

    /// Until the output is over, or for a while. New sizes of the terminal are passed on meanwhile.
    async fn wait(&mut self, command: &str) -> bool {
        let engine = Arc::clone(&self.engine);
        let sizes = &mut self.sizes;
        let resizing = std::pin::pin!(async {
            while let Some(receiver) = sizes {
                match receiver.recv().await {
                    Some(size) => {
                        let options = ResizeExecOptions { h: size.height.into(), w: size.width.into() };
                        let call = engine.call(|client| async move { client.resize_exec(command, options).await });
                        note(call.await);
                    }
                    None => *sizes = None,
                }
            }
            std::future::pending::<()>().await;
        });
        let over = select(&mut self.over, resizing);
        self.engine.env.timeout(LOOK_PAUSE, over).await.is_ok()
    }
}

/// A command's process, which ends when this is dropped: the engine itself lets commands go on without their users. That
/// takes an engine on this machine; with another one the command goes on.
struct Hold(Option<OwnedFd>);

impl Hold {
    fn new(process: Option<i64>, engine_id: &str) -> Self {
        let open = || {
            let process = process?;
            let pid = Pid::from_raw(i32::try_from(process).ok()?)?;
            let descriptor = pidfd_open(pid, PidfdFlags::empty()).ok()?;
            // Looked at after it was opened: so it is the container's, and not one that has its number by now.
            let cgroups = fs::read_to_string(format!("/proc/{process}/cgroup")).ok()?;
            cgroups.contains(engine_id).then_some(descriptor)
        };
        Self(open())
    }

    fn let_go(mut self) {
        self.0 = None;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some(descriptor) = &self.0 {
            // What has ended meanwhile is no failure.
            let _ = pidfd_send_signal(descriptor, Signal::KILL);
        }
    }
}
