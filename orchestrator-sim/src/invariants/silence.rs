//! Whether a world is silent: nothing is written but signs of life.

use std::time::Duration;

use serde_json::Value;

use crate::history::Record;

/// Changes that a world at rest does not make: everything but leases, heartbeats in the status of nodes, and events that
/// expire.
pub fn noise(records: &[Record]) -> impl Iterator<Item = &Record> {
    records.iter().filter(|record| !is_sign_of_life(record))
}

/// Whether a world at rest makes this change.
pub(crate) fn is_sign_of_life(record: &Record) -> bool {
    let key = record.key.as_str();
    if key.starts_with("/registry/leases/") {
        return record.value.is_some() && record.previous.is_some();
    }
    if key.starts_with("/registry/events/") {
        return record.value.is_none();
    }
    let heartbeat = |value: Option<&[u8]>| Some(without_heartbeats(serde_json::from_slice(value?).ok()?));
    key.starts_with("/registry/minions/")
        && match (heartbeat(record.previous.as_deref()), heartbeat(record.value.as_deref())) {
            (Some(before), Some(after)) => before == after,
            _ => false,
        }
}

/// Since when a world is silent.
#[derive(Debug)]
pub(crate) struct Silence {
    seen: usize,
    since: Duration,
}

impl Silence {
    /// Listens from now on; so many changes were made before.
    pub(crate) fn new(seen: usize, now: Duration) -> Self {
        Self { seen, since: now }
    }

    /// Since when the world is silent, by all the changes that were ever made.
    pub(crate) fn since(&mut self, records: &[Record], now: Duration) -> Duration {
        if noise(&records[self.seen..]).next().is_some() {
            self.since = now;
        }
        self.seen = records.len();
        self.since
    }
}

/// A node without the times at which its conditions were last seen to hold, and without those of its managers.
fn without_heartbeats(mut node: Value) -> Value {
    let managers = node.pointer_mut("/metadata/managedFields").and_then(Value::as_array_mut);
    for manager in managers.into_iter().flatten().filter_map(Value::as_object_mut) {
        manager.remove("time");
    }
    let conditions = node.pointer_mut("/status/conditions").and_then(Value::as_array_mut);
    for condition in conditions.into_iter().flatten().filter_map(Value::as_object_mut) {
        condition.remove("lastHeartbeatTime");
    }
    node
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use jiff::Timestamp;
    use orchestrator_core::store::{Key, Revision};
    use serde_json::json;

    use super::*;

    fn record(key: &str, previous: Option<Value>, value: Option<Value>) -> Record {
        let bytes = |value: Option<Value>| value.map(|value| Bytes::from(value.to_string()));
        Record {
            revision: Revision(2),
            at: Timestamp::UNIX_EPOCH,
            key: Key::new(key),
            value: bytes(value),
            previous: bytes(previous),
        }
    }

    fn is_noise(key: &str, previous: Option<Value>, value: Option<Value>) -> bool {
        noise(&[record(key, previous, value)]).next().is_some()
    }

    #[test]
    fn only_signs_of_life_are_silence() {
        let node = |heartbeat: &str, ready: &str| {
            let condition = json!({"type": "Ready", "status": ready, "lastHeartbeatTime": heartbeat});
            let managers = json!([{"manager": "kubelet", "time": heartbeat}]);
            Some(
                json!({"kind": "Node", "metadata": {"managedFields": managers}, "status": {"conditions": [condition]}}),
            )
        };
        let (key, lease) = ("/registry/minions/a", "/registry/leases/kube-node-lease/a");
        assert!(!is_noise(key, node("1", "True"), node("2", "True")));
        assert!(is_noise(key, node("1", "True"), node("2", "False")));
        assert!(is_noise(key, None, node("1", "True")), "a new node");
        assert!(is_noise(key, node("1", "True"), None), "a node that goes");
        assert!(!is_noise(lease, Some(json!({})), Some(json!({}))));
        assert!(is_noise(lease, None, Some(json!({}))), "a new lease");
        let event = "/registry/events/default/a";
        assert!(!is_noise(event, Some(json!({})), None), "it expired");
        assert!(is_noise(event, None, Some(json!({}))));
        let pod = "/registry/pods/default/a";
        assert!(is_noise(pod, Some(json!({})), Some(json!({}))), "a write that changes nothing is a write");
    }
}
