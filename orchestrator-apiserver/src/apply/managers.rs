//! The managers of an object's fields, as `metadata.managedFields` holds them.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use thiserror::Error;

use super::{
    fields_v1::{self, FieldsError},
    set::FieldSet,
};

/// How a manager writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Operation {
    /// It applies configurations.
    Apply,
    /// It writes in any other way.
    Update,
}

impl Operation {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// Who manages fields. One who applies is the same in all versions.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ManagerId {
    pub(crate) name: String,
    pub(crate) operation: Operation,
    /// Empty for those who apply.
    pub(crate) api_version: String,
    pub(crate) subresource: String,
}

impl ManagerId {
    pub(crate) fn new(name: &str, operation: Operation, api_version: &str, subresource: &str) -> Self {
        let api_version = if operation == Operation::Apply { "" } else { api_version };
        Self {
            name: name.to_owned(),
            operation,
            api_version: api_version.to_owned(),
            subresource: subresource.to_owned(),
        }
    }
}

/// What a manager manages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Managed {
    /// The version that the fields are named in.
    pub(crate) api_version: String,
    /// The last change, as RFC 3339 writes it.
    pub(crate) time: Option<String>,
    pub(crate) set: FieldSet,
}

/// All managers of an object.
pub(crate) type Managers = BTreeMap<ManagerId, Managed>;

/// Why entries of `managedFields` cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum ManagersError {
    #[error("managedFields must be a list of objects")]
    NotEntries,
    #[error("operation must be `Apply` or `Update`")]
    Operation,
    #[error("apiVersion must not be empty")]
    ApiVersion,
    #[error("missing fieldsType in managed fields entry {0}")]
    NoFieldsType(usize),
    #[error("invalid fieldsType {1:?} in managed fields entry {0}")]
    FieldsType(usize, String),
    #[error("error decoding set: {0}")]
    Fields(#[from] FieldsError),
}

/// Reads `managedFields`. Nothing is no managers.
pub(crate) fn parse(entries: Option<&Value>) -> Result<Managers, ManagersError> {
    let entries = match entries {
        None | Some(Value::Null) => return Ok(Managers::new()),
        Some(Value::Array(entries)) => entries,
        Some(_) => return Err(ManagersError::NotEntries),
    };
    entries.iter().enumerate().map(|(index, entry)| parse_entry(index, entry)).collect()
}

fn parse_entry(index: usize, entry: &Value) -> Result<(ManagerId, Managed), ManagersError> {
    let entry = entry.as_object().ok_or(ManagersError::NotEntries)?;
    let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default();
    let operation = match text("operation") {
        "Apply" => Operation::Apply,
        "Update" => Operation::Update,
        _ => return Err(ManagersError::Operation),
    };
    let api_version = text("apiVersion");
    if api_version.is_empty() {
        return Err(ManagersError::ApiVersion);
    }
    match text("fieldsType") {
        "FieldsV1" => {}
        "" => return Err(ManagersError::NoFieldsType(index)),
        other => return Err(ManagersError::FieldsType(index, other.to_owned())),
    }
    let set = match entry.get("fieldsV1") {
        None | Some(Value::Null) => FieldSet::default(),
        Some(fields) => fields_v1::parse(fields)?,
    };
    let time = entry.get("time").and_then(Value::as_str).map(str::to_owned);
    let id = ManagerId::new(text("manager"), operation, api_version, text("subresource"));
    Ok((id, Managed { api_version: api_version.to_owned(), time, set }))
}

/// `managedFields` in upstream's order: by operation, time, name, version, subresource. `None` for no managers.
pub(crate) fn print(managers: &Managers) -> Option<Value> {
    let mut entries: Vec<_> = managers.iter().collect();
    // Times of this server are all written alike, so their texts are in their order.
    entries.sort_by_key(|(id, managed)| (id.operation, &managed.time, &id.name, &managed.api_version, &id.subresource));
    let entries: Vec<Value> = entries.into_iter().map(|(id, managed)| print_entry(id, managed)).collect();
    (!entries.is_empty()).then_some(entries.into())
}

pub(super) fn print_entry(id: &ManagerId, managed: &Managed) -> Value {
    let mut entry = Map::new();
    let mut put = |name: &str, value: Value| drop(entry.insert(name.to_owned(), value));
    put("apiVersion", managed.api_version.clone().into());
    put("fieldsType", "FieldsV1".into());
    put("fieldsV1", fields_v1::print(&managed.set));
    if !id.name.is_empty() {
        put("manager", id.name.clone().into());
    }
    put("operation", id.operation.name().into());
    if !id.subresource.is_empty() {
        put("subresource", id.subresource.clone().into());
    }
    if let Some(time) = &managed.time {
        put("time", time.clone().into());
    }
    entry.into()
}

/// Whether a caller asks for all managers to be forgotten: an empty list, or a list of one empty entry.
pub(crate) fn is_reset(entries: Option<&Value>) -> bool {
    match entries {
        Some(Value::Array(entries)) => match entries.as_slice() {
            [] => true,
            [only] => *only == json!({}),
            _ => false,
        },
        _ => false,
    }
}
