//! A cluster behind a loopback port, with its configuration for clients in a directory that goes with it.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
};

use orchestrator::{
    Cluster, ClusterBuilder, NodeSpec,
    env::Env,
    runtime_sim::{MachineConfig, Matcher, Script, SimMachine},
};
use tokio::runtime::{Builder, Runtime};

/// The cluster, and what it stands on.
pub(crate) struct Served {
    runtime: Runtime,
    cluster: Option<Cluster>,
    /// For files of the test itself.
    pub(crate) directory: PathBuf,
    pub(crate) kubeconfig: PathBuf,
}

impl Served {
    /// The control plane, and with a script also one simulated node, `node-1`, whose containers all follow it.
    pub(crate) fn start(name: &str, script: Option<Script>) -> Self {
        let directory = std::env::temp_dir().join(format!("served-{name}-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let kubeconfig = directory.join("kubeconfig");
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let cluster = runtime.block_on(async {
            let env = Env::real();
            let builder = Cluster::builder().env(&env).listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
            with_node(builder.kubeconfig(&kubeconfig), &env, script).start().await.unwrap()
        });
        Self { runtime, cluster: Some(cluster), directory, kubeconfig }
    }
}

fn with_node(builder: ClusterBuilder, env: &Env, script: Option<Script>) -> ClusterBuilder {
    let Some(script) = script else { return builder };
    let machine = SimMachine::new(env, MachineConfig::default());
    machine.script(Matcher::Any, script);
    builder.node(NodeSpec::new("node-1", Arc::new(machine.runtime())))
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(cluster) = self.cluster.take() {
            self.runtime.block_on(cluster.shutdown());
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}
