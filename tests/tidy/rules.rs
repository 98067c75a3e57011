//! The rules, each a pure function of one file.

use crate::source::{Source, line_of, words};

/// A line, from 1, and what is wrong with it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Violation(pub(crate) usize, pub(crate) String);

/// A rule: its name and what it finds.
pub(crate) type Rule = (&'static str, fn(&Source) -> Vec<Violation>);

/// All rules.
pub(crate) const RULES: [Rule; 9] = [
    ("opening sentence", opening_sentence),
    ("length", length),
    ("unfinished", unfinished),
    ("reasons", reasons),
    ("doors", doors),
    ("http at the edge", http_at_the_edge),
    ("panics", panics),
    ("globals", globals),
    ("lints", lints),
];

/// One file, one concept.
const LINES_MAX: usize = 800;

/// Crates and words that one place alone may name: the place is a prefix of the path.
const DOORS: [(&str, &str); 8] = [
    ("bollard", "orchestrator-runtime-docker/"),
    ("libcontainer", "orchestrator-runtime-youki/"),
    ("sled", "orchestrator-store-sled/"),
    ("redb", "orchestrator-store-redb/"),
    ("etcd_client", "orchestrator-store-etcd/"),
    ("serde_yaml", "orchestrator-core/src/yaml"),
    ("granit_parser", "orchestrator-core/src/yaml"),
    ("unsafe", "orchestrator-runtime-youki/src/sys.rs"),
];

/// Libraries that are there to fail tests.
const FOR_TESTS: [&str; 2] = ["orchestrator-testkit/", "orchestrator-store-disk/src/suites/"];

/// Crates that speak HTTP.
const HTTP_CRATES: [&str; 8] =
    ["http", "http_body", "http_body_util", "hyper", "hyper_util", "axum", "tower_service", "tokio_tungstenite"];

/// Every file says first what it is for.
fn opening_sentence(source: &Source) -> Vec<Violation> {
    if !source.is_rust() {
        return Vec::new();
    }
    let opening: Vec<&str> = source.text.lines().map_while(|line| line.strip_prefix("//!")).map(str::trim).collect();
    let sentence = opening.split(|line| line.is_empty()).next().unwrap_or_default().join(" ");
    match sentence.trim_end_matches('`').chars().last() {
        None => vec![Violation(1, "the file does not open with a `//!` sentence".to_owned())],
        Some('.' | ':' | '?' | '!') => Vec::new(),
        Some(_) => vec![Violation(1, "what the file opens with is not a sentence".to_owned())],
    }
}

fn length(source: &Source) -> Vec<Violation> {
    let lines = source.text.lines().count();
    if lines > LINES_MAX {
        vec![Violation(lines, format!("{lines} lines; {LINES_MAX} are the most"))]
    } else {
        Vec::new()
    }
}

/// Nothing is left for later.
fn unfinished(source: &Source) -> Vec<Violation> {
    let mut found = Vec::new();
    for name in ["todo", "unimplemented", "dbg"] {
        let calls =
            words(&source.code, name).into_iter().filter(|start| source.code[start + name.len()..].starts_with('!'));
        found.extend(calls.map(|start| Violation(line_of(&source.code, start), format!("`{name}!`"))));
    }
    for marker in ["TODO", "FIXME", "XXX", "HACK"] {
        let marks = words(&source.comments, marker).into_iter();
        found
            .extend(marks.map(|start| Violation(line_of(&source.comments, start), format!("{marker:?} in a comment"))));
    }
    found
}

/// Whoever silences a lint says why.
fn reasons(source: &Source) -> Vec<Violation> {
    let mut found = Vec::new();
    for name in ["allow", "expect"] {
        for start in words(&source.code, name) {
            let before = source.code[..start].trim_end();
            let attribute = before.ends_with("#[") || before.ends_with("#![") || in_condition(before);
            let arguments = source.code[start + name.len()..].split(']').next().unwrap_or_default();
            if attribute && !arguments.contains("reason") {
                found.push(Violation(line_of(&source.code, start), format!("`#[{name}(…)]` without a reason")));
            }
        }
    }
    found
}

/// Whether code ends inside of a `#[cfg_attr(…`.
fn in_condition(before: &str) -> bool {
    before.rfind("cfg_attr(").is_some_and(|start| !before[start..].contains(']'))
}

/// Some crates are one crate's business alone.
fn doors(source: &Source) -> Vec<Violation> {
    let mut found = Vec::new();
    if !source.is_rust() {
        return found;
    }
    for (name, place) in DOORS {
        if source.path.starts_with(place) {
            continue;
        }
        for start in words(&source.code, name) {
            let used = name == "unsafe" || is_crate_path(&source.code, start, name);
            if used {
                found.push(Violation(line_of(&source.code, start), format!("`{name}` belongs into {place}")));
            }
        }
    }
    found
}

/// HTTP is one module at the edge of each crate that speaks it.
fn http_at_the_edge(source: &Source) -> Vec<Violation> {
    let inner = source.inner_path();
    let edge = inner == "src/http.rs" || inner.starts_with("src/http/");
    let mut found = Vec::new();
    if !source.is_library() || edge {
        return found;
    }
    for name in HTTP_CRATES {
        let used = words(&source.code, name).into_iter().filter(|&start| is_crate_path(&source.code, start, name));
        found.extend(used.map(|start| Violation(line_of(&source.code, start), format!("`{name}` outside of `http`"))));
    }
    found
}

/// Whether this word is the crate of that name: it starts a path, and the file brought in nothing of ours by that name.
fn is_crate_path(code: &str, start: usize, name: &str) -> bool {
    let before = code[..start].trim_end();
    let after = code[start + name.len()..].trim_start();
    if before.ends_with("::") {
        return false;
    }
    let statement = before.rsplit(';').next().unwrap_or_default();
    match words(statement, "use").last() {
        // `use name::…`, `use name;`, and `use {…, name::…}`, where the braces have no path before them.
        Some(&at) => {
            let prefix = statement[at + 3..].trim();
            after.starts_with([':', ';', ',']) && (prefix.is_empty() || prefix.starts_with('{'))
        }
        None => after.starts_with("::") && !imports(code, name),
    }
}

/// Whether the file brings in a module of ours by this name.
fn imports(code: &str, name: &str) -> bool {
    code.split(';').any(|statement| {
        let Some(&start) = words(statement, "use").last() else { return false };
        let path = statement[start + 3..].trim();
        let ours = ["crate", "self", "super", "orchestrator"].iter().any(|root| path.starts_with(root));
        let is_last =
            |at: usize| path[at + name.len()..].trim_start().chars().next().is_none_or(|next| ",}".contains(next));
        ours && words(path, name).into_iter().any(is_last)
    })
}

/// A library answers with an error; it does not take its embedder down.
fn panics(source: &Source) -> Vec<Violation> {
    if !source.is_library() || FOR_TESTS.iter().any(|place| source.path.starts_with(place)) {
        return Vec::new();
    }
    let code = source.code_without_tests();
    let mut found = Vec::new();
    for call in [".unwrap()", ".unwrap_err()"] {
        found.extend(code.match_indices(call).map(|(start, _)| Violation(line_of(&code, start), format!("`{call}`"))));
    }
    for start in words(&code, "panic").into_iter().filter(|start| code[start + 5..].starts_with("!(")) {
        found.push(Violation(line_of(&code, start), "`panic!`".to_owned()));
    }
    found
}

/// Nothing is global but tables that never change, and what a helper process knows of itself.
fn globals(source: &Source) -> Vec<Violation> {
    if !source.is_library() || source.path == "orchestrator-runtime-youki/src/helper/mod.rs" {
        return Vec::new();
    }
    let code = source.code_without_tests();
    let mut found = Vec::new();
    for start in words(&code, "static") {
        let declared = code[start..].split(['=', ';']).next().unwrap_or_default();
        let changes = ["mut ", "Mutex", "RwLock", "Atomic", "Cell", "OnceLock", "OnceCell", "DashMap"];
        let is_item = !code[..start].ends_with(['\'', '&']) && declared.contains(':');
        if is_item && changes.iter().any(|word| declared.contains(word)) {
            found.push(Violation(line_of(&code, start), "a global that changes".to_owned()));
        }
    }
    for start in words(&code, "thread_local") {
        found.push(Violation(line_of(&code, start), "a global of a thread".to_owned()));
    }
    found
}

/// Every package is under the workspace's lints, or lists them.
fn lints(source: &Source) -> Vec<Violation> {
    let manifest = source.path.ends_with("Cargo.toml") && source.text.contains("[package]");
    let shared = source.text.contains("[lints]\nworkspace = true");
    let listed = source.text.contains("[lints.rust]") && source.text.contains("[lints.clippy]");
    if manifest && !shared && !listed {
        return vec![Violation(1, "the package has no lints".to_owned())];
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often a rule finds something in a file.
    fn count(rule: fn(&Source) -> Vec<Violation>, path: &str, text: &str) -> usize {
        rule(&Source::new(path, text)).len()
    }

    const LIBRARY: &str = "orchestrator-core/src/a.rs";

    #[test]
    fn a_file_opens_with_a_sentence() {
        let good = "//! What it is,\n//! in two lines.\n//!\n//! And more\nfn a() {}\n";
        assert_eq!(count(opening_sentence, LIBRARY, good), 0);
        for bad in ["", "fn a() {}\n", "// A comment.\n", "//! no end\n", "\n//! Late.\n", "//!\n//! Empty first.\n"] {
            assert_eq!(count(opening_sentence, LIBRARY, bad), 1, "{bad:?}");
        }
    }

    #[test]
    fn a_file_is_not_long() {
        assert_eq!(count(length, LIBRARY, &"a\n".repeat(LINES_MAX)), 0);
        assert_eq!(rules_line(length, &"a\n".repeat(LINES_MAX + 1)), [801]);
    }

    fn rules_line(rule: fn(&Source) -> Vec<Violation>, text: &str) -> Vec<usize> {
        rule(&Source::new(LIBRARY, text)).into_iter().map(|violation| violation.0).collect()
    }

    #[test]
    fn nothing_is_left_for_later() {
        let bad = "fn a() {\n todo!();\n dbg!(1);\n}\n// TODO: more\nfn b() { std::unimplemented!() }\n";
        let mut lines = rules_line(unfinished, bad);
        lines.sort_unstable();
        assert_eq!(lines, [2, 3, 5, 6]);
        let good = "// A list of todos, TODOs too.\nlet todo = \"todo!()\"; let b = todo != 1;\n";
        assert_eq!(rules_line(unfinished, good), [0usize; 0]);
    }

    #[test]
    fn lints_are_silenced_with_a_reason() {
        let bad = "#![allow(dead_code)]\n#[expect(unused)]\nfn a() {}\n#[cfg_attr(test, allow(unused))]\nfn b() {}\n";
        let mut lines = rules_line(reasons, bad);
        lines.sort_unstable();
        assert_eq!(lines, [1, 2, 4]);
        let good = "#[expect(\n  unused,\n  reason = \"so\"\n)]\nfn allow() { a.expect(\"b\"); x.allow(1) }\n";
        assert_eq!(rules_line(reasons, good), [0usize; 0]);
    }

    #[test]
    fn crates_have_their_places() {
        for bad in [
            "use bollard::Docker;",
            "use {libcontainer::a, std::b};",
            "fn a() { serde_yaml::from_str(x) }",
            "use serde_yaml;",
            "fn a() { unsafe { b() } }",
        ] {
            assert_eq!(count(doors, LIBRARY, bad), 1, "{bad}");
        }
        assert_eq!(count(doors, "orchestrator-runtime-youki/src/a.rs", "use libcontainer::a;"), 0);
        assert_eq!(count(doors, LIBRARY, "use crate::sled::a; // libcontainer::b\nfn sled() {}"), 0);
    }

    #[test]
    fn http_stays_at_the_edge() {
        for bad in [
            "use http::Request;",
            "fn a(b: http::Uri) {}",
            "use {bytes::Bytes, hyper::body};",
            "use std::a;\nuse axum;",
        ] {
            assert_eq!(count(http_at_the_edge, LIBRARY, bad), 1, "{bad}");
            assert_eq!(count(http_at_the_edge, "orchestrator-core/src/http/a.rs", bad), 0, "{bad}");
            assert_eq!(count(http_at_the_edge, "orchestrator-core/src/http.rs", bad), 0, "{bad}");
        }
        for good in [
            "use crate::{a, http};\nfn b() { http::get() }",
            "use orchestrator_apiserver::{\n    ApiServer,\n    http::{Endpoint},\n};",
            "use crate::http::get;",
            "fn a(http: u8) {}",
            "mod http;",
        ] {
            assert_eq!(count(http_at_the_edge, LIBRARY, good), 0, "{good}");
        }
    }

    #[test]
    fn libraries_do_not_panic() {
        let text = "fn a() { b.unwrap(); panic!(\"x\") }\n#[cfg(test)]\nmod tests { fn c() { d.unwrap() } }\n";
        assert_eq!(rules_line(panics, text), [1, 1]);
        for allowed in
            ["orchestrator-core/tests/a.rs", "orchestrator-testkit/src/a.rs", "orchestrator-store-disk/src/suites/a.rs"]
        {
            assert_eq!(count(panics, allowed, text), 0, "{allowed}");
        }
    }

    #[test]
    fn nothing_is_global() {
        for bad in ["static A: Mutex<u8> = Mutex::new(0);", "pub static mut A: u8 = 0;", "thread_local! { }"] {
            assert_eq!(count(globals, LIBRARY, bad), 1, "{bad}");
        }
        let good = "static A: LazyLock<u8> = LazyLock::new(b);\nfn a(b: &'static Mutex<u8>) -> Box<dyn C + 'static> {}";
        assert_eq!(count(globals, LIBRARY, good), 0);
    }

    #[test]
    fn packages_have_lints() {
        assert_eq!(count(lints, "orchestrator-core/Cargo.toml", "[package]\nname = \"a\"\n"), 1);
        assert_eq!(count(lints, "orchestrator-core/Cargo.toml", "[package]\n[lints]\nworkspace = true\n"), 0);
        assert_eq!(count(lints, "Cargo.toml", "[workspace]\n"), 0);
    }
}
