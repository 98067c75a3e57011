//! Reading a tree field by field: what is not known or not of its kind is refused, with the way to it.

use std::time::Duration;

use jiff::SignedDuration;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// Why a configuration is refused, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct ConfigError {
    /// The way to the place, such as `profiles[0].plugins.score.enabled[1].name`; empty for all of it.
    pub path: String,
    /// What is wrong there.
    pub reason: ConfigReason,
}

/// What is wrong with a place of a configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigReason {
    /// It is no YAML.
    #[error("{0}")]
    Syntax(String),
    /// There is no such field.
    #[error("unknown field")]
    UnknownField,
    /// It has to be there.
    #[error("required")]
    Required,
    /// It is of another type.
    #[error("expected {0}")]
    Type(&'static str),
    /// Its value is none of those that may stand there.
    #[error("invalid value {value}: {expected}")]
    Invalid {
        /// What stands there.
        value: String,
        /// What may stand there.
        expected: String,
    },
    /// There is no plugin of this name, or it does not take part at this point.
    #[error("unknown plugin {0:?}")]
    UnknownPlugin(String),
    /// The same thing stands there twice.
    #[error("duplicate {0:?}")]
    Duplicate(String),
    /// Upstream has it, this scheduler does not.
    #[error("not supported: {0}")]
    Unsupported(&'static str),
}

impl ConfigError {
    pub(super) fn new(path: impl Into<String>, reason: ConfigReason) -> Self {
        Self { path: path.into(), reason }
    }
}

/// The fields of an object that were not read yet.
#[derive(Debug)]
pub(super) struct Fields {
    path: String,
    fields: Map<String, Value>,
}

impl Fields {
    pub(super) fn new(path: impl Into<String>, value: Value) -> Result<Self, ConfigError> {
        let path = path.into();
        match value {
            Value::Object(fields) => Ok(Self { path, fields }),
            Value::Null => Ok(Self { path, fields: Map::new() }),
            _ => Err(ConfigError::new(path, ConfigReason::Type("an object"))),
        }
    }

    /// The way to a field.
    pub(super) fn path(&self, field: &str) -> String {
        if self.path.is_empty() { field.to_owned() } else { format!("{}.{field}", self.path) }
    }

    /// Takes a field that may be absent.
    pub(super) fn take(&mut self, field: &str) -> Option<Value> {
        self.fields.remove(field).filter(|value| !value.is_null())
    }

    /// Refuses a value.
    pub(super) fn invalid(&self, field: &str, value: impl ToString, expected: &str) -> ConfigError {
        let reason = ConfigReason::Invalid { value: value.to_string(), expected: expected.to_owned() };
        ConfigError::new(self.path(field), reason)
    }

    pub(super) fn text(&mut self, field: &str) -> Result<Option<String>, ConfigError> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(ConfigError::new(self.path(field), ConfigReason::Type("a string"))),
        }
    }

    pub(super) fn flag(&mut self, field: &str) -> Result<Option<bool>, ConfigError> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(_) => Err(ConfigError::new(self.path(field), ConfigReason::Type("true or false"))),
        }
    }

    /// A whole number between bounds.
    pub(super) fn number(&mut self, field: &str, least: i64, most: i64) -> Result<Option<i64>, ConfigError> {
        let Some(value) = self.take(field) else { return Ok(None) };
        let Some(number) = value.as_i64() else {
            return Err(ConfigError::new(self.path(field), ConfigReason::Type("a whole number")));
        };
        if (least..=most).contains(&number) {
            return Ok(Some(number));
        }
        Err(self.invalid(field, number, &format!("must be between {least} and {most}")))
    }

    /// A time as Go writes it, such as `1m30s`, that is long enough; `expected` says how long that is.
    pub(super) fn time(
        &mut self,
        field: &str,
        least: Duration,
        expected: &str,
    ) -> Result<Option<Duration>, ConfigError> {
        let Some(text) = self.text(field)? else { return Ok(None) };
        let time = if text == "0" { Ok(SignedDuration::ZERO) } else { text.parse() };
        let Ok(time) = time else { return Err(self.invalid(field, text, "must be a time such as 15s")) };
        let enough = Duration::try_from(time).ok().filter(|time| *time >= least);
        enough.map(Some).ok_or_else(|| self.invalid(field, text, expected))
    }

    /// The items of a list, each with the way to it.
    pub(super) fn list(&mut self, field: &str) -> Result<Option<Vec<(String, Value)>>, ConfigError> {
        let path = self.path(field);
        match self.take(field) {
            None => Ok(None),
            Some(Value::Array(items)) => {
                let items = items.into_iter().enumerate();
                Ok(Some(items.map(|(index, item)| (format!("{path}[{index}]"), item)).collect()))
            }
            Some(_) => Err(ConfigError::new(path, ConfigReason::Type("a list"))),
        }
    }

    /// Adds texts to a list that is read later.
    pub(super) fn extend_list(&mut self, field: &str, texts: &[String]) {
        let list = self.fields.entry(field).or_insert_with(|| Value::Array(Vec::new()));
        if list.is_null() {
            *list = Value::Array(Vec::new());
        }
        if let Value::Array(items) = list {
            items.extend(texts.iter().map(|text| Value::from(text.as_str())));
        }
    }

    /// An object of another type of the API, all of whose fields are known.
    pub(super) fn object<T: DeserializeOwned + serde::Serialize>(
        &mut self,
        field: &str,
    ) -> Result<Option<T>, ConfigError> {
        let path = self.path(field);
        self.take(field).map(|value| whole(path, value)).transpose()
    }

    /// An object within.
    pub(super) fn fields(&mut self, field: &str) -> Result<Self, ConfigError> {
        let path = self.path(field);
        Self::new(path, self.take(field).unwrap_or_default())
    }

    /// Whether nothing is left to read.
    pub(super) fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// All of it, decoded.
    pub(super) fn decode<T: DeserializeOwned + serde::Serialize>(self) -> Result<T, ConfigError> {
        whole(self.path, Value::Object(self.fields))
    }

    /// All fields have been read.
    pub(super) fn end(self) -> Result<(), ConfigError> {
        match self.fields.keys().next() {
            Some(field) => Err(ConfigError::new(self.path(field), ConfigReason::UnknownField)),
            None => Ok(()),
        }
    }
}

/// Decodes a value without leaving out any of it.
pub(super) fn whole<T: DeserializeOwned + serde::Serialize>(path: String, value: Value) -> Result<T, ConfigError> {
    let syntax = |error: serde_json::Error| ConfigError::new(path.clone(), ConfigReason::Syntax(error.to_string()));
    let decoded: T = serde_json::from_value(value.clone()).map_err(syntax)?;
    let encoded = serde_json::to_value(&decoded).map_err(syntax)?;
    match left_out(&value, &encoded) {
        Some(field) => Err(ConfigError::new(format!("{path}{field}"), ConfigReason::UnknownField)),
        None => Ok(decoded),
    }
}

/// The first field of one tree that is not in another.
fn left_out(written: &Value, known: &Value) -> Option<String> {
    match (written, known) {
        (Value::Object(written), _) => {
            written.iter().filter(|(_, value)| !value.is_null()).find_map(|(field, value)| {
                let missing = || Some(String::new());
                let deeper = known.get(field).map_or_else(missing, |known| left_out(value, known));
                deeper.map(|deeper| format!(".{field}{deeper}"))
            })
        }
        (Value::Array(written), Value::Array(known)) => written
            .iter()
            .zip(known)
            .enumerate()
            .find_map(|(at, pair)| left_out(pair.0, pair.1).map(|deeper| format!("[{at}]{deeper}"))),
        _ => None,
    }
}
