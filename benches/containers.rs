//! From the creation of a pod until its container runs, on youki. Needs Linux and root; says so elsewhere.
//!
//! `cargo bench --bench containers -- [PODS]` makes so many pods one after the other, then as many at once.
#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
#![expect(clippy::print_stdout, reason = "a program for people to look at")]

mod support;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use orchestrator::{
    Cluster, NodeSpec,
    client::Api,
    env::Env,
    k8s_openapi::api::core::v1::Pod,
    kube::api::{DeleteParams, PostParams},
    node::DirectoryVolumes,
    runtime_youki::{self, ImageConfig, YoukiRuntime},
};
use serde_json::json;

fn main() {
    // The helper processes of the runtime are this program, started anew.
    runtime_youki::init();
    if let Err(missing) = YoukiRuntime::check_machine() {
        println!("not measured: this machine lacks {missing}");
        return;
    }
    let pods = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(20);
    support::runtime().block_on(run(pods));
}

async fn run(count: usize) {
    let name = format!("bench-{}", std::process::id());
    let directory = std::env::temp_dir().join(&name);
    let env = Env::real();
    let runtime = YoukiRuntime::builder(directory.join("runtime"))
        .cluster(&name)
        .hide(&directory)
        .image("busybox", ImageConfig::command(["sh"]))
        .build(env.clone())
        .expect("a runtime");
    let volumes = DirectoryVolumes::new(&env, directory.join("volumes"));
    let node = NodeSpec::new("node", Arc::new(runtime.clone())).volumes(Arc::new(volumes)).runtime_name("youki");
    let cluster = Cluster::builder().env(&env).node(node).start().await.expect("the cluster starts");
    support::wait_for_account(&cluster).await;

    let mut taken = Vec::new();
    for index in 0..count {
        taken.push(run_pods(&cluster, &format!("alone-{index}"), 1).await);
    }
    taken.sort();
    let quantile = |part: usize| taken.get(taken.len() * part / 100).copied().unwrap_or_default().as_secs_f64() * 1e3;
    println!("one pod, created to Running: p50 {:.1} ms, p90 {:.1} ms ({count} pods)", quantile(50), quantile(90));
    let together = run_pods(&cluster, "together", count).await;
    println!("{count} pods at once, created to Running: {:.1} ms", together.as_secs_f64() * 1e3);

    cluster.shutdown().await;
    runtime.remove_network().await.expect("the network is removed");
    std::fs::remove_dir_all(&directory).expect("the directory is removed");
}

/// Makes pods, waits until they run, and removes them. Gives the time until they ran.
async fn run_pods(cluster: &Cluster, prefix: &str, count: usize) -> Duration {
    let api: Api<Pod> = Api::namespaced(&cluster.client(), "default");
    let begin = Instant::now();
    for index in 0..count {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": format!("{prefix}-{index}")},
            "spec": {"containers": [{"name": "main", "image": "busybox", "command": ["sleep", "3600"]}]},
        }))
        .expect("a pod");
        api.create(&PostParams::default(), &pod).await.expect("created");
    }
    let running = |pod: &Arc<Pod>| {
        pod.status.as_ref().and_then(|status| status.phase.as_deref()).is_some_and(|phase| phase == "Running")
    };
    let wait = |pods: &[Arc<Pod>]| pods.iter().filter(|pod| running(pod)).count() == count;
    cluster.wait_until::<Pod>("default", support::PATIENCE, wait).await.expect("all run");
    let taken = begin.elapsed();
    for index in 0..count {
        let now = DeleteParams { grace_period_seconds: Some(0), ..Default::default() };
        api.delete(&format!("{prefix}-{index}"), &now).await.expect("deleted");
    }
    cluster.wait_until::<Pod>("default", support::PATIENCE, |pods| pods.is_empty()).await.expect("all are gone");
    taken
}
