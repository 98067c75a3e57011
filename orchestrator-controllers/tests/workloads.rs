//! Deployments, replica sets, stateful sets and claims, together, against a fake API server in virtual time.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use async_trait::async_trait;
use k8s_openapi::api::{
    apps::v1::{ControllerRevision, Deployment, ReplicaSet, StatefulSet},
    core::v1::{Event, PersistentVolume, PersistentVolumeClaim, Pod},
    storage::v1::StorageClass,
};
use kube_core::params::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use orchestrator_controllers::{Controllers, Options};
use orchestrator_core::{
    client::{Api, Client, Resource, ResourceDiscovery, ResourceInfo},
    controller::{Caches, Kind},
    env::{Env, Simulation},
    meta,
    status::ApiResult,
};
use orchestrator_testkit::fake_api::FakeApi;
use serde_json::{Value, json};

/// These controllers ask for no kinds.
#[derive(Debug)]
struct Nothing;

#[async_trait]
impl ResourceDiscovery for Nothing {
    async fn resources(&self) -> ApiResult<Vec<ResourceInfo>> {
        Ok(Vec::new())
    }
}

const CONTROLLERS: [&str; 6] = [
    "deployment-controller",
    "persistentvolume-binder-controller",
    "persistentvolume-protection-controller",
    "persistentvolumeclaim-protection-controller",
    "replicaset-controller",
    "statefulset-controller",
];

struct World {
    env: Env,
    server: FakeApi,
    client: Client,
}

impl World {
    fn api<K: Kind>(&self) -> Api<K> {
        let namespaced = !["persistentvolumes", "storageclasses"].contains(&&*K::plural(&()));
        Api::of_resource(&self.client, Resource::of::<K>(&()), namespaced.then(|| "default".to_owned()))
    }

    async fn create<K: Kind>(&self, tree: Value) -> Arc<K> {
        let object: K = serde_json::from_value(tree).unwrap();
        self.api::<K>().create(&PostParams::default(), &object).await.unwrap()
    }

    async fn patch<K: Kind>(&self, name: &str, body: Value) {
        self.api::<K>().patch(name, &PatchParams::default(), &Patch::Merge(body)).await.unwrap();
    }

    async fn get<K: Kind>(&self, name: &str) -> Arc<K> {
        self.api::<K>().get(name).await.unwrap()
    }

    async fn list<K: Kind>(&self) -> Vec<Arc<K>> {
        self.api::<K>().list(&ListParams::default()).await.unwrap().items
    }

    async fn names<K: Kind>(&self) -> Vec<String> {
        self.list::<K>().await.iter().map(|object| meta::name(object.meta()).to_owned()).collect()
    }

    async fn reasons(&self) -> BTreeSet<String> {
        self.list::<Event>().await.iter().filter_map(|event| event.reason.clone()).collect()
    }

    /// Lets controllers and nodes work for this many seconds.
    async fn work(&self, seconds: usize) {
        for _ in 0..seconds {
            self.env.sleep(Duration::from_secs(1)).await;
            for pod in self.list::<Pod>().await {
                if pod.status.as_ref().is_none_or(|status| status.phase.is_none()) {
                    let ready = json!([{"type": "Ready", "status": "True"}]);
                    let status = json!({"status": {"phase": "Running", "conditions": ready}});
                    let patch = Patch::Merge(status);
                    let _ = self
                        .api::<Pod>()
                        .patch_status(meta::name(&pod.metadata), &PatchParams::default(), &patch)
                        .await;
                }
            }
        }
    }

    fn count(&self, write: &str) -> usize {
        self.server.writes().iter().filter(|one| one.starts_with(write)).count()
    }
}

fn simulate(test: impl AsyncFn(&World)) {
    for seed in 0..4 {
        let simulation = Simulation::new(seed);
        let env = simulation.env();
        let server = FakeApi::new(&env);
        let world = World { client: server.client(), env: env.clone(), server };
        let caches = Caches::new(&world.client, &env);
        let mut options = Options::default();
        options.local_volumes = Some("/volumes".into());
        let builder = Controllers::builder(&caches, Arc::new(Nothing)).controllers(&CONTROLLERS).unwrap();
        let controllers = builder.options(options).start();
        let done = simulation.run(async {
            test(&world).await;
            let states = controllers.states();
            assert!(states.values().all(|state| state.running && state.restarts == 0), "{states:?}");
            let writes = world.server.writes().len();
            world.work(30).await;
            let again = world.server.writes().split_off(writes);
            let busy: Vec<_> = again.iter().filter(|write| !write.contains("events")).collect();
            assert!(busy.is_empty(), "settled controllers are silent: {busy:?}");
            controllers.shutdown().await;
            caches.shutdown().await;
        });
        done.unwrap_or_else(|stuck| panic!("seed {seed}: {stuck}"));
    }
}

fn spec(image: &str) -> Value {
    json!({
        "selector": {"matchLabels": {"app": "a"}},
        "template": {
            "metadata": {"labels": {"app": "a"}},
            "spec": {"containers": [{"name": "c", "image": image}]},
        },
    })
}

fn workload(name: &str, replicas: i32, image: &str) -> Value {
    let mut spec = spec(image);
    spec["replicas"] = replicas.into();
    json!({"metadata": {"name": name}, "spec": spec})
}

fn images(pods: &[Arc<Pod>]) -> BTreeSet<String> {
    pods.iter().filter_map(|pod| pod.spec.as_ref()?.containers[0].image.clone()).collect()
}

#[test]
fn a_replica_set_adopts_releases_and_replaces() {
    simulate(async |world| {
        let orphan = |name: &str| json!({"metadata": {"name": name, "labels": {"app": "a"}}});
        world.create::<Pod>(orphan("p1")).await;
        world.create::<Pod>(orphan("p2")).await;
        world.work(2).await;
        world.create::<ReplicaSet>(workload("r", 5, "v1")).await;
        world.work(5).await;
        assert_eq!((world.list::<Pod>().await.len(), world.count("create pods")), (5, 2 + 3));
        world.patch::<Pod>("p1", json!({"metadata": {"labels": {"app": "b"}}})).await;
        world.api::<Pod>().delete("p2", &DeleteParams::default()).await.unwrap();
        world.work(5).await;
        let released = world.get::<Pod>("p1").await;
        assert!(meta::controller_of(&released.metadata).is_none());
        assert_eq!(world.list::<Pod>().await.len(), 6);
        world.patch::<ReplicaSet>("r", json!({"spec": {"replicas": 2}})).await;
        world.work(5).await;
        assert_eq!((world.list::<Pod>().await.len(), world.count("create pods")), (3, 7));
        let status = serde_json::to_value(&world.get::<ReplicaSet>("r").await.status).unwrap();
        let expected = json!({
            "replicas": 2, "fullyLabeledReplicas": 2, "readyReplicas": 2, "availableReplicas": 2,
            "terminatingReplicas": 0, "observedGeneration": 2,
        });
        assert_eq!(status, expected);
        let reasons = world.reasons().await;
        assert!(["SuccessfulCreate", "SuccessfulDelete"].iter().all(|reason| reasons.contains(*reason)), "{reasons:?}");
    });
}

#[test]
fn a_deployment_rolls_and_rolls_back() {
    simulate(async |world| {
        let mut tree = workload("d", 4, "v1");
        tree["spec"]["progressDeadlineSeconds"] = 600.into();
        world.create::<Deployment>(tree).await;
        world.work(10).await;
        for (image, revision) in [("v2", "2"), ("v1", "3")] {
            let containers = json!([{"name": "c", "image": image}]);
            let patch = json!({"spec": {"template": {"spec": {"containers": containers}}}});
            world.patch::<Deployment>("d", patch).await;
            world.work(30).await;
            let pods = world.list::<Pod>().await;
            assert_eq!((pods.len(), images(&pods)), (4, [image.to_owned()].into()));
            let deployment = world.get::<Deployment>("d").await;
            assert_eq!(meta::annotation(&deployment.metadata, "deployment.kubernetes.io/revision"), Some(revision));
            let conditions = deployment.status.clone().unwrap().conditions.unwrap();
            let progressing = meta::condition(&conditions, "Progressing").unwrap();
            assert_eq!(progressing.reason.as_deref(), Some("NewReplicaSetAvailable"));
        }
        assert_eq!(world.list::<ReplicaSet>().await.len(), 2);
        assert_eq!(world.count("create pods"), 12, "no pod is made twice");
        assert!(world.reasons().await.contains("ScalingReplicaSet"));
    });
}

#[test]
fn a_stateful_set_keeps_identities_and_claims() {
    simulate(async |world| {
        let class = json!({
            "metadata": {"name": "local", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
            "provisioner": "orchestrator.local/directory", "reclaimPolicy": "Delete",
        });
        world.create::<StorageClass>(class).await;
        let mut tree = workload("s", 3, "v1");
        tree["spec"]["serviceName"] = "s".into();
        let resources = json!({"requests": {"storage": "1Gi"}});
        let claim = json!({"accessModes": ["ReadWriteOnce"], "resources": resources});
        tree["spec"]["volumeClaimTemplates"] = json!([{"metadata": {"name": "w"}, "spec": claim}]);
        world.create::<StatefulSet>(tree).await;
        world.work(10).await;
        assert_eq!(world.names::<Pod>().await, ["s-0", "s-1", "s-2"]);
        let containers = json!([{"name": "c", "image": "v2"}]);
        world.patch::<StatefulSet>("s", json!({"spec": {"template": {"spec": {"containers": containers}}}})).await;
        world.work(20).await;
        assert_eq!(images(&world.list().await), ["v2".to_owned()].into());
        world.patch::<StatefulSet>("s", json!({"spec": {"replicas": 1}})).await;
        world.work(10).await;
        assert_eq!(world.names::<Pod>().await, ["s-0"]);
        assert_eq!(world.names::<PersistentVolumeClaim>().await, ["w-s-0", "w-s-1", "w-s-2"]);
        assert_eq!(world.list::<ControllerRevision>().await.len(), 2);
        let set = world.get::<StatefulSet>("s").await.status.clone().unwrap();
        assert_eq!((set.replicas, set.available_replicas, set.current_revision), (1, Some(1), set.update_revision));
        let claim = world.get::<PersistentVolumeClaim>("w-s-1").await;
        assert_eq!(claim.status.as_ref().and_then(|status| status.phase.as_deref()), Some("Bound"));
        let volume = claim.spec.as_ref().and_then(|spec| spec.volume_name.clone()).unwrap();
        assert_eq!(volume, format!("pvc-{}", meta::uid(&claim.metadata)));
        world.api::<PersistentVolumeClaim>().delete("w-s-1", &DeleteParams::default()).await.unwrap();
        world.work(5).await;
        assert_eq!(world.names::<PersistentVolumeClaim>().await, ["w-s-0", "w-s-2"]);
        assert!(!world.names::<PersistentVolume>().await.contains(&volume));
        assert!(world.reasons().await.contains("ProvisioningSucceeded"));
    });
}

#[test]
fn a_claim_takes_an_existing_volume_and_leaves_it_released() {
    simulate(async |world| {
        let spec = json!({
            "accessModes": ["ReadWriteOnce"], "storageClassName": "", "capacity": {"storage": "2Gi"},
            "hostPath": {"path": "/data"}, "persistentVolumeReclaimPolicy": "Retain",
        });
        world.create::<PersistentVolume>(json!({"metadata": {"name": "v"}, "spec": spec})).await;
        let phase = async || world.get::<PersistentVolume>("v").await.status.clone().and_then(|status| status.phase);
        world.work(2).await;
        assert_eq!(phase().await.as_deref(), Some("Available"));
        let resources = json!({"requests": {"storage": "1Gi"}});
        let spec = json!({"accessModes": ["ReadWriteOnce"], "storageClassName": "", "resources": resources});
        world.create::<PersistentVolumeClaim>(json!({"metadata": {"name": "c"}, "spec": spec})).await;
        world.work(3).await;
        assert_eq!(phase().await.as_deref(), Some("Bound"));
        let claim = world.get::<PersistentVolumeClaim>("c").await;
        assert_eq!(serde_json::to_value(&claim.status).unwrap()["capacity"]["storage"], "2Gi");
        world.api::<PersistentVolumeClaim>().delete("c", &DeleteParams::default()).await.unwrap();
        world.work(3).await;
        assert_eq!(phase().await.as_deref(), Some("Released"));
    });
}
