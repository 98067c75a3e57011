//! Parts of an encoded object: its metadata, and the whole without `metadata.managedFields`, which nobody who works on
//! objects reads and which, decoded, takes more memory than all the rest.

use std::{borrow::Cow, cell::Cell, fmt, ops::Range};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

/// The same JSON object with `null` for its managed fields. What is no object with metadata is left as it is.
pub(super) fn without_managed_fields(json: &[u8]) -> Cow<'_, [u8]> {
    without(json, managed_fields(json))
}

/// The same JSON object with `null` for one of its parts.
pub(super) fn without(json: &[u8], part: Option<Range<usize>>) -> Cow<'_, [u8]> {
    part.map_or(Cow::Borrowed(json), |part| Cow::Owned([&json[..part.start], b"null", &json[part.end..]].concat()))
}

/// Where the managed fields stand in a JSON object. It is read no further than there.
pub(super) fn managed_fields(json: &[u8]) -> Option<Range<usize>> {
    let metadata = member(json, "metadata")?;
    let managed = member(&json[metadata.clone()], "managedFields")?;
    Some(metadata.start + managed.start..metadata.start + managed.end)
}

/// Where the value of the first member of a name stands in a JSON object. It is read no further than there.
pub(super) fn member(json: &[u8], name: &str) -> Option<Range<usize>> {
    let found = Cell::new(None);
    // The visitor leaves the object half read, which is an error.
    let _ = serde_json::Deserializer::from_slice(json).deserialize_map(Find { name, found: &found });
    let value = found.get()?.get();
    // Borrowed from `json`, so that the distance of the addresses is the place.
    let begin = value.as_ptr().addr() - json.as_ptr().addr();
    Some(begin..begin + value.len())
}

struct Find<'f, 'a> {
    name: &'f str,
    found: &'f Cell<Option<&'a RawValue>>,
}

impl<'a> Visitor<'a> for Find<'_, 'a> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<M: MapAccess<'a>>(self, mut members: M) -> Result<(), M::Error> {
        while let Some(Name(name)) = members.next_key()? {
            if name == self.name {
                self.found.set(Some(members.next_value()?));
                return Ok(());
            }
            members.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }
}

/// A member's name, borrowed where it has no escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_managed_fields_go() {
        let cases = [
            (
                r#"{"metadata":{"name":"a","managedFields":[{"fieldsV1":{"f:x":{}}}]},"data":{"managedFields":"[]"}}"#,
                r#"{"metadata":{"name":"a","managedFields":null},"data":{"managedFields":"[]"}}"#,
            ),
            (r#"{"metadata": {"managedFields" : [] }}"#, r#"{"metadata": {"managedFields" : null }}"#),
            (r#"{"metadata":{"name":"managedFields"}}"#, r#"{"metadata":{"name":"managedFields"}}"#),
            (r#"{"kind":"Status"}"#, r#"{"kind":"Status"}"#),
            (
                r#"{"a":[{}],"met\u0061data":{"managedFields":[1]}}"#,
                r#"{"a":[{}],"met\u0061data":{"managedFields":null}}"#,
            ),
            (r#"{"metadata":null}"#, r#"{"metadata":null}"#),
            ("[]", "[]"),
            ("{\"metadata\":", "{\"metadata\":"),
        ];
        for (json, expected) in cases {
            let trimmed = without_managed_fields(json.as_bytes());
            assert_eq!(std::str::from_utf8(&trimmed), Ok(expected));
        }
    }
}
