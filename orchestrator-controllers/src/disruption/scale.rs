//! How many pods the owners of pods want to have.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet, StatefulSet},
        autoscaling::v1::Scale,
        core::v1::{Pod, ReplicationController},
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube_core::DynamicObject;
use orchestrator_core::{
    client::{Api, Resource, ResourceDiscovery},
    controller::{Cache, Caches, Context, Kind},
    meta::{self, controller_of},
    object::ObjectKey,
    status::{ApiError, ApiResult, Reason},
};

/// Where owners are looked up.
pub(super) struct Owners {
    deployments: Cache<Deployment>,
    replica_sets: Cache<ReplicaSet>,
    stateful_sets: Cache<StatefulSet>,
    replication_controllers: Cache<ReplicationController>,
    discovery: Arc<dyn ResourceDiscovery>,
}

/// What the owners of some pods want.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// How many pods they want to have, all together.
    pub pods: i32,
    /// There are pods without an owner.
    pub has_unmanaged: bool,
}

impl Owners {
    pub(super) fn new(caches: &Caches, discovery: Arc<dyn ResourceDiscovery>) -> Self {
        Self {
            deployments: caches.cache(),
            replica_sets: caches.cache(),
            stateful_sets: caches.cache(),
            replication_controllers: caches.cache(),
            discovery,
        }
    }

    /// What the owners of these pods want. Several replica sets of one deployment have one owner.
    pub(super) async fn wanted(&self, pods: &[Arc<Pod>], context: &Context) -> ApiResult<Wanted> {
        self.synced().await;
        let mut wanted = Wanted::default();
        let mut looked_up: BTreeSet<&str> = BTreeSet::new();
        let mut scales: BTreeMap<String, i32> = BTreeMap::new();
        for pod in pods {
            let Some(owner) = controller_of(&pod.metadata) else {
                wanted.has_unmanaged = true;
                continue;
            };
            if !looked_up.insert(&owner.uid) {
                continue;
            }
            let namespace = meta::namespace(&pod.metadata);
            let Some((uid, scale)) = self.scale_of(namespace, owner, context).await? else {
                let name = meta::name(&pod.metadata);
                return Err(failure(format!("found no controllers for pod {name:?}")));
            };
            scales.insert(uid, scale);
        }
        wanted.pods = scales.into_values().fold(0, i32::saturating_add);
        Ok(wanted)
    }

    async fn synced(&self) {
        self.deployments.synced().await;
        self.replica_sets.synced().await;
        self.stateful_sets.synced().await;
        self.replication_controllers.synced().await;
    }

    /// The UID of what scales the pods of an owner, and its scale.
    async fn scale_of(
        &self,
        namespace: &str,
        owner: &OwnerReference,
        context: &Context,
    ) -> ApiResult<Option<(String, i32)>> {
        let scale = match (meta::group_of(&owner.api_version), &*owner.kind) {
            ("apps", "ReplicaSet") => find(&self.replica_sets, namespace, owner).and_then(|set| {
                let own = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
                let deployment = controller_of(&set.metadata).filter(|owner| owner.kind == "Deployment");
                let Some(deployment) = deployment else { return Some((owner.uid.clone(), own)) };
                let deployment = find(&self.deployments, namespace, deployment)?;
                let replicas = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
                Some((meta::uid(&deployment.metadata).to_owned(), replicas))
            }),
            ("apps", "StatefulSet") => find(&self.stateful_sets, namespace, owner)
                .map(|set| (owner.uid.clone(), set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1))),
            ("", "ReplicationController") => find(&self.replication_controllers, namespace, owner)
                .map(|set| (owner.uid.clone(), set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1))),
            _ => None,
        };
        match scale {
            Some(scale) => Ok(Some(scale)),
            None => self.scale_of_other(namespace, owner, context).await,
        }
    }

    /// The scale of an owner of any kind, by its `scale` subresource.
    async fn scale_of_other(
        &self,
        namespace: &str,
        owner: &OwnerReference,
        context: &Context,
    ) -> ApiResult<Option<(String, i32)>> {
        let group = meta::group_of(&owner.api_version);
        let resources = self.discovery.resources().await?;
        let mut known = resources.into_iter().filter(|known| known.resource.group == group && known.kind == owner.kind);
        let Some(known) = known.next() else {
            let (kind, version) = (&owner.kind, &owner.api_version);
            return Err(failure(format!("no matches for kind {kind:?} in version {version:?}")));
        };
        if !known.namespaced {
            return Err(without_scale(&known.resource));
        }
        let api = Api::<DynamicObject>::of_resource(context.client(), known.resource, Some(namespace.to_owned()));
        match api.get_subresource::<Scale>("scale", &owner.name).await {
            Ok(scale) if meta::uid(&scale.metadata) != owner.uid => Ok(None),
            Ok(scale) => {
                let replicas = scale.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0);
                Ok(Some((owner.uid.clone(), replicas)))
            }
            // Either the owner is gone, or its kind has no scale.
            Err(error) if error.is_not_found() && api.get_opt(&owner.name).await?.is_none() => Ok(None),
            Err(error) if error.is_not_found() => Err(without_scale(api.resource())),
            Err(error) => Err(error),
        }
    }
}

/// Why there is no number, in upstream's words and no others: they stand in the budget's status.
fn failure(message: String) -> ApiError {
    ApiError::new(Reason::InternalError, message)
}

fn without_scale(resource: &Resource) -> ApiError {
    let name = [&*resource.plural, &*resource.group].join(".");
    failure(format!("{} does not implement the scale subresource", name.trim_end_matches('.')))
}

/// The very object that a reference names.
fn find<K: Kind>(cache: &Cache<K>, namespace: &str, owner: &OwnerReference) -> Option<Arc<K>> {
    let object = cache.get(&ObjectKey::new(namespace, &*owner.name))?;
    (meta::uid(object.meta()) == owner.uid).then_some(object)
}
