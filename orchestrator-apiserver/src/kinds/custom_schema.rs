//! Whether a custom object keeps the schema of its definition. What it broke before and did not change it may go on breaking.
//!
//! Upstream: `kube-openapi/pkg/validation`, `apiextensions-apiserver/pkg/apiserver/validation` and its ratcheting.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use orchestrator_core::status::FieldErrorKind;
use regex::{Regex, RegexBuilder};
use serde_json::{Map, Value};

use super::check;
use crate::{
    decode::{TimeForm, canonical_time},
    field::{Errors, Field},
    limits,
};

/// A schema with its patterns compiled.
#[derive(Debug)]
pub(super) struct Schema {
    root: Value,
    /// By their text. Definitions with others are refused.
    patterns: BTreeMap<String, Regex>,
}

impl Schema {
    /// `root` is `openAPIV3Schema`, or nothing.
    pub(super) fn new(root: Value) -> Self {
        let texts = patterns(&root).into_iter().take(limits::SCHEMA_PATTERNS);
        let compiled = texts.filter_map(|text| Some((text.to_owned(), compile(text).ok()?))).collect();
        Self { patterns: compiled, root }
    }

    /// The rules that an object breaks, but for what was so before.
    pub(super) fn validate(&self, object: &Field<'_>, old: Option<&Field<'_>>, errors: &mut Errors) {
        let steps = Cell::new(limits::SCHEMA_STEPS);
        let mut check = Check { patterns: &self.patterns, errors, steps: &steps };
        check.value(object, old.and_then(Field::value), &self.root);
        if steps.get() == 0 {
            errors.add("<nil>", FieldErrorKind::Invalid, "\"\": the object is too large for its schema to be checked");
        }
    }
}

/// A pattern as schemas have them, within bounds.
pub(super) fn compile(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(pattern).size_limit(limits::PATTERN_BYTES).build()
}

/// The patterns of a schema, each once.
pub(super) fn patterns(schema: &Value) -> BTreeSet<&str> {
    let mut found = BTreeSet::new();
    collect_patterns(schema, &mut found);
    found
}

fn collect_patterns<'s>(schema: &'s Value, found: &mut BTreeSet<&'s str>) {
    for (name, part) in schema.as_object().into_iter().flatten() {
        match (name.as_str(), part) {
            ("pattern", Value::String(pattern)) => drop(found.insert(pattern)),
            ("properties", Value::Object(parts)) => parts.values().for_each(|part| collect_patterns(part, found)),
            ("allOf" | "anyOf" | "oneOf", Value::Array(parts)) => {
                parts.iter().for_each(|part| collect_patterns(part, found));
            }
            ("items" | "additionalProperties" | "not", part) => collect_patterns(part, found),
            _ => {}
        }
    }
}

struct Check<'c> {
    patterns: &'c BTreeMap<String, Regex>,
    errors: &'c mut Errors,
    /// Values that may still be looked at, each time anew.
    steps: &'c Cell<usize>,
}

impl Check<'_> {
    fn value<'a>(&mut self, field: &Field<'a>, old: Option<&Value>, schema: &Value) {
        let Some(value) = field.value() else { return };
        self.steps.set(self.steps.get().saturating_sub(1));
        let is_over = self.steps.get() == 0 || self.errors.is_full();
        if is_over || old == Some(value) || (value.is_null() && schema["nullable"] == true) {
            return;
        }
        let fits = self.of_type(field, value, schema);
        self.one_of_values(field, value, schema);
        if fits {
            match value {
                Value::String(text) => self.text(field, text, schema),
                Value::Number(_) => self.number(field, value, schema),
                Value::Array(items) => self.items(field, items, old, schema),
                Value::Object(members) => self.members(field, members, old, schema),
                Value::Null | Value::Bool(_) => {}
            }
        }
        self.combinations(field, old, schema);
    }

    /// A rule is broken, in upstream's words: `spec.size in body should be less than 3`.
    fn broken(&mut self, field: &Field<'_>, shown: impl std::fmt::Display, why: &str) {
        field.wrong(self.errors, shown, &format!("{} in body {why}", field.path()));
    }

    fn of_type(&mut self, field: &Field<'_>, value: &Value, schema: &Value) -> bool {
        let wanted = match schema["type"].as_str() {
            _ if schema["x-kubernetes-int-or-string"] == true => "integer,string",
            Some(of) => of,
            None => return true,
        };
        let given = type_of(value);
        let fits = wanted.split(',').any(|of| of == given || (of == "number" && given == "integer"));
        if !fits {
            let why = format!("{given:?}: {} in body must be of type {wanted}: {given:?}", field.path());
            field.error(self.errors, FieldErrorKind::TypeInvalid, why);
        }
        fits
    }

    fn one_of_values(&mut self, field: &Field<'_>, value: &Value, schema: &Value) {
        let Some(values) = schema["enum"].as_array().filter(|values| !values.contains(value)) else { return };
        let shown = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let known: Vec<String> = values.iter().map(shown).collect();
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        field.not_supported(self.errors, &known);
    }

    fn text(&mut self, field: &Field<'_>, text: &str, schema: &Value) {
        let letters = text.chars().count() as u64;
        if let Some(most) = schema["maxLength"].as_u64().filter(|most| letters > *most) {
            field.error(self.errors, FieldErrorKind::TooLong, format!("may not be more than {most} bytes"));
        }
        if let Some(least) = schema["minLength"].as_u64().filter(|least| letters < *least) {
            self.broken(field, field.shown(), &format!("should be at least {least} chars long"));
        }
        if let Some(pattern) = schema["pattern"].as_str()
            && self.patterns.get(pattern).is_some_and(|compiled| !compiled.is_match(text))
        {
            self.broken(field, field.shown(), &format!("should match '{pattern}'"));
        }
        if let Some(format) = schema["format"].as_str().filter(|format| !has_format(text, format)) {
            let why = format!("{text:?}: {} in body must be of type {format}: {text:?}", field.path());
            field.error(self.errors, FieldErrorKind::TypeInvalid, why);
        }
    }

    fn number(&mut self, field: &Field<'_>, value: &Value, schema: &Value) {
        let number = value.as_f64().unwrap_or_default();
        let limit = |name: &str| schema[name].as_f64().map(|limit| (limit, &schema[name]));
        if let Some((most, shown)) = limit("maximum") {
            let exclusive = schema["exclusiveMaximum"] == true;
            if number > most || (exclusive && number >= most) {
                let how = if exclusive { "less than" } else { "less than or equal to" };
                self.broken(field, value, &format!("should be {how} {shown}"));
            }
        }
        if let Some((least, shown)) = limit("minimum") {
            let exclusive = schema["exclusiveMinimum"] == true;
            if number < least || (exclusive && number <= least) {
                let how = if exclusive { "greater than" } else { "greater than or equal to" };
                self.broken(field, value, &format!("should be {how} {shown}"));
            }
        }
        if let Some((step, shown)) = limit("multipleOf")
            && step > 0.0
            && (number / step).fract() != 0.0
        {
            self.broken(field, value, &format!("should be a multiple of {shown}"));
        }
    }

    fn items(&mut self, field: &Field<'_>, items: &[Value], old: Option<&Value>, schema: &Value) {
        let count = items.len() as u64;
        if let Some(most) = schema["maxItems"].as_u64().filter(|most| count > *most) {
            field.error(self.errors, FieldErrorKind::TooMany, format!("{count}: must have at most {most} items"));
        }
        if let Some(least) = schema["minItems"].as_u64().filter(|least| count < *least) {
            self.broken(field, count, &format!("should have at least {least} items"));
        }
        let identity = identity(schema);
        let before = old.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        // Only items of maps are known again.
        let before: BTreeMap<String, &Value> = match identity {
            Some(Identity::Keys(_)) => before.iter().filter_map(|item| Some((identity?.of(item)?, item))).collect(),
            _ => BTreeMap::new(),
        };
        let mut seen = BTreeSet::new();
        for item in field.items() {
            let known = item.value().and_then(|value| identity?.of(value));
            let old = known.as_ref().and_then(|known| before.get(known)).copied();
            if let Some(known) = known
                && !seen.insert(known.clone())
            {
                item.error(self.errors, FieldErrorKind::Duplicate, known);
            }
            self.value(&item, old, &schema["items"]);
        }
    }

    fn members<'a>(&mut self, field: &Field<'a>, members: &'a Map<String, Value>, old: Option<&Value>, schema: &Value) {
        let count = members.len() as u64;
        if let Some(most) = schema["maxProperties"].as_u64().filter(|most| count > *most) {
            field.error(self.errors, FieldErrorKind::TooMany, format!("{count}: must have at most {most} items"));
        }
        if let Some(least) = schema["minProperties"].as_u64().filter(|least| count < *least) {
            self.broken(field, field.shown(), &format!("should have at least {least} properties"));
        }
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !members.contains_key(name) {
                self.errors.add(below(field, name), FieldErrorKind::Required, "");
            }
        }
        if schema["x-kubernetes-embedded-resource"] == true {
            for name in ["apiVersion", "kind"] {
                if members.get(name).and_then(Value::as_str).is_none_or(str::is_empty) {
                    self.errors.add(below(field, name), FieldErrorKind::Required, "must not be empty");
                }
            }
        }
        let properties = &schema["properties"];
        for name in members.keys() {
            let Some(of) = properties.get(name).or_else(|| schema.get("additionalProperties")) else { continue };
            self.value(&field.get(name), old.and_then(|old| old.get(name)), of);
        }
    }

    /// Upstream names no place where combinations of schemas are broken.
    fn combinations(&mut self, field: &Field<'_>, old: Option<&Value>, schema: &Value) {
        let parts = |name: &str| schema[name].as_array().map(Vec::as_slice).unwrap_or_default();
        for part in parts("allOf") {
            self.value(field, old, part);
        }
        let path = field.path();
        let mut broken =
            |why: String| self.errors.add("<nil>", FieldErrorKind::Invalid, format!("\"\": \"{path}\" {why}"));
        let (patterns, steps) = (self.patterns, self.steps);
        let kept = |part: &&Value| {
            let mut own = Errors::default();
            Check { patterns, errors: &mut own, steps }.value(field, None, part);
            own.is_empty()
        };
        if !parts("anyOf").is_empty() && !parts("anyOf").iter().any(|part| kept(&part)) {
            broken("must validate at least one schema (anyOf)".to_owned());
        }
        let one_of = parts("oneOf");
        let fitting = one_of.iter().filter(kept).count();
        if !one_of.is_empty() && fitting != 1 {
            let found = if fitting == 0 { "none valid".to_owned() } else { format!("{fitting} valid alternatives") };
            broken(format!("must validate one and only one schema (oneOf). Found {found}"));
        }
        if schema.get("not").is_some_and(|not| kept(&not)) {
            broken("must not validate the schema (not)".to_owned());
        }
    }
}

/// The path of a member.
fn below(field: &Field<'_>, name: &str) -> String {
    let path = field.path();
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.as_f64().is_some_and(|number| number.fract() == 0.0) => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// What tells the items of a list apart.
#[derive(Clone, Copy)]
enum Identity<'a> {
    Value,
    Keys(&'a Value),
}

fn identity(schema: &Value) -> Option<Identity<'_>> {
    match schema["x-kubernetes-list-type"].as_str() {
        Some("set") => Some(Identity::Value),
        Some("map") => Some(Identity::Keys(&schema["x-kubernetes-list-map-keys"])),
        _ => None,
    }
}

impl Identity<'_> {
    /// As errors show it.
    fn of(self, item: &Value) -> Option<String> {
        let Self::Keys(keys) = self else { return Some(item.to_string()) };
        let keys = keys.as_array()?.iter().filter_map(Value::as_str);
        let found: Map<String, Value> = keys.filter_map(|key| Some((key.to_owned(), item.get(key)?.clone()))).collect();
        Some(Value::Object(found).to_string())
    }
}

/// Whether a text is of a format. What is no known format is none.
fn has_format(text: &str, format: &str) -> bool {
    match format {
        "date-time" => canonical_time(text, TimeForm::Seconds).is_ok(),
        "date" => text.parse::<jiff::civil::Date>().is_ok() && text.len() == 10,
        "ipv4" => text.parse::<std::net::Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<std::net::Ipv6Addr>().is_ok(),
        "cidr" => check::parse_cidr(text).is_some(),
        "byte" => BASE64_STANDARD.decode(text).is_ok(),
        "uuid" => is_uuid(text),
        _ => true,
    }
}

/// Dashes may be left out.
fn is_uuid(text: &str) -> bool {
    let digits = text.bytes().filter(u8::is_ascii_hexdigit).count();
    let dashes = text.bytes().filter(|byte| *byte == b'-').count();
    digits == 32 && (dashes == 0 || dashes == 4) && digits + dashes == text.len()
}

#[cfg(test)]
mod tests;
