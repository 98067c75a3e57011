//! A runtime in a directory of its own, with an image of one program, and looks at what it holds.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use futures::StreamExt;
use orchestrator_core::{
    env::Env,
    runtime::{
        ContainerConfig, ContainerId, ContainerKey, ContainerRuntime, DnsConfig, ImageService, NamespaceOptions,
        PullRequest, Resources, SandboxConfig, SandboxId, SandboxKey, SandboxStatus, SecurityContext,
    },
};
use orchestrator_runtime_youki::{Helper, PackedImage, YoukiRuntime};

pub(crate) type Failure = Box<dyn std::error::Error>;

/// The image that all containers are of.
const IMAGE: &str = "busybox:1";
/// The program that is in it.
pub(crate) const BUSYBOX: &str = "/usr/bin/busybox";

/// The runtime that is measured.
pub(crate) struct Place {
    directory: PathBuf,
    name: String,
    runtime: YoukiRuntime,
}

impl Place {
    pub(crate) fn new() -> Result<Self, Failure> {
        let name = format!("bench-{}", std::process::id());
        let directory = Path::new("/var/lib").join(format!("orchestrator-{name}"));
        let image = PackedImage::new().executable_at(BUSYBOX, "/bin/busybox");
        let runtime = YoukiRuntime::builder(&directory)
            .cluster(&name)
            .registries(None)
            .source(IMAGE, image)
            .helper(Helper::Program(env!("CARGO_BIN_EXE_orchestrator-pod-helper").into()))
            .build(Env::real())?;
        Ok(Self { directory, name, runtime })
    }

    pub(crate) fn runtime(&self) -> &YoukiRuntime {
        &self.runtime
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) async fn pod(&self, config: &SandboxConfig) -> Result<SandboxStatus, Failure> {
        self.runtime.pull_image(&PullRequest { image: IMAGE.to_owned(), credentials: Vec::new() }).await?;
        Ok(self.runtime.run_sandbox(config).await?)
    }

    pub(crate) async fn start(&self, pod: &SandboxStatus, config: &ContainerConfig) -> Result<ContainerId, Failure> {
        let id = self.runtime.create_container(&pod.id, config).await?;
        self.runtime.start_container(&id).await?;
        Ok(id)
    }

    pub(crate) async fn ended(&self, id: &ContainerId) -> Result<(), Failure> {
        let mut events = self.runtime.events();
        while self.runtime.inspect_container(id).await?.state.exit_code().is_none() {
            events.next().await;
        }
        Ok(())
    }

    /// A container's first process, as the runtime's files have it.
    pub(crate) fn process_of(&self, pod: &SandboxId, id: &ContainerId) -> Result<i64, Failure> {
        let state = self.directory.join("sandboxes").join(&pod.0).join("containers").join(&id.0).join("state.json");
        let state: serde_json::Value = serde_json::from_slice(&fs::read(state)?)?;
        state["pid"].as_i64().ok_or_else(|| "the container has no process".into())
    }

    /// Private memory of every helper, in KiB.
    pub(crate) fn helpers(&self) -> Result<Vec<u64>, Failure> {
        let cgroup = format!("orchestrator-{}/helpers/cgroup.procs", self.name);
        let places = [Path::new("/sys/fs/cgroup/pids").join(&cgroup), Path::new("/sys/fs/cgroup").join(&cgroup)];
        let place = places.iter().find(|place| place.exists()).ok_or("no helpers")?;
        let known = fs::read_to_string(place)?;
        // One whose pod was removed a moment ago may be ending.
        Ok(known.lines().filter_map(|process| private_kibibytes(process).ok()).collect())
    }

    pub(crate) async fn clean(self) -> Result<(), Failure> {
        for pod in self.runtime.list_sandboxes().await? {
            self.runtime.remove_sandbox(&pod.id).await?;
        }
        self.runtime.remove_image(IMAGE).await?;
        self.runtime.remove_network().await?;
        Ok(fs::remove_dir_all(&self.directory)?)
    }
}

/// Memory that a process shares with no other, in KiB.
pub(crate) fn private_kibibytes(process: &str) -> Result<u64, Failure> {
    let text = fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
    let private = text.lines().filter(|line| line.starts_with("Private_"));
    Ok(private.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum())
}

pub(crate) fn sandbox(number: usize) -> SandboxConfig {
    SandboxConfig {
        key: SandboxKey { pod_uid: format!("pod-{number}"), attempt: 0 },
        namespace: "default".to_owned(),
        name: format!("pod-{number}"),
        hostname: format!("pod-{number}"),
        dns: DnsConfig::default(),
        namespaces: NamespaceOptions::default(),
        resources: Resources::default(),
        sysctls: BTreeMap::new(),
        labels: BTreeMap::new().into(),
        annotations: BTreeMap::new().into(),
    }
}

/// A container that runs an applet of the program.
pub(crate) fn container(name: &str, applet: &[&str]) -> ContainerConfig {
    ContainerConfig {
        key: ContainerKey { name: name.to_owned(), attempt: 0 },
        image: IMAGE.to_owned(),
        command: ["/bin/busybox"].iter().chain(applet).map(ToString::to_string).collect(),
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
