//! Parts that panic: the others go on, the host goes on, and it is told.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use kube::api::{ListParams, PostParams};
use orchestrator::{
    apiserver::{Attributes, Authorizer, Decision, DefaultAuthorizer},
    client::{Api, UserInfo},
    controller::{Action, Caches, Context, Controller, Outcome, Reconciler},
    core::status::ApiError,
    env::{Env, Simulation, TaskEnd},
    k8s_openapi::api::{
        apps::v1::ReplicaSet,
        core::v1::{ConfigMap, Event, Pod},
    },
    object::ObjectKey,
    scheduler::{PodInfo, Scheduler, Snapshot, Unschedulable, Verdict},
};
use tokio_util::sync::CancellationToken;

use crate::{PATIENCE, all_had_their_turn, deployment, machines, on_machines, running};

/// Runs a story in virtual time, and counts the tasks that it leaves.
fn survives<F: Future<Output = ()>>(story: impl Fn(Env) -> F) {
    for seed in 0..5 {
        let simulation = Simulation::new(seed);
        let env = simulation.env();
        simulation.run(story(env.clone())).unwrap();
        simulation.run(all_had_their_turn(&env)).unwrap();
        assert_eq!(simulation.tasks(), 0, "tasks are left");
    }
}

/// Labels every config map, and cannot bear one name.
struct Squeamish;

#[async_trait]
impl Reconciler for Squeamish {
    type Object = ConfigMap;
    type Error = ApiError;

    async fn reconcile(&self, key: &ObjectKey, context: &Context) -> Result<Action, ApiError> {
        assert_ne!(key.name, "spider", "a spider");
        let api: Api<ConfigMap> = Api::namespaced(context.client(), &key.namespace);
        let patch = serde_json::json!({"metadata": {"labels": {"seen": "yes"}}});
        api.patch(&key.name, &Default::default(), &kube::api::Patch::Merge(patch)).await?;
        Ok(Action::Done)
    }
}

#[test]
fn a_reconciler_that_panics_is_told_and_tried_again() {
    survives(|env| async move {
        let cluster = on_machines(&env, &machines(&env, 1)).start().await.unwrap();
        let caches = Caches::new(&cluster.client(), &env);
        let controller = Controller::new("squeamish", &caches).reconciles::<ConfigMap>();
        let (metrics, stop) = (controller.metrics(), CancellationToken::new());
        let task = env.spawn("own controller", controller.run(Squeamish, stop.clone()));
        let api: Api<ConfigMap> = Api::namespaced(&cluster.client(), "default");
        for name in ["ant", "spider", "wasp"] {
            let mut map = ConfigMap::default();
            map.metadata.name = Some(name.to_owned());
            api.create(&PostParams::default(), &map).await.unwrap();
        }
        let seen = ListParams::default().labels("seen=yes");
        env.sleep(Duration::from_secs(60)).await;
        let names = api.list(&seen).await.unwrap().items;
        let names: Vec<_> = names.iter().filter_map(|map| map.metadata.name.as_deref()).collect();
        assert!(names.starts_with(&["ant"]) && names.contains(&"wasp") && !names.contains(&"spider"), "{names:?}");
        assert!(metrics.panics() > 1, "it is tried again");
        api.delete("spider", &Default::default()).await.unwrap();
        assert!(!task.is_finished(), "the loop goes on");

        // The cluster's own controllers have not noticed, nor has the host.
        cluster.apply(&deployment("web", 2)).await.unwrap();
        running(&cluster, 2).await;
        stop.cancel();
        assert_eq!(task.join().await, TaskEnd::Completed);
        caches.shutdown().await;
        cluster.shutdown().await;
    });
}

#[test]
fn the_trace_of_a_run_names_the_panic() {
    survives(|env| async move {
        let cluster = on_machines(&env, &[]).control_plane(false).start().await.unwrap();
        let caches = Caches::new(&cluster.client(), &env);
        let controller = Controller::new("squeamish", &caches).reconciles::<ConfigMap>();
        let (metrics, stop) = (controller.metrics(), CancellationToken::new());
        let task = env.spawn("own controller", controller.run(Squeamish, stop.clone()));
        let spider = "{apiVersion: v1, kind: ConfigMap, metadata: {name: spider, namespace: kube-system}}";
        cluster.apply(spider).await.unwrap();
        env.sleep(Duration::from_secs(5)).await;
        let run = metrics.last_run().expect("it ran");
        assert_eq!(run.key, ObjectKey::new("kube-system", "spider"));
        assert!(matches!(&run.outcome, Outcome::Panicked(message) if message.contains("a spider")), "{run:?}");
        stop.cancel();
        task.join().await;
        caches.shutdown().await;
        cluster.shutdown().await;
    });
}

/// Panics when the deployment controller makes a replica set of one name.
#[derive(Debug)]
struct Trap;

impl Authorizer for Trap {
    fn authorize(&self, user: &UserInfo, attributes: &Attributes<'_>) -> Decision {
        let trapped = attributes.resource == "replicasets" && attributes.verb == "create";
        assert!(!trapped, "the trap closes");
        DefaultAuthorizer.authorize(user, attributes)
    }

    fn authorize_path(&self, user: &UserInfo, verb: &str, path: &str) -> Decision {
        DefaultAuthorizer.authorize_path(user, verb, path)
    }
}

#[test]
fn a_controller_of_the_cluster_that_panics_leaves_the_others() {
    survives(|env| async move {
        let builder = on_machines(&env, &machines(&env, 1)).authorizer(Arc::new(Trap));
        let cluster = builder.start().await.unwrap();
        cluster.apply(&deployment("trapped", 2)).await.unwrap();
        let set = deployment("set", 2).replace("kind: Deployment", "kind: StatefulSet");
        cluster.apply(&set.replace("spec: {replicas", "spec: {serviceName: set, replicas")).await.unwrap();
        running(&cluster, 2).await;
        env.sleep(Duration::from_secs(30)).await;
        let sets: Api<ReplicaSet> = Api::all(&cluster.client());
        assert!(sets.list(&ListParams::default()).await.unwrap().items.is_empty(), "the trap holds");
        cluster.shutdown().await;
    });
}

/// Runs everything on the first node, and panics at one name.
pub(crate) struct Fragile;

impl Scheduler for Fragile {
    fn schedule(&self, pod: &PodInfo, cluster: &Snapshot, _tie: u64) -> Verdict {
        assert_ne!(pod.key().name, "poison", "cannot swallow this");
        match cluster.nodes().next() {
            Some(node) => Verdict::Node(node.name().to_owned()),
            None => Unschedulable::new(0).into(),
        }
    }
}

impl fmt::Debug for Fragile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fragile")
    }
}

#[test]
fn a_scheduler_that_panics_refuses_one_pod_and_places_the_others() {
    survives(|env| async move {
        let builder = on_machines(&env, &machines(&env, 1)).scheduler(Box::new(Fragile));
        let cluster = builder.start().await.unwrap();
        let poison = "{apiVersion: v1, kind: Pod, metadata: {name: poison}, spec: {containers: [{name: a, image: a}]}}";
        cluster.apply(poison).await.unwrap();
        let told =
            |pods: &[Arc<Pod>]| pods.iter().filter_map(|pod| refusal(pod)).any(|it| it.contains("cannot swallow"));
        cluster.wait_until("default", PATIENCE, told).await.expect("the pod says why");
        cluster.apply(&deployment("food", 3)).await.unwrap();
        running(&cluster, 3).await;
        let warned = |events: &[Arc<Event>]| events.iter().any(|it| it.reason.as_deref() == Some("FailedScheduling"));
        cluster.wait_until("default", PATIENCE, warned).await.expect("an event tells, too");
        cluster.shutdown().await;
    });
}

/// Why a pod has no node.
fn refusal(pod: &Pod) -> Option<&str> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|it| it.type_ == "PodScheduled" && it.status == "False")?.message.as_deref()
}
