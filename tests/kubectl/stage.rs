//! A cluster of two nodes with real containers, and what has to be gone when it has ended.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use libtest_mimic::Failed;
use orchestrator::{
    Cluster, NodeSpec,
    controllers::Options,
    env::Env,
    node::DirectoryVolumes,
    runtime::{ContainerRuntime, ImageService},
    runtime_youki::{ImageConfig, YoukiRuntime},
    store::Store,
    store_mem::MemStore,
};
use tokio::signal::unix::{SignalKind, signal};

use crate::{Test, support::Kubectl};

/// The argument that makes this program the `nginx` of its containers.
pub(crate) const WEB_SERVER: &str = "--web-server";

/// How often a command is asked that has not said everything yet.
const ATTEMPTS: usize = 100;

const NODES: [&str; 2] = ["node-1", "node-2"];

/// What a test works on.
pub(crate) struct Stage {
    pub(crate) kubectl: Kubectl,
    /// For files of the test itself.
    pub(crate) directory: PathBuf,
    /// The name of the cgroup that all processes of the cluster's pods are below.
    pub(crate) cgroup: String,
}

impl Kubectl {
    /// The same, but told to do things in another way.
    pub(crate) fn with(&self, name: &'static str, value: &'static str) -> Self {
        let mut other = self.clone();
        other.environment.push((name, value));
        other
    }

    /// Runs a command until it prints this: a container that runs may not have written anything yet.
    #[track_caller]
    pub(crate) fn comes_to_say(&self, arguments: &str, expected: &str) {
        let mut last = String::new();
        for _ in 0..ATTEMPTS {
            last = self.ok(arguments);
            if last == expected {
                return;
            }
        }
        panic!("kubectl {arguments}: {last:?} and not {expected:?}");
    }
}

impl Stage {
    /// Writes a file and returns its path.
    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        let path = self.directory.join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }
}

/// Runs a test on a cluster of its own, takes the cluster down, and makes sure that nothing of it is left.
pub(crate) fn with_cluster(name: &str, test: Test) -> Result<(), Failed> {
    play(name, test, None)
}

/// The same, but in between the cluster is detached from its containers, and started again with the same state.
pub(crate) fn with_restarted_cluster(name: &str, before: Test, afterwards: Test) -> Result<(), Failed> {
    play(name, before, Some(afterwards))
}

fn play(name: &str, test: Test, afterwards: Option<Test>) -> Result<(), Failed> {
    YoukiRuntime::check_machine().map_err(|missing| format!("this test needs a machine for containers: {missing}"))?;
    let name = format!("kubectl-{}-{}", name.replace('_', "-"), std::process::id());
    let interfaces = interfaces();
    // Not in /tmp, which containers have their own of.
    let directory = Path::new("/var/lib").join(&name);
    let files = directory.join("test");
    fs::create_dir_all(&files)?;
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let store: Arc<dyn Store> = Arc::new(MemStore::new(&tokio.block_on(async { Env::real() })));
    let (mut cluster, mut runtimes) = tokio.block_on(start(&name, &directory, &store))?;
    let kubectl = Kubectl::new(directory.join("kubeconfig"), files.join("home"));
    let stage = Stage { kubectl, directory: files.clone(), cgroup: cgroup(&name) };
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        stage.kubectl.ok("wait --for=create serviceaccount/default --timeout=30s");
        stage.kubectl.ok("wait --for=condition=Ready nodes --all --timeout=30s");
        test(&stage);
    }));
    let outcome = match (outcome, afterwards) {
        (Ok(()), Some(afterwards)) => {
            tokio.block_on(cluster.detach());
            (cluster, runtimes) = tokio.block_on(start(&name, &directory, &store))?;
            catch_unwind(AssertUnwindSafe(|| afterwards(&stage)))
        }
        (outcome, _) => outcome,
    };
    let left = tokio.block_on(end(cluster, runtimes));
    fs::remove_dir_all(&files)?;
    let left = [left, left_on_machine(&name, &directory)].concat();
    fs::remove_dir_all(&directory)?;
    if let Err(panic) = outcome {
        resume_unwind(panic);
    }
    if !left.is_empty() {
        return Err(format!("left behind: {left:#?}").into());
    }
    if interfaces != self::interfaces() {
        return Err(format!("network interfaces: {interfaces:?}, then {:?}", self::interfaces()).into());
    }
    Ok(())
}

async fn start(name: &str, directory: &Path, store: &Arc<dyn Store>) -> Result<(Cluster, Vec<YoukiRuntime>), Failed> {
    let env = Env::real();
    let mut options = Options::default();
    options.local_volumes = Some(directory.join("claims"));
    let mut builder = Cluster::builder()
        .store(store.clone())
        .listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
        .kubeconfig(directory.join("kubeconfig"))
        .controller_options(options);
    let mut runtimes = Vec::new();
    for node in NODES {
        let root = directory.join(node);
        let runtime = runtime(name, directory, &root, &env)?;
        runtimes.push(runtime.clone());
        let volumes = DirectoryVolumes::new(&env, root.join("volumes"));
        builder = builder.node(NodeSpec::new(node, Arc::new(runtime)).volumes(Arc::new(volumes)).runtime_name("youki"));
    }
    Ok((builder.start().await?, runtimes))
}

/// `busybox` is the machine itself, and `nginx` this program.
fn runtime(name: &str, directory: &Path, root: &Path, env: &Env) -> Result<YoukiRuntime, Failed> {
    let program = "/opt/kubectl-test/nginx";
    let nginx = ImageConfig::command([program, WEB_SERVER]).mount(std::env::current_exe()?, program);
    let builder = YoukiRuntime::builder(root.join("runtime"))
        .cluster(name)
        .network_directory(directory.join("network"))
        .hide(directory)
        .image("busybox", ImageConfig::command(["sh"]))
        .image("nginx", nginx);
    Ok(builder.build(env.clone())?)
}

/// Ends a cluster. Its shutdown has to have removed all pods; those that it left are named, and removed all the same.
async fn end(cluster: Cluster, runtimes: Vec<YoukiRuntime>) -> Vec<String> {
    let mut left = Vec::new();
    if tokio::time::timeout(Duration::from_secs(60), cluster.shutdown()).await.is_err() {
        left.push("the cluster, which did not end".to_owned());
    }
    for runtime in &runtimes {
        for sandbox in runtime.list_sandboxes().await.unwrap_or_default() {
            left.push(format!("the pod {}", sandbox.name));
            let _ = runtime.stop_sandbox(&sandbox.id).await;
            let _ = runtime.remove_sandbox(&sandbox.id).await;
        }
    }
    for runtime in &runtimes {
        for image in runtime.list_images().await.unwrap_or_default().iter().filter(|image| !image.pinned) {
            if let Err(error) = runtime.remove_image(&image.name).await {
                left.push(format!("the image {}: {error}", image.name));
            }
        }
    }
    if let Some(runtime) = runtimes.first()
        && let Err(error) = runtime.remove_network().await
    {
        left.push(format!("the network: {error}"));
    }
    left
}

/// Files, mounts, cgroups and processes of a cluster.
fn left_on_machine(name: &str, directory: &Path) -> Vec<String> {
    // A runtime that has had images keeps a word that says whose they are, and the lock of their store.
    let is_kept = |path: &&PathBuf| path.ends_with("runtime/owner") || path.ends_with("runtime/images/lock");
    let files = files_below(directory);
    let mut left: Vec<String> =
        files.iter().filter(|path| !is_kept(path)).map(|path| path.display().to_string()).collect();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    left.extend(mounts.lines().filter(|line| line.contains(name)).map(str::to_owned));
    let group = cgroup(name);
    let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
    let groups = hierarchies.chain([PathBuf::from("/sys/fs/cgroup")]).map(|hierarchy| hierarchy.join(&group));
    left.extend(groups.filter(|group| group.exists()).map(|group| group.display().to_string()));
    // A helper has hung up before the removal of its pod is reported, and ends right after.
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while !processes_of(&group).is_empty() && std::time::Instant::now() < deadline {
        std::thread::yield_now();
    }
    left.extend(processes_of(&group));
    left
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(files_below(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found
}

fn cgroup(name: &str) -> String {
    format!("orchestrator-{name}")
}

/// Living processes in a cgroup, by any hierarchy: `/proc/NUMBER` and the command line of each.
pub(crate) fn processes_of(group: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let path = entry.path();
        let read = |name: &str| fs::read_to_string(path.join(name)).unwrap_or_default();
        if read("cgroup").contains(group) && !read("stat").contains(") Z ") {
            found.push(format!("{} {}", path.display(), read("cmdline").replace('\0', " ")));
        }
    }
    found
}

/// The machine's own network interfaces: a cluster adds none.
fn interfaces() -> BTreeSet<PathBuf> {
    fs::read_dir("/sys/class/net").into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// Answers every request on port 80 with a page, until it is asked to end.
pub(crate) fn web_server() -> ExitCode {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return ExitCode::FAILURE;
    };
    // The first process of a container has no default for this signal.
    let Ok(mut terminate) = runtime.block_on(async { signal(SignalKind::terminate()) }) else {
        return ExitCode::FAILURE;
    };
    let Ok(listener) = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 80)) else { return ExitCode::FAILURE };
    std::thread::spawn(move || listener.incoming().flatten().for_each(answer));
    runtime.block_on(terminate.recv());
    ExitCode::SUCCESS
}

fn answer(mut stream: TcpStream) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
    if stream.read(&mut [0; 4096]).is_ok() {
        let _ =
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 17\r\nConnection: close\r\n\r\nWelcome to nginx\n");
    }
}
