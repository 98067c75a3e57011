//! The tree's own rules: every source file is read and held against each of them.

mod rules;
mod source;

use std::{fs, path::Path};

use rules::{RULES, Violation};
use source::Source;

/// Folders that are not sources.
const SKIPPED: [&str; 3] = ["target", ".git", "node_modules"];

#[test]
fn the_tree_keeps_its_rules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    read(root, root, &mut sources);
    assert!(sources.len() > 300, "only {} files found below {}", sources.len(), root.display());
    let violations: Vec<String> = sources.iter().flat_map(violations_of).collect();
    assert!(violations.is_empty(), "{} violations:\n{}", violations.len(), violations.join("\n"));
}

fn violations_of(source: &Source) -> Vec<String> {
    let told = |name: &str, violation: Violation| format!("{}:{}: {name}: {}", source.path, violation.0, violation.1);
    let all = RULES.iter().flat_map(|(name, rule)| rule(source).into_iter().map(|violation| told(name, violation)));
    all.collect()
}

/// All Rust files and manifests below a folder, in order.
fn read(root: &Path, folder: &Path, into: &mut Vec<Source>) {
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !SKIPPED.contains(&name.as_str()) {
            read(root, &path, into);
        } else if name == "Cargo.toml" || name.ends_with(".rs") {
            let relative = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
            into.push(Source::new(relative, fs::read_to_string(&path).unwrap()));
        }
    }
}
