//! An encoded object without `metadata.managedFields`, which nobody who works on objects reads and which, decoded,
//! takes more memory than all the rest.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

/// The same JSON object with `null` for its managed fields. What is no object with metadata is left as it is.
pub(super) fn without_managed_fields(json: &[u8]) -> Cow<'_, [u8]> {
    let Some(managed) = managed_fields(json) else { return Cow::Borrowed(json) };
    // Borrowed from `json`, so that the distance of the addresses is the place.
    let begin = managed.as_ptr().addr() - json.as_ptr().addr();
    Cow::Owned([&json[..begin], b"null", &json[begin + managed.len()..]].concat())
}

fn managed_fields(json: &[u8]) -> Option<&str> {
    #[derive(Deserialize)]
    struct Outer<'a> {
        #[serde(borrow)]
        metadata: &'a RawValue,
    }
    #[derive(Deserialize)]
    struct Metadata<'a> {
        #[serde(borrow, rename = "managedFields")]
        managed_fields: &'a RawValue,
    }
    let outer: Outer<'_> = serde_json::from_slice(json).ok()?;
    let metadata: Metadata<'_> = serde_json::from_str(outer.metadata.get()).ok()?;
    Some(metadata.managed_fields.get())
}

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
