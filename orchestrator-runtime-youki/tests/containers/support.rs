//! What the tests share: a runtime in a directory of its own, configurations, and waiting for events.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use futures::StreamExt;
use orchestrator_core::{
    env::Env,
    runtime::{
        ContainerConfig, ContainerId, ContainerKey, ContainerRuntime, ContainerState, DnsConfig, ExecOptions, LogLine,
        LogOptions, LogStream, NamespaceOptions, Resources, SandboxConfig, SandboxId, SandboxKey, SandboxState,
        SandboxStatus, SecurityContext,
    },
};
use orchestrator_runtime_youki::{ImageConfig, YoukiBuilder, YoukiRuntime};
use rustix::process::{FlockType, fcntl_getlk};
use tokio::io::AsyncReadExt;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A runtime in a directory of its own, and what the machine was like before it.
pub(crate) struct Place {
    pub(crate) directory: PathBuf,
    pub(crate) runtime: YoukiRuntime,
    name: String,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self::with(|builder| builder)
    }

    /// A place whose runtime is told more than others.
    pub(crate) fn with(change: impl FnOnce(YoukiBuilder) -> YoukiBuilder) -> Self {
        YoukiRuntime::check_machine().expect("these tests need a machine that can run containers");
        let name = format!("youki-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        // Not in /tmp, which containers have their own of: what is hidden must be hidden by the runtime.
        let directory = Path::new("/var/lib").join(&name);
        let runtime = change(builder(&directory, &name)).build(Env::real()).unwrap();
        Self { directory, runtime, name }
    }

    /// A new runtime on the same directory, as after a crash of the agent.
    pub(crate) fn again(&mut self) {
        self.runtime = self.another();
    }

    /// Another instance on the same directory.
    pub(crate) fn another(&self) -> YoukiRuntime {
        self.builder().build(Env::real()).unwrap()
    }

    /// What another instance on the same directory is built from.
    pub(crate) fn builder(&self) -> YoukiBuilder {
        builder(&self.directory, &self.name)
    }

    /// What the runtime of another cluster on this machine is built from.
    pub(crate) fn other_cluster(&self) -> YoukiBuilder {
        builder(&self.directory.join("other-cluster"), &format!("{}-other", self.name))
    }

    /// Another node of the same cluster on this machine.
    pub(crate) fn neighbour(&self, name: &str) -> YoukiRuntime {
        builder(&self.directory.join(name), &self.name)
            .network_directory(self.directory.join("network"))
            .build(Env::real())
            .unwrap()
    }

    /// The name in which the runtime's cgroups are.
    pub(crate) fn cgroup_parent(&self) -> String {
        format!("orchestrator-{}", self.name)
    }

    /// Runs a pod and returns its sandbox.
    pub(crate) async fn pod(&self) -> SandboxStatus {
        self.runtime.run_sandbox(&sandbox()).await.unwrap()
    }

    /// Runs a command in a new container of a pod.
    pub(crate) async fn run(&self, pod: &SandboxStatus, config: ContainerConfig) -> ContainerId {
        let id = self.runtime.create_container(&pod.id, &config).await.unwrap();
        self.runtime.start_container(&id).await.unwrap();
        id
    }

    /// Waits until a container has ended.
    pub(crate) async fn ended(&self, id: &ContainerId) -> ContainerState {
        self.wait(id, |state| matches!(state, ContainerState::Exited { .. })).await
    }

    /// Waits until a container is in the right state, event by event.
    pub(crate) async fn wait(&self, id: &ContainerId, right: impl Fn(&ContainerState) -> bool) -> ContainerState {
        let mut events = self.runtime.events();
        loop {
            let state = self.runtime.inspect_container(id).await.unwrap().state;
            if right(&state) {
                return state;
            }
            events.next().await.expect("events do not end");
        }
    }

    /// Runs a command to its end and returns exit code and standard output.
    pub(crate) async fn output(&self, pod: &SandboxStatus, config: ContainerConfig) -> (i32, String) {
        let id = self.run(pod, config).await;
        let state = self.ended(&id).await;
        let mut log = self.log(&id).await;
        log.retain(|line| line.stream == LogStream::Stdout);
        (state.exit_code().unwrap(), text(&log))
    }

    /// All of a container's log.
    pub(crate) async fn log(&self, id: &ContainerId) -> Vec<LogLine> {
        let lines = self.runtime.logs(id, LogOptions::default()).await.unwrap();
        lines.map(Result::unwrap).collect().await
    }

    /// Runs a command in a running container; exit code and output.
    pub(crate) async fn exec(&self, id: &ContainerId, command: &[&str]) -> (i32, String) {
        let options = ExecOptions { command: words(command), stdout: true, ..ExecOptions::default() };
        let mut session = self.runtime.exec(id, options).await.unwrap();
        let mut output = String::new();
        session.stdout.as_mut().unwrap().read_to_string(&mut output).await.unwrap();
        (session.exit.await.unwrap(), output)
    }

    /// Removes everything and makes sure that nothing is left.
    pub(crate) async fn clean(self) {
        let mut helpers = Vec::new();
        for pod in self.runtime.list_sandboxes().await.unwrap() {
            if pod.state == SandboxState::Ready {
                helpers.push(helper_of(&self, &pod.id));
            }
            self.runtime.remove_sandbox(&pod.id).await.unwrap();
        }
        // A helper has hung up before its removal is reported, and ends right after.
        for helper in helpers {
            while fs::read_to_string(format!("/proc/{helper}/cmdline")).is_ok_and(|line| !line.is_empty()) {
                Env::real().sleep(Duration::from_millis(1)).await;
            }
        }
        self.runtime.remove_network().await.unwrap();
        self.assert_nothing_left();
        fs::remove_dir_all(&self.directory).unwrap();
    }

    /// No file, mount, cgroup or process of this place is there.
    pub(crate) fn assert_nothing_left(&self) {
        let mut files = files_below(&self.directory);
        // What a runtime that has had images keeps: a word that says whose they are, and the lock of their store.
        for kept in ["owner", "images/lock"] {
            files.remove(&self.directory.join(kept));
        }
        assert_eq!(files, BTreeSet::new());
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&self.name), "{mounts}");
        assert_eq!(cgroups_of(&self.name), Vec::<PathBuf>::new());
        assert_eq!(processes_of(&self.name), Vec::<String>::new());
    }
}

impl Drop for Place {
    /// A test that failed leaves nothing either, as far as it goes.
    fn drop(&mut self) {
        if !self.directory.exists() {
            return;
        }
        if std::thread::panicking() {
            let kept = format!("/tmp/{}.failed", self.name);
            let _ = std::process::Command::new("cp").arg("-a").arg(&self.directory).arg(&kept).output();
            eprintln!("the runtime's files are in {kept}");
        }
        for directory in cgroups_of(&self.name) {
            for pid in fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default().lines() {
                // Only processes in cgroups that this test made.
                let _ = std::process::Command::new("kill").args(["-9", pid]).output();
            }
        }
        let _ = std::process::Command::new("umount").arg("-l").arg(self.directory.join("network/netns")).output();
        std::thread::sleep(Duration::from_millis(200));
        for directory in cgroups_of(&self.name).into_iter().rev() {
            let _ = fs::remove_dir(directory);
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

pub(crate) fn builder(directory: &Path, name: &str) -> YoukiBuilder {
    let plain = YoukiRuntime::builder(directory).cluster(name).registries(None);
    plain.image("busybox", ImageConfig::command(["sh"])).image(
        "tools",
        ImageConfig::command(["sh"]).variable("FROM_IMAGE", "yes").mount("/usr/bin/env", "/opt/tools/env"),
    )
}

pub(crate) fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

pub(crate) fn text(lines: &[LogLine]) -> String {
    lines.iter().map(|line| format!("{}\n", String::from_utf8_lossy(&line.content))).collect()
}

/// A pod of its own.
pub(crate) fn sandbox() -> SandboxConfig {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    SandboxConfig {
        key: SandboxKey { pod_uid: format!("pod-{number}"), attempt: 0 },
        namespace: "default".to_owned(),
        name: format!("pod-{number}"),
        hostname: format!("host-{number}"),
        dns: DnsConfig::default(),
        namespaces: NamespaceOptions::default(),
        resources: Resources::default(),
        sysctls: BTreeMap::new(),
        labels: BTreeMap::from([("app".to_owned(), "test".to_owned())]).into(),
        annotations: BTreeMap::new().into(),
    }
}

/// A container that runs a command.
pub(crate) fn container(name: &str, command: &[&str]) -> ContainerConfig {
    ContainerConfig {
        key: ContainerKey { name: name.to_owned(), attempt: 0 },
        image: "busybox:1.36".to_owned(),
        command: words(command),
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
        labels: BTreeMap::new().into(),
        annotations: BTreeMap::new().into(),
    }
}

/// A container that runs a line of shell.
pub(crate) fn shell(name: &str, line: &str) -> ContainerConfig {
    container(name, &["sh", "-c", line])
}

/// The helper of a sandbox: the kernel names the holder of its lock. (A list like `/proc/locks` is read piece by piece, and misses
/// locks when others go between two pieces.)
pub(crate) fn helper_of(place: &Place, id: &SandboxId) -> u32 {
    let lock = place.directory.join("sandboxes").join(&id.0).join("lock");
    let file = fs::File::options().read(true).write(true).open(lock).unwrap();
    let holder = fcntl_getlk(&file, &FlockType::WriteLock.into()).unwrap();
    let pid = holder.and_then(|lock| lock.pid).unwrap_or_else(|| panic!("no helper holds {id}"));
    pid.as_raw_nonzero().get().cast_unsigned()
}

/// All cgroups of a cluster, outer ones first.
pub(crate) fn cgroups_of(name: &str) -> Vec<PathBuf> {
    fn walk(directory: &Path, into: &mut Vec<PathBuf>) {
        into.push(directory.to_owned());
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                walk(&entry.path(), into);
            }
        }
    }
    let mut found = Vec::new();
    let parent = format!("orchestrator-{name}");
    let mut roots: Vec<PathBuf> = vec![PathBuf::from("/sys/fs/cgroup")];
    roots.extend(fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|entry| entry.path()));
    for root in roots {
        let directory = root.join(&parent);
        if directory.is_dir() {
            walk(&directory, &mut found);
        }
    }
    found
}

/// Processes in the cgroups of a cluster, by any hierarchy.
pub(crate) fn processes_of(name: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let path = entry.path();
        let cgroups = fs::read_to_string(path.join("cgroup")).unwrap_or_default();
        // What is dead and not yet reaped is the business of its parent, the machine's first process.
        let dead = fs::read_to_string(path.join("stat")).unwrap_or_default().contains(") Z ");
        if cgroups.contains(&format!("orchestrator-{name}")) && !dead {
            let command = fs::read_to_string(path.join("cmdline")).unwrap_or_default();
            found.push(format!("{} {command}", path.display()));
        }
    }
    found
}

fn files_below(directory: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().unwrap().is_dir() {
            found.extend(files_below(&entry.path()));
        } else {
            found.insert(entry.path());
        }
    }
    found
}
