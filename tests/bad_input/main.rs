//! What nobody should send, over HTTPS: refused with the right code, in bounded memory, while others are served.

mod attacks;
mod bodies;
mod client;
mod connections;

use std::{
    fs,
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use client::Https;
use orchestrator::{Cluster, client::UserInfo, env::Env, store::Revision};

const TOKEN: &str = "token";

/// How long anything may take that is bound to happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// An API server on a socket, without anything that writes by itself.
struct Stage {
    cluster: Cluster,
    https: Https,
}

impl Stage {
    async fn new() -> Self {
        let cluster = Cluster::builder()
            .control_plane(false)
            .token(TOKEN, UserInfo::new("admin", &["system:masters"]))
            .listen((Ipv4Addr::LOCALHOST, 0).into())
            .start()
            .await
            .unwrap();
        let https = Https::new(cluster.address().unwrap(), cluster.kubeconfig().unwrap()).await;
        Self { cluster, https }
    }

    /// The newest revision: it stands still as long as nothing is stored.
    async fn revision(&self) -> Revision {
        self.cluster.store().status().await.unwrap().revision
    }
}

/// A well-behaved user beside all this, who asks again and again and must always get an answer.
struct Bystander {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Bystander {
    fn start(https: &Https) -> Self {
        let (stop, served) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (https, stopped, count) = (https.clone(), stop.clone(), served.clone());
        let task = tokio::runtime::Handle::current().spawn(async move {
            let env = Env::real();
            while !stopped.load(Ordering::Relaxed) {
                let asked = https.get("/api/v1/namespaces/default");
                let answer = env.timeout(Duration::from_secs(10), asked).await.expect("an answer in time");
                assert_eq!(answer.code, 200);
                count.fetch_add(1, Ordering::Relaxed);
                env.sleep(Duration::from_millis(20)).await;
            }
        });
        Self { stop, served, task }
    }

    /// How often he was served.
    async fn stop(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("others are served meanwhile");
        self.served.load(Ordering::Relaxed)
    }
}

/// Held by whoever measures the memory of this process, which all tests share.
static MEASURING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Memory of this process that is in use, in megabytes.
fn resident_megabytes() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split_whitespace().nth(1).unwrap().parse().unwrap();
    pages * 4 / 1024
}
