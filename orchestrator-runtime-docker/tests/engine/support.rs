//! What the tests share: a runtime of a cluster of its own, configurations, and what is on the engine.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use bollard::{
    API_DEFAULT_VERSION, Docker,
    errors::Error,
    query_parameters::{ListContainersOptions, ListImagesOptions, ListNetworksOptions, ListVolumesOptions},
};
use futures::StreamExt;
use orchestrator_core::{
    env::Env,
    runtime::{
        ContainerConfig, ContainerId, ContainerKey, ContainerRuntime, ContainerState, DnsConfig, ExecOptions,
        ImageService, LogLine, LogOptions, LogStream, NamespaceOptions, PullRequest, Resources, SandboxConfig,
        SandboxKey, SandboxStatus, SecurityContext,
    },
};
use orchestrator_runtime_docker::{DockerBuilder, DockerRuntime, PackedImage};
use tokio::io::AsyncReadExt;

use crate::subject::{is_podman, subject};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Says whose a container or a network is.
const CLUSTER_LABEL: &str = "orchestrator.cluster";

/// Name of the image that has a shell and its usual companions.
pub(crate) const SHELL: &str = "shell:1";

/// The programs in it.
const PROGRAMS: [&str; 23] = [
    "sh", "sleep", "cat", "seq", "head", "tail", "tr", "id", "hostname", "ls", "wc", "stty", "tty", "touch", "mkdir",
    "grep", "env", "stat", "dd", "chown", "mount", "true", "nproc",
];

/// A runtime of a cluster of its own.
pub(crate) struct Place {
    pub(crate) directory: PathBuf,
    pub(crate) runtime: DockerRuntime,
    pub(crate) cluster: String,
    is_clean: bool,
}

/// What there is on the engine and on the machine.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Holdings {
    pub(crate) containers: BTreeSet<String>,
    pub(crate) networks: BTreeSet<String>,
    pub(crate) images: BTreeSet<String>,
    pub(crate) volumes: BTreeSet<String>,
    pub(crate) mounts: BTreeSet<String>,
}

impl Place {
    pub(crate) async fn new() -> Self {
        let cluster = format!("test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let directory = Path::new("/var/lib").join(format!("orchestrator-docker-{cluster}"));
        let runtime = builder(&directory, &cluster).build(Env::real()).unwrap();
        Self { directory, runtime, cluster, is_clean: false }
    }

    /// A new runtime for the same node, as after a crash of the agent.
    pub(crate) fn again(&mut self) {
        self.runtime = self.another();
    }

    /// Another instance for the same node.
    pub(crate) fn another(&self) -> DockerRuntime {
        self.builder().build(Env::real()).unwrap()
    }

    /// The runtime of another cluster on the same engine.
    pub(crate) fn other_cluster(&self) -> DockerRuntime {
        let cluster = format!("{}-other", self.cluster);
        builder(&self.directory.join("other-cluster"), &cluster).build(Env::real()).unwrap()
    }

    /// Removes what the other cluster has made for itself.
    pub(crate) async fn end_other_cluster(&self) {
        self.other_cluster().remove_leftovers().await.unwrap();
        let directory = self.directory.join("other-cluster");
        if directory.exists() {
            // Empty, or it cannot be removed.
            fs::remove_dir(&directory).unwrap();
        }
    }

    pub(crate) fn builder(&self) -> DockerBuilder {
        builder(&self.directory, &self.cluster)
    }

    /// Runs a pod, and has the image with the shell.
    pub(crate) async fn pod(&self) -> SandboxStatus {
        self.pull(SHELL).await;
        self.runtime.run_sandbox(&sandbox()).await.unwrap()
    }

    pub(crate) async fn pull(&self, image: &str) {
        let request = PullRequest { image: image.to_owned(), credentials: Vec::new() };
        self.runtime.pull_image(&request).await.unwrap();
    }

    /// Runs a command in a new container of a pod.
    pub(crate) async fn run(&self, pod: &SandboxStatus, config: ContainerConfig) -> ContainerId {
        let id = self.runtime.create_container(&pod.id, &config).await.unwrap();
        self.runtime.start_container(&id).await.unwrap();
        id
    }

    /// Waits until a container has ended.
    pub(crate) async fn ended(&self, id: &ContainerId) -> ContainerState {
        let mut events = self.runtime.events();
        loop {
            let state = self.runtime.inspect_container(id).await.unwrap().state;
            if matches!(state, ContainerState::Exited { .. }) {
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

    /// Waits until a container has said this.
    pub(crate) async fn said(&self, id: &ContainerId, line: &str) {
        let options = LogOptions { follow: true, ..LogOptions::default() };
        let mut lines = self.runtime.logs(id, options).await.unwrap();
        while let Some(next) = lines.next().await {
            if next.unwrap().content == line.as_bytes() {
                return;
            }
        }
        panic!("the container ended without saying {line}");
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
    pub(crate) async fn clean(mut self) {
        for pod in self.runtime.list_sandboxes().await.unwrap() {
            self.runtime.remove_sandbox(&pod.id).await.unwrap();
        }
        assert_eq!(self.runtime.list_containers().await.unwrap(), []);
        self.runtime.remove_leftovers().await.unwrap();
        assert_eq!(holdings(Some(&self.cluster)).await, Holdings::default());
        if self.directory.exists() {
            // Empty, or it cannot be removed.
            fs::remove_dir(&self.directory).unwrap();
        }
        self.is_clean = true;
    }
}

impl Drop for Place {
    /// A test that failed leaves nothing either, as far as it goes.
    fn drop(&mut self) {
        if self.is_clean {
            return;
        }
        let _ = fs::remove_dir_all(&self.directory);
        let label = format!("label=orchestrator.cluster={}", self.cluster);
        let docker = |arguments: &[&str]| {
            let socket = format!("unix://{}", subject().socket.display());
            let output = std::process::Command::new("docker").args(["--host", &socket]).args(arguments).output();
            output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
        };
        for (list, remove) in [
            (vec!["ps", "-aq", "--filter", &label], vec!["rm", "-fv"]),
            (vec!["network", "ls", "-q", "--filter", &label], vec!["network", "rm"]),
        ] {
            for id in docker(&list).split_whitespace() {
                docker(&[&remove[..], &[id]].concat());
            }
        }
        let mine = format!("orchestrator.invalid/{}/", self.cluster);
        for name in docker(&["images", "--format", "{{.Repository}}:{{.Tag}}"]).lines() {
            if name.starts_with(&mine) {
                docker(&["rmi", name]);
            }
        }
    }
}

pub(crate) fn builder(directory: &Path, cluster: &str) -> DockerBuilder {
    let builder = DockerRuntime::builder(directory).socket(&subject().socket);
    builder.cluster(cluster).node("node-1").image(SHELL, shell_image(cluster))
}

/// An image of this cluster's own: the engine has one image for all who have the same.
pub(crate) fn shell_image(cluster: &str) -> PackedImage {
    let paths = PROGRAMS.iter().map(|name| program(name));
    let image = PackedImage::new().args(["sh"]).variable("FROM_IMAGE", "yes").variable("CLUSTER", cluster);
    paths.fold(image, |image, (host, inside)| image.executable_at(host, inside))
}

/// Where a program is on this machine, and where it shall be.
fn program(name: &str) -> (PathBuf, PathBuf) {
    let places = ["/bin", "/usr/bin", "/usr/sbin"].map(|directory| Path::new(directory).join(name));
    let found = places.into_iter().find(|path| path.exists()).unwrap_or_else(|| panic!("no {name} on this machine"));
    (found, Path::new("/bin").join(name))
}

/// A client of the tests' own.
pub(crate) async fn docker() -> Docker {
    let socket = subject().socket.to_str().unwrap();
    let client = Docker::connect_with_unix(socket, 60, API_DEFAULT_VERSION);
    let client = client.expect("these tests need an engine");
    client.negotiate_version().await.expect("these tests need an engine that answers")
}

/// What there is now: of a cluster, or all of it.
pub(crate) async fn holdings(cluster: Option<&str>) -> Holdings {
    let docker = docker().await;
    let options = ListContainersOptions { all: true, ..ListContainersOptions::default() };
    let containers = loop {
        match docker.list_containers(Some(options.clone())).await {
            // The client does not know Podman's word for a container that is being put away.
            Err(Error::JsonDataError { .. }) if is_podman() => Env::real().sleep(Duration::from_millis(20)).await,
            containers => break containers.unwrap(),
        }
    };
    let networks = docker.list_networks(None::<ListNetworksOptions>).await.unwrap();
    let options = ListImagesOptions { all: true, ..ListImagesOptions::default() };
    let images = loop {
        match docker.list_images(Some(options.clone())).await {
            // Podman cannot list images while one of them goes.
            Err(Error::DockerResponseServerError { .. }) if is_podman() => {}
            images => break images.unwrap(),
        }
    };
    let volumes = docker.list_volumes(None::<ListVolumesOptions>).await.unwrap().volumes.unwrap_or_default();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mount_point = |line: &str| line.split_whitespace().nth(4).unwrap_or_default().to_owned();
    // Not every name says whose it is; what no name tells is seen when all tests are over.
    let has_name = |name: &String| cluster.is_none_or(|cluster| name.contains(&format!("{cluster}/")));
    let containers = containers.into_iter().filter(|container| is_of(cluster, container.labels.clone()));
    Holdings {
        containers: containers.flat_map(|container| container.names.unwrap_or_default()).collect(),
        networks: networks
            .into_iter()
            .filter(|one| is_of(cluster, one.labels.clone()))
            .filter_map(|one| one.id)
            .collect(),
        images: images.into_iter().flat_map(|one| [vec![one.id], one.repo_tags].concat()).filter(has_name).collect(),
        volumes: volumes.into_iter().map(|volume| volume.name).filter(has_name).collect(),
        // The engine makes this one for the first container on the machine's own network, or on any, and keeps it.
        mounts: mounts
            .lines()
            .map(mount_point)
            .filter(|path| !path.ends_with("/docker/netns/default") && path != "/run/netns" && has_name(path))
            .collect(),
    }
}

/// Whether labels say that something is a cluster's; of no cluster is anything.
fn is_of(cluster: Option<&str>, labels: Option<impl IntoIterator<Item = (String, String)>>) -> bool {
    let mut labels = labels.into_iter().flatten();
    cluster.is_none_or(|cluster| labels.any(|(name, value)| name == CLUSTER_LABEL && value == cluster))
}

pub(crate) fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// What a container said, parts of lines put together.
pub(crate) fn text(lines: &[LogLine]) -> String {
    let end = |line: &LogLine| if line.partial { "" } else { "\n" };
    lines.iter().map(|line| format!("{}{}", String::from_utf8_lossy(&line.content), end(line))).collect()
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
        image: SHELL.to_owned(),
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
