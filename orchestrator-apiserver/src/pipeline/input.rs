//! Decode: what a caller sent, as a tree of the kind's schema and storage version.

use orchestrator_core::{
    client::FieldValidation,
    object::Object,
    status::{ApiError, ApiResult},
};
use serde_json::Value;

use super::{Scope, Server};
use crate::{
    decode::{self, Findings},
    field::member,
    registry::Kind,
};

impl Server {
    /// The caller's object as a tree without unknown members, with `apiVersion` and `kind` checked.
    pub(super) fn decode(
        &self,
        scope: &Scope,
        object: &Object,
        validation: FieldValidation,
        warnings: &mut Vec<String>,
    ) -> ApiResult<Value> {
        decode_as(&scope.kind, object, validation, warnings)
    }
}

/// Decodes a body as an object of this kind.
pub(super) fn decode_as(
    kind: &Kind,
    object: &Object,
    validation: FieldValidation,
    warnings: &mut Vec<String>,
) -> ApiResult<Value> {
    let (mut tree, duplicates) = match object.encoded() {
        Some(bytes) => decode::parse(bytes).map_err(|error| {
            ApiError::bad_request(format!("the object provided is unrecognized (must be of type {}): {error}", kind.kind))
        })?,
        None => (object.to_tree()?, Vec::new()),
    };
    if !tree.is_object() {
        return Err(ApiError::bad_request(format!(
            "{} in version {:?} cannot be handled as a {}: json: cannot unmarshal the body into an object",
            kind.kind, kind.resource.version, kind.kind
        )));
    }
    check_type(kind, &tree)?;
    prune(kind, &mut tree, duplicates, validation, warnings)?;
    *member(&mut tree, "kind") = kind.kind.clone().into();
    *member(&mut tree, "apiVersion") = kind.api_version().into();
    Ok(tree)
}

/// Removes unknown members and says so, as asked for.
pub(super) fn prune(
    kind: &Kind,
    tree: &mut Value,
    duplicates: Vec<String>,
    validation: FieldValidation,
    warnings: &mut Vec<String>,
) -> ApiResult<()> {
    let cannot_handle = |why: String| {
        let (name, version) = (&kind.kind, &kind.resource.version);
        ApiError::bad_request(format!("{name} in version {version:?} cannot be handled as a {name}: {why}"))
    };
    let mut findings = Findings::default();
    if let Some(schema) = kind.schema {
        decode::prune(tree, schema, &mut findings).map_err(cannot_handle)?;
    } else {
        prune_metadata(tree, &mut findings).map_err(cannot_handle)?;
    }
    let duplicates = duplicates.into_iter().map(|path| format!("duplicate field {path:?}"));
    let unknown = findings.unknown.into_iter().map(|path| format!("unknown field {path:?}"));
    let found: Vec<String> = duplicates.chain(unknown).collect();
    match validation {
        _ if found.is_empty() => {}
        FieldValidation::Ignore => {}
        FieldValidation::Warn => warnings.extend(found),
        FieldValidation::Strict => return Err(cannot_handle(format!("strict decoding error: {}", found.join(", ")))),
    }
    Ok(())
}

/// Of a custom object only the metadata has a schema here.
fn prune_metadata(tree: &mut Value, findings: &mut Findings) -> Result<(), String> {
    let Some(config_map) = decode::Schema::get().kind("", "v1", "ConfigMap") else { return Ok(()) };
    let Some(metadata) = tree.get_mut("metadata").map(Value::take) else { return Ok(()) };
    let mut shell = serde_json::json!({ "metadata": metadata });
    decode::prune(&mut shell, config_map, findings)?;
    if let Some(metadata) = shell.get_mut("metadata").map(Value::take) {
        *member(tree, "metadata") = metadata;
    }
    Ok(())
}

/// Refuses a body that says it is something else.
fn check_type(kind: &Kind, tree: &Value) -> ApiResult<()> {
    let text = |name: &str| tree.get(name).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind_name) = (text("apiVersion"), text("kind"));
    if kind_name.is_empty() && api_version.is_empty() {
        return Ok(());
    }
    if !kind_name.is_empty() && kind_name != kind.kind {
        return Err(ApiError::bad_request(format!(
            "{kind_name} in version {:?} cannot be handled as a {}: no kind {kind_name:?} is registered for version \
             {api_version:?} here",
            api_version.rsplit('/').next().unwrap_or_default(),
            kind.kind,
        )));
    }
    if !api_version.is_empty() && api_version != kind.api_version() {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({api_version}) does not match the expected API version ({})",
            kind.api_version()
        )));
    }
    Ok(())
}
