//! Daemon sets, jobs, cron jobs, budgets, quotas and endpoints, together, against a fake API server in virtual time.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use async_trait::async_trait;
use k8s_openapi::api::{
    apps::v1::{ControllerRevision, DaemonSet, ReplicaSet},
    batch::v1::{CronJob, Job},
    core::v1::{ConfigMap, Endpoints, Event, Node, Pod, ResourceQuota, Service},
    discovery::v1::EndpointSlice,
    policy::v1::PodDisruptionBudget,
};
use kube_core::params::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use orchestrator_controllers::Controllers;
use orchestrator_core::{
    client::{Api, Client, Resource, ResourceDiscovery, ResourceInfo},
    controller::{Caches, Kind},
    env::{Env, Simulation},
    meta,
    status::ApiResult,
};
use orchestrator_testkit::fake_api::FakeApi;
use serde_json::{Value, json};

/// Quotas count configuration maps.
#[derive(Debug)]
struct Served;

#[async_trait]
impl ResourceDiscovery for Served {
    async fn resources(&self) -> ApiResult<Vec<ResourceInfo>> {
        let resource = Resource::of::<ConfigMap>(&());
        let verbs = ["list", "watch"].map(str::to_owned).to_vec();
        Ok(vec![ResourceInfo { resource, kind: "ConfigMap".to_owned(), namespaced: true, verbs }])
    }
}

const CONTROLLERS: [&str; 10] = [
    "cronjob-controller",
    "daemonset-controller",
    "disruption-controller",
    "endpoints-controller",
    "endpointslice-controller",
    "endpointslice-mirroring-controller",
    "job-controller",
    "replicaset-controller",
    "resourcequota-controller",
    "ttl-after-finished-controller",
];

struct World {
    env: Env,
    server: FakeApi,
    client: Client,
}

impl World {
    fn api<K: Kind>(&self) -> Api<K> {
        let namespaced = K::plural(&()) != "nodes";
        Api::of_resource(&self.client, Resource::of::<K>(&()), namespaced.then(|| "default".to_owned()))
    }

    async fn create<K: Kind>(&self, tree: Value) -> Arc<K> {
        let object: K = serde_json::from_value(tree).unwrap();
        self.api::<K>().create(&PostParams::default(), &object).await.unwrap()
    }

    async fn patch<K: Kind>(&self, name: &str, body: Value) {
        self.api::<K>().patch(name, &PatchParams::default(), &Patch::Merge(body)).await.unwrap();
    }

    async fn patch_status<K: Kind>(&self, name: &str, status: Value) {
        let body = Patch::Merge(json!({"status": status}));
        self.api::<K>().patch_status(name, &PatchParams::default(), &body).await.unwrap();
    }

    async fn delete<K: Kind>(&self, name: &str) {
        self.api::<K>().delete(name, &DeleteParams::default()).await.unwrap();
    }

    async fn get<K: Kind>(&self, name: &str) -> Arc<K> {
        self.api::<K>().get(name).await.unwrap()
    }

    async fn status<K: Kind>(&self, name: &str) -> Value {
        serde_json::to_value(&*self.get::<K>(name).await).unwrap()["status"].clone()
    }

    async fn list<K: Kind>(&self) -> Vec<Arc<K>> {
        self.api::<K>().list(&ListParams::default()).await.unwrap().items
    }

    async fn reasons(&self) -> BTreeSet<String> {
        self.list::<Event>().await.iter().filter_map(|event| event.reason.clone()).collect()
    }

    fn count(&self, write: &str) -> usize {
        self.server.writes().iter().filter(|one| one.starts_with(write)).count()
    }

    /// Lets controllers and nodes work for this many seconds.
    async fn work(&self, seconds: usize) {
        for _ in 0..seconds {
            self.env.sleep(Duration::from_secs(1)).await;
            for (number, pod) in self.list::<Pod>().await.iter().enumerate() {
                if pod.status.as_ref().is_none_or(|status| status.phase.is_none()) {
                    self.run(pod, number).await;
                }
            }
        }
    }

    /// A pod is ready at once, or ends as its annotation says.
    async fn run(&self, pod: &Pod, number: usize) {
        let now = self.env.now().to_string();
        let status = match meta::annotation(&pod.metadata, "exit") {
            None => json!({
                "phase": "Running", "podIP": format!("10.1.0.{number}"),
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": now}],
            }),
            Some(code) => json!({
                "phase": if code == "0" { "Succeeded" } else { "Failed" },
                "containerStatuses": [{
                    "name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                    "state": {"terminated": {"exitCode": code.parse::<i32>().unwrap(), "finishedAt": now}},
                }],
            }),
        };
        self.patch_status::<Pod>(meta::name(&pod.metadata), status).await;
    }
}

fn simulate(test: impl AsyncFn(&World)) {
    for seed in 0..4 {
        let simulation = Simulation::new(seed);
        let env = simulation.env();
        let server = FakeApi::new(&env);
        let world = World { client: server.client(), env: env.clone(), server };
        let caches = Caches::new(&world.client, &env);
        let builder = Controllers::builder(&caches, Arc::new(Served)).controllers(&CONTROLLERS).unwrap();
        let controllers = builder.start();
        let done = simulation.run(async {
            test(&world).await;
            let states = controllers.states();
            assert!(states.values().all(|state| state.running && state.restarts == 0), "{states:?}");
            world.work(5).await;
            let writes = world.server.writes().len();
            world.work(20).await;
            let again = world.server.writes().split_off(writes);
            let busy: Vec<_> = again.iter().filter(|write| !write.contains("events")).collect();
            assert!(busy.is_empty(), "settled controllers are silent: {busy:?}");
            controllers.shutdown().await;
            caches.shutdown().await;
        });
        done.unwrap_or_else(|stuck| panic!("seed {seed}: {stuck}"));
    }
}

fn template(image: &str, exit: Option<&str>) -> Value {
    let annotations = exit.map(|exit| json!({"exit": exit}));
    json!({
        "metadata": {"labels": {"app": "a"}, "annotations": annotations},
        "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": image}]},
    })
}

fn selector() -> Value {
    json!({"matchLabels": {"app": "a"}})
}

fn daemons(rolling: Value) -> Value {
    json!({"metadata": {"name": "d"}, "spec": {
        "selector": selector(), "template": template("v1", None),
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": rolling},
    }})
}

async fn nodes(world: &World, names: &[&str]) {
    for name in names {
        world.create::<Node>(json!({"metadata": {"name": name}})).await;
    }
}

#[test]
fn a_daemon_set_follows_the_nodes() {
    simulate(async |world| {
        nodes(world, &["n1", "n2"]).await;
        world.create::<DaemonSet>(daemons(json!({"maxUnavailable": 1}))).await;
        world.work(3).await;
        assert_eq!(world.list::<Pod>().await.len(), 2);
        nodes(world, &["n3"]).await;
        let taint = json!([{"key": "k", "effect": "NoExecute"}]);
        world.patch::<Node>("n1", json!({"spec": {"taints": taint}})).await;
        world.work(3).await;
        let status = world.status::<DaemonSet>("d").await;
        let expected = json!({
            "currentNumberScheduled": 2, "desiredNumberScheduled": 2, "numberAvailable": 2, "numberMisscheduled": 0,
            "numberReady": 2, "observedGeneration": 1, "updatedNumberScheduled": 2,
        });
        assert_eq!(status, expected);
        assert_eq!(world.count("create pods"), 3, "no pod is made twice");
        let failed = world.list::<Pod>().await[0].clone();
        world.patch_status::<Pod>(meta::name(&failed.metadata), json!({"phase": "Failed"})).await;
        world.work(3).await;
        assert_eq!((world.list::<Pod>().await.len(), world.count("create pods")), (2, 4));
        assert!(world.reasons().await.contains("FailedDaemonPod"));
    });
}

#[test]
fn a_daemon_set_rolls_and_rolls_back() {
    for rolling in [json!({"maxUnavailable": 1}), json!({"maxSurge": 1, "maxUnavailable": 0})] {
        simulate(async |world| {
            nodes(world, &["n1", "n2", "n3"]).await;
            world.create::<DaemonSet>(daemons(rolling.clone())).await;
            world.work(5).await;
            for (image, revision) in [("v2", 2), ("v1", 3)] {
                world.patch::<DaemonSet>("d", json!({"spec": {"template": template(image, None)}})).await;
                world.work(15).await;
                let pods = world.list::<Pod>().await;
                let images: BTreeSet<_> =
                    pods.iter().filter_map(|pod| pod.spec.as_ref()?.containers[0].image.as_deref()).collect();
                assert_eq!((pods.len(), images), (3, [image].into()));
                let revisions = world.list::<ControllerRevision>().await;
                assert_eq!(revisions.len(), 2);
                assert_eq!(revisions.iter().map(|one| one.revision).max(), Some(revision));
            }
            assert_eq!(world.count("create pods"), 9, "no pod is made twice");
        });
    }
}

fn job(name: &str, exit: &str, more: &Value) -> Value {
    let mut spec = json!({
        "selector": selector(), "template": template("v1", Some(exit)), "completions": 3, "parallelism": 2,
        "backoffLimit": 2,
    });
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    json!({"metadata": {"name": name}, "spec": spec})
}

#[test]
fn a_job_completes_and_goes_when_its_time_is_over() {
    simulate(async |world| {
        world.create::<Job>(job("j", "0", &json!({"ttlSecondsAfterFinished": 20}))).await;
        world.work(10).await;
        let status = world.status::<Job>("j").await;
        assert_eq!((&status["succeeded"], &status["conditions"][1]["type"]), (&json!(3), &json!("Complete")));
        let pods = world.list::<Pod>().await;
        assert_eq!((pods.len(), world.count("create pods")), (3, 3));
        assert!(pods.iter().all(|pod| pod.metadata.finalizers.is_none()));
        assert!(world.reasons().await.contains("Completed"));
        world.work(20).await;
        let going = world.get::<Job>("j").await;
        assert_eq!(going.metadata.finalizers.as_deref(), Some(&["foregroundDeletion".to_owned()][..]));
    });
}

#[test]
fn a_job_fails_after_pauses_and_an_indexed_one_names_its_indexes() {
    simulate(async |world| {
        world.create::<Job>(job("j", "1", &json!({"parallelism": 1, "backoffLimit": 1}))).await;
        world.work(5).await;
        assert_eq!(world.count("create pods"), 1);
        world.work(15).await;
        let status = world.status::<Job>("j").await;
        assert_eq!(
            (&status["failed"], &status["conditions"][1]["reason"]),
            (&json!(2), &json!("BackoffLimitExceeded"))
        );
        world.create::<Job>(job("i", "0", &json!({"completionMode": "Indexed"}))).await;
        world.work(10).await;
        assert_eq!(world.status::<Job>("i").await["completedIndexes"], "0-2");
    });
}

#[test]
fn pods_of_a_job_that_is_gone_are_let_go() {
    simulate(async |world| {
        let mut template = template("v1", None);
        template["metadata"]["finalizers"] = json!(["example.com/slow"]);
        world.create::<Job>(job("j", "0", &json!({"template": template}))).await;
        world.work(3).await;
        world.delete::<Job>("j").await;
        world.work(3).await;
        let pods = world.list::<Pod>().await;
        assert_eq!(pods.len(), 2);
        let slow = &["example.com/slow".to_owned()][..];
        assert!(pods.iter().all(|pod| pod.metadata.finalizers.as_deref() == Some(slow)), "{pods:?}");
    });
}

#[test]
fn a_cron_job_serves_each_minute_once() {
    simulate(async |world| {
        let template = json!({"spec": job("", "0", &json!({"completions": 1}))["spec"]});
        let spec = json!({
            "schedule": "* * * * *", "concurrencyPolicy": "Forbid", "successfulJobsHistoryLimit": 2,
            "failedJobsHistoryLimit": 1, "jobTemplate": template,
        });
        world.create::<CronJob>(json!({"metadata": {"name": "c"}, "spec": spec})).await;
        world.work(310).await;
        assert_eq!(world.count("create jobs"), 5, "one each minute");
        assert_eq!(world.list::<Job>().await.len(), 2);
        let status = world.status::<CronJob>("c").await;
        assert_eq!(status["active"], Value::Null);
        assert!(status["lastSuccessfulTime"].is_string() && status["lastScheduleTime"].is_string());
        let reasons = world.reasons().await;
        for reason in ["SuccessfulCreate", "SawCompletedJob", "SuccessfulDelete"] {
            assert!(reasons.contains(reason), "{reasons:?}");
        }
        world.patch::<CronJob>("c", json!({"spec": {"suspend": true}})).await;
        world.work(120).await;
        assert_eq!(world.count("create jobs"), 5);
    });
}

fn replicas(count: i32) -> Value {
    let template = template("v1", None);
    json!({"metadata": {"name": "r"}, "spec": {"replicas": count, "selector": selector(), "template": template}})
}

#[test]
fn budgets_and_quotas_follow_the_pods() {
    simulate(async |world| {
        let hard = json!({"pods": "5", "configmaps": "3", "requests.cpu": "1"});
        world.create::<ResourceQuota>(json!({"metadata": {"name": "q"}, "spec": {"hard": hard}})).await;
        world
            .create::<PodDisruptionBudget>(
                json!({"metadata": {"name": "b"}, "spec": {"selector": selector(), "maxUnavailable": 1}}),
            )
            .await;
        world.create::<ReplicaSet>(replicas(3)).await;
        world.create::<ConfigMap>(json!({"metadata": {"name": "m"}})).await;
        world.work(5).await;
        let used = json!({"pods": "3", "configmaps": "1", "requests.cpu": "0"});
        assert_eq!(world.status::<ResourceQuota>("q").await["used"], used);
        let status = world.status::<PodDisruptionBudget>("b").await;
        assert_eq!((&status["expectedPods"], &status["disruptionsAllowed"]), (&json!(3), &json!(1)));
        assert_eq!(status["conditions"][0]["reason"], "SufficientPods");
        world.create::<ConfigMap>(json!({"metadata": {"name": "n"}})).await;
        world.create::<Pod>(json!({"metadata": {"name": "alone", "labels": {"app": "b"}}})).await;
        world.patch::<PodDisruptionBudget>("b", json!({"spec": {"maxUnavailable": 0}})).await;
        world.work(3).await;
        assert_eq!(world.status::<ResourceQuota>("q").await["used"]["configmaps"], "2");
        assert_eq!(world.status::<ResourceQuota>("q").await["used"]["pods"], "4");
        assert_eq!(world.status::<PodDisruptionBudget>("b").await["conditions"][0]["reason"], "InsufficientPods");
    });
}

#[test]
fn endpoints_follow_services_and_slices_follow_endpoints() {
    simulate(async |world| {
        let ports = json!([{"port": 80, "targetPort": 8080}]);
        let spec = json!({"selector": {"app": "a"}, "ports": ports, "clusterIP": "10.0.0.1"});
        world.create::<Service>(json!({"metadata": {"name": "s"}, "spec": spec})).await;
        world.create::<ReplicaSet>(replicas(2)).await;
        world.work(5).await;
        let endpoints = world.get::<Endpoints>("s").await;
        let subset = &endpoints.subsets.as_ref().unwrap()[0];
        assert_eq!((subset.addresses.as_ref().unwrap().len(), subset.ports.as_ref().unwrap()[0].port), (2, 8080));
        let subsets = json!([{"addresses": [{"ip": "192.0.2.7"}], "ports": [{"port": 80}]}]);
        world.create::<Endpoints>(json!({"metadata": {"name": "m"}, "subsets": subsets})).await;
        world.work(2).await;
        assert_eq!(world.list::<EndpointSlice>().await.len(), 1, "there is no service yet, and nobody deletes them");
        world.create::<Service>(json!({"metadata": {"name": "m"}, "spec": {"ports": ports}})).await;
        world.work(2).await;
        assert_eq!(world.list::<EndpointSlice>().await.len(), 2);
        world.delete::<Service>("m").await;
        world.delete::<Service>("s").await;
        world.work(2).await;
        assert!(world.list::<Endpoints>().await.is_empty());
        assert_eq!(world.list::<EndpointSlice>().await.len(), 1, "the garbage collector has the rest");
    });
}
