//! A cluster that outlives its process: its objects are on disk, and its containers go on without it.
//!
//! The program starts itself as a service with a cluster, kills that without warning, starts it once more on the same
//! directory, and compares what the two saw. Containers are real ones where the machine allows it (Linux, root); simulated
//! ones end with their process, so that only objects are compared.
#![expect(clippy::print_stdout, reason = "a program for people to look at")]

use std::{
    error::Error,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use orchestrator::{
    Cluster, ClusterKeys, NodeSpec,
    env::Env,
    k8s_openapi::{
        api::{coordination::v1::Lease, core::v1::Pod},
        jiff::Timestamp,
    },
    node::DirectoryVolumes,
    runtime::ContainerRuntime,
    runtime_sim::{MachineConfig, SimMachine},
    runtime_youki::{self, ImageConfig, YoukiRuntime},
    store_sled::{Limits, SledStore},
};

type Failure = Box<dyn Error>;

/// The argument that makes the program a service; the directory follows.
const SERVE: &str = "--serve";

/// The lines between which a service prints what it sees.
const SEEN: &str = "seen:";
const END: &str = "that is all";

const PODS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(60);

const WORKLOAD: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: worker}
spec:
  replicas: 3
  selector: {matchLabels: {app: worker}}
  template:
    metadata: {labels: {app: worker}}
    spec: {containers: [{name: main, image: host, command: [sleep, infinity]}]}
";

fn main() -> Result<(), Failure> {
    // The helper processes of the runtime are this program, started anew.
    runtime_youki::init();
    let mut arguments = std::env::args_os().skip(1);
    match (arguments.next(), arguments.next()) {
        (None, _) => show(),
        (Some(serve), Some(directory)) if serve == SERVE => {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            runtime.block_on(serve_from(Path::new(&directory)))
        }
        _ => Err(format!("known is {SERVE} DIRECTORY").into()),
    }
}

/// Starts the service twice, and kills it in between.
fn show() -> Result<(), Failure> {
    let directory = Directory(std::env::temp_dir().join(format!("durable-cluster-{}", std::process::id())));
    std::fs::create_dir_all(&directory.0)?;

    let mut first = Service::start(&directory.0)?;
    let before = first.seen()?;
    first.process.kill()?;
    first.process.wait()?;
    println!("killed the service after it saw:\n  {}", before.join("\n  "));

    let mut second = Service::start(&directory.0)?;
    let after = second.seen();
    second.end()?;
    let after = after?;
    println!("the next one, on the same directory, saw:\n  {}", after.join("\n  "));
    if before == after { Ok(()) } else { Err("that is not the same".into()) }
}

/// A directory that goes with the program.
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The program as a service, seen from outside.
struct Service {
    process: Child,
}

impl Service {
    fn start(directory: &Path) -> Result<Self, Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(SERVE).arg(directory).stdin(Stdio::piped()).stdout(Stdio::piped());
        Ok(Self { process: command.spawn()? })
    }

    /// What the service prints of its pods, as soon as all run.
    fn seen(&mut self) -> Result<Vec<String>, Failure> {
        let output = self.process.stdout.take().ok_or("the service has no output")?;
        let mut lines = BufReader::new(output).lines();
        while let Some(line) = lines.next().transpose()? {
            if line == SEEN {
                let is_part = |line: &Result<String, _>| line.as_ref().map_or(true, |line| line != END);
                return Ok(lines.take_while(is_part).collect::<Result<_, _>>()?);
            }
            println!("{line}");
        }
        Err("the service ended before its pods ran".into())
    }

    /// Lets the service end by itself, which it does when its input ends.
    fn end(mut self) -> Result<(), Failure> {
        drop(self.process.stdin.take());
        let status = self.process.wait()?;
        if status.success() { Ok(()) } else { Err(format!("the service ended with {status}").into()) }
    }
}

/// A service with a cluster in it, until its input ends.
async fn serve_from(directory: &Path) -> Result<(), Failure> {
    let env = Env::real();
    let store = Arc::new(SledStore::open(&env, directory.join("state"), Limits::default()).await?);
    let node = Node::new(&env, directory)?;
    let keys = ClusterKeys::open(directory.join("keys"))?;
    let builder = Cluster::builder().env(&env).store(store.clone()).keys(&keys);
    let cluster = builder.node(node.spec(&env, directory)).start().await?;
    let result = run(&cluster, &node, env.now()).await;
    cluster.shutdown().await;
    store.close().await;
    node.remove().await?;
    result
}

async fn run(cluster: &Cluster, node: &Node, begin: Timestamp) -> Result<(), Failure> {
    // Applied again, it changes nothing.
    cluster.apply(WORKLOAD).await?;
    // Until the node has spoken, its pods are as the service before left them.
    let has_spoken = |leases: &[Arc<Lease>]| leases.iter().any(|lease| renewed_at(lease) > Some(begin));
    cluster.wait_until::<Lease>("kube-node-lease", PATIENCE, has_spoken).await?;
    let all_run = |pods: &[Arc<Pod>]| pods.len() == PODS && pods.iter().all(|pod| is_ready(pod));
    let pods = cluster.wait_until::<Pod>("default", PATIENCE, all_run).await?;
    let object = |pod: &Arc<Pod>| [&pod.metadata.name, &pod.metadata.uid].map(|part| part.clone().unwrap_or_default());
    let mut seen: Vec<String> = pods.iter().map(|pod| format!("pod {}", object(pod).join(" "))).collect();
    seen.extend(node.containers().await?);
    println!("{SEEN}\n{}\n{END}", seen.join("\n"));
    tokio::io::copy(&mut tokio::io::stdin(), &mut tokio::io::sink()).await?;
    Ok(())
}

fn renewed_at(lease: &Lease) -> Option<Timestamp> {
    Some(lease.spec.as_ref()?.renew_time.as_ref()?.0)
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// The only node, on real containers where the machine allows it.
enum Node {
    Youki(YoukiRuntime),
    Simulated(SimMachine),
}

impl Node {
    fn new(env: &Env, directory: &Path) -> Result<Self, Failure> {
        if let Err(why) = YoukiRuntime::check_machine() {
            println!("containers are simulated, and end with the service: {why}");
            return Ok(Self::Simulated(SimMachine::new(env, MachineConfig::default())));
        }
        let name = directory.file_name().unwrap_or_default().to_string_lossy();
        let runtime = YoukiRuntime::builder(directory.join("runtime"))
            .cluster(name)
            .network_directory(directory.join("network"))
            .hide(directory)
            .image("host", ImageConfig::command(["sh"]))
            .build(env.clone())?;
        Ok(Self::Youki(runtime))
    }

    fn spec(&self, env: &Env, directory: &Path) -> NodeSpec {
        match self {
            Self::Youki(runtime) => NodeSpec::new("node-1", Arc::new(runtime.clone()))
                .volumes(Arc::new(DirectoryVolumes::new(env, directory.join("volumes")))),
            Self::Simulated(machine) => NodeSpec::new("node-1", Arc::new(machine.runtime())),
        }
    }

    /// The containers that have to be the same when the service comes back, as the runtime sees them.
    async fn containers(&self) -> Result<Vec<String>, Failure> {
        let Self::Youki(runtime) = self else { return Ok(Vec::new()) };
        let mut containers: Vec<_> = runtime.list_containers().await?;
        containers.sort_by(|left, right| left.id.cmp(&right.id));
        Ok(containers.iter().map(|container| format!("container {} {:?}", container.id, container.state)).collect())
    }

    /// Removes what the cluster left when it ended.
    async fn remove(&self) -> Result<(), Failure> {
        let Self::Youki(runtime) = self else { return Ok(()) };
        for sandbox in runtime.list_sandboxes().await? {
            runtime.stop_sandbox(&sandbox.id).await?;
            runtime.remove_sandbox(&sandbox.id).await?;
        }
        runtime.remove_network().await?;
        Ok(())
    }
}
