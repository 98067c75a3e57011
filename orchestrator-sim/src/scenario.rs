//! A whole run: a cluster full of workloads, faults, convergence, silence.

use std::{fmt, time::Duration};

use orchestrator_core::{
    client::{Call, Request, Resource, WriteOptions},
    object::Object,
    status::ApiResult,
};
use serde_json::{Value, json};

use crate::{
    builder::{BuildError, SimClusterBuilder},
    chaos::Chaos,
    cluster::SimCluster,
    history::History,
    image::Image,
};

/// The namespace that the workloads are in.
const NAMESPACE: &str = "default";
/// How long a pod stays on a node in trouble.
const TOLERATION_SECONDS: u64 = 60;

/// What a run is like.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// How many nodes.
    pub nodes: usize,
    /// How many deployments, each with a service, and how many replicas each.
    pub deployments: (usize, usize),
    /// How many stateful sets, each with a service, and how many replicas each.
    pub stateful_sets: (usize, usize),
    /// How many replica sets without a deployment, and how many replicas each.
    pub replica_sets: (usize, usize),
    /// How many processes there are that could run the controllers; see [`SimClusterBuilder::controller_managers`].
    pub controller_managers: usize,
    /// The faults.
    pub chaos: Chaos,
    /// The longest time in which everything has to be as it should be, once the faults are over.
    pub convergence: Duration,
    /// How long there has to be silence then.
    pub silence: Duration,
    /// How a run of one seed is repeated, in front of the seed.
    pub replay: &'static str,
}

/// What a run was like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// A hash over everything that was written.
    pub hash: String,
    /// How many changes there were.
    pub changes: usize,
    /// How long it took after the last fault until everything was as it should be.
    pub convergence: Duration,
}

/// A run did not go as it has to.
#[derive(Debug)]
pub struct Failure {
    seed: u64,
    replay: &'static str,
    /// What went wrong, one line each.
    pub what: Vec<String>,
    /// What was done to the world.
    pub diary: Vec<String>,
    /// Everything that was written until then.
    pub history: History,
}

impl std::error::Error for Failure {}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {} failed; to repeat it: {} {}", self.seed, self.replay, self.seed)?;
        for line in &self.diary {
            writeln!(f, "  {line}")?;
        }
        self.what.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

impl Scenario {
    /// 20 nodes and 100 pods; containers and nodes fail.
    pub fn small() -> Self {
        Self {
            nodes: 20,
            deployments: (4, 15),
            stateful_sets: (2, 10),
            replica_sets: (2, 10),
            controller_managers: 1,
            chaos: Chaos::of_nodes(),
            convergence: Duration::from_secs(1200),
            silence: Duration::from_secs(330),
            replay: "cargo run -p orchestrator-sim --example replay -- small",
        }
    }

    /// 5 nodes and 32 pods; of three processes of controllers one leads, and they fail.
    pub fn leaders() -> Self {
        Self {
            nodes: 5,
            deployments: (2, 8),
            stateful_sets: (2, 8),
            replica_sets: (0, 0),
            controller_managers: 3,
            chaos: Chaos::of_controllers(),
            replay: "cargo run -p orchestrator-sim --example replay -- leaders",
            ..Self::small()
        }
    }

    /// 50 nodes and 500 pods; everything fails.
    pub fn large() -> Self {
        Self {
            nodes: 50,
            deployments: (8, 50),
            stateful_sets: (5, 20),
            replica_sets: (0, 0),
            chaos: Chaos::of_everything(),
            replay: "cargo run -p orchestrator-sim --example replay -- large",
            ..Self::small()
        }
    }

    /// How many pods the workloads ask for.
    pub fn pods(&self) -> usize {
        [self.deployments, self.stateful_sets, self.replica_sets].iter().map(|(sets, replicas)| sets * replicas).sum()
    }

    /// A cluster without workloads.
    pub fn builder(&self, seed: u64) -> SimClusterBuilder {
        SimCluster::builder(seed).nodes(self.nodes).controller_managers(self.controller_managers)
    }

    /// A whole run that begins with nothing; the faults come while the workloads start.
    pub fn run_from_nothing(&self, seed: u64) -> Result<(SimCluster, Report), Box<Failure>> {
        let cluster = self.builder(seed).build().map_err(|error| self.not_built(seed, &error))?;
        let report = self.run(&cluster, true)?;
        Ok((cluster, report))
    }

    /// A whole run that begins with a cluster in which everything runs.
    pub fn run_from(&self, image: &Image, seed: u64) -> Result<(SimCluster, Report), Box<Failure>> {
        let cluster = image.start(seed).map_err(|error| self.not_built(seed, &error))?;
        let report = self.run(&cluster, false)?;
        Ok((cluster, report))
    }

    /// A cluster in which everything runs, to begin runs with.
    pub fn boot(&self) -> Result<Image, Box<Failure>> {
        let cluster = self.builder(0).build().map_err(|error| self.not_built(0, &error))?;
        self.drive(&cluster, async {
            self.create_workloads(&cluster).await.map_err(|error| vec![error.to_string()])?;
            cluster.settled(self.convergence).await.map_err(|violations| lines(&violations))
        })?;
        Ok(cluster.image())
    }

    fn run(&self, cluster: &SimCluster, create: bool) -> Result<Report, Box<Failure>> {
        let convergence = self.drive(cluster, async {
            if create {
                self.create_workloads(cluster).await.map_err(|error| vec![error.to_string()])?;
            }
            self.chaos.strike(cluster).await.map_err(|violations| lines(&violations))?;
            cluster.note("no more faults");
            let convergence = cluster.settled(self.convergence).await.map_err(|violations| lines(&violations))?;
            cluster.note("everything is as it should be");
            let noise = cluster.noise_within(self.silence).await;
            if noise.is_empty() { Ok(convergence) } else { Err(noise) }
        })?;
        let (hash, changes) = cluster.history(|history| (history.hash(), history.records().len()));
        Ok(Report { hash, changes, convergence })
    }

    fn drive<T>(
        &self,
        cluster: &SimCluster,
        future: impl Future<Output = Result<T, Vec<String>>>,
    ) -> Result<T, Box<Failure>> {
        let result = cluster.run(future).unwrap_or_else(|stuck| Err(vec![stuck.to_string()]));
        result.map_err(|what| self.failure(cluster.seed(), what, cluster.diary(), cluster.history(History::clone)))
    }

    fn not_built(&self, seed: u64, error: &BuildError) -> Box<Failure> {
        self.failure(seed, vec![error.to_string()], Vec::new(), History::default())
    }

    fn failure(&self, seed: u64, what: Vec<String>, diary: Vec<String>, history: History) -> Box<Failure> {
        Box::new(Failure { seed, replay: self.replay, what, diary, history })
    }

    /// Makes all workloads.
    pub async fn create_workloads(&self, cluster: &SimCluster) -> ApiResult<()> {
        let workloads = [("Deployment", self.deployments), ("StatefulSet", self.stateful_sets)];
        for (kind, (sets, replicas)) in workloads {
            for index in 0..sets {
                let name = format!("{}-{index}", kind.to_lowercase());
                create(cluster, "", "services", service(&name)).await?;
                create(cluster, "apps", plural(kind), workload(kind, &name, replicas, index)).await?;
            }
        }
        let (sets, replicas) = self.replica_sets;
        for index in 0..sets {
            let name = format!("replicaset-{index}");
            create(cluster, "apps", "replicasets", workload("ReplicaSet", &name, replicas, index)).await?;
        }
        Ok(())
    }
}

fn lines<T: fmt::Display>(items: &[T]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

fn plural(kind: &str) -> &'static str {
    match kind {
        "Deployment" => "deployments",
        "StatefulSet" => "statefulsets",
        _ => "replicasets",
    }
}

async fn create(cluster: &SimCluster, group: &'static str, plural: &'static str, tree: Value) -> ApiResult<()> {
    let request = Request {
        user: None,
        resource: Resource::new(group, "v1", plural),
        namespace: Some(NAMESPACE.to_owned()),
        name: None,
        subresource: None,
        call: Call::Create { object: Object::from_tree(tree), options: WriteOptions::default() },
    };
    cluster.client().request(request).await.map(drop)
}

fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80}]},
    })
}

fn workload(kind: &str, name: &str, replicas: usize, index: usize) -> Value {
    let tolerations: Vec<Value> = ["not-ready", "unreachable"]
        .iter()
        .map(|trouble| {
            json!({
                "key": format!("node.kubernetes.io/{trouble}"), "operator": "Exists", "effect": "NoExecute",
                "tolerationSeconds": TOLERATION_SECONDS,
            })
        })
        .collect();
    let mut spec = json!({
        "replicas": replicas,
        "selector": {"matchLabels": {"app": name}},
        "template": {
            "metadata": {"labels": {"app": name}},
            "spec": {
                "tolerations": tolerations,
                "containers": [{
                    "name": "main", "image": "app:1",
                    "resources": {"requests": {"cpu": "250m", "memory": "256Mi"}},
                }],
            },
        },
    });
    if kind == "StatefulSet" {
        spec["serviceName"] = json!(name);
        spec["podManagementPolicy"] = json!(if index.is_multiple_of(2) { "OrderedReady" } else { "Parallel" });
    }
    json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}
