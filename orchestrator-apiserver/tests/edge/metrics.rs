//! What is counted while clients read, write and watch.

use std::{sync::Arc, time::Duration};

use http_body_util::BodyExt;
use orchestrator_core::{
    client::UserInfo,
    controller::{Caches, Controller},
    env::TaskGroup,
};

use crate::support::{Api, run};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn create(api: &Api, name: &str) {
    let body = format!("{{\"metadata\":{{\"name\":\"{name}\"}}}}");
    assert_eq!(api.send(UserInfo::admin(), "POST", CONFIG_MAPS, &body).await.code, 201);
}

/// The value of the only line that names the family and has all of these labels.
async fn value(api: &Api, family: &str, labels: &[&str]) -> Option<f64> {
    let answer = api.get("/metrics").await;
    assert_eq!(answer.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let is_it =
        |line: &&str| line.starts_with(&format!("{family}{{")) && labels.iter().all(|label| line.contains(label));
    let found: Vec<&str> = answer.text.lines().filter(is_it).collect();
    assert!(found.len() <= 1, "{found:#?}");
    found.first().map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
}

#[test]
fn requests_are_counted() {
    run(async |api| {
        create(&api, "a").await;
        create(&api, "b").await;
        for _ in 0..3 {
            api.get(CONFIG_MAPS).await;
        }
        api.get(&format!("{CONFIG_MAPS}/nosuch")).await;
        let maps = "resource=\"configmaps\"";
        for (family, labels, expected) in [
            ("apiserver_request_total", vec![maps, "verb=\"POST\"", "code=\"201\"", "scope=\"resource\""], Some(2.0)),
            ("apiserver_request_total", vec![maps, "verb=\"LIST\"", "code=\"200\"", "scope=\"namespace\""], Some(3.0)),
            ("apiserver_request_total", vec![maps, "verb=\"GET\"", "code=\"404\""], Some(1.0)),
            ("apiserver_request_duration_seconds_count", vec![maps, "verb=\"LIST\""], Some(3.0)),
            ("apiserver_response_sizes_bucket", vec![maps, "verb=\"LIST\"", "le=\"10000\""], Some(3.0)),
            ("apiserver_response_sizes_count", vec![maps, "verb=\"POST\""], None),
            ("apiserver_resource_objects", vec![maps], Some(2.0)),
            ("apiserver_storage_objects", vec!["resource=\"flowschemas.flowcontrol.apiserver.k8s.io\""], Some(11.0)),
            ("etcd_request_duration_seconds_count", vec![maps, "operation=\"create\""], Some(2.0)),
            // Asking for metrics is a request as well.
            ("apiserver_current_inflight_requests", vec!["readOnly"], Some(1.0)),
            ("apiserver_current_inflight_requests", vec!["mutating"], Some(0.0)),
        ] {
            assert_eq!(value(&api, family, &labels).await, expected, "{family} {labels:?}");
        }
        let dispatched = value(&api, "apiserver_flowcontrol_dispatched_requests_total", &["flow_schema=\"exempt\""]);
        assert!(dispatched.await.is_some_and(|count| count >= 6.0));
    });
}

#[test]
fn watches_are_counted_when_they_end_and_shown_while_they_last() {
    run(async |api| {
        let labels = ["resource=\"configmaps\"", "verb=\"WATCH\""];
        let watch = api.open(UserInfo::admin(), "GET", &format!("{CONFIG_MAPS}?watch=1"), "").await;
        let mut events = watch.into_body();
        create(&api, "a").await;
        let event = events.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(value(&api, "apiserver_longrunning_requests", &labels).await, Some(1.0));
        assert_eq!(value(&api, "apiserver_request_total", &labels).await, None);
        assert_eq!(value(&api, "apiserver_watch_events_total", &labels[..1]).await, Some(1.0));
        let size = value(&api, "apiserver_watch_events_sizes_sum", &labels[..1]).await;
        assert_eq!(size, Some(event.len() as f64));
        drop(events);
        assert_eq!(value(&api, "apiserver_longrunning_requests", &labels).await, Some(0.0));
        assert_eq!(value(&api, "apiserver_request_total", &labels).await, Some(1.0));
    });
}

#[test]
fn controllers_show_their_queues() {
    run(async |api| {
        let caches = Caches::new(&api.server.client(), &api.env);
        api.server.add_metrics(Arc::new(caches.work_queues().clone()));
        let controller = Controller::new("maps", &caches).reconciles::<k8s_openapi::api::core::v1::ConfigMap>();
        let mut tasks = TaskGroup::new(&api.env);
        tasks.spawn("controller", controller.run(Nothing, Default::default()));
        create(&api, "a").await;
        api.env.sleep(Duration::from_secs(1)).await;
        assert_eq!(value(&api, "workqueue_adds_total", &["name=\"maps\""]).await, Some(1.0));
        assert_eq!(value(&api, "workqueue_work_duration_seconds_count", &["name=\"maps\""]).await, Some(1.0));
        tasks.stop().await;
    });
}

#[test]
fn metrics_are_for_those_who_may() {
    run(async |api| {
        let stranger = UserInfo { name: "system:anonymous".to_owned(), ..UserInfo::default() };
        assert_eq!(api.send(stranger, "GET", "/metrics", "").await.code, 403);
    });
}

/// Does nothing.
struct Nothing;

#[async_trait::async_trait]
impl orchestrator_core::controller::Reconciler for Nothing {
    type Object = k8s_openapi::api::core::v1::ConfigMap;
    type Error = std::convert::Infallible;

    async fn reconcile(
        &self,
        _: &orchestrator_core::object::ObjectKey,
        _: &orchestrator_core::controller::Context,
    ) -> Result<orchestrator_core::controller::Action, Self::Error> {
        Ok(orchestrator_core::controller::Action::Done)
    }
}
