//! Every package is under a licence that `deny.toml` allows.

use std::{fs, path::Path};

use serde_json::Value;

use crate::{array, packages, policy::policy, text};

/// How the text of the MIT licence goes on after the names.
const MIT: &str = "Permission is hereby granted, free of charge, to any person obtaining a copy";

#[test]
fn all_licences_are_allowed() {
    let policy = policy();
    let packages = packages();
    let violations: Vec<String> =
        packages.iter().filter_map(|package| violation(&policy["licenses"], package)).collect();
    assert!(violations.is_empty(), "{}", violations.join("\n"));
    // Names of licences are easily misspelt: each one has to be there.
    for licence in array(&policy["licenses"]["allow"]).iter().map(text) {
        let is_there = |package: &Value| expression(package).is_some_and(|expression| expression.contains(licence));
        assert!(packages.iter().any(is_there), "no package is under {licence}");
    }
}

/// What is wrong with a package's licence.
fn violation(policy: &Value, package: &Value) -> Option<String> {
    let name = text(&package["name"]);
    let Some(expression) = expression(package) else { return Some(format!("{name} has no licence")) };
    let exceptions = array(&policy["exceptions"]).iter().filter(|exception| exception["crate"] == name);
    let lists = exceptions.map(|exception| &exception["allow"]).chain([&policy["allow"]]);
    let allowed: Vec<&str> = lists.flat_map(array).map(text).collect();
    (!satisfied(&expression, &allowed)).then(|| format!("{name} is under {expression}"))
}

/// The package's own expression, or the one that its licence file amounts to.
fn expression(package: &Value) -> Option<String> {
    if let Some(expression) = package["license"].as_str() {
        return Some(expression.to_owned());
    }
    let folder = Path::new(text(&package["manifest_path"])).parent()?;
    let licence = fs::read_to_string(folder.join(package["license_file"].as_str()?)).ok()?;
    licence.contains(MIT).then(|| "MIT".to_owned())
}

/// Whether a licence expression can be met with these licences. `/` is an old way to write `OR`.
fn satisfied(expression: &str, allowed: &[&str]) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    let result = any(&mut rest, allowed);
    assert!(rest.is_empty(), "{expression:?} is not a licence expression");
    result
}

fn any(rest: &mut &[&str], allowed: &[&str]) -> bool {
    let mut result = all(rest, allowed);
    while let ["OR", after @ ..] = *rest {
        *rest = after;
        result |= all(rest, allowed);
    }
    result
}

fn all(rest: &mut &[&str], allowed: &[&str]) -> bool {
    let mut result = one(rest, allowed);
    while let ["AND", after @ ..] = *rest {
        *rest = after;
        result &= one(rest, allowed);
    }
    result
}

fn one(rest: &mut &[&str], allowed: &[&str]) -> bool {
    match *rest {
        ["(", after @ ..] => {
            *rest = after;
            let result = any(rest, allowed);
            if let [")", after @ ..] = *rest {
                *rest = after;
            }
            result
        }
        [licence, "WITH", exception, after @ ..] => {
            *rest = after;
            allowed.contains(&format!("{licence} WITH {exception}").as_str())
        }
        [licence, after @ ..] => {
            *rest = after;
            allowed.contains(licence)
        }
        [] => false,
    }
}

#[test]
fn expressions() {
    let allowed = ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception"];
    for (expression, expected) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("GPL-3.0 OR MIT", true),
        ("GPL-3.0/MIT", true),
        ("MIT AND GPL-3.0", false),
        ("MIT AND Apache-2.0", true),
        ("(GPL-3.0 OR MIT) AND Apache-2.0", true),
        ("(GPL-3.0 OR MIT) AND ISC", false),
        ("GPL-3.0 OR MIT AND ISC", false),
        ("Apache-2.0 WITH LLVM-exception", true),
        ("MIT WITH LLVM-exception", false),
    ] {
        assert_eq!(satisfied(expression, &allowed), expected, "{expression}");
    }
}

#[test]
fn breaches_are_found() {
    use serde_json::json;

    let policy = json!({"allow": ["MIT"], "exceptions": [{"crate": "a", "allow": ["MPL-2.0"]}]});
    let package = |name: &str, licence: Option<&str>| json!({"name": name, "license": licence});
    assert_eq!(violation(&policy, &package("a", Some("MPL-2.0"))), None);
    assert_eq!(violation(&policy, &package("b", Some("MPL-2.0"))).as_deref(), Some("b is under MPL-2.0"));
    assert_eq!(violation(&policy, &package("b", None)).as_deref(), Some("b has no licence"));
}
