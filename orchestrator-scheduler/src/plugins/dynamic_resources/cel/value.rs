//! Values that expressions work with.

use std::{cmp::Ordering, collections::BTreeMap, rc::Rc};

use orchestrator_core::quantity::Quantity;
use semver::Version;

/// A value. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(Rc<str>),
    Bytes(Rc<[u8]>),
    List(Rc<[Value]>),
    Map(Rc<Map>),
    Quantity(Rc<Quantity>),
    Semver(Rc<Version>),
    Optional(Option<Rc<Value>>),
    /// The name of a type.
    Type(&'static str),
}

/// A map. Where it says so, keys that it does not have stand for an empty map.
#[derive(Clone, Debug, Default)]
pub(super) struct Map {
    pub(super) entries: BTreeMap<Key, Value>,
    pub(super) empty_by_default: bool,
}

/// What maps are looked up by. Whole numbers of either type are one key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Bool(bool),
    Whole(i128),
    Text(Rc<str>),
}

impl Key {
    pub(super) fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Bool(value) => Some(Self::Bool(*value)),
            Value::Text(text) => Some(Self::Text(text.clone())),
            Value::Double(value) if value.fract() == 0.0 && value.abs() < 1e19 => Some(Self::Whole(*value as i128)),
            value => value.whole().map(Self::Whole),
        }
    }

    pub(super) fn value(&self) -> Value {
        match self {
            Self::Bool(value) => Value::Bool(*value),
            Self::Text(text) => Value::Text(text.clone()),
            Self::Whole(value) => i64::try_from(*value).map_or_else(|_| Value::Uint(*value as u64), Value::Int),
        }
    }
}

impl Map {
    pub(super) fn get(&self, key: &Key) -> Option<Value> {
        let found = self.entries.get(key).cloned();
        found.or_else(|| self.empty_by_default.then(|| Value::Map(Rc::default())))
    }
}

impl Value {
    pub(super) fn text(text: &str) -> Self {
        Self::Text(text.into())
    }

    pub(super) fn list(items: Vec<Self>) -> Self {
        Self::List(items.into())
    }

    pub(super) fn size(size: usize) -> Self {
        Self::Int(size as i64)
    }

    /// A whole number of either type.
    pub(super) fn whole(&self) -> Option<i128> {
        match self {
            Self::Int(value) => Some((*value).into()),
            Self::Uint(value) => Some((*value).into()),
            _ => None,
        }
    }

    /// Its type's name.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null_type",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint",
            Self::Double(_) => "double",
            Self::Text(_) => "string",
            Self::Bytes(_) => "bytes",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Quantity(_) => "kubernetes.Quantity",
            Self::Semver(_) => "kubernetes.Semver",
            Self::Optional(_) => "optional_type",
            Self::Type(_) => "type",
        }
    }

    /// How much there is to read of it, in the units of the budget, itself not counted.
    pub(super) fn weight(&self) -> u64 {
        let length = match self {
            Self::Text(text) => text.len() / 10,
            Self::Bytes(bytes) => bytes.len() / 10,
            Self::List(items) => items.len(),
            Self::Map(map) => map.entries.len(),
            _ => 0,
        };
        length as u64
    }

    /// Which is more, of numbers of any type and of other values of one type that have an order.
    pub(super) fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => Some(a.cmp(b)),
            (Self::Text(a), Self::Text(b)) => Some(a.cmp(b)),
            (Self::Bytes(a), Self::Bytes(b)) => Some(a.cmp(b)),
            (Self::Double(a), Self::Double(b)) => a.partial_cmp(b),
            (Self::Double(a), b) => Some(compare_mixed(b.whole()?, *a)?.reverse()),
            (a, Self::Double(b)) => compare_mixed(a.whole()?, *b),
            (a, b) => Some(a.whole()?.cmp(&b.whole()?)),
        }
    }
}

/// A whole number and another one. Beyond what integers hold, floating point numbers are exact.
fn compare_mixed(whole: i128, other: f64) -> Option<Ordering> {
    if other.is_nan() {
        return None;
    }
    if other.abs() >= 1e20 {
        return 0.0.partial_cmp(&other);
    }
    let order = whole.cmp(&(other.trunc() as i128));
    Some(order.then_with(|| 0.0.partial_cmp(&other.fract()).unwrap_or(Ordering::Equal)))
}

impl PartialEq for Value {
    /// Equality as the language has it: numbers by their amount, values of different types never.
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::List(a), Self::List(b)) => a == b,
            (Self::Map(a), Self::Map(b)) => a.entries == b.entries,
            (Self::Quantity(a), Self::Quantity(b)) => a == b,
            (Self::Semver(a), Self::Semver(b)) => a.cmp_precedence(b) == Ordering::Equal,
            (Self::Optional(a), Self::Optional(b)) => a == b,
            (Self::Type(a), Self::Type(b)) => a == b,
            (a, b) => a.compare(b) == Some(Ordering::Equal),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_compare_by_their_amount() {
        assert_eq!(Value::Int(1), Value::Double(1.0));
        assert_eq!(Value::Uint(1), Value::Int(1));
        assert_ne!(Value::Int(1), Value::text("1"));
        assert_eq!(Value::Int(-1).compare(&Value::Uint(u64::MAX)), Some(Ordering::Less));
        assert_eq!(Value::Int(i64::MAX).compare(&Value::Double(9_223_372_036_854_775_808.0)), Some(Ordering::Less));
        assert_eq!(Value::Double(1.5).compare(&Value::Int(1)), Some(Ordering::Greater));
        assert_eq!(Value::Double(-1.5).compare(&Value::Int(-1)), Some(Ordering::Less));
        assert_eq!(Value::Double(f64::NAN).compare(&Value::Int(1)), None);
        assert_eq!(Value::Uint(u64::MAX).compare(&Value::Double(1e300)), Some(Ordering::Less));
        assert_eq!(Key::of(&Value::Uint(7)), Key::of(&Value::Double(7.0)));
    }
}
