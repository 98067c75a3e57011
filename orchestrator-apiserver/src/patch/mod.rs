//! Patches: an object and a change make a new object. Pure.

mod go_words;
mod json;
mod order;
mod strategic;
mod strict;

use orchestrator_core::{
    client::{FieldValidation, PatchBody},
    status::{ApiError, ApiResult, Reason},
};
use serde_json::Value;

pub(crate) use go_words::shown;
pub(crate) use strict::findings;

use crate::{decode, limits, registry::Kind};

/// Refuses patches that are out of bounds.
pub(crate) fn check(patch: &PatchBody, validation: FieldValidation) -> ApiResult<()> {
    if let PatchBody::Json(operations) = patch {
        strict::check_operations(operations, validation)?;
    }
    match patch {
        PatchBody::Json(Value::Array(operations)) if operations.len() > limits::PATCH_OPERATIONS => {
            let message = format!(
                "Request entity too large: The allowed maximum operations in a JSON patch is {}, got {}",
                limits::PATCH_OPERATIONS,
                operations.len()
            );
            Err(ApiError::new(Reason::RequestEntityTooLarge, message))
        }
        PatchBody::Merge(patch) if !patch.is_object() => Err(wrong_kind("error decoding patch: ", patch, OBJECT)),
        PatchBody::Strategic(patch) if !patch.is_object() => Err(wrong_kind("", patch, OBJECT)),
        _ => Ok(()),
    }
}

/// Refuses a configuration that is no object.
pub(crate) fn check_configuration(configuration: &Value) -> ApiResult<()> {
    let prefix = "error decoding YAML: error unmarshaling JSON: while decoding JSON: ";
    if configuration.is_object() { Ok(()) } else { Err(wrong_kind(prefix, configuration, OBJECT)) }
}

/// An object in the words of Go's decoder.
const OBJECT: &str = "map[string]interface {}";

fn wrong_kind(prefix: &str, patch: &Value, wanted: &str) -> ApiError {
    let kind = decode::go_kind(patch);
    ApiError::bad_request(format!("{prefix}json: cannot unmarshal {kind} into Go value of type {wanted}"))
}

/// What the change leaves of the object, which need not be an object any more.
pub(crate) fn apply(kind: &Kind, old: &Value, patch: &PatchBody) -> ApiResult<Value> {
    let mut tree = old.clone();
    match patch {
        PatchBody::Json(operations) => tree = json::apply(tree, operations)?,
        PatchBody::Merge(patch) => json_patch::merge(&mut tree, patch),
        PatchBody::Strategic(patch) => match kind.schema {
            Some(schema) => tree = strategic::merge(tree, patch, schema)?,
            None => {
                return Err(ApiError::new(
                    Reason::UnsupportedMediaType,
                    "the body of the request was in an unknown format - accepted media types include: \
                     application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
                ));
            }
        },
        // Not a change of the tree alone: it needs to know who manages what.
        PatchBody::Apply(_) => return Err(ApiError::bad_request("this resource cannot be applied to")),
    }
    Ok(tree)
}
