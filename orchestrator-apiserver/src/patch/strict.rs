//! What a strict reader finds in a patch itself, whatever it makes of the object. Pure.
//!
//! Upstream: `applyJSPatch` and `strategicPatchObject` of `apiserver/pkg/endpoints/handlers/patch.go`.

use orchestrator_core::{
    client::{FieldValidation, PatchBody},
    status::{ApiError, ApiResult},
};
use serde_json::Value;

use super::wrong_kind;
use crate::{decode, limits};

/// The members that an operation has, all but the last one texts.
const OF_OPERATION: [&str; 4] = ["op", "path", "from", "value"];

/// Who checks fields reads operations as what they are, and refuses other types.
pub(super) fn check_operations(operations: &Value, validation: FieldValidation) -> ApiResult<()> {
    let is_strict = validation != FieldValidation::Ignore;
    let (prefix, of_list, of_item) = match is_strict {
        true => ("error decoding patch: ", "[]handlers.jsonPatchOp", "handlers.jsonPatchOp"),
        false => ("", "jsonpatch.Patch", "jsonpatch.Operation"),
    };
    let Some(items) = operations.as_array() else { return Err(wrong_kind(prefix, operations, of_list)) };
    for item in items.iter().filter(|item| !item.is_null()) {
        let Some(members) = item.as_object() else { return Err(wrong_kind(prefix, item, of_item)) };
        let [texts @ .., _] = OF_OPERATION;
        let wrong = |name: &&str| members.get(*name).is_some_and(|value| !value.is_string() && !value.is_null());
        if let Some(name) = texts.iter().copied().find(wrong).filter(|_| is_strict) {
            let kind = members.get(name).map(decode::go_kind).unwrap_or_default();
            let problem = format!("cannot unmarshal {kind} into Go struct field jsonPatchOp.{name} of type string");
            return Err(ApiError::bad_request(format!("{prefix}json: {problem}")));
        }
    }
    Ok(())
}

/// Fields that the patch repeats, and members of operations that mean nothing, as complaints.
pub(crate) fn findings(patch: &PatchBody, repeated: &[String]) -> Vec<String> {
    let repeated = repeated.iter().map(|path| format!("duplicate field {path:?}"));
    let PatchBody::Json(operations) = patch else { return repeated.collect() };
    let unknown = operations.as_array().into_iter().flatten().enumerate().flat_map(|(index, operation)| {
        let names = operation.as_object().into_iter().flat_map(|members| members.keys());
        let unknown = names.filter(|name| !OF_OPERATION.contains(&name.as_str()));
        unknown.map(move |name| format!("unknown field {:?}", format!("[{index}].{name}")))
    });
    repeated.chain(unknown.take(limits::STRICT_ERRORS)).map(|found| format!("json patch {found}")).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn operations_have_four_members() {
        let patch = PatchBody::Json(json!([
            {"op": "add", "path": "/a", "value": {"any": 1}},
            null,
            {"op": "copy", "from": "/a", "path": "/b", "Op": 1, "more": 2},
        ]));
        assert_eq!(
            findings(&patch, &["[0].value.any".to_owned()]),
            [
                "json patch duplicate field \"[0].value.any\"",
                "json patch unknown field \"[2].Op\"",
                "json patch unknown field \"[2].more\"",
            ]
        );
        let merge = PatchBody::Merge(json!({"op": 1, "more": 2}));
        assert_eq!(findings(&merge, &["more".to_owned()]), ["duplicate field \"more\""]);
    }

    #[test]
    fn operations_are_read_as_what_they_are_by_those_who_check_fields() {
        let refusal = |operations: Value, validation| {
            check_operations(&operations, validation).map_err(|error| error.message().to_owned())
        };
        for (operations, strict, lenient) in [
            (
                json!({}),
                "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp",
                "json: cannot unmarshal object into Go value of type jsonpatch.Patch",
            ),
            (
                json!(["x"]),
                "error decoding patch: json: cannot unmarshal string into Go value of type handlers.jsonPatchOp",
                "json: cannot unmarshal string into Go value of type jsonpatch.Operation",
            ),
            (
                json!([{"op": "add", "path": 1}]),
                "error decoding patch: json: cannot unmarshal number into Go struct field jsonPatchOp.path of type string",
                "",
            ),
        ] {
            for validation in [FieldValidation::Strict, FieldValidation::Warn] {
                assert_eq!(refusal(operations.clone(), validation), Err(strict.to_owned()));
            }
            let expected = if lenient.is_empty() { Ok(()) } else { Err(lenient.to_owned()) };
            assert_eq!(refusal(operations, FieldValidation::Ignore), expected);
        }
    }
}
