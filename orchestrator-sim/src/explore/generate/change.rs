//! Small changes of an object: a field less, another number, one more item. Whether the object still makes sense is for the server to say.

use proptest::{prelude::*, sample::Index};
use serde_json::{Number, Value};

/// Numbers that are often an edge of something.
const NUMBERS: [i64; 7] = [0, 1, 2, 3, 5, 10, 60];

/// What a member may say, where it is one of a few words.
const WORDS: [(&str, &[&str]); 18] = [
    ("action", &["FailJob", "Ignore", "Count", "FailIndex"]),
    ("allocationMode", &["ExactCount", "All"]),
    ("completionMode", &["NonIndexed", "Indexed"]),
    ("concurrencyPolicy", &["Allow", "Forbid", "Replace"]),
    ("dnsPolicy", &["ClusterFirst", "Default", "ClusterFirstWithHostNet"]),
    ("effect", &["NoSchedule", "PreferNoSchedule", "NoExecute"]),
    ("externalTrafficPolicy", &["Cluster", "Local"]),
    ("imagePullPolicy", &["Always", "IfNotPresent", "Never"]),
    ("internalTrafficPolicy", &["Cluster", "Local"]),
    ("operator", &["In", "NotIn", "Exists", "DoesNotExist", "Equal"]),
    ("podManagementPolicy", &["OrderedReady", "Parallel"]),
    ("podReplacementPolicy", &["Failed", "TerminatingOrFailed"]),
    ("protocol", &["TCP", "UDP", "SCTP"]),
    ("restartPolicy", &["Always", "OnFailure", "Never"]),
    ("sessionAffinity", &["None", "ClientIP"]),
    ("type", &["RollingUpdate", "OnDelete", "Recreate", "ClusterIP", "NodePort", "LoadBalancer", "ExternalName"]),
    ("whenDeleted", &["Retain", "Delete"]),
    ("whenScaled", &["Retain", "Delete"]),
];

/// One change at one place.
#[derive(Clone, Debug)]
pub(super) struct Change {
    place: Index,
    how: How,
}

#[derive(Clone, Copy, Debug)]
enum How {
    /// It is not there.
    Gone,
    /// It is another one of its sort.
    Other(u8),
}

impl Change {
    pub(super) fn any() -> impl Strategy<Value = Self> {
        let how = prop_oneof![1 => Just(How::Gone), 3 => any::<u8>().prop_map(How::Other)];
        (any::<Index>(), how).prop_map(|(place, how)| Self { place, how })
    }

    /// Carries it out somewhere below an object's members. What the object is and what it is called stays.
    pub(super) fn apply(&self, object: &mut Value) {
        let places = places(object);
        let Some(place) = (!places.is_empty()).then(|| self.place.get(&places).clone()) else { return };
        let Some((last, parents)) = place.split_last() else { return };
        let Some(parent) = parents.iter().try_fold(object, |value, step| step.of(value)) else { return };
        match self.how {
            How::Gone => last.remove(parent),
            How::Other(choice) => {
                let name = place.iter().rev().find_map(Step::name).unwrap_or_default().to_owned();
                if let Some(value) = last.of(parent) {
                    other(&name, value, usize::from(choice));
                }
            }
        }
    }
}

/// A member, or an item.
#[derive(Clone, Debug)]
enum Step {
    Member(String),
    Item(usize),
}

impl Step {
    fn name(&self) -> Option<&str> {
        match self {
            Self::Member(name) => Some(name),
            Self::Item(_) => None,
        }
    }

    fn of<'a>(&self, value: &'a mut Value) -> Option<&'a mut Value> {
        match self {
            Self::Member(name) => value.get_mut(name),
            Self::Item(index) => value.get_mut(index),
        }
    }

    fn remove(&self, parent: &mut Value) {
        match (self, parent) {
            (Self::Member(name), Value::Object(members)) => drop(members.remove(name)),
            (Self::Item(index), Value::Array(items)) if *index < items.len() => drop(items.remove(*index)),
            _ => {}
        }
    }
}

/// Everything that may change: labels, annotations, and whatever is not metadata, type or status.
fn places(object: &Value) -> Vec<Vec<Step>> {
    let mut found = Vec::new();
    for (name, value) in object.as_object().into_iter().flatten() {
        match name.as_str() {
            "apiVersion" | "kind" | "status" => {}
            "metadata" => {
                for name in ["annotations", "labels"] {
                    let path = vec![Step::Member("metadata".to_owned()), Step::Member(name.to_owned())];
                    value.get(name).into_iter().for_each(|value| below(value, &path, &mut found));
                }
            }
            // An object without its spec is none; what the spec says may go.
            "spec" => below(value, &[Step::Member(name.clone())], &mut found),
            _ => {
                let path = vec![Step::Member(name.clone())];
                found.push(path.clone());
                below(value, &path, &mut found);
            }
        }
    }
    found
}

/// All places below a value.
fn below(value: &Value, path: &[Step], found: &mut Vec<Vec<Step>>) {
    let mut visit = |step: Step, value: &Value| {
        let path: Vec<Step> = path.iter().cloned().chain([step]).collect();
        found.push(path.clone());
        below(value, &path, found);
    };
    match value {
        Value::Object(members) => {
            members.iter().for_each(|(name, value)| visit(Step::Member(name.clone()), value));
        }
        Value::Array(items) => items.iter().enumerate().for_each(|(index, value)| visit(Step::Item(index), value)),
        _ => {}
    }
}

/// Another value of the same sort, for a member of a name.
fn other(name: &str, value: &mut Value, choice: usize) {
    match value {
        Value::Null => {}
        Value::Bool(is) => *is = !*is,
        Value::Number(number) => *number = other_number(number, choice),
        Value::String(text) => *text = other_text(name, text, choice),
        Value::Array(items) => {
            if let Some(item) = items.get(choice % items.len().max(1)).cloned() {
                items.push(named_anew(item));
            }
        }
        Value::Object(members) => {
            // A map from names to texts may have one more; other objects have the members they have.
            let is_map = !members.is_empty() && members.values().all(Value::is_string);
            if let Some((name, value)) = members.iter().next().filter(|_| is_map) {
                let (name, value) = (format!("{name}-x"), value.clone());
                members.insert(name, value);
            }
        }
    }
}

fn other_number(number: &Number, choice: usize) -> Number {
    let Some(present) = number.as_i64() else { return number.clone() };
    let near = [present.saturating_add(1), present.saturating_sub(1), present.saturating_mul(2)];
    let choices: Vec<i64> = near.into_iter().chain(NUMBERS).collect();
    choices[choice % choices.len()].into()
}

fn other_text(name: &str, text: &str, choice: usize) -> String {
    let words = WORDS.iter().find(|(member, words)| *member == name && words.contains(&text)).map(|(_, words)| *words);
    if let Some(words) = words {
        return words[choice % words.len()].to_owned();
    }
    // A number with a unit, such as a percentage or a quantity, stays one.
    let (digits, unit) = text.split_at(text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len()));
    match digits.parse::<i64>() {
        Ok(number) => format!("{}{unit}", other_number(&number.into(), choice)),
        Err(_) => format!("{text}-x"),
    }
}

/// A further item of a list by names has a name of its own.
fn named_anew(mut item: Value) -> Value {
    if let Some(Value::String(name)) = item.get_mut("name") {
        name.push_str("-x");
    }
    item
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object() -> Value {
        json!({
            "apiVersion": "v1", "kind": "K",
            "metadata": {"name": "n", "namespace": "m", "labels": {"a": "b"}},
            "spec": {"list": [{"name": "one", "number": 3}], "share": "25%", "word": "text", "is": true},
            "status": {"left": "alone"},
        })
    }

    proptest! {
        #[test]
        fn what_it_is_and_is_called_stays(changes in proptest::collection::vec(Change::any(), 0..20)) {
            let (before, mut changed) = (object(), object());
            changes.iter().for_each(|change| change.apply(&mut changed));
            for place in ["/apiVersion", "/kind", "/metadata/name", "/metadata/namespace", "/status"] {
                prop_assert_eq!(changed.pointer(place), before.pointer(place));
            }
            prop_assert!(changed["spec"].is_object());
        }
    }

    #[test]
    fn every_place_is_found() {
        let found: Vec<String> = places(&object())
            .iter()
            .map(|place| {
                let step = |step: &Step| match step {
                    Step::Member(name) => name.clone(),
                    Step::Item(index) => index.to_string(),
                };
                place.iter().map(step).collect::<Vec<_>>().join(".")
            })
            .collect();
        assert_eq!(
            found,
            [
                "metadata.labels.a",
                "spec.is",
                "spec.list",
                "spec.list.0",
                "spec.list.0.name",
                "spec.list.0.number",
                "spec.share",
                "spec.word",
            ]
        );
    }

    #[test]
    fn others_are_of_the_same_sort() {
        let changed = |name: &str, value: Value, choice| {
            let mut value = value;
            other(name, &mut value, choice);
            value
        };
        assert_eq!(changed("is", json!(true), 0), json!(false));
        assert_eq!(changed("n", json!(3), 0), json!(4));
        assert_eq!(changed("n", json!(3), 3), json!(0));
        assert_eq!(changed("share", json!("25%"), 1), json!("24%"));
        assert_eq!(changed("protocol", json!("TCP"), 1), json!("UDP"));
        assert_eq!(changed("word", json!("a"), 1), json!("a-x"));
        assert_eq!(changed("list", json!([{"name": "a"}]), 0), json!([{"name": "a"}, {"name": "a-x"}]));
        assert_eq!(changed("map", json!({"a": "b"}), 0), json!({"a": "b", "a-x": "b"}));
    }
}
