//! What `deny.toml` says of sources, bans and versions, held against the packages that are built.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{array, packages, text};

/// The policy as a tree.
pub(crate) fn policy() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/deny.toml");
    let table: toml::Table = std::fs::read_to_string(path).unwrap().parse().unwrap();
    serde_json::to_value(table).unwrap()
}

#[test]
fn nothing_is_banned_or_doubled() {
    let violations = violations(&policy(), &packages());
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}

/// Packages against the policy.
fn violations(policy: &Value, packages: &[Value]) -> Vec<String> {
    let mut found = Vec::new();
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut registries = Vec::new();
    let bans = &policy["bans"];
    let names = |list: &'static str| array(&bans[list]).iter().map(|entry| text(&entry["crate"])).collect::<Vec<_>>();
    let (banned, skipped) = (names("deny"), names("skip"));
    for package in packages {
        let (name, version) = (text(&package["name"]), text(&package["version"]));
        if banned.contains(&name) {
            found.push(format!("{name} is banned"));
        }
        if !skipped.iter().any(|skipped| is_skipped(skipped, name, version)) {
            versions.entry(name).or_default().push(version);
        }
        match package["source"].as_str() {
            // A part of this workspace.
            None => {}
            Some(source) if source.starts_with("registry+") => registries.push(source),
            Some(source) => found.push(format!("{name} comes from {source}")),
        }
    }
    registries.sort_unstable();
    registries.dedup();
    if registries.len() > 1 {
        found.push(format!("packages of several registries: {registries:?}"));
    }
    let doubled = versions.into_iter().filter(|(_, versions)| versions.len() > 1);
    found.extend(doubled.map(|(name, versions)| format!("{name} is there in versions {versions:?}")));
    for skipped in skipped {
        let is_there = |package: &Value| is_skipped(skipped, text(&package["name"]), text(&package["version"]));
        if !packages.iter().any(is_there) {
            found.push(format!("{skipped} is skipped and not there"));
        }
    }
    found
}

/// Whether `name@1.2` stands for this version.
fn is_skipped(skipped: &str, name: &str, version: &str) -> bool {
    let (skipped_name, prefix) = skipped.split_once('@').unwrap_or((skipped, ""));
    let rest = version.strip_prefix(prefix);
    skipped_name == name && rest.is_some_and(|rest| rest.is_empty() || prefix.is_empty() || rest.starts_with('.'))
}

#[test]
fn breaches_are_found() {
    use serde_json::json;

    let policy = json!({"bans": {"deny": [{"crate": "bad"}], "skip": [{"crate": "old@0.2"}]}});
    let package =
        |name: &str, version: &str, source: Option<&str>| json!({"name": name, "version": version, "source": source});
    let registry = Some("registry+one");
    let good = [package("old", "0.2.1", registry), package("old", "0.3.0", registry), package("own", "0.1.0", None)];
    assert_eq!(violations(&policy, &good), [""; 0]);
    for (bad, expected) in [
        (package("bad", "1.0.0", registry), "bad is banned"),
        (package("old", "0.20.0", registry), "old is there in versions [\"0.3.0\", \"0.20.0\"]"),
        (package("new", "1.0.0", Some("git+somewhere")), "new comes from git+somewhere"),
        (
            package("new", "1.0.0", Some("registry+two")),
            "packages of several registries: [\"registry+one\", \"registry+two\"]",
        ),
    ] {
        let all = [good.as_slice(), &[bad]].concat();
        assert_eq!(violations(&policy, &all), [expected]);
    }
    assert_eq!(violations(&policy, &good[1..]), ["old@0.2 is skipped and not there"]);
}
