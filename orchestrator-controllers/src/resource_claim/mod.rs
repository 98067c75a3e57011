//! The resource claim controller: makes the claims of devices that pods have by templates, and frees what nobody uses.

mod decide;

use std::{collections::BTreeSet, sync::Arc};

use async_trait::async_trait;
use futures::future::join;
use k8s_openapi::api::{
    core::v1::{Pod, PodResourceClaim},
    resource::v1::{ResourceClaim, ResourceClaimTemplate},
};
use kube_core::params::{Patch, PatchParams, PostParams};
use orchestrator_core::{
    client::Api,
    controller::{Action, Cache, Change, Context, Controller, Reconciler},
    events::{Event, EventRecorder},
    meta::{self, object_reference},
    object::ObjectKey,
    status::{ApiError, ApiResult, Reason},
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use self::decide::{FINALIZER, Name, Need};
use crate::{
    context::ControllerContext,
    pods::{controlled_by, index_by_controller, is_deleting, only},
    writes::settled,
};

/// Who notes the names of claims on pods; upstream's name.
const FIELD_MANAGER: &str = "ResourceClaimController";

/// Runs the controller until the shutdown.
pub(crate) async fn run(context: ControllerContext, shutdown: CancellationToken) {
    let caches = &context.caches;
    let (pods, claims) = (caches.cache::<Pod>(), caches.cache::<ResourceClaim>());
    index_by_controller(&claims);
    let made = Controller::new("resource_claim", caches)
        .reconciles::<Pod>()
        .filter(|change: &Change<Pod>| change.new.as_ref().is_some_and(|pod| !decide::pod_claims(pod).is_empty()))
        .watches::<ResourceClaim>(|change| {
            let owner = change.objects().find_map(|claim| decide::owning_pod(claim));
            owner.map(|pod| ObjectKey::new(&*change.key.namespace, &*pod.name)).into_iter().collect()
        });
    let own = claims.clone();
    let used = Controller::new("resource_claim_users", caches)
        .reconciles::<ResourceClaim>()
        .watches::<Pod>(move |change| claims_of(change, &own));
    let making = Making {
        pods: pods.clone(),
        claims: claims.clone(),
        templates: caches.cache(),
        recorder: context.recorder.clone(),
    };
    join(made.run(making, shutdown.clone()), used.run(Using { pods, claims }, shutdown)).await;
}

/// The claims of a pod that will not run, or not any longer.
fn claims_of(change: &Change<Pod>, claims: &Cache<ResourceClaim>) -> Vec<ObjectKey> {
    let Some(pod) = change.object().filter(|pod| change.new.is_none() || decide::is_done(pod)) else {
        return Vec::new();
    };
    let namespace = &*change.key.namespace;
    let named = decide::pod_claims(pod).iter().filter_map(|claim| match decide::name_of(pod, claim).0 {
        Name::Known(name) => Some(ObjectKey::new(namespace, name)),
        Name::Unknown | Name::Unneeded => None,
    });
    let own = controlled_by(claims, &pod.metadata);
    named.chain(own.iter().map(|claim| ObjectKey::of(&claim.metadata))).collect()
}

struct Making {
    pods: Cache<Pod>,
    claims: Cache<ResourceClaim>,
    templates: Cache<ResourceClaimTemplate>,
    recorder: EventRecorder,
}

#[async_trait]
impl Reconciler for Making {
    type Object = Pod;
    type Error = ApiError;

    async fn reconcile(&self, key: &ObjectKey, context: &Context) -> ApiResult<Action> {
        let pod = self.pods.get(key).filter(|pod| !is_deleting(pod) && !decide::is_done(pod));
        let Some(pod) = pod else { return Ok(Action::Done) };
        self.templates.synced().await;
        let mut noted = Vec::new();
        for wanted in decide::pod_claims(&pod) {
            match self.provide(&pod, wanted, context).await {
                Ok(name) => noted.extend(name.map(|name| (wanted.name.clone(), name))),
                Err(error) => {
                    let message = format!("PodResourceClaim {}: {error}", wanted.name);
                    let event = Event::warning("FailedResourceClaimCreation", &*message);
                    self.recorder.record(&object_reference(&*pod), event);
                    return Err(ApiError::new(Reason::Unknown, format!("pod {key}, {message}")));
                }
            }
        }
        if !noted.is_empty() {
            note(&pod, &noted, context).await?;
        }
        self.reserve(&pod, context).await?;
        Ok(Action::Done)
    }
}

impl Making {
    /// The name of a claim that was made for a pod, where it is not noted yet.
    async fn provide(&self, pod: &Pod, wanted: &PodResourceClaim, context: &Context) -> Result<Option<String>, String> {
        let namespace = meta::namespace(&pod.metadata);
        let find = |name: &str| self.claims.get(&ObjectKey::new(namespace, name));
        let template = match decide::need(pod, wanted, find, &controlled_by(&self.claims, &pod.metadata)) {
            Need::Nothing => return Ok(None),
            Need::Note(name) => return Ok(Some(name)),
            Need::Make(template) => template,
        };
        let missing = || {
            let not_found = format!("resourceclaimtemplate.resource.k8s.io {template:?} not found");
            format!("resource claim template {template:?}: {not_found}")
        };
        let found = self.templates.get(&ObjectKey::new(namespace, &*template)).ok_or_else(missing)?;
        let claim = decide::make(pod, wanted, &found);
        let api = Api::<ResourceClaim>::namespaced(context.client(), namespace);
        let made = api.create(&PostParams::default(), &claim).await;
        let made = made.map_err(|error| format!("create ResourceClaim : {}", error.message()))?;
        Ok(Some(meta::name(&made.metadata).to_owned()))
    }

    /// Reserves claims for a pod that somebody else than the scheduler has bound.
    async fn reserve(&self, pod: &Pod, context: &Context) -> ApiResult<()> {
        let namespace = meta::namespace(&pod.metadata);
        if pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref()).is_none_or(String::is_empty)
            || decide::is_done(pod)
        {
            return Ok(());
        }
        for wanted in decide::pod_claims(pod) {
            let (Name::Known(name), was_made) = decide::name_of(pod, wanted) else { continue };
            let Some(claim) = self.claims.get(&ObjectKey::new(namespace, &*name)) else { return Ok(()) };
            if was_made {
                decide::is_for(pod, &claim).map_err(|error| ApiError::new(Reason::Unknown, error))?;
            }
            if let Some(claim) = decide::reserved(pod, &claim) {
                let api = Api::<ResourceClaim>::namespaced(context.client(), namespace);
                api.replace_status(&name, &PostParams::default(), &claim).await?;
            }
        }
        Ok(())
    }
}

async fn note(pod: &Pod, noted: &[(String, String)], context: &Context) -> ApiResult<()> {
    let (name, namespace) = (meta::name(&pod.metadata), meta::namespace(&pod.metadata));
    let body = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "uid": pod.metadata.uid},
        "status": {"resourceClaimStatuses": decide::with_names(pod, noted)},
    });
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let api = Api::<Pod>::namespaced(context.client(), namespace);
    settled(api.patch_status(name, &params, &Patch::Apply(body)).await)
}

struct Using {
    pods: Cache<Pod>,
    claims: Cache<ResourceClaim>,
}

#[async_trait]
impl Reconciler for Using {
    type Object = ResourceClaim;
    type Error = ApiError;

    async fn reconcile(&self, key: &ObjectKey, context: &Context) -> ApiResult<Action> {
        let Some(mut claim) = self.claims.get(key) else { return Ok(Action::Done) };
        if let Some(user) = decide::foreign_user(&claim) {
            let message = format!("unsupported ReservedFor entry: {} {:?}", user.resource, user.name);
            return Err(ApiError::new(Reason::Unknown, message));
        }
        self.pods.synced().await;
        let gone = self.gone_users(&claim, context).await?;
        let api = Api::<ResourceClaim>::namespaced(context.client(), &key.namespace);
        let freed = decide::freed(&claim, &gone);
        let was_freed = freed.is_some();
        if let Some(freed) = freed {
            claim = match api.replace_status(&key.name, &PostParams::default(), &freed).await {
                Err(error) if error.is_not_found() => return Ok(Action::Done),
                result => result?,
            };
        }
        if decide::is_protected_in_vain(&claim, was_freed) {
            let mut unprotected = ResourceClaim::clone(&claim);
            meta::remove_finalizer(&mut unprotected.metadata, FINALIZER);
            claim = match api.replace(&key.name, &PostParams::default(), &unprotected).await {
                Err(error) if error.is_not_found() => return Ok(Action::Done),
                result => result?,
            };
        }
        self.delete_if_left(&claim, &api).await?;
        Ok(Action::Done)
    }
}

impl Using {
    /// The UIDs of users that are gone or done. What a cache does not know the server is asked about: it may be too new.
    async fn gone_users(&self, claim: &ResourceClaim, context: &Context) -> ApiResult<BTreeSet<String>> {
        let namespace = meta::namespace(&claim.metadata);
        let mut gone = BTreeSet::new();
        for user in decide::users(claim) {
            let mut pod = self.pods.get(&ObjectKey::new(namespace, &*user.name));
            if pod.is_none() {
                pod = Api::<Pod>::namespaced(context.client(), namespace).get_opt(&user.name).await?;
            }
            let uses = |pod: &Arc<Pod>| meta::uid(&pod.metadata) == user.uid && !decide::is_done(pod);
            if !pod.as_ref().is_some_and(uses) {
                gone.insert(user.uid.clone());
            }
        }
        Ok(gone)
    }

    /// Deletes a claim that was made for a pod which does not need it any longer. Those of pods that are gone are the garbage
    /// collector's.
    async fn delete_if_left(&self, claim: &ResourceClaim, api: &Api<ResourceClaim>) -> ApiResult<()> {
        let Some(owner) = decide::owning_pod(claim) else { return Ok(()) };
        if !decide::users(claim).is_empty() || meta::is_deleting(&claim.metadata) {
            return Ok(());
        }
        let pod = self.pods.get(&ObjectKey::new(meta::namespace(&claim.metadata), &*owner.name));
        if !pod.is_some_and(|pod| meta::uid(&pod.metadata) == owner.uid && decide::is_done(&pod)) {
            return Ok(());
        }
        settled(api.delete(meta::name(&claim.metadata), &only(&claim.metadata)).await)
    }
}
