//! A place in a tree with its path, for validation: reads that never fail and errors in upstream's words.

mod path;

use orchestrator_core::status::{FieldError, FieldErrorKind};
use serde_json::Value;

use self::path::{Path, Step};
use crate::limits;

/// A member of an object, there or not.
#[derive(Clone, Debug)]
pub(crate) struct Field<'a> {
    path: Path<'a>,
    value: Option<&'a Value>,
}

/// The broken rules of an object. Many of them can show much of it, so there is a bound to what is told.
#[derive(Debug, Default)]
pub(crate) struct Errors {
    found: Vec<FieldError>,
    bytes: usize,
}

impl Errors {
    pub(crate) fn into_vec(self) -> Vec<FieldError> {
        self.found
    }

    /// Takes in what others found.
    pub(crate) fn extend(&mut self, others: Self) {
        others.found.into_iter().for_each(|error| self.push(error));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Whether nothing more is told, so that looking for more is in vain.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes >= limits::ERROR_BYTES
    }

    pub(crate) fn add(&mut self, field: impl Into<String>, kind: FieldErrorKind, detail: impl Into<String>) {
        self.push(FieldError { field: field.into(), kind, detail: detail.into() });
    }

    fn push(&mut self, error: FieldError) {
        if !self.is_full() {
            self.bytes += error.field.len() + error.detail.len();
            self.found.push(error);
        }
    }
}

impl<'a> Field<'a> {
    /// The whole object.
    pub(crate) fn root(tree: &'a Value) -> Self {
        Self { path: Path::default(), value: Some(tree) }
    }

    /// As errors name it: `spec.containers[0].image`.
    pub(crate) fn path(&self) -> String {
        self.path.to_string()
    }

    pub(crate) fn value(&self) -> Option<&'a Value> {
        self.value
    }

    /// A member by its name.
    pub(crate) fn get(&self, name: &'a str) -> Self {
        self.member(Step::Member(name), name)
    }

    /// A member some levels down, its names joined by dots.
    pub(crate) fn at(&self, path: &'a str) -> Self {
        path.split('.').fold(self.clone(), |field, name| field.get(name))
    }

    /// The same value, under the path that errors name it by.
    pub(crate) fn shown_at(&self, path: impl Into<String>) -> Self {
        Self { path: Path::from(path.into()), value: self.value }
    }

    /// The items of a list.
    pub(crate) fn items(&self) -> Vec<Self> {
        let items = self.value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let item = |(index, value)| Self { path: self.path.then(Step::Item(index)), value: Some(value) };
        items.iter().enumerate().map(item).collect()
    }

    /// The member of a map, written as a key: `data[name]`.
    pub(crate) fn key(&self, name: &'a str) -> Self {
        self.member(Step::Key(name), name)
    }

    /// The members of a map, with their keys.
    pub(crate) fn entries(&self) -> Vec<(&'a str, Self)> {
        let members = self.value.and_then(Value::as_object).into_iter().flatten();
        let entry = |key: &'a String, value| Self { path: self.path.then(Step::Key(key)), value: Some(value) };
        members.map(|(key, value)| (key.as_str(), entry(key, value))).collect()
    }

    fn member(&self, step: Step<'a>, name: &str) -> Self {
        Self { path: self.path.then(step), value: self.value.and_then(|value| value.get(name)) }
    }

    pub(crate) fn exists(&self) -> bool {
        self.value.is_some_and(|value| !value.is_null())
    }

    pub(crate) fn len(&self) -> usize {
        match self.value {
            Some(Value::Array(items)) => items.len(),
            Some(Value::Object(members)) => members.len(),
            Some(Value::String(text)) => text.len(),
            _ => 0,
        }
    }

    /// The text; empty when there is none.
    pub(crate) fn text(&self) -> &'a str {
        self.value.and_then(Value::as_str).unwrap_or_default()
    }

    pub(crate) fn int(&self) -> Option<i64> {
        self.value.and_then(Value::as_i64)
    }

    pub(crate) fn bool(&self) -> Option<bool> {
        self.value.and_then(Value::as_bool)
    }

    pub(crate) fn error(&self, errors: &mut Errors, kind: FieldErrorKind, detail: impl Into<String>) {
        errors.add(self.path(), kind, detail);
    }

    pub(crate) fn required(&self, errors: &mut Errors, detail: &str) {
        self.error(errors, FieldErrorKind::Required, detail);
    }

    /// The value is wrong; it is shown.
    pub(crate) fn invalid(&self, errors: &mut Errors, detail: &str) {
        self.error(errors, FieldErrorKind::Invalid, format!("{}: {detail}", self.shown()));
    }

    pub(crate) fn forbidden(&self, errors: &mut Errors, detail: &str) {
        self.error(errors, FieldErrorKind::Forbidden, detail);
    }

    pub(crate) fn duplicate(&self, errors: &mut Errors) {
        self.error(errors, FieldErrorKind::Duplicate, self.shown());
    }

    pub(crate) fn not_found(&self, errors: &mut Errors) {
        self.error(errors, FieldErrorKind::NotFound, self.shown());
    }

    /// The value is not one of the known ones, which are named in order.
    pub(crate) fn not_supported(&self, errors: &mut Errors, known: &[&str]) {
        self.not_supported_as(errors, &self.shown(), known);
    }

    /// As [`Self::not_supported`], the value shown as given here, in JSON.
    pub(crate) fn not_supported_as(&self, errors: &mut Errors, shown: &str, known: &[&str]) {
        let known = known.iter().map(|known| format!("{known:?}")).collect::<Vec<_>>().join(", ");
        self.error(errors, FieldErrorKind::NotSupported, format!("{shown}: supported values: {known}"));
    }

    /// The value is wrong; it is shown as given here, in JSON.
    pub(crate) fn wrong(&self, errors: &mut Errors, shown: impl std::fmt::Display, detail: &str) {
        self.error(errors, FieldErrorKind::Invalid, format!("{shown}: {detail}"));
    }

    /// Refuses a text that is given and not one of the known ones.
    pub(crate) fn one_of(&self, errors: &mut Errors, known: &[&str]) {
        if self.exists() && !known.contains(&self.text()) {
            self.not_supported(errors, known);
        }
    }

    /// Refuses a number below zero.
    pub(crate) fn not_negative(&self, errors: &mut Errors) {
        if self.int().is_some_and(|number| number < 0) {
            self.invalid(errors, "must be greater than or equal to 0");
        }
    }

    /// Refuses a change.
    pub(crate) fn immutable(&self, old: &Self, errors: &mut Errors) {
        if self.value.unwrap_or(&Value::Null) != old.value.unwrap_or(&Value::Null) {
            self.invalid(errors, "field is immutable");
        }
    }

    /// The value as errors show it.
    pub(crate) fn shown(&self) -> String {
        match self.value {
            None | Some(Value::Null) => "\"\"".to_owned(),
            Some(value) => value.to_string(),
        }
    }
}

/// A member of a tree, to be changed, made where it is missing. `Null` when the tree is no object.
pub(crate) fn member<'a>(tree: &'a mut Value, name: &str) -> &'a mut Value {
    if tree.is_null() {
        *tree = Value::Object(serde_json::Map::new());
    }
    match tree {
        Value::Object(members) => {
            // Mostly it is there, and its name need not be copied.
            if !members.contains_key(name) {
                members.insert(name.to_owned(), Value::Null);
            }
            &mut members[name]
        }
        other => other,
    }
}

/// Writes a member where none is. To Go an empty text is none.
pub(crate) fn set_default(tree: &mut Value, name: &str, default: impl Into<Value>) {
    let is_given = tree.get(name).is_some_and(|given| !given.is_null() && given != "");
    if !is_given {
        *member(tree, name) = default.into();
    }
}

/// Removes a member.
pub(crate) fn remove(tree: &mut Value, name: &str) -> Option<Value> {
    tree.as_object_mut()?.remove(name)
}

/// The items of a list member, to be changed.
pub(crate) fn items_mut<'a>(tree: &'a mut Value, name: &str) -> impl Iterator<Item = &'a mut Value> {
    tree.get_mut(name).and_then(Value::as_array_mut).into_iter().flatten()
}
