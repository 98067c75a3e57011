//! What depends on what: the arrows between our crates, and what comes into the tree from outside.

mod arrows;
mod licences;
mod policy;

use std::process::Command;

use serde_json::Value;

/// What cargo knows of the workspace; `--no-deps` leaves out the packages of others.
fn metadata(arguments: &[&str]) -> Value {
    let mut command = Command::new(env!("CARGO"));
    command.args(["metadata", "--format-version", "1", "--offline"]).args(arguments);
    let output = command.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// All packages that are built on this machine.
fn packages() -> Vec<Value> {
    let output = Command::new("rustc").arg("-vV").output().expect("rustc is in the path");
    let text = String::from_utf8(output.stdout).unwrap();
    let host = text.lines().find_map(|line| line.strip_prefix("host: ")).expect("rustc knows its host");
    array(&metadata(&["--filter-platform", host])["packages"]).to_vec()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}
