//! Caches follow the server, one for each kind.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use k8s_openapi::api::core::v1::ConfigMap;
use kube_core::params::{DeleteParams, PostParams};
use orchestrator_core::{
    client::{Api, Resource},
    controller::{Caches, limits},
    env::Simulation,
    store::Revision,
};
use orchestrator_testkit::fake_api::FakeApi;

use crate::{config_map, simulate, value};

#[test]
fn a_cache_follows_through_faults_and_tells_every_change() {
    simulate(async |env, api| {
        let caches = Caches::new(&api.client(), &env);
        let maps = Api::<ConfigMap>::namespaced(&api.client(), "default");
        let cache = caches.cache::<ConfigMap>();
        cache.add_index("value", |map| vec![value(map).to_owned()]);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let subscription = cache.on_change({
            let seen = seen.clone();
            move |change| {
                let text = |map: &Option<Arc<ConfigMap>>| map.as_deref().map(value).unwrap_or("-").to_owned();
                let line = format!("{} {}>{}", change.key.name, text(&change.old), text(&change.new));
                seen.lock().unwrap().push(line);
            }
        });
        api.fail_requests(2);
        cache.synced().await;
        let create = PostParams::default();
        maps.create(&create, &config_map("a", "1")).await.unwrap();
        api.close_watches();
        let second = maps.create(&create, &config_map("b", "1")).await.unwrap();
        let revision = |map: &ConfigMap| Revision(map.metadata.resource_version.as_ref().unwrap().parse().unwrap());
        cache.reached(revision(&second)).await;
        assert_eq!(cache.by_index("value", "1").len(), 2);
        // Deleted and made again while nobody looks: another object.
        api.expire_watches();
        maps.delete("a", &DeleteParams::default()).await.unwrap();
        maps.create(&create, &config_map("a", "2")).await.unwrap();
        maps.delete("b", &DeleteParams::default()).await.unwrap();
        let last = maps.create(&create, &config_map("c", "3")).await.unwrap();
        api.expire_watches();
        cache.reached(revision(&last)).await;
        let mut seen = std::mem::take(&mut *seen.lock().unwrap());
        seen.sort();
        assert_eq!(seen, ["a ->1", "a ->2", "a 1>-", "b ->1", "b 1>-", "c ->3"]);
        assert_eq!(cache.by_index("value", "1").len(), 0);
        assert_eq!(cache.list_namespace("default").len(), 2);
        assert!(cache.list_namespace("other").is_empty());
        drop(subscription);
        caches.shutdown().await;
    });
}

#[test]
fn a_kind_has_one_cache_that_ends_with_its_last_user() {
    let simulation = Simulation::new(1);
    let env = simulation.env();
    let api = FakeApi::new(&env);
    let caches = Caches::new(&api.client(), &env);
    let first = caches.cache::<ConfigMap>();
    let second = caches.cache::<ConfigMap>();
    let partial = caches.metadata(&Resource::of::<ConfigMap>(&()));
    let wait = Duration::from_secs(1);
    simulation.run(async { env.sleep(wait).await }).unwrap();
    assert_eq!(simulation.tasks(), 2, "typed and metadata");
    assert!(second.is_synced() && partial.is_synced());
    drop((first, partial));
    simulation.run(async { env.sleep(wait).await }).unwrap();
    assert_eq!(simulation.tasks(), 1);
    let subscription = second.on_change(|_| {});
    drop(second);
    simulation.run(async { env.sleep(wait).await }).unwrap();
    assert_eq!(simulation.tasks(), 1, "a subscription is a user");
    drop(subscription);
    simulation.run(async { env.sleep(wait).await }).unwrap();
    assert_eq!(simulation.tasks(), 0);
}

#[test]
fn long_lists_come_in_pages() {
    simulate(async |env, api| {
        let maps = Api::<ConfigMap>::namespaced(&api.client(), "default");
        for number in 0..2 * limits::LIST_PAGE_OBJECTS + 1 {
            maps.create(&PostParams::default(), &config_map(&format!("m{number}"), "")).await.unwrap();
        }
        let cache = Caches::new(&api.client(), &env).cache::<ConfigMap>();
        cache.synced().await;
        assert_eq!(cache.list().len(), 2 * limits::LIST_PAGE_OBJECTS + 1);
    });
}
