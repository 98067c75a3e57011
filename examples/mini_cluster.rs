//! A whole cluster in one process: three nodes, the manifests of a Kubernetes course, and a tour of what they do.
//!
//! Containers are real ones, made by youki, where the machine allows it (Linux, root); else they are simulated, and the
//! program says why. `--serve` brings the cluster up without the tour, prints `kubeconfig: PATH` and stays until SIGTERM
//! or Ctrl-C. `--simulated` asks for simulated containers.
#![expect(clippy::print_stdout, reason = "a program for people to look at")]

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use orchestrator::{
    Cluster, NodeSpec,
    client::Api,
    controllers::Options,
    env::Env,
    k8s_openapi::api::{
        apps::v1::{Deployment, ReplicaSet, StatefulSet},
        core::v1::Pod,
    },
    kube::api::{DeleteParams, Patch, PatchParams},
    node::{DirectoryVolumes, NodeConfig},
    runtime::ContainerRuntime,
    runtime_sim::{MachineConfig, SimMachine},
    runtime_youki::{self, ImageConfig, YoukiRuntime},
};
use serde_json::json;

type Failure = Box<dyn std::error::Error>;

const NODES: [&str; 3] = ["node-1", "node-2", "node-3"];
const PATIENCE: Duration = Duration::from_secs(90);

fn main() -> Result<(), Failure> {
    // The helper processes of the runtime are this program, started anew.
    runtime_youki::init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|argument| argument == "--web-server") {
        return web_server();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(&arguments))
}

async fn run(arguments: &[String]) -> Result<(), Failure> {
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let directory = std::env::temp_dir().join(format!("mini-cluster-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let result = with_cluster(&directory, has("--serve"), has("--simulated")).await;
    std::fs::remove_dir_all(&directory)?;
    result
}

async fn with_cluster(directory: &Path, serve: bool, simulated: bool) -> Result<(), Failure> {
    let env = Env::real();
    let machine = if simulated { Err("asked for".to_owned()) } else { YoukiRuntime::check_machine() };
    let mut youki = Vec::new();
    let mut builder = Cluster::builder()
        .listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
        .kubeconfig(directory.join("mini-cluster.kubeconfig"))
        .controller_options(options(directory));
    match &machine {
        Ok(()) => println!("containers: real ones, by youki"),
        Err(why) => println!("containers: simulated ({why})"),
    }
    for name in NODES {
        let root = directory.join(name);
        let node = if machine.is_ok() {
            let runtime = youki_runtime(directory, &root, env.clone())?;
            youki.push(runtime.clone());
            let volumes = DirectoryVolumes::new(&env, root.join("volumes"));
            NodeSpec::new(name, Arc::new(runtime)).volumes(Arc::new(volumes)).runtime_name("youki")
        } else {
            let runtime: Arc<dyn ContainerRuntime> = Arc::new(sim_runtime(&env, youki.len()));
            NodeSpec::new(name, runtime).runtime_name("sim")
        };
        builder = builder.node(node.config(NodeConfig::default()));
    }
    let mut cluster = builder.start().await?;
    if let Some(path) = cluster.kubeconfig_path() {
        println!("kubeconfig: {}", path.display());
    }
    let result = if serve { stop_signal().await.map_err(Failure::from) } else { tour(&mut cluster).await };
    cluster.shutdown().await;
    for runtime in &youki {
        clean(runtime).await?;
    }
    if let Some(runtime) = youki.first() {
        runtime.remove_network().await?;
    }
    println!("done");
    result
}

/// Removes what a node that was killed left behind.
async fn clean(runtime: &YoukiRuntime) -> Result<(), Failure> {
    for sandbox in runtime.list_sandboxes().await? {
        runtime.stop_sandbox(&sandbox.id).await?;
        runtime.remove_sandbox(&sandbox.id).await?;
    }
    Ok(())
}

fn options(directory: &Path) -> Options {
    let mut options = Options::default();
    options.local_volumes = Some(directory.join("claims"));
    // A tour does not wait as long for a lost node as production would.
    options.node_monitor_grace_period = Duration::from_secs(15);
    options
}

fn sim_runtime(env: &Env, index: usize) -> orchestrator::runtime_sim::SimRuntime {
    let subnet = Ipv4Addr::new(10, 244, u8::try_from(index).unwrap_or(0), 0);
    SimMachine::new(env, MachineConfig { subnet, prefix: 24 }).runtime()
}

/// Offline, `busybox` is the machine itself, and `nginx` a small web server that this program contains.
fn youki_runtime(directory: &Path, root: &Path, env: Env) -> Result<YoukiRuntime, Failure> {
    let program = PathBuf::from("/opt/mini-cluster");
    let nginx = ImageConfig::command(["/opt/mini-cluster", "--web-server"]).mount(std::env::current_exe()?, &program);
    Ok(YoukiRuntime::builder(root.join("runtime"))
        .cluster(format!("mini-{}", std::process::id()))
        .network_directory(directory.join("network"))
        .hide(directory)
        .image("host", ImageConfig::command(["sh"]))
        .image("busybox", ImageConfig::command(["sh"]))
        .image("nginx", nginx)
        .build(env)?)
}

async fn tour(cluster: &mut Cluster) -> Result<(), Failure> {
    let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/manifests");
    let files = ["pod", "namespace", "pod-in-namespace", "replicaset", "deployment", "services", "statefulset"];
    for file in files {
        let text = std::fs::read_to_string(manifests.join(format!("{file}.yaml")))?;
        for object in cluster.apply(&text).await? {
            println!("applied {object:?}");
        }
    }
    let pods = running(cluster, "", 11).await?;
    table(&pods);

    println!("\nself-healing: a pod is deleted, the ReplicaSet makes another");
    let client = cluster.client();
    let api: Api<Pod> = Api::namespaced(&client, "default");
    let victim = pods.iter().find(|pod| name(pod).starts_with("high-available-hello")).map(|pod| name(pod).to_owned());
    let victim = victim.ok_or("no pod of the ReplicaSet")?;
    api.delete(&victim, &DeleteParams::default()).await?;
    cluster
        .wait_until::<Pod>("default", PATIENCE, |pods| {
            pods.iter().all(|pod| name(pod) != victim) && ready(pods, "high-available-hello") == 3
        })
        .await?;
    println!("{victim} was replaced");

    println!("\nscaling: the Deployment from 3 to 5");
    patch_deployment(cluster, json!({"spec": {"replicas": 5}})).await?;
    rolled_out(cluster, 5).await?;

    println!("\nrolling update: nginx:1.7.9 to nginx:1.9.1, and back");
    let first = newest_template(cluster).await?;
    let image =
        |image: &str| json!({"spec": {"template": {"spec": {"containers": [{"name": "nginx", "image": image}]}}}});
    patch_deployment(cluster, image("nginx:1.9.1")).await?;
    rolled_out(cluster, 5).await?;
    patch_deployment(cluster, image("nginx:1.7.9")).await?;
    rolled_out(cluster, 5).await?;
    if newest_template(cluster).await? != first {
        return Err("the undo did not bring the first ReplicaSet back".into());
    }
    println!("the first ReplicaSet serves again");

    table(&running(cluster, "", 13).await?);
    let sets = cluster.wait_until::<StatefulSet>("default", PATIENCE, |sets| !sets.is_empty()).await?;
    println!("\n{} StatefulSet, its pods in order", sets.len());
    Ok(())
}

/// Waits until this many pods of a namespace run and are ready.
async fn running(cluster: &Cluster, namespace: &str, count: usize) -> Result<Vec<Arc<Pod>>, Failure> {
    let waited = cluster.wait_until::<Pod>(namespace, PATIENCE, |pods| ready(pods, "") == count && pods.len() == count);
    match waited.await {
        Ok(pods) => Ok(pods),
        Err(error) => {
            let api: Api<Pod> = Api::all(&cluster.client());
            table(&api.list(&Default::default()).await?.items);
            Err(error.into())
        }
    }
}

fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn ready(pods: &[Arc<Pod>], prefix: &str) -> usize {
    pods.iter().filter(|pod| name(pod).starts_with(prefix) && is_ready(pod)).count()
}

async fn patch_deployment(cluster: &Cluster, patch: serde_json::Value) -> Result<(), Failure> {
    let api: Api<Deployment> = Api::namespaced(&cluster.client(), "default");
    api.patch("my-first-deployment", &PatchParams::default(), &Patch::Strategic(patch)).await?;
    Ok(())
}

/// Waits until a rollout is complete, as `kubectl rollout status` sees it.
async fn rolled_out(cluster: &Cluster, replicas: i32) -> Result<(), Failure> {
    cluster
        .wait_until::<Deployment>("default", PATIENCE, |deployments| {
            deployments.iter().all(|deployment| {
                let Some(status) = &deployment.status else { return false };
                status.observed_generation == deployment.metadata.generation
                    && status.replicas == Some(replicas)
                    && status.updated_replicas == Some(replicas)
                    && status.available_replicas == Some(replicas)
            })
        })
        .await?;
    println!("{replicas} of {replicas} replicas are up to date and available");
    Ok(())
}

/// The name of the Deployment's ReplicaSet that has pods.
async fn newest_template(cluster: &Cluster) -> Result<String, Failure> {
    let api: Api<ReplicaSet> = Api::namespaced(&cluster.client(), "default");
    let sets = api.list(&Default::default()).await?.items;
    let active = |set: &&Arc<ReplicaSet>| {
        let replicas = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0);
        replicas > 0 && set.metadata.name.as_ref().is_some_and(|name| name.starts_with("my-first-deployment"))
    };
    let set = sets.iter().find(active).ok_or("the Deployment has no active ReplicaSet")?;
    Ok(set.metadata.name.clone().unwrap_or_default())
}

/// Prints pods as `kubectl get pods --all-namespaces -o wide` does.
fn table(pods: &[Arc<Pod>]) {
    println!("\n{:<12} {:<42} {:<6} {:<10} {:<14} NODE", "NAMESPACE", "NAME", "READY", "STATUS", "IP");
    for pod in pods {
        let status = pod.status.clone().unwrap_or_default();
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or("<none>");
        println!(
            "{:<12} {:<42} {:<6} {:<10} {:<14} {node}",
            pod.metadata.namespace.as_deref().unwrap_or_default(),
            name(pod),
            is_ready(pod),
            status.phase.as_deref().unwrap_or("Unknown"),
            status.pod_ip.as_deref().unwrap_or("<none>"),
        );
    }
}

/// The `nginx` of a machine without registry: answers every request with the host's name.
fn web_server() -> Result<(), Failure> {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, 80))?;
    let host = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    println!("serving on port 80");
    for stream in listener.incoming() {
        let mut stream = stream?;
        let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
        let mut request = [0; 4096];
        if stream.read(&mut request).is_ok() {
            let body = format!("Welcome to {}\n", host.trim());
            let _ =
                write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
        }
    }
    Ok(())
}

/// Waits for Ctrl-C or SIGTERM.
async fn stop_signal() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    futures::future::select(Box::pin(interrupt.recv()), Box::pin(terminate.recv())).await;
    Ok(())
}
