//! The functions that expressions may call: those of the language, of its extensions for strings, lists and optional
//! values, and Kubernetes' own for quantities and versions.

use std::{cmp::Ordering, rc::Rc};

use orchestrator_core::quantity::{Format, Quantity};
use regex::RegexBuilder;
use semver::Version;

use super::{
    evaluate::{Fault, Outcome, Run, fault, no_overload},
    value::Value,
};
use crate::limits::EXPRESSION_BYTES;

/// What making a pattern ready costs, in steps.
const PATTERN_STEPS: u64 = 100_000;
/// How large a pattern may be when it is ready, in bytes.
const PATTERN_BYTES: usize = 1 << 18;
/// How many patterns of one expression are kept ready.
const MOST_PATTERNS: usize = 16;

const GLOBAL: [&str; 20] = [
    "size",
    "int",
    "uint",
    "double",
    "string",
    "bytes",
    "bool",
    "dyn",
    "type",
    "matches",
    "quantity",
    "isQuantity",
    "semver",
    "isSemver",
    "optional.of",
    "optional.none",
    "optional.ofNonZeroValue",
    "sets.contains",
    "sets.equivalent",
    "sets.intersects",
];
const METHODS: [&str; 39] = [
    "size",
    "contains",
    "startsWith",
    "endsWith",
    "matches",
    "find",
    "findAll",
    "charAt",
    "indexOf",
    "lastIndexOf",
    "lowerAscii",
    "upperAscii",
    "replace",
    "split",
    "substring",
    "trim",
    "join",
    "reverse",
    "isSorted",
    "sum",
    "min",
    "max",
    "hasValue",
    "value",
    "or",
    "orValue",
    "isInteger",
    "asInteger",
    "asApproximateFloat",
    "sign",
    "add",
    "sub",
    "isLessThan",
    "isGreaterThan",
    "compareTo",
    "major",
    "minor",
    "patch",
    "slice",
];
const TYPES: [&str; 11] =
    ["bool", "int", "uint", "double", "string", "bytes", "list", "map", "null_type", "type", "optional_type"];

/// Whether there is a function of this name.
pub(super) fn is_global(name: &str) -> bool {
    GLOBAL.contains(&name)
}

/// Whether there is a method of this name.
pub(super) fn is_method(name: &str) -> bool {
    METHODS.contains(&name)
}

/// The type of this name.
pub(super) fn type_named(name: &str) -> Option<&'static str> {
    TYPES.into_iter().find(|known| *known == name)
}

/// A value as messages show it.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::Text(text) => text.to_string(),
        Value::Bool(value) => value.to_string(),
        Value::Double(value) => value.to_string(),
        value => value.whole().map_or_else(|| value.kind().to_owned(), |whole| whole.to_string()),
    }
}

/// Calls a function, or a method of the first value.
pub(super) fn call(run: &mut Run<'_>, name: &str, is_method: bool, values: &[Value]) -> Outcome {
    if !is_method {
        return global(run, name, values);
    }
    match (&values[0], &values[1..]) {
        (Value::Text(text), arguments) => of_text(run, name, text, arguments),
        (Value::List(items), arguments) => of_list(run, name, items, arguments),
        (Value::Quantity(quantity), arguments) => of_quantity(name, quantity, arguments),
        (Value::Semver(version), arguments) => of_version(name, version, arguments),
        (Value::Optional(value), arguments) => of_optional(name, value.as_ref(), arguments),
        (Value::Map(map), []) if name == "size" => Ok(Value::size(map.entries.len())),
        (Value::Bytes(bytes), []) if name == "size" => Ok(Value::size(bytes.len())),
        _ => no_overload(),
    }
}

fn global(run: &mut Run<'_>, name: &str, values: &[Value]) -> Outcome {
    match (name, values) {
        ("size", [of]) => match of {
            Value::Text(text) => Ok(Value::size(text.chars().count())),
            Value::Bytes(bytes) => Ok(Value::size(bytes.len())),
            Value::List(items) => Ok(Value::size(items.len())),
            Value::Map(map) => Ok(Value::size(map.entries.len())),
            _ => no_overload(),
        },
        ("dyn", [value]) => Ok(value.clone()),
        ("type", [value]) => Ok(Value::Type(value.kind())),
        ("matches", [Value::Text(text), Value::Text(pattern)]) => matches(run, text, pattern),
        ("quantity", [Value::Text(text)]) => match text.parse::<Quantity>() {
            Ok(quantity) => Ok(Value::Quantity(Rc::new(quantity))),
            Err(error) => fault(error.to_string()),
        },
        ("isQuantity", [Value::Text(text)]) => Ok(Value::Bool(text.parse::<Quantity>().is_ok())),
        ("semver" | "isSemver", [Value::Text(text), rest @ ..]) => {
            let normalize = match rest {
                [] => false,
                [Value::Bool(normalize)] => *normalize,
                _ => return no_overload(),
            };
            match (version(text, normalize), name) {
                (found, "isSemver") => Ok(Value::Bool(found.is_ok())),
                (Ok(version), _) => Ok(Value::Semver(Rc::new(version))),
                (Err(error), _) => fault(error.to_string()),
            }
        }
        ("optional.of", [value]) => Ok(Value::Optional(Some(Rc::new(value.clone())))),
        ("optional.none", []) => Ok(Value::Optional(None)),
        ("optional.ofNonZeroValue", [value]) => Ok(Value::Optional((!is_zero(value)).then(|| Rc::new(value.clone())))),
        ("sets.contains", [all, Value::List(some)]) => each(run, some, all, true).map(Value::Bool),
        ("sets.equivalent", [a @ Value::List(items), b @ Value::List(others)]) => {
            Ok(Value::Bool(each(run, items, b, true)? && each(run, others, a, true)?))
        }
        ("sets.intersects", [all, Value::List(some)]) => Ok(Value::Bool(!each(run, some, all, false)?)),
        (_, [value]) => convert(name, value),
        _ => no_overload(),
    }
}

/// Whether each of some items is in a list, or is not.
fn each(run: &mut Run<'_>, items: &[Value], list: &Value, is_in: bool) -> Result<bool, Fault> {
    for item in items {
        if run.contains(list, item)? != is_in {
            return Ok(false);
        }
    }
    Ok(true)
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Double(value) => *value == 0.0,
        Value::Text(text) => text.is_empty(),
        Value::Bytes(bytes) => bytes.is_empty(),
        Value::List(items) => items.is_empty(),
        Value::Map(map) => map.entries.is_empty(),
        value => value.whole() == Some(0),
    }
}

fn convert(name: &str, value: &Value) -> Outcome {
    let parsed = |kind: &str, text: &str| fault(format!("strconv.Parse{kind}: parsing {text:?}: invalid syntax"));
    match (name, value) {
        ("int", Value::Double(value)) if value.abs() < 9.2e18 => Ok(Value::Int(value.trunc() as i64)),
        ("int", Value::Text(text)) => text.parse().map(Value::Int).or_else(|_| parsed("Int", text)),
        ("int", value) if value.whole().is_some() => {
            let whole = value.whole().and_then(|whole| i64::try_from(whole).ok());
            whole.map_or_else(|| fault("integer overflow"), |whole| Ok(Value::Int(whole)))
        }
        ("uint", Value::Double(value)) if (0.0..1.8e19).contains(value) => Ok(Value::Uint(value.trunc() as u64)),
        ("uint", Value::Text(text)) => text.parse().map(Value::Uint).or_else(|_| parsed("Uint", text)),
        ("uint", value) if value.whole().is_some() => {
            let whole = value.whole().and_then(|whole| u64::try_from(whole).ok());
            whole.map_or_else(|| fault("unsigned integer overflow"), |whole| Ok(Value::Uint(whole)))
        }
        ("double", Value::Double(value)) => Ok(Value::Double(*value)),
        ("double", Value::Text(text)) => text.parse().map(Value::Double).or_else(|_| parsed("Float", text)),
        ("double", value) if value.whole().is_some() => Ok(Value::Double(value.whole().unwrap_or_default() as f64)),
        ("string", Value::Text(_) | Value::Bool(_) | Value::Int(_) | Value::Uint(_) | Value::Double(_)) => {
            Ok(Value::text(&shown(value)))
        }
        ("string", Value::Bytes(bytes)) => match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Value::text(text)),
            Err(_) => fault("invalid UTF-8 in bytes, cannot convert to string"),
        },
        ("bytes", Value::Text(text)) => Ok(Value::Bytes(text.as_bytes().into())),
        ("bytes", Value::Bytes(_)) | ("bool", Value::Bool(_)) => Ok(value.clone()),
        ("bool", Value::Text(text)) => match &**text {
            "1" | "t" | "true" | "TRUE" | "True" | "T" => Ok(Value::Bool(true)),
            "0" | "f" | "false" | "FALSE" | "False" | "F" => Ok(Value::Bool(false)),
            other => parsed("Bool", other),
        },
        ("int" | "uint", Value::Double(_)) => fault("integer overflow"),
        _ => no_overload(),
    }
}

/// A semantic version; made one where that is wanted, by leaving out a `v` and zeros that lead, and adding what is missing.
pub(super) fn version(text: &str, normalize: bool) -> Result<Version, semver::Error> {
    if !normalize {
        return Version::parse(text);
    }
    let text = text.strip_prefix('v').unwrap_or(text);
    let (core, rest) = text.split_at(text.find(['-', '+']).unwrap_or(text.len()));
    let trimmed = |part: &str| match part.trim_start_matches('0') {
        "" if !part.is_empty() => "0".to_owned(),
        other => other.to_owned(),
    };
    let mut parts: Vec<_> = core.split('.').map(trimmed).collect();
    while parts.len() < 3 {
        parts.push("0".to_owned());
    }
    Version::parse(&format!("{}{rest}", parts.join(".")))
}

fn of_text(run: &mut Run<'_>, name: &str, text: &Rc<str>, arguments: &[Value]) -> Outcome {
    match (name, arguments) {
        ("size", []) => Ok(Value::size(text.chars().count())),
        ("contains", [Value::Text(part)]) => Ok(Value::Bool(text.contains(&**part))),
        ("startsWith", [Value::Text(part)]) => Ok(Value::Bool(text.starts_with(&**part))),
        ("endsWith", [Value::Text(part)]) => Ok(Value::Bool(text.ends_with(&**part))),
        ("matches", [Value::Text(pattern)]) => matches(run, text, pattern),
        ("find", [Value::Text(pattern)]) => {
            let found = with_pattern(run, text, pattern, |pattern| pattern.find(text).map(|found| found.as_str()))?;
            Ok(Value::text(found.unwrap_or_default()))
        }
        ("findAll", [Value::Text(pattern), limit @ ..]) => {
            let limit = match limit {
                [] => usize::MAX,
                [Value::Int(limit)] => usize::try_from(*limit).unwrap_or(usize::MAX),
                _ => return no_overload(),
            };
            run.spend(text.len() as u64)?;
            let found = with_pattern(run, text, pattern, |pattern| {
                pattern.find_iter(text).take(limit).map(|found| Value::text(found.as_str())).collect()
            })?;
            Ok(Value::list(found))
        }
        ("lowerAscii", []) => Ok(Value::text(&text.to_ascii_lowercase())),
        ("upperAscii", []) => Ok(Value::text(&text.to_ascii_uppercase())),
        ("trim", []) => Ok(Value::text(text.trim())),
        ("reverse", []) => Ok(Value::text(&text.chars().rev().collect::<String>())),
        ("charAt", [Value::Int(at)]) => {
            let length = text.chars().count() as i64;
            if !(0..=length).contains(at) {
                return fault(format!("index out of range: {at}"));
            }
            Ok(Value::text(&text.chars().skip(*at as usize).take(1).collect::<String>()))
        }
        ("substring", [Value::Int(start)]) => substring(text, *start, text.chars().count() as i64),
        ("substring", [Value::Int(start), Value::Int(end)]) => substring(text, *start, *end),
        ("indexOf", [Value::Text(part)]) => Ok(Value::Int(place(text, text.find(&**part)))),
        ("lastIndexOf", [Value::Text(part)]) => Ok(Value::Int(place(text, text.rfind(&**part)))),
        ("replace", [Value::Text(from), Value::Text(to), limit @ ..]) => {
            let limit = match limit {
                [] => usize::MAX,
                [Value::Int(limit)] => usize::try_from(*limit).unwrap_or(usize::MAX),
                _ => return no_overload(),
            };
            // Before it is made: it may be as long as both multiplied.
            let replaced = text.matches(&**from).take(limit).count() * to.len();
            run.spend(replaced as u64 / 10)?;
            Ok(Value::text(&text.replacen(&**from, to, limit)))
        }
        ("split", [Value::Text(separator)]) => split(run, text, separator, -1),
        ("split", [Value::Text(separator), Value::Int(limit)]) => split(run, text, separator, *limit),
        _ => no_overload(),
    }
}

/// The place of a byte, in characters.
fn place(text: &str, at: Option<usize>) -> i64 {
    at.map_or(-1, |at| text[..at].chars().count() as i64)
}

fn substring(text: &str, start: i64, end: i64) -> Outcome {
    let length = text.chars().count() as i64;
    if !(0..=length).contains(&start) || !(0..=length).contains(&end) {
        let wrong = if (0..=length).contains(&start) { end } else { start };
        return fault(format!("index out of range: {wrong}"));
    }
    if start > end {
        return fault(format!("invalid substring range. start: {start}, end: {end}"));
    }
    Ok(Value::text(&text.chars().skip(start as usize).take((end - start) as usize).collect::<String>()))
}

fn split(run: &mut Run<'_>, text: &str, separator: &str, limit: i64) -> Outcome {
    run.spend(text.len() as u64)?;
    let parts: Vec<Value> = match (limit, separator) {
        (0, _) => Vec::new(),
        (1, _) => vec![Value::text(text)],
        (limit, "") => {
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            let mut rest = text.char_indices();
            let mut parts: Vec<_> = rest
                .by_ref()
                .take(limit.saturating_sub(1))
                .map(|(_, one)| Value::text(one.encode_utf8(&mut [0; 4])))
                .collect();
            let rest = rest.as_str();
            parts.extend((!rest.is_empty()).then(|| Value::text(rest)));
            parts
        }
        (limit, separator) if limit > 0 => text.splitn(limit as usize, separator).map(Value::text).collect(),
        (_, separator) => text.split(separator).map(Value::text).collect(),
    };
    Ok(Value::list(parts))
}

fn matches(run: &mut Run<'_>, text: &Rc<str>, pattern: &Rc<str>) -> Outcome {
    with_pattern(run, text, pattern, |pattern| pattern.is_match(text)).map(Value::Bool)
}

/// Uses a pattern, made ready once. Its time is linear in the text, and so is what it costs.
fn with_pattern<T>(
    run: &mut Run<'_>,
    text: &str,
    pattern: &Rc<str>,
    using: impl FnOnce(&regex::Regex) -> T,
) -> Result<T, Fault> {
    if pattern.len() > EXPRESSION_BYTES {
        return fault("error parsing regexp: expression too large");
    }
    run.spend(1 + (text.len() as u64).saturating_mul(pattern.len() as u64) / 40)?;
    let mut patterns = run.patterns.borrow_mut();
    if !patterns.contains_key(pattern) {
        run.steps = run.steps.checked_sub(PATTERN_STEPS).ok_or(Fault::Spent)?;
        if patterns.len() >= MOST_PATTERNS {
            patterns.clear();
        }
        patterns.insert(pattern.clone(), RegexBuilder::new(pattern).size_limit(PATTERN_BYTES).build().ok());
    }
    match patterns.get(pattern).and_then(Option::as_ref) {
        Some(ready) => Ok(using(ready)),
        None => fault(format!("error parsing regexp: `{pattern}`")),
    }
}

fn of_list(run: &mut Run<'_>, name: &str, items: &[Value], arguments: &[Value]) -> Outcome {
    match (name, arguments) {
        ("size", []) => Ok(Value::size(items.len())),
        ("join", separator) => {
            let separator = match separator {
                [] => "",
                [Value::Text(separator)] => &**separator,
                _ => return no_overload(),
            };
            let texts = items.iter().map(|item| if let Value::Text(text) = item { Some(&**text) } else { None });
            let Some(texts) = texts.collect::<Option<Vec<&str>>>() else { return no_overload() };
            let length: usize = texts.iter().map(|text| text.len() + separator.len()).sum();
            run.spend(length as u64 / 10)?;
            Ok(Value::text(&texts.join(separator)))
        }
        ("isSorted" | "min" | "max", []) => {
            run.spend(items.iter().map(Value::weight).sum())?;
            if name == "isSorted" {
                return Ok(Value::Bool(ordered(items)?.iter().all(|order| order.is_le())));
            }
            let wanted = if name == "min" { Ordering::Less } else { Ordering::Greater };
            let Some((first, rest)) = items.split_first() else { return fault(format!("{name} called on empty list")) };
            let mut best = first;
            for item in rest {
                let Some(order) = item.compare(best) else { return no_overload() };
                best = if order == wanted { item } else { best };
            }
            Ok(best.clone())
        }
        ("sum", []) => sum(items),
        ("indexOf" | "lastIndexOf", [item]) => {
            let mut found = -1;
            for (at, known) in items.iter().enumerate() {
                if run.equal(known, item)? {
                    found = at as i64;
                    if name == "indexOf" {
                        break;
                    }
                }
            }
            Ok(Value::Int(found))
        }
        ("slice", [Value::Int(start), Value::Int(end)]) => {
            let range = usize::try_from(*start).ok().zip(usize::try_from(*end).ok());
            let part = range.and_then(|(start, end)| items.get(start..end));
            part.map_or_else(|| fault("cannot slice list"), |part| Ok(Value::list(part.to_vec())))
        }
        ("reverse", []) => Ok(Value::list(items.iter().rev().cloned().collect())),
        _ => no_overload(),
    }
}

/// How each element compares to the next.
fn ordered(items: &[Value]) -> Result<Vec<Ordering>, Fault> {
    items.windows(2).map(|pair| pair[0].compare(&pair[1]).map_or_else(no_overload, Ok)).collect()
}

fn sum(items: &[Value]) -> Outcome {
    if items.iter().any(|item| matches!(item, Value::Double(_))) {
        let numbers = items.iter().map(|item| if let Value::Double(number) = item { Some(number) } else { None });
        return numbers.sum::<Option<f64>>().map_or_else(no_overload, |sum| Ok(Value::Double(sum)));
    }
    let unsigned = matches!(items.first(), Some(Value::Uint(_)));
    let Some(sum) = items.iter().map(Value::whole).sum::<Option<i128>>() else { return no_overload() };
    let sum = if unsigned { u64::try_from(sum).map(Value::Uint) } else { i64::try_from(sum).map(Value::Int) };
    sum.or_else(|_| fault("integer overflow"))
}

fn of_quantity(name: &str, quantity: &Rc<Quantity>, arguments: &[Value]) -> Outcome {
    let whole = || Some(quantity.value()).filter(|value| Quantity::from_value(*value, Format::DecimalSi) == **quantity);
    match (name, arguments) {
        ("isInteger", []) => Ok(Value::Bool(whole().is_some())),
        ("asInteger", []) => {
            whole().map_or_else(|| fault("cannot convert value to integer"), |value| Ok(Value::Int(value)))
        }
        ("asApproximateFloat", []) => Ok(Value::Double(quantity.as_f64())),
        ("sign", []) => Ok(Value::Int(quantity.sign().into())),
        ("add" | "sub", [other]) => {
            let other = match other {
                Value::Quantity(other) => other.as_ref().clone(),
                Value::Int(other) => Quantity::from_value(*other, Format::DecimalSi),
                _ => return no_overload(),
            };
            let own = quantity.as_ref().clone();
            Ok(Value::Quantity(Rc::new(if name == "add" { own + other } else { own - other })))
        }
        (_, [Value::Quantity(other)]) => compared(name, quantity.cmp(other)),
        _ => no_overload(),
    }
}

fn of_version(name: &str, version: &Version, arguments: &[Value]) -> Outcome {
    match (name, arguments) {
        ("major", []) => Ok(Value::Int(version.major as i64)),
        ("minor", []) => Ok(Value::Int(version.minor as i64)),
        ("patch", []) => Ok(Value::Int(version.patch as i64)),
        (_, [Value::Semver(other)]) => compared(name, version.cmp_precedence(other)),
        _ => no_overload(),
    }
}

fn compared(name: &str, order: Ordering) -> Outcome {
    match name {
        "compareTo" => Ok(Value::Int(order as i64)),
        "isLessThan" => Ok(Value::Bool(order.is_lt())),
        "isGreaterThan" => Ok(Value::Bool(order.is_gt())),
        _ => no_overload(),
    }
}

fn of_optional(name: &str, value: Option<&Rc<Value>>, arguments: &[Value]) -> Outcome {
    match (name, arguments) {
        ("hasValue", []) => Ok(Value::Bool(value.is_some())),
        ("value", []) => value.map_or_else(|| fault("optional.none() dereference"), |value| Ok(value.as_ref().clone())),
        ("orValue", [other]) => Ok(value.map_or(other, |value| &**value).clone()),
        ("or", [other @ Value::Optional(_)]) => {
            Ok(value.map_or_else(|| other.clone(), |value| Value::Optional(Some(value.clone()))))
        }
        _ => no_overload(),
    }
}
