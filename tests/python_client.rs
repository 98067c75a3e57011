//! The official Python client against a server over HTTPS: what the scripts in `tests/python` assert.

#[path = "support/served.rs"]
mod served;

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use orchestrator::runtime_sim::{ExecAnswer, Script};
use served::Served;

/// The scripts end by themselves long before; in seconds.
const PATIENCE_SECONDS: &str = "120";

/// Where the client is installed, as `.ci/run` does it: in the folder that this test was built into.
fn python() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let target = test.ancestors().nth(3).expect("a test lies in a folder of its profile's dependencies");
    target.join("python/bin/python")
}

/// A container that answers some commands and says something all the time.
fn script() -> Script {
    let echo = ExecAnswer { echo: true, ..ExecAnswer::default() };
    let fails = ExecAnswer { stdout: "out".into(), stderr: "err".into(), exit_code: 3, ..ExecAnswer::default() };
    Script {
        log_every: Some((Duration::from_millis(50), "tick".to_owned())),
        ..Script::forever().prints("first line").answers(&["cat"], echo).answers(&["fails"], fails)
    }
}

#[test]
fn the_scripts_are_content() {
    let python = python();
    let wanted = "make it with `python3 -m venv target/python`, and fill it with `target/python/bin/pip install -r \
                  tests/python/requirements.txt`";
    assert!(python.is_file(), "{} is not there: {wanted}", python.display());
    let client = Command::new(&python).args(["-c", "import kubernetes"]).output().unwrap();
    assert!(client.status.success(), "Python has no package `kubernetes`: {wanted}\n{client:#?}");

    let served = Served::start("python", Some(script()));
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python");
    let mut command = Command::new("timeout");
    command.arg(PATIENCE_SECONDS).arg(&python).args([
        "-B",
        "-m",
        "unittest",
        "discover",
        "-v",
        "-p",
        "*_test.py",
        "-s",
    ]);
    command.arg(scripts).env("KUBECONFIG", &served.kubeconfig).env("HOME", &served.directory);
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{told}{}", output.status, String::from_utf8_lossy(&output.stdout));
    assert!(told.contains("\nOK\n"), "{told}");
}
