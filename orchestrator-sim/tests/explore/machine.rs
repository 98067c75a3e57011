//! Mistakes that a machine shows which stands still, or whose clock is wrong.

use std::{collections::BTreeMap, sync::Mutex, time::Duration};

use async_trait::async_trait;
use futures::future::BoxFuture;
use k8s_openapi::{
    api::{coordination::v1::Lease, core::v1::ConfigMap},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube_core::params::{Patch, PatchParams, PostParams};
use orchestrator_core::{
    client::Api,
    controller::{Action, Context, Reconciler},
    env::Env,
    object::ObjectKey,
    status::{ApiError, ApiResult},
};
use orchestrator_sim::explore::{Explorer, Fault, Process, explore, explore_reconciler};
use serde_json::json;

use super::{NAMESPACE, found, map, maps, passes, remove, there};

/// What a leader does with the work that it found.
type Act = fn(Api<ConfigMap>, ConfigMap, i32) -> BoxFuture<'static, ApiResult<()>>;

/// How long a lease lasts: not as long as a process stands still.
const LEASE: Duration = Duration::from_secs(30);

/// Two processes stand for a lease, as simply as one would write it. Who leads does what is asked for, and writes down in which
/// term.
fn one_leads(act: Act) -> Explorer {
    let stand = move |process: Process| async move { stand(&process, "one", act).await };
    let stand_later = move |process: Process| async move {
        process.env().sleep(Duration::from_secs(5)).await;
        self::stand(&process, "other", act).await;
    };
    let lease: Lease =
        serde_json::from_value(json!({"metadata": {"name": "work", "namespace": NAMESPACE}, "spec": {}})).unwrap();
    explore(stand)
        .beside(stand_later)
        .given(&map("work", json!({"asked": "1"})))
        .given(&lease)
        .waits(Duration::from_secs(60))
        .patches::<ConfigMap>(NAMESPACE, "work", json!({"data": {"asked": "2"}}))
        .faults(|fault| matches!(fault, Fault::StandStill(_)))
        .seeds(20)
        .always("the last to act leads", |objects| {
            let data = objects.get::<ConfigMap>(NAMESPACE, "work").and_then(|map| map.data).unwrap_or_default();
            let terms = data.keys().filter_map(|key| key.strip_prefix("term-")?.parse::<i32>().ok());
            data.get("last").and_then(|last| last.parse().ok()) == terms.max()
        })
        .eventually("what was asked for is done", |objects| {
            let data = objects.get::<ConfigMap>(NAMESPACE, "work").and_then(|map| map.data).unwrap_or_default();
            data.get("asked") == data.get("done")
        })
}

async fn stand(process: &Process, name: &str, act: Act) {
    let works: Api<ConfigMap> = Api::namespaced(process.client(), NAMESPACE);
    loop {
        // What is refused is tried again.
        if let Ok(Some(term)) = renew(process, name).await
            && let Ok(work) = works.get("work").await
            && let data = work.data.clone().unwrap_or_default()
            && data.get("asked") != data.get("done")
        {
            let _refused = act(works.clone(), ConfigMap::clone(&work), term).await;
        }
        process.env().sleep(LEASE / 3).await;
    }
}

/// Renews the lease, or takes it when it is over. Gives the number of the term, to who holds it.
async fn renew(process: &Process, name: &str) -> ApiResult<Option<i32>> {
    let leases: Api<Lease> = Api::namespaced(process.client(), NAMESPACE);
    let mut lease = leases.get("work").await.map(|lease| Lease::clone(&lease))?;
    let now = process.env().now();
    let spec = lease.spec.get_or_insert_default();
    let is_mine = spec.holder_identity.as_deref() == Some(name);
    let is_over = spec.renew_time.as_ref().is_none_or(|time| now.duration_since(time.0).unsigned_abs() > LEASE);
    if !is_mine && !is_over {
        return Ok(None);
    }
    let term = spec.lease_transitions.unwrap_or_default() + i32::from(!is_mine);
    spec.holder_identity = Some(name.to_owned());
    spec.lease_transitions = Some(term);
    spec.renew_time = Some(MicroTime(now));
    leases.replace("work", &PostParams::default(), &lease).await?;
    Ok(Some(term))
}

/// The work as it is when it was done in a term.
fn done(mut work: ConfigMap, term: i32) -> ConfigMap {
    let data = work.data.get_or_insert_default();
    let asked = data.get("asked").cloned().unwrap_or_default();
    data.extend([
        ("done".to_owned(), asked),
        ("last".to_owned(), term.to_string()),
        (format!("term-{term}"), "acted".to_owned()),
    ]);
    work
}

#[test]
fn who_stood_still_acts_as_if_it_led() {
    let wrong = one_leads(|api, work, term| {
        Box::pin(async move {
            let patch = Patch::Merge(json!({"data": done(work, term).data}));
            api.patch("work", &PatchParams::default(), &patch).await.map(drop)
        })
    });
    let counterexample = found(&wrong);
    assert_eq!(counterexample.property, "the last to act leads");
    assert!(counterexample.plan.to_string().starts_with("stand-still="), "{counterexample}");

    // A lease excludes nobody; the version of what was read does.
    passes(&one_leads(|api, work, term| {
        Box::pin(async move { api.replace("work", &PostParams::default(), &done(work, term)).await.map(drop) })
    }));
}

/// How long a map is kept.
const KEPT: Duration = Duration::from_secs(40 * 60);

/// For how long a map was there already, by what a keeper may go by.
type Age = fn(&Env, &ConfigMap, Seen) -> Duration;

/// When it was seen first, on the steady clock.
type Seen = Duration;

/// Removes maps when their time is over.
struct Keeper {
    age: Age,
    seen: Mutex<BTreeMap<ObjectKey, Seen>>,
}

#[async_trait]
impl Reconciler for Keeper {
    type Object = ConfigMap;
    type Error = ApiError;

    async fn reconcile(&self, key: &ObjectKey, context: &Context) -> ApiResult<Action> {
        let Some(kept) = context.caches().cache::<ConfigMap>().get(key).filter(|_| key.namespace == NAMESPACE) else {
            return Ok(Action::Done);
        };
        let seen = *self.seen.lock().unwrap().entry(key.clone()).or_insert_with(|| context.env().monotonic());
        let rest = KEPT.saturating_sub((self.age)(context.env(), &kept, seen));
        if rest.is_zero() {
            remove(&maps(context), &key.name).await?;
            return Ok(Action::Done);
        }
        Ok(Action::RequeueAfter(rest))
    }
}

/// A run is over before the time of the map is.
fn kept_for_its_time(age: Age) -> Explorer {
    explore_reconciler(move || Keeper { age, seen: Mutex::default() })
        .creates(&map("a", json!({})))
        .waits(Duration::from_secs(60))
        .patches::<ConfigMap>(NAMESPACE, "a", json!({"data": {"touched": "yes"}}))
        .seeds(40)
        .eventually("it is kept for its time", |objects| there(objects, "a"))
}

#[test]
fn the_time_of_day_is_taken_for_the_time_that_has_passed() {
    let wrong = kept_for_its_time(|env, kept, _| {
        let made = kept.metadata.creation_timestamp.as_ref().map_or_else(|| env.now(), |time| time.0);
        env.now().duration_since(made).try_into().unwrap_or_default()
    });
    // Clocks are right, unless somebody asks for wrong ones.
    passes(&wrong);
    let counterexample = found(&wrong.wrong_clocks());
    assert!(counterexample.plan.to_string().starts_with("clock-ahead="), "{counterexample}");

    passes(&kept_for_its_time(|env, _, seen| env.monotonic() - seen).wrong_clocks());
}
