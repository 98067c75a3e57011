//! What differs from run to run gets a name: times, versions, UIDs, drawn names, addresses and ports.

use serde_json::{Map, Value};

const VOLATILE: [(&str, &str); 14] = [
    ("uid", "<uid>"),
    ("resourceVersion", "<rv>"),
    ("creationTimestamp", "<time>"),
    ("deletionTimestamp", "<time>"),
    ("time", "<time>"),
    ("lastTransitionTime", "<time>"),
    ("lastUpdateTime", "<time>"),
    ("lastProbeTime", "<time>"),
    ("continue", "<continue>"),
    ("issuedAt", "<time>"),
    ("lastPhaseTransitionTime", "<time>"),
    ("expirationTimestamp", "<time>"),
    ("token", "<token>"),
    ("deletionTime", "<time>"),
];

/// An answer without what differs from run to run.
pub(crate) fn normalise(value: &Value, namespace: &str) -> Value {
    at(value, namespace, "", None)
}

fn at(value: &Value, namespace: &str, key: &str, parent: Option<&Map<String, Value>>) -> Value {
    match value {
        Value::Object(members) => members
            .iter()
            .map(|(name, member)| (name.clone(), at(member, namespace, name, Some(members))))
            .collect::<Map<_, _>>()
            .into(),
        Value::Array(items) => items
            .iter()
            .map(|item| match item {
                Value::String(text) if key == "cells" => cell(text, namespace),
                Value::String(text) if key == "clusterIPs" && is_address(text) => "<ip>".into(),
                Value::Array(_) | Value::Object(_) => at(item, namespace, key, None),
                Value::String(text) if key != "cells" => text_of(text, namespace, key, None).into(),
                other => other.clone(),
            })
            .collect(),
        Value::String(text) => text_of(text, namespace, key, parent).into(),
        Value::Number(number)
            if matches!(key, "nodePort" | "healthCheckNodePort")
                && number.as_i64().is_some_and(|port| port >= 30_000) =>
        {
            "<port>".into()
        }
        other => other.clone(),
    }
}

fn text_of(text: &str, namespace: &str, key: &str, parent: Option<&Map<String, Value>>) -> String {
    if let Some((_, named)) = VOLATILE.iter().find(|(name, _)| *name == key)
        && !matches!(text, "" | "0")
    {
        return (*named).to_owned();
    }
    if key == "clusterIP" && is_address(text) {
        return "<ip>".to_owned();
    }
    let base = parent.and_then(|parent| parent.get("generateName")).and_then(Value::as_str).unwrap_or_default();
    if key == "name" && !base.is_empty() && text.starts_with(base) {
        return format!("{base}<suffix>");
    }
    let text = if namespace.is_empty() { text.to_owned() } else { text.replace(namespace, "{ns}") };
    let text = replace_after(&uids(&text), "kube-api-access-", "<suffix>", |letter| letter.is_ascii_alphanumeric());
    if key != "message" {
        return text;
    }
    let digit = |letter: char| letter.is_ascii_digit();
    let text = replace_after(&times(&text), "resource version: ", "<rv>", digit);
    let text = replace_after(&text, "current: ", "<rv>", digit);
    replace_after(&text, "ResourceVersion in record (", "<rv>", digit)
}

/// A cell of a table: ages and addresses differ.
fn cell(text: &str, namespace: &str) -> Value {
    if is_age(text) || is_time(text) {
        return "<age>".into();
    }
    if text.starts_with("10.0.") && is_address(text) {
        return "<ip>".into();
    }
    text_of(text, namespace, "", None).into()
}

fn is_age(text: &str) -> bool {
    let mut digits = 0;
    for letter in text.chars() {
        match letter {
            '0'..='9' => digits += 1,
            's' | 'm' | 'h' | 'd' if digits > 0 => digits = 0,
            _ => return matches!(text, "<unknown>" | "<invalid>"),
        }
    }
    !text.is_empty() && digits == 0
}

fn is_time(text: &str) -> bool {
    text.len() >= 20 && text.ends_with('Z') && text.as_bytes().get(10) == Some(&b'T') && text.starts_with("20")
}

fn is_address(text: &str) -> bool {
    text.parse::<std::net::Ipv4Addr>().is_ok()
}

/// Puts a word in the place of the letters that follow a prefix.
fn replace_after(text: &str, prefix: &str, word: &str, replaced: impl Fn(char) -> bool) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(position) = rest.find(prefix) {
        let (before, after) = rest.split_at(position + prefix.len());
        let kept = after.trim_start_matches(&replaced);
        out.push_str(before);
        if kept.len() < after.len() {
            out.push_str(word);
        }
        rest = kept;
    }
    out + rest
}

/// Puts a word in the place of every UID.
fn uids(text: &str) -> String {
    let is_uid = |candidate: &str| {
        candidate.char_indices().all(|(index, letter)| match index {
            8 | 13 | 18 | 23 => letter == '-',
            _ => letter.is_ascii_digit() || ('a'..='f').contains(&letter),
        })
    };
    let mut out = String::new();
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        match rest.get(..36) {
            Some(candidate) if is_uid(candidate) => {
                out.push_str("<uid>");
                rest = &rest[36..];
            }
            _ => {
                out.push(letter);
                rest = &rest[letter.len_utf8()..];
            }
        }
    }
    out
}

/// Puts a word in the place of every time.
fn times(text: &str) -> String {
    let words = text.split(' ').map(|word| {
        let bare = word.trim_end_matches(['.', ',', ')']);
        if is_time(bare) { format!("<time>{}", &word[bare.len()..]) } else { word.to_owned() }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// The first difference of two answers, with the path to it. An integer and the same number with a point are equal.
pub(crate) fn difference(want: &Value, got: &Value, at: &str) -> Option<String> {
    let short = |value: &Value| value.to_string().chars().take(600).collect::<String>();
    match (want, got) {
        (Value::Object(want), Value::Object(got)) => {
            for (name, value) in want {
                match got.get(name) {
                    None => return Some(format!("{at}.{name}: missing, want {}", short(value))),
                    Some(other) => {
                        if let Some(found) = difference(value, other, &format!("{at}.{name}")) {
                            return Some(found);
                        }
                    }
                }
            }
            let extra = got.iter().find(|(name, _)| !want.contains_key(*name));
            extra.map(|(name, value)| format!("{at}.{name}: not expected, got {}", short(value)))
        }
        (Value::Array(want), Value::Array(got)) if want.len() == got.len() => {
            let mut pairs = want.iter().zip(got).enumerate();
            pairs.find_map(|(index, (want, got))| difference(want, got, &format!("{at}[{index}]")))
        }
        (Value::Number(want), Value::Number(got)) if want.as_f64() == got.as_f64() => None,
        _ if want == got => None,
        _ => Some(format!("{at}: want {}, got {}", short(want), short(got))),
    }
}
