//! A hundred thousand keys at once: bounded, in turn, and not stopped by a slow one.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use k8s_openapi::api::core::v1::ConfigMap;
use kube_core::params::PostParams;
use orchestrator_core::{
    client::Api,
    controller::{Action, Caches, Context, Controller, Reconciler},
    env::Simulation,
    object::ObjectKey,
    status::ApiError,
};
use orchestrator_testkit::fake_api::FakeApi;
use tokio_util::sync::CancellationToken;

use crate::config_map;

const KEYS: usize = 100_000;

/// How long each key takes. `0-slow` takes for ever, and `greedy` wants to run again at once.
const TIME: Duration = Duration::from_millis(1);

#[derive(Clone, Default)]
struct Counting(Arc<Mutex<BTreeMap<ObjectKey, u64>>>);

#[async_trait]
impl Reconciler for Counting {
    type Object = ConfigMap;
    type Error = ApiError;

    async fn reconcile(&self, key: &ObjectKey, context: &Context) -> Result<Action, ApiError> {
        *self.0.lock().unwrap().entry(key.clone()).or_default() += 1;
        context.env().sleep(TIME).await;
        match key.name.as_str() {
            "0-slow" => std::future::pending().await,
            "greedy" => Ok(Action::RequeueAfter(Duration::ZERO)),
            _ => Ok(Action::Done),
        }
    }
}

#[test]
fn a_hundred_thousand_keys_are_served_in_turn() {
    let simulation = Simulation::new(1);
    let env = simulation.env();
    let api = FakeApi::new(&env);
    let done = simulation.run(async {
        let maps = Api::<ConfigMap>::namespaced(&api.client(), "default");
        let (slow, greedy) = ("0-slow".to_owned(), "greedy".to_owned());
        for name in (0..KEYS - 2).map(|key| key.to_string()).chain([slow, greedy]) {
            maps.create(&PostParams::default(), &config_map(&name, "")).await.unwrap();
        }
        let caches = Caches::new(&api.client(), &env);
        let controller = Controller::new("counting", &caches).reconciles::<ConfigMap>();
        let (metrics, queue, shutdown) = (controller.metrics(), controller.queue(), CancellationToken::new());
        let counting = Counting::default();
        let task = env.spawn("controller", controller.run(counting.clone(), shutdown.clone()));
        let cache = caches.cache::<ConfigMap>();
        cache.synced().await;
        // Everything is asked for again and again.
        for _ in 0..5 {
            cache.keys().into_iter().for_each(|key| queue.add(key));
            env.sleep(TIME).await;
        }
        assert!((KEYS - 100..=KEYS).contains(&metrics.queue_length()), "{} wait", metrics.queue_length());
        while counting.0.lock().unwrap().len() < KEYS {
            env.sleep(TIME * 100).await;
        }
        {
            let runs = counting.0.lock().unwrap();
            let most = runs.iter().max_by_key(|(_, count)| **count).unwrap();
            assert!(*most.1 <= 150, "{} had {} turns before others had one", most.0, most.1);
        }
        env.sleep(TIME * (KEYS as u32 / 4)).await;
        assert!(metrics.queue_length() <= 1, "{} wait", metrics.queue_length());
        assert_eq!(counting.0.lock().unwrap()[&ObjectKey::new("default", "0-slow")], 1);
        shutdown.cancel();
        task.join().await;
        caches.shutdown().await;
    });
    done.unwrap();
}
