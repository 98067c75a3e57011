//! Expressions in CEL that select devices, worked out in a bounded number of steps.
//!
//! What is here is the language as selectors of devices use it: its operators, macros and conversions, the extensions for
//! strings, lists, sets and optional values, and Kubernetes' functions for quantities and versions. Durations, timestamps,
//! addresses and formats are not: an expression that names one does not compile.
//!
//! <https://kubernetes.io/docs/reference/using-api/cel/> and upstream's `k8s.io/dynamic-resource-allocation/cel`.

mod evaluate;
mod functions;
mod lexer;
mod parser;
mod value;

use std::{collections::BTreeMap, rc::Rc};

use k8s_openapi::api::resource::v1::{Device, DeviceAttribute};
use orchestrator_core::quantity::Quantity;

use self::{
    evaluate::{Fault, Patterns, Run},
    parser::Expr,
    value::{Key, Map, Value},
};
use crate::limits::{EXPRESSION_BYTES, EXPRESSION_STEPS};

/// An expression, read.
#[derive(Debug)]
pub(super) struct Selector {
    expr: Expr,
    patterns: Patterns,
}

/// A device as expressions see it.
#[derive(Clone, Debug)]
pub(super) struct View(Result<Value, String>);

/// Why it is not known whether a device is selected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SelectorError {
    /// No steps are left for the whole decision.
    Spent,
    /// In upstream's words.
    Failed(String),
}

impl Selector {
    /// Reads an expression; the error is in the words of upstream's compiler.
    pub(super) fn compile(text: &str) -> Result<Self, String> {
        if text.len() > EXPRESSION_BYTES {
            return Err(format!("too long, may not be more than {EXPRESSION_BYTES} bytes"));
        }
        let expr = parser::parse(text)?;
        match &expr {
            Expr::Literal(value) if !matches!(value, Value::Bool(_)) => {
                Err(format!("must evaluate to bool or the unknown type, not {}", value.kind()))
            }
            _ => Ok(Self { expr, patterns: Patterns::default() }),
        }
    }

    /// Whether a device is selected. Takes what that costs from the `steps` that are left.
    pub(super) fn selects(&self, device: &View, steps: &mut u64) -> Result<bool, SelectorError> {
        let device = device.0.clone().map_err(SelectorError::Failed)?;
        let allowed = EXPRESSION_STEPS.min(*steps);
        let mut run = Run { device, steps: allowed, patterns: &self.patterns, names: Vec::new() };
        let result = run.value(&self.expr);
        *steps -= if result == Err(Fault::Spent) { allowed } else { allowed - run.steps };
        match result {
            Ok(Value::Bool(selected)) => Ok(selected),
            Ok(other) => {
                let kind = other.kind();
                Err(SelectorError::Failed(format!("CEL result of type {kind} could not be converted to bool")))
            }
            Err(Fault::Spent) if allowed < EXPRESSION_STEPS => Err(SelectorError::Spent),
            Err(Fault::Spent) => {
                Err(SelectorError::Failed("operation cancelled: actual cost limit exceeded".to_owned()))
            }
            Err(Fault::Says(message)) => Err(SelectorError::Failed(with_advice(message))),
        }
    }
}

fn with_advice(message: String) -> String {
    if !message.starts_with("no such key:") {
        return message;
    }
    format!("{message}. Consider using CEL optional chaining (?), has() macro, or orValue() for optional fields")
}

impl View {
    /// A device of a driver.
    pub(super) fn of(device: &Device, driver: &str) -> Self {
        Self(view(device, driver))
    }
}

fn view(device: &Device, driver: &str) -> Result<Value, String> {
    let mut attributes = Map { empty_by_default: true, ..Map::default() };
    let mut by_domain = BTreeMap::new();
    for (name, attribute) in device.attributes.iter().flatten() {
        let value = attribute_value(attribute).map_err(|error| format!("attribute {name}: {error}"))?;
        insert(&mut by_domain, name, driver, value);
    }
    attributes.entries = in_maps(by_domain);
    let mut capacity = Map { empty_by_default: true, ..Map::default() };
    let mut by_domain = BTreeMap::new();
    for (name, of) in device.capacity.iter().flatten() {
        let quantity = Quantity::try_from(&of.value).map_err(|error| format!("capacity {name}: {error}"))?;
        insert(&mut by_domain, name, driver, Value::Quantity(Rc::new(quantity)));
    }
    capacity.entries = in_maps(by_domain);
    let fields = [
        ("driver", Value::text(driver)),
        ("attributes", Value::Map(Rc::new(attributes))),
        ("capacity", Value::Map(Rc::new(capacity))),
        ("allowMultipleAllocations", Value::Bool(device.allow_multiple_allocations.unwrap_or(false))),
    ];
    let entries = fields.into_iter().map(|(name, value)| (Key::Text(name.into()), value)).collect();
    Ok(Value::Map(Rc::new(Map { entries, empty_by_default: false })))
}

type ByDomain = BTreeMap<Key, BTreeMap<Key, Value>>;

/// Names without a domain are in that of the driver.
fn insert(by_domain: &mut ByDomain, name: &str, driver: &str, value: Value) {
    let (domain, name) = name.split_once('/').unwrap_or((driver, name));
    by_domain.entry(Key::Text(domain.into())).or_default().insert(Key::Text(name.into()), value);
}

fn in_maps(by_domain: ByDomain) -> BTreeMap<Key, Value> {
    let map = |entries| Value::Map(Rc::new(Map { entries, empty_by_default: false }));
    by_domain.into_iter().map(|(domain, entries)| (domain, map(entries))).collect()
}

fn attribute_value(attribute: &DeviceAttribute) -> Result<Value, String> {
    let text = attribute.string.as_deref().map(Value::text);
    let simple = attribute.int.map(Value::Int).or(attribute.bool.map(Value::Bool)).or(text);
    match (simple, &attribute.version) {
        (Some(value), _) => Ok(value),
        (None, Some(version)) => {
            let parsed = functions::version(version, false);
            parsed
                .map(|version| Value::Semver(Rc::new(version)))
                .map_err(|error| format!("parse semantic version: {error}"))
        }
        (None, None) => Err("unsupported attribute value".to_owned()),
    }
}

#[cfg(test)]
mod tests;
