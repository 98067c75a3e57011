//! Paths into objects, as columns of custom kinds name them: `.status.conditions[?(@.type=="Ready")].status`.
//!
//! Upstream: <https://kubernetes.io/docs/reference/kubectl/jsonpath/>, of which columns use the paths alone: members,
//! indices, slices, wildcards, filters and the recursive descent.

use serde_json::Value;

/// A parsed path.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct JsonPath(Vec<Step>);

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Member(String),
    /// Negative ones count from the end.
    Index(i64),
    Slice(Option<i64>, Option<i64>),
    All,
    Descend,
    Filter(Box<Filter>),
}

/// Chooses items of a list.
#[derive(Clone, Debug, PartialEq)]
struct Filter {
    left: Operand,
    compare: Option<(Comparison, Operand)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Comparison {
    Equal,
    NotEqual,
    LessOrEqual,
    GreaterOrEqual,
    Less,
    Greater,
}

/// The longer ones first, so that they are found first.
const COMPARISONS: [(&str, Comparison); 6] = [
    ("==", Comparison::Equal),
    ("!=", Comparison::NotEqual),
    ("<=", Comparison::LessOrEqual),
    (">=", Comparison::GreaterOrEqual),
    ("<", Comparison::Less),
    (">", Comparison::Greater),
];

#[derive(Clone, Debug, PartialEq)]
enum Operand {
    Path(JsonPath),
    Literal(Value),
}

impl JsonPath {
    /// Parses a path, with or without the dot in front. `None` when it is none.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut rest = text.trim().trim_start_matches('$');
        let mut steps = Vec::new();
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix("..") {
                steps.push(Step::Descend);
                rest = after;
            } else if let Some(after) = rest.strip_prefix('.') {
                rest = after;
            } else if let Some(after) = rest.strip_prefix('[') {
                let end = closing(after)?;
                steps.push(bracket(after.get(..end)?.trim())?);
                rest = after.get(end + 1..)?;
                continue;
            }
            let (name, after) = member(rest);
            match name.as_str() {
                "" => {}
                "*" => steps.push(Step::All),
                _ => steps.push(Step::Member(name)),
            }
            rest = after;
        }
        Some(Self(steps))
    }

    /// The values that the path leads to, in order.
    pub(super) fn find<'a>(&self, root: &'a Value) -> Vec<&'a Value> {
        self.0.iter().fold(vec![root], |values, step| values.into_iter().flat_map(|value| step.apply(value)).collect())
    }
}

/// A name up to the next dot or bracket, with what follows it. A backslash takes the next letter as it is.
fn member(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '.' | '[' => return (name, text.get(at..).unwrap_or_default()),
            '\\' => name.extend(letters.next().map(|(_, letter)| letter)),
            _ => name.push(letter),
        }
    }
    (name, "")
}

/// Where the bracket that is open before the text closes, quotes and further brackets apart.
fn closing(text: &str) -> Option<usize> {
    let (mut depth, mut quote) = (0_usize, None);
    for (at, letter) in text.char_indices() {
        match (quote, letter) {
            (Some(open), _) if open == letter => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(letter),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some(at),
            (None, ']') => depth -= 1,
            (None, _) => {}
        }
    }
    None
}

/// What stands in a bracket.
fn bracket(inside: &str) -> Option<Step> {
    if inside == "*" {
        return Some(Step::All);
    }
    if let Some(name) = quoted(inside) {
        return Some(Step::Member(name));
    }
    if let Some(filter) = inside.strip_prefix("?(").and_then(|filter| filter.strip_suffix(')')) {
        return Some(Step::Filter(Box::new(Filter::parse(filter)?)));
    }
    let number = |text: &str| if text.is_empty() { Some(None) } else { text.parse().ok().map(Some) };
    match inside.split_once(':') {
        Some((start, end)) => Some(Step::Slice(number(start.trim())?, number(end.trim())?)),
        None => inside.parse().ok().map(Step::Index),
    }
}

fn quoted(text: &str) -> Option<String> {
    let quote = text.chars().next().filter(|quote| matches!(quote, '\'' | '"'))?;
    let inside = text.strip_prefix(quote)?.strip_suffix(quote)?;
    Some(inside.replace("\\.", "."))
}

impl Step {
    fn apply<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        match (self, value) {
            (Self::Member(name), _) => value.get(name).into_iter().collect(),
            (Self::Index(index), Value::Array(items)) => {
                position(*index, items.len()).and_then(|at| items.get(at)).into_iter().collect()
            }
            (Self::Slice(start, end), Value::Array(items)) => {
                let bound = |at: Option<i64>, otherwise| at.map_or(otherwise, |at| clamp(at, items.len()));
                let (start, end) = (bound(*start, 0), bound(*end, items.len()));
                items.get(start..end).into_iter().flatten().collect()
            }
            (Self::All, Value::Array(items)) => items.iter().collect(),
            (Self::All, Value::Object(members)) => members.values().collect(),
            (Self::Filter(filter), Value::Array(items)) => items.iter().filter(|item| filter.holds(item)).collect(),
            (Self::Descend, _) => descendants(value),
            _ => Vec::new(),
        }
    }
}

fn position(index: i64, length: usize) -> Option<usize> {
    let length = i64::try_from(length).ok()?;
    usize::try_from(if index < 0 { index + length } else { index }).ok()
}

fn clamp(index: i64, length: usize) -> usize {
    position(index, length).unwrap_or(0).min(length)
}

/// A value and all that is in it.
fn descendants(value: &Value) -> Vec<&Value> {
    let mut found = vec![value];
    let mut next = 0;
    while let Some(value) = found.get(next) {
        match value {
            Value::Array(items) => found.extend(items),
            Value::Object(members) => found.extend(members.values()),
            _ => {}
        }
        next += 1;
    }
    found
}

impl Filter {
    fn parse(text: &str) -> Option<Self> {
        for (sign, comparison) in COMPARISONS {
            if let Some((left, right)) = text.split_once(sign) {
                let compare = Some((comparison, Operand::parse(right.trim())?));
                return Some(Self { left: Operand::parse(left.trim())?, compare });
            }
        }
        Some(Self { left: Operand::parse(text.trim())?, compare: None })
    }

    fn holds(&self, item: &Value) -> bool {
        let Some(left) = self.left.value(item) else { return false };
        let Some((comparison, right)) = &self.compare else { return true };
        right.value(item).is_some_and(|right| comparison.holds(left, right))
    }
}

impl Operand {
    fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix('@') {
            Some(path) => JsonPath::parse(path).map(Self::Path),
            None => match quoted(text) {
                Some(text) => Some(Self::Literal(Value::from(text))),
                None => serde_json::from_str(text).ok().map(Self::Literal),
            },
        }
    }

    fn value<'a>(&'a self, item: &'a Value) -> Option<&'a Value> {
        match self {
            Self::Path(path) => path.find(item).into_iter().next(),
            Self::Literal(value) => Some(value),
        }
    }
}

impl Comparison {
    fn holds(self, left: &Value, right: &Value) -> bool {
        let order = match (left, right) {
            (Value::Number(left), Value::Number(right)) => left.as_f64().partial_cmp(&right.as_f64()),
            (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
            (left, right) => (left == right).then_some(std::cmp::Ordering::Equal),
        };
        match self {
            Self::Equal => order.is_some_and(std::cmp::Ordering::is_eq),
            Self::NotEqual => !order.is_some_and(std::cmp::Ordering::is_eq),
            Self::LessOrEqual => order.is_some_and(std::cmp::Ordering::is_le),
            Self::GreaterOrEqual => order.is_some_and(std::cmp::Ordering::is_ge),
            Self::Less => order.is_some_and(std::cmp::Ordering::is_lt),
            Self::Greater => order.is_some_and(std::cmp::Ordering::is_gt),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_lead_to_values() {
        let object = json!({
            "metadata": {"annotations": {"a.example/b": "c"}},
            "spec": {"size": 3, "ports": [80, 443, 8080]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Synced", "status": "False", "n": 2}]},
        });
        let cases = [
            (".spec.size", json!([3])),
            ("spec.size", json!([3])),
            (r".metadata.annotations.a\.example/b", json!(["c"])),
            (".metadata.annotations['a.example/b']", json!(["c"])),
            (".spec.ports[1]", json!([443])),
            (".spec.ports[-1]", json!([8080])),
            (".spec.ports[0:2]", json!([80, 443])),
            (".spec.ports[*]", json!([80, 443, 8080])),
            (r#".status.conditions[?(@.type=="Ready")].status"#, json!(["True"])),
            (".status.conditions[?(@.type=='Synced')].status", json!(["False"])),
            (".status.conditions[?(@.n>1)].type", json!(["Synced"])),
            (".status.conditions[?(@.n)].type", json!(["Synced"])),
            (".status.conditions[?(@.type!=\"Ready\")].type", json!(["Synced"])),
            ("..size", json!([3])),
            (".spec.nosuch", json!([])),
            (".spec.ports[7]", json!([])),
        ];
        for (path, want) in cases {
            let found: Vec<&Value> = JsonPath::parse(path).unwrap_or_else(|| panic!("{path}")).find(&object);
            assert_eq!(json!(found), want, "{path}");
        }
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for text in [".a[", ".a[?(@.b==)]", ".a[x]", ".a[1:x]"] {
            assert_eq!(JsonPath::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in r#"[.a\[\]'"?()@=<>*:0-9\\$-]{0,24}"#) {
            if let Some(path) = JsonPath::parse(&text) {
                path.find(&json!({"a": [1, {"a": "b"}]}));
            }
        }
    }
}
