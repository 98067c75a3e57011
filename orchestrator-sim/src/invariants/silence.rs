//! Whether a world is silent: nothing is written but signs of life.

use serde_json::Value;

use crate::history::Record;

/// Changes that a world at rest does not make: everything but leases, heartbeats in the status of nodes, and events that
/// expire.
pub fn noise(records: &[Record]) -> impl Iterator<Item = &Record> {
    records.iter().filter(|record| !is_sign_of_life(record))
}

fn is_sign_of_life(record: &Record) -> bool {
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

/// A node without the times at which its conditions were last seen to hold.
fn without_heartbeats(mut node: Value) -> Value {
    let conditions = node.pointer_mut("/status/conditions").and_then(Value::as_array_mut);
    for condition in conditions.into_iter().flatten().filter_map(Value::as_object_mut) {
        condition.remove("lastHeartbeatTime");
    }
    node
}
