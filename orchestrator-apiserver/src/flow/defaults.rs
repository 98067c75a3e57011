//! The schemas and levels that every cluster has, and how they are kept.
//!
//! Upstream: <https://kubernetes.io/docs/concepts/cluster-administration/flow-control/#maintenance-of-the-mandatory-and-suggested-configuration-objects>.

use serde_json::{Map, Value};

use super::plan::CATCH_ALL;

const OBJECTS: &str = include_str!("../../data/flow-control.json");

/// Without these nothing is decided; they are as they have to be, whatever their annotation says.
const MANDATORY: [&str; 2] = ["exempt", CATCH_ALL];

/// Whoever sets this to anything but `true` has the object for himself.
const AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";

/// What has to be written.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Write {
    Create(Value),
    Replace(Value),
}

/// All of them, levels first.
pub(super) fn objects() -> Vec<Value> {
    serde_json::from_str(OBJECTS).unwrap_or_default()
}

/// Those that there have to be.
pub(super) fn mandatory() -> impl Iterator<Item = Value> {
    objects().into_iter().filter(|object| MANDATORY.contains(&name(object)))
}

/// One of them, by its kind and name.
pub(crate) fn mandatory_object(kind: &str, name_of: &str) -> Option<Value> {
    // Told apart by name before anything is read: all levels and schemas are asked for.
    let is_mandatory = MANDATORY.contains(&name_of);
    is_mandatory.then(mandatory)?.find(|object| object["kind"] == kind && name(object) == name_of)
}

pub(super) fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// What to write so that a default object is there again as it should be; `None` when it is.
pub(super) fn mend(default: &Value, stored: Option<&Value>) -> Option<Write> {
    let Some(stored) = stored else { return Some(Write::Create(default.clone())) };
    let ours = stored["metadata"]["annotations"][AUTO_UPDATE] == "true" || MANDATORY.contains(&name(default));
    if !ours || stored["spec"] == default["spec"] {
        return None;
    }
    let mut mended: Map<String, Value> = stored.as_object().cloned().unwrap_or_default();
    mended.insert("spec".to_owned(), default["spec"].clone());
    Some(Write::Replace(mended.into()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn there_are_as_many_as_upstream() {
        let count = |kind: &str| objects().iter().filter(|object| object["kind"] == kind).count();
        assert_eq!((count("FlowSchema"), count("PriorityLevelConfiguration"), mandatory().count()), (11, 8, 4));
    }

    #[test]
    fn what_is_the_users_own_stays() {
        for default in objects() {
            assert_eq!(mend(&default, Some(&default)), None);
            assert_eq!(mend(&default, None), Some(Write::Create(default.clone())));
            let mut changed = default.clone();
            changed["spec"] = json!({"of": "somebody"});
            assert_eq!(mend(&default, Some(&changed)), Some(Write::Replace(default.clone())));
            changed["metadata"]["annotations"][AUTO_UPDATE] = "false".into();
            let mended = mend(&default, Some(&changed));
            assert_eq!(mended.is_some(), MANDATORY.contains(&name(&default)));
        }
    }
}
