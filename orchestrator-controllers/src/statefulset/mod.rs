//! The StatefulSet controller: pods with an identity, one after the other.
//!
//! Upstream: <https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/>. Start at [`decide::decide`].

mod decide;
mod identity;
mod revisions;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use async_trait::async_trait;
use k8s_openapi::api::{
    apps::v1::{ControllerRevision, StatefulSet, StatefulSetStatus},
    core::v1::{PersistentVolumeClaim, Pod},
};
use kube_core::params::{Patch, PatchParams, PostParams};
use orchestrator_core::{
    client::Api,
    controller::{Action, Cache, Change, Context, Controller, Kind, Reconciler},
    events::{Event, EventRecorder},
    meta::{is_controlled_by, object_reference},
    object::ObjectKey,
    status::{ApiError, ApiResult, Reason},
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use self::decide::{Observed, Step, Why};
use crate::{
    context::ControllerContext,
    pods::{
        candidates, claim_all, index_by_controller, is_namespace_terminating, only, possible_owners, selects, sorted,
    },
    writes::settled,
};

/// Runs the controller until the shutdown.
pub(crate) async fn run(context: ControllerContext, shutdown: CancellationToken) {
    let sets = context.caches.cache::<StatefulSet>();
    let pods = context.caches.cache::<Pod>();
    let revisions = context.caches.cache::<ControllerRevision>();
    index_by_controller(&pods);
    index_by_controller(&revisions);
    let (owners, users) = (sets.clone(), sets.clone());
    let reconciler =
        StatefulSets { pods, revisions, claims: context.caches.cache(), sets, recorder: context.recorder.clone() };
    Controller::new("statefulset", &context.caches)
        .reconciles::<StatefulSet>()
        .owns::<Pod>()
        .reads::<ControllerRevision>()
        .watches::<Pod>(move |change| {
            possible_owners(&owners, change, |set: &StatefulSet, pod| {
                is_member(set, &pod.name) && is_selected(set, pod)
            })
        })
        .watches::<PersistentVolumeClaim>(move |change| waiting_for_claim(change, &users))
        .run(reconciler, shutdown)
        .await;
}

fn is_member(set: &StatefulSet, pod_name: &Option<String>) -> bool {
    identity::ordinal_of(set, pod_name.as_deref().unwrap_or_default()).is_some()
}

fn is_selected(set: &StatefulSet, object: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> bool {
    selects(set.spec.as_ref().map(|spec| &spec.selector), object)
}

/// The sets that may wait for a claim of an earlier pod to be gone.
fn waiting_for_claim(change: &Change<PersistentVolumeClaim>, sets: &Cache<StatefulSet>) -> Vec<ObjectKey> {
    let Some(gone) = change.old.as_ref().filter(|_| change.new.is_none()) else { return Vec::new() };
    let name = gone.metadata.name.as_deref().unwrap_or_default();
    let sets = sets.list_namespace(gone.metadata.namespace.as_deref().unwrap_or_default());
    let uses = |set: &&Arc<StatefulSet>| {
        identity::ordinals(set).any(|ordinal| identity::claim_names(set, ordinal).iter().any(|(_, own)| own == name))
    };
    sets.iter().filter(uses).map(|set| ObjectKey::of(&set.metadata)).collect()
}

struct StatefulSets {
    sets: Cache<StatefulSet>,
    pods: Cache<Pod>,
    revisions: Cache<ControllerRevision>,
    claims: Cache<PersistentVolumeClaim>,
    recorder: EventRecorder,
}

#[async_trait]
impl Reconciler for StatefulSets {
    type Object = StatefulSet;
    type Error = ApiError;

    async fn reconcile(&self, key: &ObjectKey, context: &Context) -> ApiResult<Action> {
        let Some(set) = self.sets.get(key) else { return Ok(Action::Done) };
        self.claims.synced().await;
        self.revisions.synced().await;
        let run = Run { set: &set, context, recorder: &self.recorder };
        let history = self.history(&set, context).await?;
        let selected = |pod: &Pod| is_member(&set, &pod.metadata.name) && is_selected(&set, &pod.metadata);
        let pods = claim_all(context.client(), &*set, candidates(&self.pods, &set.metadata), selected).await?;
        let (update, collisions) = run.update_revision(&history).await?;
        let current = revisions::current_revision(&set, &history, &update);
        let decision = decide::decide(Observed {
            set: &set,
            current: &current,
            update: &update,
            collisions,
            pods: &pods,
            claims: &self.claims_of(&set, &pods),
            now: context.env().now(),
        });
        let outcome = run.carry_out(decision.steps).await;
        run.write_status(decision.status).await?;
        for revision in revisions::surplus(&set, &history, [&current, &update], &pods) {
            let name = revision.metadata.name.as_deref().unwrap_or_default();
            settled(run.api::<ControllerRevision>().delete(name, &only(&revision.metadata)).await)?;
        }
        outcome?;
        Ok(decision.look_again.map_or(Action::Done, Action::RequeueAfter))
    }
}

impl StatefulSets {
    /// The set's revisions, orphans adopted; none is ever released.
    async fn history(&self, set: &Arc<StatefulSet>, context: &Context) -> ApiResult<Vec<Arc<ControllerRevision>>> {
        let uid = set.metadata.uid.as_deref().unwrap_or_default();
        let selected = |revision: &ControllerRevision| {
            is_controlled_by(&revision.metadata, uid) || is_selected(set, &revision.metadata)
        };
        let candidates = candidates(&self.revisions, &set.metadata);
        Ok(sorted(&claim_all(context.client(), &**set, candidates, selected).await?))
    }

    fn claims_of(&self, set: &StatefulSet, pods: &[Arc<Pod>]) -> BTreeMap<String, Arc<PersistentVolumeClaim>> {
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        let existing =
            pods.iter().filter_map(|pod| identity::ordinal_of(set, pod.metadata.name.as_deref().unwrap_or_default()));
        let ordinals: BTreeSet<i32> = identity::ordinals(set).chain(existing).collect();
        let names = ordinals.into_iter().flat_map(|ordinal| identity::claim_names(set, ordinal));
        let claim = |name: String| Some((self.claims.get(&ObjectKey::new(namespace, &*name))?, name));
        names.filter_map(|(_, name)| claim(name)).map(|(claim, name)| (name, claim)).collect()
    }
}

/// The writes of one run.
struct Run<'a> {
    set: &'a Arc<StatefulSet>,
    context: &'a Context,
    recorder: &'a EventRecorder,
}

impl Run<'_> {
    fn api<K: Kind>(&self) -> Api<K> {
        Api::namespaced(self.context.client(), self.set.metadata.namespace.as_deref().unwrap_or_default())
    }

    /// The revision of the set's template, made or renumbered where needed, and the number of collisions then.
    async fn update_revision(&self, history: &[Arc<ControllerRevision>]) -> ApiResult<(ControllerRevision, i32)> {
        let collisions = self.set.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0);
        revisions::keeper(self.set).write_update(&self.api(), history, collisions).await
    }

    /// Does what was decided. In order, the first failure ends it; in parallel, what follows from it. A pod with a claim that
    /// cannot be made is not made, but its other claims are.
    async fn carry_out(&self, steps: Vec<Step>) -> ApiResult<()> {
        let mut outcome = Ok(());
        let mut failed: Option<Step> = None;
        let mut trouble: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for step in steps {
            if failed.as_ref().is_some_and(|failed| !decide::may_follow(self.set, failed, &step)) {
                continue;
            }
            let Err(error) = self.step(&step, &trouble).await else { continue };
            if is_namespace_terminating(&error) {
                return Err(error);
            }
            match &step {
                Step::CreateClaim(_, pod) | Step::AwaitClaim(_, pod) => {
                    trouble.entry(pod.clone()).or_default().push(error.message().to_owned());
                }
                _ if decide::is_ordered(self.set) => return Err(error),
                _ => {}
            }
            failed.get_or_insert(step);
            outcome = outcome.and(Err(error));
        }
        outcome
    }

    /// One step. Where there is trouble with claims, it is known by the names of their pods.
    async fn step(&self, step: &Step, trouble: &BTreeMap<String, Vec<String>>) -> ApiResult<()> {
        match step {
            Step::CreateClaim(claim, pod) => self.create_claim(claim, pod).await,
            Step::AwaitClaim(claim, _) => {
                let name = claim.metadata.name.as_deref().unwrap_or_default();
                Err(ApiError::new(Reason::InternalError, format!("pvc {name} is being deleted")))
            }
            Step::TellConflict(name) => {
                let message = format!(
                    "PersistentVolumeClaim {name} has a conflicting OwnerReference that acts as a manging controller, the \
                     retention policy is ignored for this claim"
                );
                self.record(Event::warning("ConflictingController", message));
                Ok(())
            }
            Step::OwnClaim(claim, owners) => {
                let body = json!({"metadata": {
                    "resourceVersion": claim.metadata.resource_version, "ownerReferences": owners,
                }});
                self.patch::<PersistentVolumeClaim>(claim.metadata.name.as_deref(), body).await
            }
            Step::CreatePod(pod) => {
                let name = pod.metadata.name.as_deref().unwrap_or_default();
                self.create_pod(pod, trouble.get(name).map(Vec::as_slice).unwrap_or_default()).await
            }
            Step::LabelPod(pod, labels) => {
                let body = json!({"metadata": {"uid": pod.metadata.uid, "labels": labels}});
                let result = self.patch::<Pod>(pod.metadata.name.as_deref(), body).await;
                self.record_pod("update", "Update", pod, result.as_ref().err());
                result
            }
            Step::DeletePod(pod, why) => self.delete_pod(pod, *why).await,
        }
    }

    /// Makes a pod, unless there is trouble with its claims. That there is one of its name already is not told.
    async fn create_pod(&self, pod: &Pod, trouble: &[String]) -> ApiResult<()> {
        let result = match trouble {
            [] => self.api().create(&PostParams::default(), pod).await.map(drop),
            [only] => Err(ApiError::new(Reason::InternalError, only)),
            several => Err(ApiError::new(Reason::InternalError, format!("[{}]", several.join(", ")))),
        };
        let error = result.as_ref().err();
        if !error.is_some_and(ApiError::is_already_exists) {
            self.record_pod("create", "Create", pod, error);
        }
        result
    }

    async fn create_claim(&self, claim: &PersistentVolumeClaim, pod: &str) -> ApiResult<()> {
        let (name, set) = (claim.metadata.name.as_deref().unwrap_or_default(), identity::set_name(self.set));
        match self.api().create(&PostParams::default(), claim).await {
            Ok(_) => {
                let message = format!("create Claim {name} Pod {pod} in StatefulSet {set} success");
                self.record(Event::normal("SuccessfulCreate", message));
                Ok(())
            }
            Err(error) if error.is_already_exists() => Ok(()),
            Err(error) => {
                let why = error.message();
                let message = format!("create Claim {name} for Pod {pod} in StatefulSet {set} failed error: {why}");
                self.record(Event::warning("FailedCreate", message));
                if is_namespace_terminating(&error) {
                    return Err(error);
                }
                Err(ApiError::new(Reason::InternalError, format!("failed to create PVC {name}: {why}")))
            }
        }
    }

    async fn delete_pod(&self, pod: &Pod, why: Why) -> ApiResult<()> {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let namespace = self.set.metadata.namespace.as_deref().unwrap_or_default();
        let recreating = format!("StatefulSet {namespace}/{} is recreating", identity::set_name(self.set));
        match why {
            Why::Failed => {
                self.record(Event::warning("RecreatingFailedPod", format!("{recreating} failed Pod {name}")));
            }
            Why::Ended => {
                self.record(Event::normal("RecreatingTerminatedPod", format!("{recreating} terminated Pod {name}")));
            }
            Why::Scaled | Why::Outdated => {}
        }
        let result = settled(self.api::<Pod>().delete(name, &only(&pod.metadata)).await);
        self.record_pod("delete", "Delete", pod, result.as_ref().err());
        result
    }

    async fn patch<K: Kind>(&self, name: Option<&str>, body: Value) -> ApiResult<()> {
        let api = self.api::<K>();
        settled(api.patch(name.unwrap_or_default(), &PatchParams::default(), &Patch::Merge(body)).await)
    }

    fn record_pod(&self, verb: &str, title: &str, pod: &Pod, error: Option<&ApiError>) {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let what = format!("{verb} Pod {name} in StatefulSet {}", identity::set_name(self.set));
        self.record(match error {
            None => Event::normal(format!("Successful{title}"), format!("{what} successful")),
            Some(error) => {
                Event::warning(format!("Failed{title}"), format!("{what} failed error: {}", error.message()))
            }
        });
    }

    fn record(&self, event: Event) {
        self.recorder.record(&object_reference(&**self.set), event);
    }

    async fn write_status(&self, status: StatefulSetStatus) -> ApiResult<()> {
        if self.set.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let set = StatefulSet { status: Some(status), ..StatefulSet::clone(self.set) };
        let name = identity::set_name(&set);
        settled(self.api::<StatefulSet>().replace_status(name, &PostParams::default(), &set).await)
    }
}
