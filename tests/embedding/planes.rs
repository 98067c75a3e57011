//! Several control planes on one store, in virtual time: one works, all serve, and another takes over in the middle of work.

use std::{sync::Arc, time::Duration};

use kube::api::{ListParams, PostParams};
use orchestrator::{
    Cluster, ClusterBuilder, ClusterKeys, NodeSpec, StartError,
    client::Api,
    core::node_connector::NodeDirectory,
    env::{Env, Simulation},
    k8s_openapi::api::{
        apps::v1::Deployment,
        authentication::v1::{TokenRequest, TokenReview},
        coordination::v1::Lease,
        core::v1::{Pod, ServiceAccount},
    },
    runtime_sim::SimMachine,
    store_mem::MemStore,
};
use serde_json::json;

use crate::{PATIENCE, machines, nodes_are_ready, panics::Fragile};

const REPLICAS: usize = 8;
const LEASES: [&str; 2] = ["kube-controller-manager", "kube-scheduler"];

/// What control planes have in common.
struct Common {
    env: Env,
    store: Arc<MemStore>,
    keys: ClusterKeys,
    directory: NodeDirectory,
}

impl Common {
    fn new(env: &Env) -> Self {
        Self {
            env: env.clone(),
            store: Arc::new(MemStore::new(env)),
            keys: ClusterKeys::generate().unwrap(),
            directory: NodeDirectory::default(),
        }
    }

    fn plane(&self, name: &str) -> ClusterBuilder {
        Cluster::builder()
            .env(&self.env)
            .store(self.store.clone())
            .keys(&self.keys)
            .node_directory(&self.directory)
            .leader_election(name)
    }
}

fn deployment(image: &str) -> Deployment {
    let template = json!({
        "metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "main", "image": image}]},
    });
    let spec = json!({"replicas": REPLICAS, "selector": {"matchLabels": {"app": "web"}}, "template": template});
    serde_json::from_value(json!({"metadata": {"name": "web"}, "spec": spec})).unwrap()
}

fn runs(pod: &Pod, image: &str) -> bool {
    let is_of = pod.spec.as_ref().is_some_and(|spec| spec.containers[0].image.as_deref() == Some(image));
    is_of && pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Running"))
}

/// Waits until all pods run this image, and no other pod is there.
async fn rolled_out(plane: &Cluster, image: &str) {
    let all = |pods: &[Arc<Pod>]| pods.len() == REPLICAS && pods.iter().all(|pod| runs(pod, image));
    plane.wait_until::<Pod>("default", 2 * PATIENCE, all).await.unwrap();
}

/// Who holds the leases, as a plane sees it.
async fn leaders(plane: &Cluster) -> Vec<String> {
    let leases = Api::<Lease>::namespaced(&plane.client(), "kube-system");
    let mut holders = Vec::new();
    for name in LEASES {
        let lease = leases.get(name).await.unwrap();
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone()).unwrap_or_default();
        holders.push(holder.split('_').next().unwrap_or_default().to_owned());
    }
    holders
}

fn story<F: Future<Output = ()>>(seed: u64, story: impl FnOnce(Common, Vec<SimMachine>) -> F) {
    let simulation = Simulation::new(seed);
    let env = simulation.env();
    let told = simulation.run(async { story(Common::new(&env), machines(&env, 2)).await });
    told.unwrap_or_else(|stuck| panic!("seed {seed}: {stuck}"));
}

#[test]
fn another_plane_takes_over_in_the_middle_of_a_rollout() {
    for seed in 0..20 {
        story(seed, |common, machines| async move {
            let first = common.plane("first").start().await.unwrap();
            common.env.sleep(Duration::from_secs(5)).await;
            let second = common.plane("second").start().await.unwrap();
            let mut third = common.plane("third");
            for (index, machine) in machines.iter().enumerate() {
                third = third.node(NodeSpec::new(format!("node-{index}"), Arc::new(machine.runtime())));
            }
            let third = third.start().await.unwrap();
            nodes_are_ready(&second, 2).await;
            assert_eq!(leaders(&second).await, ["first", "first"]);

            let deployments = Api::<Deployment>::namespaced(&second.client(), "default");
            deployments.create(&PostParams::default(), &deployment("one")).await.unwrap();
            rolled_out(&third, "one").await;
            second.apply(&serde_json::to_string(&with_type(deployment("two"))).unwrap()).await.unwrap();
            let begun = |pods: &[Arc<Pod>]| pods.iter().any(|pod| runs(pod, "two"));
            third.wait_until::<Pod>("default", PATIENCE, begun).await.unwrap();
            drop(first);
            rolled_out(&second, "two").await;
            assert!(leaders(&third).await.iter().all(|leader| leader != "first"));

            second.shutdown().await;
            let pods = Api::<Pod>::namespaced(&third.client(), "default");
            assert_eq!(pods.list(&ListParams::default()).await.unwrap().items.len(), REPLICAS);
            common.env.sleep(Duration::from_secs(30)).await;
            assert_eq!(leaders(&third).await, ["third", "third"]);
            third.shutdown().await;
        });
    }
}

/// A manifest of a deployment.
fn with_type(deployment: Deployment) -> serde_json::Value {
    let mut tree = serde_json::to_value(deployment).unwrap();
    tree["apiVersion"] = json!("apps/v1");
    tree["kind"] = json!("Deployment");
    tree
}

#[test]
fn what_one_plane_signs_all_with_its_keys_believe() {
    story(1, |common, _| async move {
        let (one, other) = (common.plane("one").start().await.unwrap(), common.plane("other").start().await.unwrap());
        let stranger = Cluster::builder().env(&common.env).store(common.store.clone()).start().await.unwrap();
        let accounts = Api::<ServiceAccount>::namespaced(&one.client(), "default");
        one.wait_until::<ServiceAccount>("default", PATIENCE, |found| !found.is_empty()).await.unwrap();
        let issued = accounts.create_subresource("token", "default", &TokenRequest::default()).await.unwrap();
        let token = issued.status.as_ref().unwrap().token.clone();
        let authenticated = async |plane: &Cluster| {
            let review = json!({"metadata": {}, "spec": {"token": token}});
            let review: TokenReview = serde_json::from_value(review).unwrap();
            let reviews = Api::<TokenReview>::all(&plane.client());
            let answer = reviews.create(&PostParams::default(), &review).await.unwrap();
            answer.status.as_ref().and_then(|status| status.authenticated).unwrap_or_default()
        };
        assert!(authenticated(&one).await && authenticated(&other).await);
        assert!(!authenticated(&stranger).await, "keys of its own");
        for plane in [one, other, stranger] {
            plane.shutdown().await;
        }
    });
}

#[test]
fn an_own_scheduler_does_not_stand() {
    story(1, |common, _| async move {
        let own = common.plane("one").scheduler(Box::new(Fragile));
        assert!(matches!(own.start().await, Err(StartError::ElectedScheduler)));
        let times = [1, 2, 3].map(Duration::from_secs);
        let wrong = common.plane("one").leader_election_with("one", times[0], times[1], times[2]);
        assert!(matches!(wrong.start().await, Err(StartError::Election(_))));
    });
}
