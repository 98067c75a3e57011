//! Path elements: the names of single steps from a value into its members and items.

use std::{cmp::Ordering, fmt};

use serde_json::{Map, Number, Value};

/// One step. The order is that of upstream's field sets: members, then items by key, by value, by index.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum PathElement {
    /// A member of a structure or map.
    Field(String),
    /// An item of a list, by the members that identify it, in the order of their names.
    Key(Vec<(String, Scalar)>),
    /// An item of a set, by its value.
    Value(Scalar),
    /// An item of a list, by its place.
    Index(i64),
}

impl PathElement {
    pub(crate) fn field(name: impl Into<String>) -> Self {
        Self::Field(name.into())
    }
}

/// As messages show it: `.name`, `[name="c"]`, `[="v"]`, `[0]`.
impl fmt::Display for PathElement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Key(members) => {
                for (index, (name, value)) in members.iter().enumerate() {
                    write!(f, "{}{name}={value}", if index == 0 { "[" } else { "," })?;
                }
                f.write_str("]")
            }
            Self::Value(value) => write!(f, "[={value}]"),
            Self::Index(index) => write!(f, "[{index}]"),
        }
    }
}

/// A path as messages show it: `.spec.containers[name="c"].image`.
pub(crate) fn show(path: &[PathElement]) -> String {
    path.iter().map(ToString::to_string).collect()
}

/// A value without parts. Numbers come before texts, texts before flags.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scalar {
    Number(Numeric),
    Text(String),
    Flag(bool),
}

impl Scalar {
    /// `None` for lists, objects and null.
    pub(crate) fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Number(number) => Some(Self::Number(Numeric::of(number))),
            Value::String(text) => Some(Self::Text(text.clone())),
            Value::Bool(flag) => Some(Self::Flag(*flag)),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        }
    }

    pub(crate) fn to_value(&self) -> Value {
        match self {
            Self::Number(Numeric::Integer(number)) => (*number).into(),
            Self::Number(Numeric::Fraction(number)) => Number::from_f64(*number).map_or(Value::Null, Value::Number),
            Self::Text(text) => text.clone().into(),
            Self::Flag(flag) => (*flag).into(),
        }
    }
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.to_value())
    }
}

/// A number; the same number is the same with a point and without.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Numeric {
    Integer(i64),
    /// Never a whole number that a [`Numeric::Integer`] holds exactly.
    Fraction(f64),
}

impl Numeric {
    /// Whole numbers below this are exact as a float, too.
    const EXACT: f64 = 9_007_199_254_740_992.0;

    fn of(number: &Number) -> Self {
        if let Some(integer) = number.as_i64() {
            return Self::Integer(integer);
        }
        let float = number.as_f64().unwrap_or_default();
        if float.fract() == 0.0 && float.abs() < Self::EXACT {
            return Self::Integer(float as i64);
        }
        Self::Fraction(float)
    }

    fn float(self) -> f64 {
        match self {
            Self::Integer(integer) => integer as f64,
            Self::Fraction(float) => float,
        }
    }

    /// An integer goes before a float that it rounds to.
    fn rank(self) -> Option<i64> {
        match self {
            Self::Integer(integer) => Some(integer),
            Self::Fraction(_) => None,
        }
    }
}

impl Ord for Numeric {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_rank = || match (self.rank(), other.rank()) {
            (Some(left), Some(right)) => left.cmp(&right),
            (left, right) => left.is_none().cmp(&right.is_none()),
        };
        self.float().total_cmp(&other.float()).then_with(by_rank)
    }
}

impl PartialOrd for Numeric {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Numeric {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Numeric {}

/// Whether two values are the same, numbers by their value.
pub(crate) fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => left == right || Numeric::of(left) == Numeric::of(right),
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| same(left, right))
        }
        (Value::Object(left), Value::Object(right)) => same_members(left, right),
        _ => left == right,
    }
}

fn same_members(left: &Map<String, Value>, right: &Map<String, Value>) -> bool {
    left.len() == right.len()
        && left.iter().all(|(name, value)| right.get(name).is_some_and(|other| same(value, other)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn scalar(value: Value) -> Scalar {
        Scalar::of(&value).unwrap()
    }

    #[test]
    fn a_path_is_shown_as_upstream_shows_it() {
        let key = PathElement::Key(vec![
            ("port".to_owned(), scalar(json!(80))),
            ("protocol".to_owned(), scalar(json!("TCP"))),
        ]);
        let path =
            [PathElement::field("spec"), PathElement::field("ports"), key, PathElement::Value(scalar(json!(true)))];
        assert_eq!(show(&path), r#".spec.ports[port=80,protocol="TCP"][=true]"#);
    }

    #[test]
    fn numbers_are_ordered_by_their_value() {
        assert_eq!(scalar(json!(1)), scalar(json!(1.0)));
        assert!(scalar(json!(80)) < scalar(json!(443)) && scalar(json!(1)) < scalar(json!(1.5)));
        assert!(scalar(json!(i64::MAX)) < scalar(json!(u64::MAX)) && scalar(json!(9)) < scalar(json!("1")));
        assert!(same(&json!({"a": [1]}), &json!({"a": [1.0]})) && !same(&json!([1]), &json!([2])));
    }
}
