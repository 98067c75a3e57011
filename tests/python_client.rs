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

/// The Python that has the client, in the folder that this test was built into. It is made once, from the package index, as
/// cargo makes what the test is built of.
fn python() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let target = test.ancestors().nth(3).expect("a test lies in a folder of its profile's dependencies");
    let (folder, python) = (target.join("python"), target.join("python/bin/python"));
    let has_client = || succeeds(Command::new(&python).args(["-c", "import kubernetes"]));
    if !has_client() {
        let requirements = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/requirements.txt");
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"];
        assert!(succeeds(Command::new("python3").args(["-m", "venv"]).arg(&folder)), "python3 makes no environment");
        assert!(succeeds(Command::new(&python).args(pip).arg(requirements)), "the Python client cannot be installed");
        assert!(has_client(), "Python has no package `kubernetes`");
    }
    python
}

fn succeeds(command: &mut Command) -> bool {
    command.status().is_ok_and(|status| status.success())
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
