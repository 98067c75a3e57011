//! The way from client-side apply: the annotation that it leaves on objects.

use serde_json::{Map, Value};

use super::{compare::compare, conflict::Conflicts, field_set::field_set, set::FieldSet, updater::Updater};

/// The manager who takes over from client-side apply.
pub(crate) const MANAGER: &str = "kubectl";

/// Holds the configuration that was applied last, as JSON.
const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Size of all annotations of an object, in bytes; upstream's limit.
const ANNOTATIONS_BYTES: usize = 256 << 10;

/// The conflicts that remain when client-side apply may be overruled in what it applied; `None` for none.
pub(crate) fn remaining(conflicts: Conflicts, live: &Value, updater: &Updater<'_>) -> Option<Conflicts> {
    let Some(allowed) = applied_before(live, updater) else { return Some(conflicts) };
    let left: Vec<_> = conflicts.0.into_iter().filter(|conflict| !allowed.contains(&conflict.path)).collect();
    (!left.is_empty()).then_some(Conflicts(left))
}

/// What client-side apply applied and nobody changed since.
fn applied_before(live: &Value, updater: &Updater<'_>) -> Option<FieldSet> {
    let text = annotation(live)?;
    let applied: Value = serde_json::from_str(text).ok()?;
    if applied.get("apiVersion").and_then(Value::as_str) != Some(updater.api_version) {
        return None;
    }
    let changes = compare(&applied, live, updater.of).ok()?;
    let set = field_set(&applied, updater.of);
    Some(set.difference(&changes.modified).difference(&changes.added).difference(&changes.removed))
}

/// Brings the annotation up to what is applied, where there is one.
pub(crate) fn renew(object: &mut Value, configuration: &Value) {
    if annotation(object).is_none() {
        return;
    }
    let mut applied = configuration.clone();
    if let Some(annotations) = annotations_mut(&mut applied) {
        annotations.remove(ANNOTATION);
    }
    let Some(annotations) = annotations_mut(object) else { return };
    annotations.insert(ANNOTATION.to_owned(), format!("{applied}\n").into());
    let size = |(name, value): (&String, &Value)| name.len() + value.as_str().map_or(0, str::len);
    if annotations.iter().map(size).sum::<usize>() > ANNOTATIONS_BYTES {
        annotations.remove(ANNOTATION);
    }
}

fn annotation(object: &Value) -> Option<&str> {
    let text = object.get("metadata")?.get("annotations")?.get(ANNOTATION)?.as_str()?;
    (!text.is_empty()).then_some(text)
}

fn annotations_mut(object: &mut Value) -> Option<&mut Map<String, Value>> {
    object.get_mut("metadata")?.get_mut("annotations")?.as_object_mut()
}
