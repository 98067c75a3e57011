//! Decode: what a caller sent, as a tree of the kind's schema and storage version.

use std::sync::Arc;

use orchestrator_core::{
    client::{FieldValidation, Resource},
    object::Object,
    status::{ApiError, ApiResult},
};
use serde_json::Value;

use super::{Scope, Server};
use crate::{
    decode::{self, Findings, WrongType},
    field::member,
    names::NameRule,
    registry::{Kind, ObjectType},
    strategy::{Generation, Plain},
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
            let why = decode::complaint(bytes).unwrap_or_else(|| error.to_string());
            unrecognized(kind, &why, bytes)
        })?,
        None => (object.to_tree()?, Vec::new()),
    };
    if tree.is_null() {
        tree = Value::Object(serde_json::Map::new());
    }
    if let Some(why) = no_type(&tree) {
        let encoded = object.encoded().cloned();
        return Err(unrecognized(kind, &why, &encoded.unwrap_or_else(|| tree.to_string().into())));
    }
    check_type(kind, &tree)?;
    let duplicates = duplicates.into_iter().map(|path| format!("duplicate field {path:?}")).collect();
    prune(kind, &mut tree, duplicates, validation, warnings).map_err(|why| {
        let (name, version, why) = (&kind.kind, &kind.resource.version, why.json);
        ApiError::bad_request(format!("{name} in version {version:?} cannot be handled as a {name}: {why}"))
    })?;
    *member(&mut tree, "kind") = kind.kind.clone().into();
    *member(&mut tree, "apiVersion") = kind.api_version().into();
    Ok(tree)
}

/// A kind that is never stored, only to read bodies of it.
pub(super) fn body_kind(group: &str, version: &str, kind: &str) -> Kind {
    Kind {
        resource: Resource::new(group.to_owned(), version.to_owned(), String::new()),
        kind: kind.to_owned(),
        singular: String::new(),
        short_names: Vec::new(),
        categories: Vec::new(),
        namespaced: true,
        verbs: Vec::new(),
        subresources: Vec::new(),
        prefix: String::new(),
        stored_as: String::new(),
        schema: decode::Schema::get().kind(group, version, kind),
        strategy: Arc::new(Plain { generation: Generation::None, status: false, names: NameRule::Subdomain }),
        columns: Vec::new(),
        open_api: None,
        selectable: Arc::default(),
        scale: None,
        object_type: ObjectType::default(),
    }
}

/// Bytes of a body that an error shows.
const SHOWN_BYTES: usize = 30;

/// What Go's decoder of types says of a body whose type cannot be read.
const TYPE_STRUCTURE: &str = "struct { APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \
                              \"json:\\\"kind,omitempty\\\"\" }";

/// What is wrong with the type of a body, beside that it is missing or another.
pub(super) fn no_type(tree: &Value) -> Option<String> {
    let kind = decode::go_kind(tree);
    if !tree.is_object() {
        return Some(format!("json: cannot unmarshal {kind} into Go value of type {TYPE_STRUCTURE}"));
    }
    let wrong = |name: &&str| tree.get(name).is_some_and(|value| !value.is_string() && !value.is_null());
    let name = ["apiVersion", "kind"].into_iter().find(wrong)?;
    let kind = decode::go_kind(tree.get(name)?);
    Some(format!("json: cannot unmarshal {kind} into Go struct field .{name} of type string"))
}

/// The refusal of a body that cannot be read.
fn unrecognized(kind: &Kind, why: &str, bytes: &[u8]) -> ApiError {
    let shown = bytes.get(..SHOWN_BYTES).unwrap_or(bytes);
    let more = if bytes.len() > SHOWN_BYTES { " ..." } else { "" };
    let shown = match bytes.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => String::from_utf8_lossy(shown).into_owned(),
        Some(_) => shown.iter().map(|byte| format!("{byte:02x}")).collect(),
    };
    ApiError::bad_request(format!(
        "the object provided is unrecognized (must be of type {}): couldn't get version/kind; json parse error: {why} \
         ({shown}{more})",
        kind.kind
    ))
}

/// Removes unknown members and says so, as asked for, after what was found before. What cannot be an object of the kind is
/// refused with the reason.
pub(super) fn prune(
    kind: &Kind,
    tree: &mut Value,
    mut found: Vec<String>,
    validation: FieldValidation,
    warnings: &mut Vec<String>,
) -> Result<(), WrongType> {
    let mut findings = Findings::default();
    if let Some(schema) = kind.schema {
        decode::prune(tree, schema, &mut findings)?;
    } else {
        prune_metadata(tree, &mut findings)?;
        if let Some(schema) = &kind.open_api {
            findings.unknown.extend(decode::prune_structural(tree, schema));
        }
    }
    found.extend(findings.unknown.into_iter().map(|path| format!("unknown field {path:?}")));
    match validation {
        _ if found.is_empty() => {}
        FieldValidation::Ignore => {}
        FieldValidation::Warn => warnings.extend(found),
        FieldValidation::Strict => {
            return Err(WrongType::same(format!("strict decoding error: {}", found.join(", "))));
        }
    }
    Ok(())
}

/// The metadata of a custom object is that of every kind.
fn prune_metadata(tree: &mut Value, findings: &mut Findings) -> Result<(), WrongType> {
    let Some(config_map) = decode::Schema::get().kind("", "v1", "ConfigMap") else { return Ok(()) };
    let Some(metadata) = tree.get_mut("metadata").map(Value::take) else { return Ok(()) };
    let mut shell = serde_json::json!({ "metadata": metadata });
    decode::prune(&mut shell, config_map, findings)?;
    if let Some(metadata) = shell.get_mut("metadata").map(Value::take) {
        *member(tree, "metadata") = metadata;
    }
    Ok(())
}

/// The error of a body that is another kind, known or not.
fn other_kind(kind: &Kind, given: &str, api_version: String) -> ApiError {
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    let why = if decode::Schema::get().kind(group, version, given).is_some() {
        let package = kind.resource.group.split('.').next().filter(|package| !package.is_empty()).unwrap_or("core");
        format!("converting ({version}.{given}) to ({package}.{}): unknown conversion", kind.kind)
    } else {
        let scheme = "pkg/api/legacyscheme/scheme.go:30";
        format!("no kind {given:?} is registered for version {api_version:?} in scheme {scheme:?}")
    };
    ApiError::bad_request(format!("{given} in version {version:?} cannot be handled as a {}: {why}", kind.kind))
}

/// Refuses a body that says it is something else.
fn check_type(kind: &Kind, tree: &Value) -> ApiResult<()> {
    let text = |name: &str| tree.get(name).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind_name) = (text("apiVersion"), text("kind"));
    if kind_name.is_empty() && api_version.is_empty() {
        return Ok(());
    }
    let same = (kind_name.is_empty() || kind_name == kind.kind)
        && (api_version.is_empty() || api_version == kind.api_version());
    if !same && !kind.is_custom() {
        let given = if kind_name.is_empty() { &kind.kind } else { kind_name };
        return Err(other_kind(
            kind,
            given,
            if api_version.is_empty() { kind.api_version() } else { api_version.to_owned() },
        ));
    }
    if !api_version.is_empty() && api_version != kind.api_version() {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({api_version}) does not match the expected API version ({})",
            kind.api_version()
        )));
    }
    Ok(())
}
