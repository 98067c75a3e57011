//! When something last changed that endpoints follow, for the annotation that tells how long they take.
//!
//! Upstream: `k8s.io/endpointslice/util` (`trigger_time_tracker.go`).

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Service};
use orchestrator_core::{meta, object::ObjectKey};

use crate::pods::readiness_changed;

/// What each service and its pods said at the last run.
#[derive(Debug, Default)]
pub(crate) struct TriggerTimes(Mutex<BTreeMap<ObjectKey, Seen>>);

impl TriggerTimes {
    /// The first of what has changed since the last run; nothing when nothing has.
    pub(crate) fn next(&self, key: &ObjectKey, service: &Service, pods: &[Arc<Pod>]) -> Option<Timestamp> {
        let mut known = self.lock();
        let seen = Seen::of(service, pods);
        let trigger = seen.since(known.get(key));
        known.insert(key.clone(), seen);
        trigger
    }

    /// The service is gone.
    pub(crate) fn forget(&self, key: &ObjectKey) {
        self.lock().remove(key);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ObjectKey, Seen>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Seen {
    /// When the service was made.
    service: Option<Timestamp>,
    /// When each pod became ready, or ceased to be, by name.
    pods: BTreeMap<String, Timestamp>,
}

impl Seen {
    fn of(service: &Service, pods: &[Arc<Pod>]) -> Self {
        let pods = pods.iter().filter_map(|pod| Some((meta::name(&pod.metadata).to_owned(), readiness_changed(pod)?)));
        let created = service.metadata.creation_timestamp.as_ref().map(|time| time.0);
        Self { service: created, pods: pods.collect() }
    }

    fn since(&self, known: Option<&Self>) -> Option<Timestamp> {
        let Some(known) = known else { return self.service };
        let changed = self.pods.iter().filter(|(name, time)| known.pods.get(*name).is_none_or(|known| known < *time));
        let service = self.service.filter(|_| self.service > known.service);
        changed.map(|(_, time)| *time).chain(service).min()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;
    use crate::pods::fixtures::{at, running};

    #[test]
    fn the_first_change_since_the_last_run_counts() {
        let mut service = Service::default();
        service.metadata.creation_timestamp = Some(Time(at(1)));
        let pods = |seconds: &[i64]| -> Vec<Arc<Pod>> {
            let pod = |(number, second): (usize, &i64)| Arc::new(running(&format!("p{number}"), Some(*second)));
            seconds.iter().enumerate().map(pod).collect()
        };
        let (times, key) = (TriggerTimes::default(), ObjectKey::new("default", "svc"));
        let next = |seconds: &[i64]| times.next(&key, &service, &pods(seconds));
        assert_eq!(next(&[5]), Some(at(1)), "a new service is what changed");
        assert_eq!(next(&[5]), None);
        assert_eq!(next(&[5, 9]), Some(at(9)));
        assert_eq!(next(&[12, 11]), Some(at(11)));
        assert_eq!(next(&[12]), None, "pods that go tell no time");
        times.forget(&key);
        assert_eq!(next(&[12]), Some(at(1)));
    }
}
