//! Mistakes that a machine shows which stands still, or whose clock is wrong.

use std::{collections::BTreeMap, sync::Mutex, time::Duration};

use async_trait::async_trait;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::ConfigMap;
use kube_core::params::{Patch, PatchParams, PostParams};
use orchestrator_core::{
    client::Api,
    controller::{Action, Context, LeaderElection, Leadership, Reconciler, lead},
    env::Env,
    object::ObjectKey,
    status::{ApiError, ApiResult},
};
use orchestrator_sim::explore::{Explorer, Fault, Process, explore, explore_reconciler};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{NAMESPACE, found, map, maps, passes, remove, there};

/// What a leader does with the work that it found.
type Act = fn(Api<ConfigMap>, ConfigMap, i32) -> BoxFuture<'static, ApiResult<()>>;

/// Two processes stand for a lease. Who leads does what is asked for, and writes down in which term.
fn one_leads(act: Act) -> Explorer {
    let stand = move |process: Process| async move {
        let mut election = LeaderElection::new(NAMESPACE, "work", "one of two");
        // Longer than usual, so that a run has few renewals; shorter than a process stands still.
        election.lease_duration = Duration::from_secs(45);
        election.renew_deadline = Duration::from_secs(40);
        election.retry_period = Duration::from_secs(20);
        let work = move |leadership: Leadership| async move { work(&leadership, act).await };
        let _ended = lead(process.client(), process.env(), election, CancellationToken::new(), work).await;
    };
    explore(stand)
        .beside(stand)
        .given(&map("work", json!({"asked": "1"})))
        .waits(Duration::from_secs(60))
        .patches::<ConfigMap>(NAMESPACE, "work", json!({"data": {"asked": "2"}}))
        .faults(|fault| matches!(fault, Fault::StandStill(_)))
        .seeds(60)
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

async fn work(leadership: &Leadership, act: Act) {
    let api: Api<ConfigMap> = Api::namespaced(leadership.client(), NAMESPACE);
    loop {
        if let Ok(found) = api.get("work").await {
            let data = found.data.clone().unwrap_or_default();
            if data.get("asked") != data.get("done") {
                // It is tried again.
                let _refused = act(api.clone(), found, leadership.term()).await;
            }
        }
        leadership.env().sleep(Duration::from_secs(15)).await;
    }
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
