//! An engine of the test's own that really ends and begins again, in an orderly way and by being killed.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command},
    time::Duration,
};

use futures::StreamExt;
use orchestrator_core::{
    env::Env,
    runtime::{
        ContainerRuntime, ContainerState, ImageService, LogOptions, PullRequest, RuntimeError, RuntimeEvent,
        SandboxState,
    },
};
use orchestrator_runtime_docker::{DockerRuntime, EngineError};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    faults::engine_error,
    support::{SHELL, builder, container, sandbox, shell, text},
};

crate::tests!(nothing_is_lost_when_the_engine_restarts, nothing_is_lost_when_the_engine_is_killed);

/// An engine in a directory of its own, beside the machine's.
struct PrivateEngine {
    directory: PathBuf,
    process: Option<Child>,
}

impl PrivateEngine {
    async fn new(name: &str) -> Self {
        let directory = Path::new("/var/lib").join(format!("orchestrator-docker-{name}-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("daemon.json"), "{}").unwrap();
        let mut engine = Self { directory, process: None };
        engine.start().await;
        engine
    }

    fn path(&self, name: &str) -> String {
        self.directory.join(name).to_str().unwrap().to_owned()
    }

    async fn start(&mut self) {
        self.helper_gone().await;
        let _ = fs::remove_file(self.path("pid"));
        let log = File::options().create(true).append(true).open(self.path("log")).unwrap();
        // In a network namespace of its own: it would take the bridge of the machine's engine for a leftover of itself.
        let process = Command::new("unshare")
            .args(["--net", "dockerd", "--config-file", &self.path("daemon.json"), "--data-root", &self.path("data")])
            .args(["--exec-root", &self.path("exec"), "--pidfile", &self.path("pid")])
            .args(["--host", &format!("unix://{}", self.path("sock"))])
            .args(["--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver=vfs"])
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("these tests need the programs unshare and dockerd");
        self.process = Some(process);
        let runtime = builder(&self.directory, "waiting").socket(self.path("sock")).build(Env::real()).unwrap();
        while runtime.status().await.unwrap().ready.is_err() {
            let process = self.process.as_mut().unwrap();
            let ended = process.try_wait().unwrap();
            assert!(ended.is_none(), "{}", fs::read_to_string(self.path("log")).unwrap());
            Env::real().sleep(Duration::from_millis(20)).await;
        }
    }

    /// Until the engine's containerd has followed it: a new engine would take a dying one for its own.
    async fn helper_gone(&self) {
        let file = self.path("exec/containerd/containerd.pid");
        let Ok(number) = fs::read_to_string(&file) else { return };
        while fs::read(format!("/proc/{}/cmdline", number.trim())).is_ok_and(|line| !line.is_empty()) {
            Env::real().sleep(Duration::from_millis(20)).await;
        }
        fs::remove_file(file).unwrap();
    }

    fn stop(&mut self, signal: Signal) {
        if let Some(mut process) = self.process.take() {
            // It may have ended by itself.
            let _ = kill_process(Pid::from_child(&process), signal);
            let _ = process.wait();
        }
    }

    /// A killed engine does not undo its mounts, and the next one mounts over them.
    fn unmount(&self) {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mut points: Vec<&str> = mounts.lines().filter_map(|line| line.split_whitespace().nth(4)).collect();
        points.retain(|point| Path::new(point).starts_with(&self.directory));
        for point in points.into_iter().rev() {
            let _ = Command::new("umount").arg(point).output();
        }
    }

    /// Whether something of it is still there.
    fn leftovers(&self) -> Vec<String> {
        let name = self.directory.to_str().unwrap();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mut found: Vec<String> = mounts.lines().filter(|line| line.contains(name)).map(str::to_owned).collect();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let line = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
            if line.contains(name) {
                found.push(line.replace('\0', " "));
            }
        }
        found
    }
}

impl Drop for PrivateEngine {
    fn drop(&mut self) {
        self.stop(Signal::TERM);
        self.unmount();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

async fn nothing_is_lost_when_the_engine_restarts() {
    restart("term", Signal::TERM).await;
}

async fn nothing_is_lost_when_the_engine_is_killed() {
    restart("kill", Signal::KILL).await;
}

async fn restart(name: &str, signal: Signal) {
    let mut engine = PrivateEngine::new(name).await;
    let runtime: DockerRuntime =
        builder(&engine.directory, name).socket(engine.path("sock")).build(Env::real()).unwrap();
    runtime.pull_image(&PullRequest { image: SHELL.to_owned(), credentials: Vec::new() }).await.unwrap();
    let config = sandbox();
    let pod = runtime.run_sandbox(&config).await.unwrap();
    let create = async |config| runtime.create_container(&pod.id, &config).await.unwrap();
    let done = create(shell("done", "echo said; exit 3")).await;
    let running = create(shell("running", "echo begun; exec sleep 1000")).await;
    let waiting = create(container("waiting", &["true"])).await;
    let mut events = runtime.events();
    runtime.start_container(&done).await.unwrap();
    runtime.start_container(&running).await.unwrap();
    while runtime.inspect_container(&done).await.unwrap().state.exit_code().is_none() {
        events.next().await.unwrap();
    }
    let follow = LogOptions { follow: true, ..LogOptions::default() };
    let mut log = runtime.logs(&running, follow).await.unwrap();
    assert_eq!(log.next().await.unwrap().unwrap().content, "begun");
    let before = runtime.inspect_container(&done).await.unwrap();

    engine.stop(signal);
    let error = runtime.list_containers().await.unwrap_err();
    assert!(matches!(engine_error(&error), EngineError::Unreachable { .. }), "{error:?}");
    assert!(runtime.status().await.unwrap().ready.is_err());
    engine.start().await;

    // Who listens is told, who follows a log comes to its end, and everything is as it was, or has ended.
    while events.next().await.unwrap() != RuntimeEvent::Lagged {}
    assert!(log.next().await.is_none());
    assert_eq!(runtime.inspect_container(&done).await.unwrap(), before);
    assert_eq!(runtime.inspect_container(&waiting).await.unwrap().state, ContainerState::Created);
    let state = runtime.inspect_container(&running).await.unwrap().state;
    let ContainerState::Exited { started_at: Some(began), finished_at, exit_code, .. } = state else {
        panic!("{state:?}")
    };
    assert!(began <= finished_at && exit_code != 0, "{state:?}");
    assert_eq!(runtime.inspect_sandbox(&pod.id).await.unwrap().state, SandboxState::NotReady);
    let lines: Vec<_> = runtime.logs(&done, LogOptions::default()).await.unwrap().map(Result::unwrap).collect().await;
    assert_eq!(text(&lines), "said\n");
    // The engine began nothing by itself, and nothing begins twice.
    runtime.start_container(&running).await.unwrap();
    assert!(!runtime.inspect_container(&running).await.unwrap().state.is_running());
    assert!(matches!(runtime.start_container(&waiting).await, Err(RuntimeError::WrongState(_))));
    assert!(matches!(runtime.run_sandbox(&config).await, Err(RuntimeError::WrongState(_))));
    let mut next = config.clone();
    next.key.attempt = 1;
    let next = runtime.run_sandbox(&next).await.unwrap();
    assert_eq!(next.state, SandboxState::Ready);

    for pod in [&pod.id, &next.id] {
        runtime.remove_sandbox(pod).await.unwrap();
    }
    assert!(runtime.list_containers().await.unwrap().is_empty());
    runtime.remove_leftovers().await.unwrap();
    drop((log, events, runtime));
    engine.stop(Signal::TERM);
    engine.unmount();
    assert_eq!(engine.leftovers(), Vec::<String>::new());
}
