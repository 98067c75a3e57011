//! Events in their two groups: the same object, most of whose members have another name in each.
//!
//! Upstream: `pkg/apis/events/v1/conversion.go`.

use serde_json::{Map, Value};

use crate::field::{member, set_default};

/// The version that objects are stored in.
pub(crate) const CORE: &str = "v1";

/// Members by their names in the core group and in the group of their own.
const NAMES: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

/// What the core group writes even when there is nothing in it, and the other group does not.
const ALWAYS_IN_CORE: [&str; 2] = ["reportingComponent", "reportingInstance"];

/// An event in the other group.
pub(super) fn convert(event: &Value, api_version: &str) -> Value {
    let to_core = api_version == CORE;
    let members = event.as_object().into_iter().flatten();
    let empty = |name: &str, value: &Value| !to_core && ALWAYS_IN_CORE.contains(&name) && value == "";
    let members = members.filter(|(name, value)| !empty(name, value));
    let members = members.map(|(name, value)| (renamed(name, to_core).to_owned(), value.clone()));
    let mut converted = Value::Object(members.collect::<Map<_, _>>());
    if to_core {
        ALWAYS_IN_CORE.iter().for_each(|name| set_default(&mut converted, name, ""));
    }
    *member(&mut converted, "apiVersion") = api_version.into();
    converted
}

/// The name of a member in the core group, or in the other one.
fn renamed(name: &str, to_core: bool) -> &str {
    let known = NAMES.iter().map(|(core, newer)| if to_core { (*newer, *core) } else { (*core, *newer) });
    known.into_iter().find(|(from, _)| *from == name).map_or(name, |(_, to)| to)
}

/// The field of the core group that a field of the other group selects by. Fields of the core group are none there.
pub(crate) fn selectable(field: &str) -> Option<String> {
    let (first, rest) = field.split_once('.').map_or((field, None), |(first, rest)| (first, Some(rest)));
    let selectable = matches!(first, "regarding" | "reportingController" | "reason" | "type" | "metadata");
    let core = renamed(first, true);
    selectable.then(|| rest.map_or_else(|| core.to_owned(), |rest| format!("{core}.{rest}")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const NEWER: &str = "events.k8s.io/v1";

    #[test]
    fn every_member_has_its_place_in_both_groups() {
        let core = json!({
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "involvedObject": {"name": "p"},
            "message": "m", "source": {"component": "c"}, "firstTimestamp": "2026-01-01T00:00:00Z",
            "lastTimestamp": null, "count": 2, "reportingComponent": "c", "reportingInstance": "i", "reason": "R",
            "type": "Normal", "action": "A", "related": {"name": "q"}, "eventTime": null, "series": {"count": 2},
        });
        let newer = json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"}, "regarding": {"name": "p"},
            "note": "m", "deprecatedSource": {"component": "c"}, "deprecatedFirstTimestamp": "2026-01-01T00:00:00Z",
            "deprecatedLastTimestamp": null, "deprecatedCount": 2, "reportingController": "c",
            "reportingInstance": "i", "reason": "R", "type": "Normal", "action": "A", "related": {"name": "q"},
            "eventTime": null, "series": {"count": 2},
        });
        assert_eq!(convert(&core, NEWER), newer);
        assert_eq!(convert(&newer, CORE), core);
    }

    #[test]
    fn each_group_selects_by_its_own_names() {
        assert_eq!(selectable("regarding.fieldPath").as_deref(), Some("involvedObject.fieldPath"));
        assert_eq!(selectable("reportingController").as_deref(), Some("reportingComponent"));
        assert_eq!(selectable("type").as_deref(), Some("type"));
        for foreign in ["involvedObject.name", "source", "deprecatedSource.component", "note"] {
            assert_eq!(selectable(foreign), None, "{foreign}");
        }
    }

    proptest! {
        #[test]
        fn there_and_back_is_the_same(present in prop::collection::vec(any::<bool>(), NAMES.len()), text in "[a-z]{0,2}") {
            let mut event = json!({"apiVersion": CORE, "reportingComponent": text, "reportingInstance": text});
            for ((name, _), _) in NAMES.iter().zip(present).filter(|(_, present)| *present) {
                *member(&mut event, name) = text.clone().into();
            }
            prop_assert_eq!(convert(&convert(&event, NEWER), CORE), event);
        }
    }
}
