//! Whether a value is of a type, with upstream's words for what is wrong.

use std::{collections::BTreeSet, fmt::Write};

use serde_json::{Map, Value};

use super::{
    path::PathElement,
    types::{Form, ListType, MapType, Relation, ScalarType, TypeRef},
};
use crate::limits;

/// What of a list may be there twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Duplicates {
    /// Objects that are stored may hold items that cannot be told apart.
    Allow,
    /// Configurations that are applied may not.
    Refuse,
}

/// Checks a value.
///
/// # Errors
/// What is wrong, each with its path, one a line when there is more than one.
pub(crate) fn validate(value: &Value, of: TypeRef<'_>, duplicates: Duplicates) -> Result<(), String> {
    let mut check = Check { duplicates, errors: Vec::new(), path: String::new() };
    check.value(value, of);
    match check.errors.as_slice() {
        [] => Ok(()),
        [only] => Err(only.clone()),
        many => Err(many.iter().fold("errors:".to_owned(), |mut text, error| {
            text.push_str("\n  ");
            text.push_str(error);
            text
        })),
    }
}

struct Check {
    duplicates: Duplicates,
    errors: Vec<String>,
    path: String,
}

impl Check {
    fn error(&mut self, why: &str) {
        if self.errors.len() < limits::APPLY_ERRORS {
            let separator = if self.path.is_empty() { "" } else { ": " };
            self.errors.push(format!("{}{separator}{why}", self.path));
        }
    }

    fn at(&mut self, element: &PathElement, check: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        // Writing to a string does not fail.
        let _ = write!(self.path, "{element}");
        check(self);
        self.path.truncate(length);
    }

    fn value(&mut self, value: &Value, of: TypeRef<'_>) {
        if value.is_null() {
            return;
        }
        match (of.form(Some(value)), value) {
            (Some(Form::Scalar(scalar)), _) => self.scalar(value, scalar),
            (Some(Form::List(list)), Value::Array(items)) => self.items(items, list, of),
            (Some(Form::List(_)), _) => self.error(&format!("expected list, got &{{{}}}", shown(value))),
            (Some(Form::Map(map)), Value::Object(members)) => self.members(members, map, of),
            (Some(Form::Map(_)), _) => self.error(&format!("expected map, got &{{{}}}", shown(value))),
            (None, _) => {}
        }
    }

    fn scalar(&mut self, value: &Value, scalar: ScalarType) {
        match scalar {
            ScalarType::Number if !value.is_number() => {
                self.error(&format!("expected numeric (int or float), got {}", go_type(value)));
            }
            ScalarType::Text if !value.is_string() => {
                self.error(&format!("expected string, got &value.valueUnstructured{{Value:{}}}", go_syntax(value)));
            }
            ScalarType::Flag if !value.is_boolean() => {
                self.error(&format!("expected boolean, got &{{{}}}", shown(value)));
            }
            ScalarType::Any if value.is_array() || value.is_object() => {
                self.error(&format!("expected any scalar, got &{{{}}}", shown(value)));
            }
            _ => {}
        }
    }

    fn items(&mut self, items: &[Value], list: &ListType, of: TypeRef<'_>) {
        let mut seen = BTreeSet::new();
        for (index, item) in items.iter().enumerate() {
            let element = match list.element(index, item) {
                Ok(element) => element,
                Err(why) => return self.error(&format!("element {index}: {why}")),
            };
            if list.relation != Relation::Atomic
                && self.duplicates == Duplicates::Refuse
                && !seen.insert(element.clone())
            {
                self.error(&format!("duplicate entries for key {element}"));
            }
            self.at(&element, |check| check.value(item, of.to(list.items)));
        }
    }

    fn members(&mut self, members: &Map<String, Value>, map: &MapType, of: TypeRef<'_>) {
        for (name, value) in members {
            let element = PathElement::field(name);
            match map.fields.get(name).copied().or(map.others) {
                Some(id) => self.at(&element, |check| check.value(value, of.to(id))),
                None => self.at(&element, |check| check.error("field not declared in schema")),
            }
        }
    }
}

/// The name that Go has for the type of a value.
fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// A value as Go's `%#v` writes it.
fn go_syntax(value: &Value) -> String {
    let parts = match value {
        Value::Array(items) => items.iter().map(go_syntax).collect::<Vec<_>>(),
        Value::Object(members) => {
            members.iter().map(|(name, value)| format!("{name:?}:{}", go_syntax(value))).collect()
        }
        Value::Null => return "interface {}(nil)".to_owned(),
        plain => return plain.to_string(),
    };
    format!("{}{{{}}}", go_type(value), parts.join(", "))
}

/// A value as Go's `%v` writes it.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(" ")),
        Value::Object(members) => {
            let members = members.iter().map(|(name, value)| format!("{name}:{}", shown(value)));
            format!("map[{}]", members.collect::<Vec<_>>().join(" "))
        }
        plain => plain.to_string(),
    }
}
