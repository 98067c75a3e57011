//! Whether an object is as a test expects it, and where it is not.

use std::fmt;

use serde_json::Value;

/// An object is not as it should be. Both as text and for debugging it is what a person wants to read.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
pub struct Unexpected {
    /// Such as `ConfigMap default/web`.
    pub object: String,
    /// One line for each place that is not as it should be.
    pub differences: Vec<String>,
}

impl fmt::Display for Unexpected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not as expected:", self.object)?;
        self.differences.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

impl fmt::Debug for Unexpected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where what is found lacks something that is expected. Members that nobody expects may be there; `null` expects that there
/// is no such member; lists are compared item by item.
pub(super) fn differences(expected: &Value, found: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    compare(expected, found, "", &mut lines);
    lines
}

fn compare(expected: &Value, found: &Value, place: &str, lines: &mut Vec<String>) {
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) => {
            for (name, expected) in expected {
                let place = format!("{place}.{name}");
                compare(expected, found.get(name).unwrap_or(&Value::Null), &place, lines);
            }
        }
        (Value::Array(expected), Value::Array(found)) if expected.len() == found.len() => {
            for (index, (expected, found)) in expected.iter().zip(found).enumerate() {
                compare(expected, found, &format!("{place}[{index}]"), lines);
            }
        }
        (expected, found) if expected == found => {}
        (Value::Null, found) => lines.push(format!("{place}: is {found}, expected nothing")),
        (expected, Value::Null) => lines.push(format!("{place}: is not there, expected {expected}")),
        (expected, found) => lines.push(format!("{place}: is {found}, expected {expected}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_difference_has_its_place() {
        let found = json!({"spec": {"replicas": 2, "ports": [1, 2], "more": true}, "status": {"phase": "Old"}});
        assert!(differences(&json!({"spec": {"replicas": 2, "ports": [1, 2]}, "gone": null}), &found).is_empty());
        let expected = json!({"spec": {"replicas": 3, "ports": [1, 3], "name": "a"}, "status": {"phase": null}});
        assert_eq!(
            differences(&expected, &found),
            [
                ".spec.name: is not there, expected \"a\"",
                ".spec.ports[1]: is 2, expected 3",
                ".spec.replicas: is 2, expected 3",
                ".status.phase: is \"Old\", expected nothing",
            ]
        );
        assert_eq!(differences(&json!({"a": [1]}), &json!({"a": [1, 2]})), [".a: is [1,2], expected [1]"]);
    }
}
