//! What tests of rules share: an object held against its rules, in lines.

use serde_json::Value;

use super::rules::Rules;
use crate::{
    field::{Errors, Field, member},
    strategy::Strategy,
};

/// The errors as lines: the field and what is said about it.
pub(super) fn told(errors: Errors) -> Vec<String> {
    errors.into_vec().into_iter().map(|error| format!("{}: {}", error.field, error.detail)).collect()
}

/// What is wrong with a new object.
pub(super) fn broken(rules: &Rules, mut object: Value) -> Vec<String> {
    let mut errors = Errors::default();
    rules.default(&mut object);
    rules.validate(&Field::root(&object), &mut errors);
    rules.validate_create(&Field::root(&object), &mut errors);
    told(errors)
}

/// What is wrong with a changed object.
pub(super) fn broken_by_change(rules: &Rules, mut old: Value, mut new: Value) -> Vec<String> {
    let mut errors = Errors::default();
    rules.default(&mut old);
    rules.default(&mut new);
    rules.prepare_update(&mut new, &old);
    rules.validate(&Field::root(&new), &mut errors);
    rules.validate_update(&Field::root(&new), &Field::root(&old), &mut errors);
    told(errors)
}

/// What is wrong with a changed status.
pub(super) fn broken_status(rules: &Rules, old: &Value, new: &Value) -> Vec<String> {
    let (mut errors, mut new) = (Errors::default(), new.clone());
    rules.prepare_status(&mut new, old);
    rules.validate_status(&Field::root(&new), &Field::root(old), &mut errors);
    told(errors)
}

/// The object with another value at a place, its names joined by dots; without it where there is none.
pub(super) fn with(mut object: Value, place: &str, value: Value) -> Value {
    let (way, last) = place.rsplit_once('.').unwrap_or(("", place));
    let parent = way.split('.').filter(|name| !name.is_empty()).fold(&mut object, |tree, name| member(tree, name));
    if value.is_null() {
        crate::field::remove(parent, last);
    } else {
        *member(parent, last) = value;
    }
    object
}
