//! Caches, controllers, leader election and events against a fake API server, in virtual time.

mod caches;
mod events;
mod faults;
mod identity;
mod leader;
mod own_writes;
mod pressure;
mod runs;
mod trace;

use k8s_openapi::{api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use orchestrator_core::env::{Env, Simulation};
use orchestrator_testkit::fake_api::FakeApi;

const SEEDS: std::ops::Range<u64> = 0..30;

fn config_map(name: &str, value: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..Default::default() },
        data: Some([("value".to_owned(), value.to_owned())].into()),
        ..Default::default()
    }
}

fn value(map: &ConfigMap) -> &str {
    map.data.as_ref().and_then(|data| data.get("value")).map_or("", String::as_str)
}

/// Runs a test in many simulated worlds.
fn simulate<F: Future<Output = ()>>(test: impl Fn(Env, FakeApi) -> F) {
    for seed in SEEDS {
        let simulation = Simulation::new(seed);
        let env = simulation.env();
        let api = FakeApi::new(&env);
        simulation.run(test(env, api)).unwrap_or_else(|stuck| panic!("seed {seed}: {stuck}"));
    }
}
