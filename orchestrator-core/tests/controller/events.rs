//! Events that say what happened.

use k8s_openapi::{
    api::core::v1::{Event as ApiEvent, Pod},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube_core::params::ListParams;
use orchestrator_core::{
    client::Api,
    events::{Event, EventRecorder},
    meta,
};

use crate::simulate;

#[test]
fn events_are_counted_on_the_first() {
    simulate(async |env, api| {
        let recorder = EventRecorder::new(&api.client(), &env, "tester", "host");
        let pod = Pod {
            metadata: ObjectMeta {
                name: Some("web".to_owned()),
                namespace: Some("default".to_owned()),
                uid: Some("u".to_owned()),
                ..Default::default()
            },
            ..Default::default()
        };
        let regarding = meta::object_reference(&pod);
        for _ in 0..3 {
            recorder.publish(&regarding, Event::warning("Failed", "it failed")).await;
        }
        recorder.publish(&regarding, Event::normal("Works", "it works")).await;
        recorder.flush().await;
        let events = Api::<ApiEvent>::namespaced(&api.client(), "default").list(&ListParams::default()).await.unwrap();
        let mut found: Vec<_> = events.items.iter().map(|event| (event.reason.as_deref(), event.count)).collect();
        found.sort();
        assert_eq!(found, [(Some("Failed"), Some(3)), (Some("Works"), Some(1))]);
        let event = &events.items[0];
        assert!(meta::name(&event.metadata).starts_with("web."));
        assert_eq!(event.reporting_component.as_deref(), Some("tester"));
        assert_eq!(event.source.as_ref().unwrap().host.as_deref(), Some("host"));
        recorder.shutdown().await;
        recorder.publish(&regarding, Event::normal("Late", "dropped")).await;
        assert_eq!(recorder.dropped(), 1);
    });
}
