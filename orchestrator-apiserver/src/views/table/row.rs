//! Reading an object for the cells of its row: reads that never fail.

use jiff::Timestamp;
use serde_json::Value;

use super::duration;

/// A place in an object, there or not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tree<'a>(Option<&'a Value>);

impl<'a> Tree<'a> {
    pub(super) fn new(value: &'a Value) -> Self {
        Self(Some(value))
    }

    /// A member.
    pub(super) fn get(self, name: &str) -> Self {
        Self(self.0.and_then(|value| value.get(name)))
    }

    /// A member some levels down, its names joined by dots.
    pub(super) fn at(self, path: &str) -> Self {
        path.split('.').fold(self, Self::get)
    }

    pub(super) fn value(self) -> Option<&'a Value> {
        self.0.filter(|value| !value.is_null())
    }

    pub(super) fn exists(self) -> bool {
        self.value().is_some()
    }

    /// The text; empty when there is none.
    pub(super) fn text(self) -> &'a str {
        self.0.and_then(Value::as_str).unwrap_or_default()
    }

    /// The text, or another one when it is empty.
    pub(super) fn text_or(self, other: &'a str) -> &'a str {
        Some(self.text()).filter(|text| !text.is_empty()).unwrap_or(other)
    }

    /// The number; zero when there is none.
    pub(super) fn int(self) -> i64 {
        self.0.and_then(Value::as_i64).unwrap_or_default()
    }

    pub(super) fn bool(self) -> Option<bool> {
        self.0.and_then(Value::as_bool)
    }

    /// The items of a list.
    pub(super) fn items(self) -> impl DoubleEndedIterator<Item = Self> + ExactSizeIterator {
        let items = self.0.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        items.iter().map(Self::new)
    }

    /// The members of a map, ordered by key.
    pub(super) fn entries(self) -> Vec<(&'a str, Self)> {
        let members = self.0.and_then(Value::as_object).into_iter().flatten();
        let mut entries: Vec<_> = members.map(|(key, value)| (key.as_str(), Self::new(value))).collect();
        entries.sort_unstable_by_key(|(key, _)| *key);
        entries
    }

    /// How many items or members.
    pub(super) fn len(self) -> usize {
        match self.0 {
            Some(Value::Array(items)) => items.len(),
            Some(Value::Object(members)) => members.len(),
            _ => 0,
        }
    }

    /// The texts of a list, joined.
    pub(super) fn joined(self, separator: &str) -> String {
        self.items().map(Self::text).collect::<Vec<_>>().join(separator)
    }

    /// A text or a number, as text: what is either an amount or a share.
    pub(super) fn shown(self) -> Option<String> {
        match self.value()? {
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        }
    }

    /// The condition of a type.
    pub(super) fn condition(self, of: &str) -> Option<Self> {
        self.items().find(|condition| condition.get("type").text() == of)
    }

    /// Whether the condition of a type is true.
    pub(super) fn condition_holds(self, of: &str) -> bool {
        self.condition(of).is_some_and(|condition| condition.get("status").text() == "True")
    }

    /// Labels as text: `a=1,b=2`, or `<none>`.
    pub(super) fn labels(self) -> String {
        let labels = self.entries().iter().map(|(key, value)| format!("{key}={}", value.text())).collect::<Vec<_>>();
        if labels.is_empty() { "<none>".to_owned() } else { labels.join(",") }
    }

    /// A structured selector as text, ordered by key; empty for an empty one. `None` when it is not a selector.
    pub(super) fn selector(self) -> Option<String> {
        let equal = self.get("matchLabels").entries();
        let mut parts: Vec<(&str, String)> =
            equal.iter().map(|(key, value)| (*key, format!("{key}={}", value.text()))).collect();
        for expression in self.get("matchExpressions").items() {
            let key = expression.get("key").text();
            let mut values: Vec<&str> = expression.get("values").items().map(Self::text).collect();
            values.sort_unstable();
            let values = values.join(",");
            parts.push((
                key,
                match expression.get("operator").text() {
                    "In" => format!("{key} in ({values})"),
                    "NotIn" => format!("{key} notin ({values})"),
                    "Exists" => key.to_owned(),
                    "DoesNotExist" => format!("!{key}"),
                    _ => return None,
                },
            ));
        }
        parts.sort_by_key(|(key, _)| *key);
        Some(parts.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join(","))
    }

    /// The same, with words for the empty one and for none.
    pub(super) fn selector_or_none(self) -> String {
        match self.selector() {
            None => "<error>".to_owned(),
            Some(text) if text.is_empty() => "<none>".to_owned(),
            Some(text) => text,
        }
    }

    fn time(self) -> Option<Timestamp> {
        self.text().parse().ok()
    }
}

/// An object and the time it is looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'a> {
    pub(super) object: Tree<'a>,
    pub(super) now: Timestamp,
}

impl<'a> Row<'a> {
    pub(super) fn at(&self, path: &str) -> Tree<'a> {
        self.object.at(path)
    }

    pub(super) fn name(&self) -> &'a str {
        self.at("metadata.name").text()
    }

    pub(super) fn age(&self) -> String {
        self.since(self.at("metadata.creationTimestamp"))
    }

    pub(super) fn is_terminating(&self) -> bool {
        self.at("metadata.deletionTimestamp").exists()
    }

    /// The time since a moment, or `<unknown>` where it is none.
    pub(super) fn since(&self, moment: Tree<'_>) -> String {
        moment.time().map_or_else(|| "<unknown>".to_owned(), |time| duration::human(self.now.duration_since(time)))
    }

    /// The time between two moments, up to now when the second is missing; empty without the first.
    pub(super) fn between(&self, start: Tree<'_>, end: Tree<'_>) -> String {
        let end = end.time().unwrap_or(self.now);
        start.time().map(|start| duration::human(end.duration_since(start))).unwrap_or_default()
    }
}

/// The first few of many, and how many more there are.
pub(super) fn first_of(items: &[String], shown: usize, separator: &str) -> String {
    let head = items.iter().take(shown).map(String::as_str).collect::<Vec<_>>().join(separator);
    match items.len().saturating_sub(shown) {
        0 => head,
        more => format!("{head} + {more} more..."),
    }
}

/// A row's cells, of whatever makes a value.
macro_rules! cells {
    ($($cell:expr),* $(,)?) => { vec![$(serde_json::Value::from($cell)),*] };
}
pub(super) use cells;
