//! The one door to YAML: text to JSON values as Kubernetes clients read it, and JSON values to text.
//!
//! Clients of Kubernetes read YAML 1.1 as go-yaml does (`sigs.k8s.io/yaml`): `0644` is 420, `yes` is true, `"yes"` is
//! a text. `serde_yaml` resolves scalars by its own rules, close to YAML 1.2, and shows its callers no difference
//! between `yes` and `"yes"`. So it writes here, and reading resolves the scalars of a parser's events.

use std::{borrow::Cow, collections::BTreeMap};

use base64::{Engine, prelude::BASE64_STANDARD};
use granit_parser::{Event, Parser, ScalarStyle, Tag};
use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::{Map, Number, Value};

/// The longest text that is read, in bytes.
pub const MAX_TEXT_BYTES: usize = 16 << 20;
/// The deepest nesting of mappings and sequences, in levels.
pub const MAX_DEPTH: usize = 128;
/// The most that documents may weigh with all aliases replaced, in bytes (a node weighs [`NODE_BYTES`] and its text).
pub const MAX_EXPANDED_BYTES: usize = 64 << 20;
/// The most that all aliases together may weigh, in bytes.
pub const MAX_ALIASED_BYTES: usize = 8 << 20;
/// How many repeated keys [`parse_lenient`] tells of.
pub const MAX_DUPLICATES: usize = 100;
/// What a node weighs besides its text, in bytes.
const NODE_BYTES: usize = 16;
/// Where the characters lie of which one marks texts that must be quoted: Unicode's private use area.
const PRIVATE_USE: std::ops::RangeInclusive<char> = '\u{e000}'..='\u{f8ff}';
const CORE_TAGS: &str = "tag:yaml.org,2002:";

/// A text that cannot be read as YAML, or whose content JSON cannot hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("yaml: line {line}: {problem}")]
pub struct YamlError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong there.
    pub problem: YamlProblem,
}

/// What is wrong with a YAML text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum YamlProblem {
    /// It is not YAML.
    #[error("{0}")]
    Syntax(String),
    /// A mapping has a key twice.
    #[error("key {0:?} already set in map")]
    DuplicateKey(String),
    /// A key is neither a text nor a number nor a boolean.
    #[error("unsupported map key")]
    Key,
    /// A scalar is not what its tag says.
    #[error("cannot decode `{text}` as {tag}")]
    Tag {
        /// The scalar.
        text: String,
        /// Its tag.
        tag: String,
    },
    /// A number is infinite or none, which JSON does not have.
    #[error("unsupported value: {0}")]
    NotInJson(String),
    /// A merge key (`<<`) has something else than mappings.
    #[error("map merge requires map or sequence of maps as the value")]
    Merge,
    /// An alias stands inside of what it refers to.
    #[error("anchor value contains itself")]
    Recursive,
    /// The text is longer than [`MAX_TEXT_BYTES`].
    #[error("document is longer than {MAX_TEXT_BYTES} bytes")]
    TooLong,
    /// The nesting is deeper than [`MAX_DEPTH`].
    #[error("document is nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// With aliases replaced, the documents are larger than [`MAX_EXPANDED_BYTES`], or the aliases larger than
    /// [`MAX_ALIASED_BYTES`].
    #[error("document contains excessive aliasing")]
    TooLarge,
    /// One document was expected.
    #[error("expected one document, found {0}")]
    Documents(usize),
}

/// Reads all documents of a text. Empty documents are left out.
pub fn parse_all(text: &str) -> Result<Vec<Value>, YamlError> {
    read(text, Reader::default()).map(|reader| reader.documents)
}

fn read(text: &str, mut reader: Reader) -> Result<Reader, YamlError> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(YamlError { line: 1, problem: YamlProblem::TooLong });
    }
    let options = granit_parser::options! { emit_comments: false, flow_nesting_limit: MAX_DEPTH + 1,
    block_nesting_limit: MAX_DEPTH + 1 };
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span) = event
            .map_err(|error| YamlError { line: error.marker().line(), problem: YamlProblem::Syntax(error.info()) })?;
        reader.line = span.start.line();
        reader.event(event).map_err(|problem| YamlError { line: span.start.line(), problem })?;
    }
    Ok(reader)
}

/// Reads a text of one document; `null` if it is empty.
pub fn parse(text: &str) -> Result<Value, YamlError> {
    only(parse_all(text)?)
}

/// Reads a text of one document as those do who are not strict: of the values of a key that a mapping has twice the last one
/// counts. Tells of each, up to [`MAX_DUPLICATES`].
pub fn parse_lenient(text: &str) -> Result<(Value, Vec<YamlError>), YamlError> {
    let reader = read(text, Reader { duplicates: Some(Vec::new()), ..Reader::default() })?;
    Ok((only(reader.documents)?, reader.duplicates.unwrap_or_default()))
}

fn only(mut documents: Vec<Value>) -> Result<Value, YamlError> {
    match documents.len() {
        0 | 1 => Ok(documents.pop().unwrap_or_default()),
        more => Err(YamlError { line: 1, problem: YamlProblem::Documents(more) }),
    }
}

/// Writes a value as a document, so that readers of YAML 1.1 and of YAML 1.2 read it back.
pub fn to_string(value: &Value) -> Result<String, YamlError> {
    let free = |mark: &char| !contains(value, *mark);
    let mark = PRIVATE_USE.clone().find(free).unwrap_or(*PRIVATE_USE.start());
    let written = serde_yaml::to_string(&Marked { value, mark });
    let written = written.map_err(|error| YamlError { line: 1, problem: YamlProblem::Syntax(error.to_string()) })?;
    Ok(written.replace(mark, "\""))
}

/// Documents being built from events.
#[derive(Default)]
struct Reader {
    documents: Vec<Value>,
    open: Vec<Open>,
    anchors: BTreeMap<usize, (Value, usize)>,
    weight: usize,
    /// How much of it comes of aliases.
    aliased: usize,
    /// Of the event at hand, from 1.
    line: usize,
    /// Where repeated keys are noted that are no errors.
    duplicates: Option<Vec<YamlError>>,
}

/// A mapping or sequence whose end has not come.
struct Open {
    anchor: usize,
    weight_before: usize,
    line: usize,
    kind: OpenKind,
}

enum OpenKind {
    Sequence(Vec<Value>),
    Mapping { members: Map<String, Value>, merged: Vec<Value>, key: Option<Key> },
}

enum Key {
    Merge,
    Named(String),
}

/// A finished node, and whether it can be the key of a merge.
struct Node {
    value: Value,
    merge: bool,
    line: usize,
}

impl Reader {
    fn event(&mut self, event: Event<'_>) -> Result<(), YamlProblem> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.weigh(NODE_BYTES + text.len())?;
                let plain = style == ScalarStyle::Plain;
                let merge = plain && tag.is_none() && text == "<<";
                let value = resolve(&text, plain, tag.as_deref())?;
                self.finished(Node { value, merge, line: self.line }, anchor, NODE_BYTES + text.len())
            }
            Event::SequenceStart(_, anchor, _) => self.begin(anchor, OpenKind::Sequence(Vec::new())),
            Event::MappingStart(_, anchor, _) => {
                self.begin(anchor, OpenKind::Mapping { members: Map::new(), merged: Vec::new(), key: None })
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Alias(anchor) => {
                let (value, weight) = self.anchors.get(&anchor).ok_or(YamlProblem::Recursive)?;
                let weight = *weight;
                if self.weight + weight > MAX_EXPANDED_BYTES || self.aliased + weight > MAX_ALIASED_BYTES {
                    return Err(YamlProblem::TooLarge);
                }
                let value = value.clone();
                if self.open.len() + depth(&value) > MAX_DEPTH {
                    return Err(YamlProblem::TooDeep);
                }
                self.weight += weight;
                self.aliased += weight;
                self.finished(Node { value, merge: false, line: self.line }, 0, weight)
            }
            Event::DocumentEnd => {
                self.anchors.clear();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn weigh(&mut self, weight: usize) -> Result<(), YamlProblem> {
        self.weight += weight;
        if self.weight > MAX_EXPANDED_BYTES { Err(YamlProblem::TooLarge) } else { Ok(()) }
    }

    fn begin(&mut self, anchor: usize, kind: OpenKind) -> Result<(), YamlProblem> {
        if self.open.len() >= MAX_DEPTH {
            return Err(YamlProblem::TooDeep);
        }
        self.open.push(Open { anchor, weight_before: self.weight, line: self.line, kind });
        self.weigh(NODE_BYTES)
    }

    fn end(&mut self) -> Result<(), YamlProblem> {
        let Some(open) = self.open.pop() else { return Ok(()) };
        let value = match open.kind {
            OpenKind::Sequence(items) => Value::Array(items),
            OpenKind::Mapping { mut members, merged, .. } => {
                for (key, value) in merged.into_iter().flat_map(into_members) {
                    members.entry(key).or_insert(value);
                }
                Value::Object(members)
            }
        };
        let weight = self.weight - open.weight_before;
        self.finished(Node { value, merge: false, line: open.line }, open.anchor, weight)
    }

    /// Puts a finished node where it belongs.
    fn finished(&mut self, node: Node, anchor: usize, weight: usize) -> Result<(), YamlProblem> {
        if anchor != 0 {
            // A kept copy costs memory like any other.
            self.weigh(weight)?;
            self.anchors.insert(anchor, (node.value.clone(), weight));
        }
        match self.open.last_mut().map(|open| &mut open.kind) {
            None if node.value.is_null() => {}
            None => self.documents.push(node.value),
            Some(OpenKind::Sequence(items)) => items.push(node.value),
            Some(OpenKind::Mapping { members, merged, key }) => match key.take() {
                None => *key = Some(if node.merge { Key::Merge } else { Key::Named(key_text(node.value)?) }),
                Some(Key::Merge) => merged.extend(mergeable(node.value)?),
                Some(Key::Named(name)) => {
                    if members.contains_key(&name) {
                        let problem = || YamlProblem::DuplicateKey(name.clone());
                        let Some(duplicates) = &mut self.duplicates else { return Err(problem()) };
                        if duplicates.len() < MAX_DUPLICATES {
                            duplicates.push(YamlError { line: node.line, problem: problem() });
                        }
                    }
                    members.insert(name, node.value);
                }
            },
        }
        Ok(())
    }
}

fn into_members(value: Value) -> Map<String, Value> {
    if let Value::Object(members) = value { members } else { Map::new() }
}

/// The mappings that a merge key names. Earlier ones win, and the mapping's own keys before them.
fn mergeable(value: Value) -> Result<Vec<Value>, YamlProblem> {
    match value {
        Value::Object(_) => Ok(vec![value]),
        Value::Array(items) if items.iter().all(Value::is_object) => Ok(items),
        _ => Err(YamlProblem::Merge),
    }
}

fn key_text(value: Value) -> Result<String, YamlProblem> {
    match value {
        Value::String(text) => Ok(text),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(boolean) => Ok(boolean.to_string()),
        _ => Err(YamlProblem::Key),
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// What a scalar means.
fn resolve(text: &str, plain: bool, tag: Option<&Tag>) -> Result<Value, YamlProblem> {
    let string = || Value::String(text.to_owned());
    let Some(tag) = tag else {
        return if plain { resolve_plain(text) } else { Ok(string()) };
    };
    let full = format!("{}{}", tag.handle(), tag.suffix());
    let Some(kind) = full.strip_prefix(CORE_TAGS) else { return Ok(string()) };
    let mismatch = || YamlProblem::Tag { text: text.to_owned(), tag: format!("!!{kind}") };
    match (kind, resolve_plain(text)?) {
        ("binary", _) => {
            let packed: String = text.split_ascii_whitespace().collect();
            let bytes = BASE64_STANDARD.decode(packed).map_err(|_| mismatch())?;
            String::from_utf8(bytes).map(Value::String).map_err(|_| mismatch())
        }
        ("bool", value @ Value::Bool(_)) | ("null", value @ Value::Null) | ("float", value @ Value::Number(_)) => {
            Ok(value)
        }
        ("int", Value::Number(number)) if !number.is_f64() => Ok(Value::Number(number)),
        ("bool" | "null" | "float" | "int", _) => Err(mismatch()),
        _ => Ok(string()),
    }
}

/// What a scalar without quotes and without a tag means, by go-yaml's rules.
fn resolve_plain(text: &str) -> Result<Value, YamlProblem> {
    Ok(match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Value::Bool(true),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Value::Bool(false),
        ".nan" | ".NaN" | ".NAN" | ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" | "-.inf" | "-.Inf"
        | "-.INF" => return Err(YamlProblem::NotInJson(text.to_owned())),
        _ => number(text).map_or_else(|| Value::String(text.to_owned()), Value::Number),
    })
}

fn number(text: &str) -> Option<Number> {
    let first = text.bytes().next()?;
    if first == b'.' {
        return is_float(text).then(|| float(text)).flatten();
    }
    if !(first.is_ascii_digit() || matches!(first, b'+' | b'-')) {
        return None;
    }
    let plain: Cow<'_, str> = if text.contains('_') { text.replace('_', "").into() } else { text.into() };
    integer(&plain).or_else(|| is_float(&plain).then(|| float(&plain)).flatten())
}

/// An integer as Go's `strconv.ParseInt` reads it with base 0.
fn integer(text: &str) -> Option<Number> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = [("0x", 16), ("0o", 8), ("0b", 2)]
        .into_iter()
        .find_map(|(prefix, radix)| lower.strip_prefix(prefix).map(|digits| (radix, digits)))
        .or_else(|| lower.strip_prefix('0').filter(|rest| !rest.is_empty()).map(|digits| (8, digits)))
        .unwrap_or((10, &lower));
    if !digits.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    let magnitude = u64::from_str_radix(digits, radix).ok()?;
    if !negative {
        // Go's unsigned parser takes no sign.
        return (!text.starts_with('+') || i64::try_from(magnitude).is_ok()).then(|| magnitude.into());
    }
    i64::try_from(-i128::from(magnitude)).ok().map(Number::from)
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn is_float(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let text = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = text.split_once(['e', 'E']).map_or((text, None), |(a, b)| (a, Some(b)));
    let mantissa_fits = match mantissa.split_once('.') {
        None => digits(mantissa),
        Some(("", fraction)) => digits(fraction),
        Some((whole, fraction)) => digits(whole) && (fraction.is_empty() || digits(fraction)),
    };
    mantissa_fits && exponent.is_none_or(|exponent| digits(exponent.strip_prefix(['+', '-']).unwrap_or(exponent)))
}

/// A floating point number; whole ones become integers, as Go's JSON writes them.
fn float(text: &str) -> Option<Number> {
    let value: f64 = text.parse().ok().filter(|value: &f64| value.is_finite())?;
    if value.fract() == 0.0 && value.abs() < 9.0e18 { Some((value as i64).into()) } else { Number::from_f64(value) }
}

fn contains(value: &Value, mark: char) -> bool {
    match value {
        Value::String(text) => text.contains(mark),
        Value::Array(items) => items.iter().any(|item| contains(item, mark)),
        Value::Object(members) => members.iter().any(|(key, value)| key.contains(mark) || contains(value, mark)),
        _ => false,
    }
}

/// A value whose texts carry a mark in place of quotes where a reader of YAML 1.1 would take them for something else.
struct Marked<'a> {
    value: &'a Value,
    mark: char,
}

impl Marked<'_> {
    fn text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let ambiguous = text == "<<" || text == "=" || !matches!(resolve_plain(text), Ok(Value::String(_)));
        // `serde_yaml` quotes what it would read as something else by itself.
        let unquoted = serde_yaml::from_str::<serde_yaml::Value>(text).is_ok_and(|value| value.is_string());
        if ambiguous && unquoted { format!("{0}{text}{0}", self.mark).into() } else { text.into() }
    }
}

impl Serialize for Marked<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mark = self.mark;
        match self.value {
            Value::String(text) => serializer.serialize_str(&self.text(text)),
            Value::Array(items) => serializer.collect_seq(items.iter().map(|value| Marked { value, mark })),
            Value::Object(members) => {
                let mut map = serializer.serialize_map(Some(members.len()))?;
                for (key, value) in members {
                    map.serialize_entry(&self.text(key), &Marked { value, mark })?;
                }
                map.end()
            }
            other => other.serialize(serializer),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn scalars_are_read_as_yaml_1_1() {
        for (text, value) in [
            ("0644", json!(420)),
            ("0o644", json!(420)),
            ("0x1F", json!(31)),
            ("0b101", json!(5)),
            ("-0x10", json!(-16)),
            ("yes", json!(true)),
            ("No", json!(false)),
            ("on", json!(true)),
            ("OFF", json!(false)),
            ("y", json!(true)),
            ("\"yes\"", json!("yes")),
            ("'0644'", json!("0644")),
            ("~", json!(null)),
            ("a: ", json!({"a": null})),
            ("1_000", json!(1000)),
            ("08", json!(8)),
            ("1.0", json!(1)),
            ("1.5", json!(1.5)),
            ("1e3", json!(1000)),
            (".5", json!(0.5)),
            ("12:30:45", json!("12:30:45")),
            ("2001-01-01", json!("2001-01-01")),
            ("2001-01-01T00:00:00Z", json!("2001-01-01T00:00:00Z")),
            ("1.2.3", json!("1.2.3")),
            ("0x", json!("0x")),
            ("18446744073709551615", json!(u64::MAX)),
            ("1e", json!("1e")),
            ("+1", json!(1)),
            ("-", json!([null])),
            ("!!str 12", json!("12")),
            ("!!int '12'", json!(12)),
            ("!!binary aGk=", json!("hi")),
            ("!x 1", json!("1")),
            ("{1: a, true: b, 1.5: c, 0x10: d}", json!({"1": "a", "true": "b", "1.5": "c", "16": "d"})),
            ("yEs", json!("yEs")),
            ("100m", json!("100m")),
            ("{\"a\":\n\t[1]}", json!({"a": [1]})),
        ] {
            let read = parse(text);

            assert_eq!(read, Ok(value), "{text}");
        }
    }

    #[test]
    fn merges_keep_what_a_mapping_says_itself() {
        let text = "base: &base {a: 1, b: 2}\nother: &other {b: 3, c: 4}\nall:\n  a: 0\n  <<: [*base, *other]\n";
        assert_eq!(parse(text).unwrap()["all"], json!({"a": 0, "b": 2, "c": 4}));
        assert_eq!(parse("'<<': 1").unwrap(), json!({"<<": 1}));
    }

    #[test]
    fn documents_come_one_by_one() {
        let text = "# comment\n---\na: 1\n---\n# empty\n---\nb: |\n  x\n  ---\n...\n";
        assert_eq!(parse_all(text).unwrap(), vec![json!({"a": 1}), json!({"b": "x\n---\n"})]);
        assert_eq!(parse("").unwrap(), json!(null));
        assert_eq!(parse("a\n---\nb").unwrap_err().problem, YamlProblem::Documents(2));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let problem = |text: &str| parse(text).unwrap_err().problem;
        assert_eq!(parse("a: 1\nb: 2\na: 3").unwrap_err().to_string(), "yaml: line 3: key \"a\" already set in map");
        assert!(matches!(problem("a: 1\n'a': 2"), YamlProblem::DuplicateKey(_)));
        assert!(matches!(problem("a: .inf"), YamlProblem::NotInJson(_)));
        assert!(matches!(problem("? [a]\n: b"), YamlProblem::Key));
        assert!(matches!(problem("&a [*a]"), YamlProblem::Recursive));
        assert!(matches!(problem("!!int x"), YamlProblem::Tag { .. }));
        assert!(matches!(problem("<<: 1"), YamlProblem::Merge));
        assert!(matches!(problem("a: *nobody"), YamlProblem::Syntax(_)));
        assert!(matches!(problem("a: [1"), YamlProblem::Syntax(_)));
        assert!(matches!(problem(&"[".repeat(100_000)), YamlProblem::TooDeep | YamlProblem::Syntax(_)));
    }

    #[test]
    fn who_is_not_strict_takes_the_last_of_repeated_keys() {
        let (value, duplicates) = parse_lenient("a: 1\nb:\n  c: 1\n  c:\n    d: 2\na: 3\n").unwrap();
        assert_eq!(value, json!({"a": 3, "b": {"c": {"d": 2}}}));
        let shown: Vec<String> = duplicates.iter().map(YamlError::to_string).collect();
        assert_eq!(shown, ["yaml: line 5: key \"c\" already set in map", "yaml: line 6: key \"a\" already set in map"]);
        assert!(parse_lenient("a: [").is_err());
    }

    #[test]
    fn a_billion_laughs_end_early() {
        let mut text = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
        for level in 1..12 {
            let aliases = vec![format!("*a{}", level - 1); 9].join(", ");
            text += &format!("a{level}: &a{level} [{aliases}]\n");
        }
        assert_eq!(parse(&text).unwrap_err().problem, YamlProblem::TooLarge);
    }

    #[test]
    fn texts_that_look_like_something_else_are_quoted() {
        for text in ["yes", "no", "on", "y", "0644", "0x10", "1_000", "null", "~", "", "1e3", "<<", ".inf", "true"] {
            let value = json!({"key": text, text: [text]});
            let written = to_string(&value).unwrap();
            assert_eq!(parse(&written).as_ref(), Ok(&value), "{written}");
            assert!(!written.contains('\u{e000}'));
        }
        assert_eq!(to_string(&json!({"a": "yes", "b": "plain"})).unwrap(), "a: \"yes\"\nb: plain\n");
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let words = [
            "yes", "0644", "1_0", "~", "<<", " x ", "a\nb\n", "\n", "a: b", "# c", "- d", "\t", "é", "---", "\u{e000}",
        ];
        let text = prop_oneof![
            proptest::sample::select(words.to_vec()).prop_map(str::to_owned),
            "[ -~]{0,12}",
            "[a-z0-9_.:+\\n -]{0,8}",
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            text.clone().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 5, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(text.clone(), inner, 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_value_comes_back(value in any_value()) {
            let written = to_string(&value).unwrap();
            prop_assert_eq!(parse(&written), Ok(value), "{}", written);
        }

        #[test]
        fn no_text_makes_it_panic(text in "[-:?&*!|>'\"%@`{}\\[\\],# \\na-c0<~.]{0,40}") {
            let _ = parse_all(&text);
        }
    }
}
