//! The real `kubectl`, run against one cluster and given a bounded time for everything.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// No command of a test may take longer, in seconds.
const PATIENCE_SECONDS: &str = "180";

/// How `timeout` ends when time is up.
const TOO_LATE: i32 = 124;

/// `kubectl` with a configuration, and with a home of its own for what it remembers of servers and keeps in files.
#[derive(Clone, Debug)]
pub(crate) struct Kubectl {
    kubeconfig: PathBuf,
    home: PathBuf,
    /// Variables that choose between ways of doing things.
    pub(crate) environment: Vec<(&'static str, &'static str)>,
}

/// What a command printed, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Kubectl {
    /// `home` is made; who made its parent removes it.
    pub(crate) fn new(kubeconfig: impl Into<PathBuf>, home: impl Into<PathBuf>) -> Self {
        let home = home.into();
        fs::create_dir_all(&home).unwrap();
        Self { kubeconfig: kubeconfig.into(), home, environment: Vec::new() }
    }

    pub(crate) fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new("timeout");
        command.args([PATIENCE_SECONDS, "kubectl"]).args(split(arguments));
        command
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HOME", &self.home)
            .env("TMPDIR", &self.home)
            .envs(self.environment.iter().copied())
            .current_dir(env!("CARGO_MANIFEST_DIR"));
        command
    }

    /// Runs a command. Words are separated by spaces; single quotes hold one together.
    pub(crate) fn run(&self, arguments: &str) -> Answer {
        self.run_with(arguments, "")
    }

    /// Runs a command with something to read.
    pub(crate) fn run_with(&self, arguments: &str, input: &str) -> Answer {
        self.finish(self.command(arguments), input)
    }

    /// Runs a command that was made here and changed since.
    pub(crate) fn finish(&self, mut command: Command, input: &str) -> Answer {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("`timeout` can be run");
        // Who ends without reading does not want it.
        let _ = child.stdin.take().map(|mut stdin| stdin.write_all(input.as_bytes()));
        let output = child.wait_with_output().unwrap();
        let code = output.status.code().unwrap_or(-1);
        assert_ne!(code, TOO_LATE, "`{command:?}` did not end");
        assert!(!matches!(code, 126 | 127), "these tests need `kubectl`: {}", String::from_utf8_lossy(&output.stderr));
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Answer { code, stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// What a command prints that has to succeed.
    #[track_caller]
    pub(crate) fn ok(&self, arguments: &str) -> String {
        let answer = self.run(arguments);
        assert_eq!(answer.code, 0, "kubectl {arguments}: {answer:#?}");
        answer.stdout
    }

    /// Runs a command that has to succeed and to print this.
    #[track_caller]
    pub(crate) fn says(&self, arguments: &str, expected: &str) {
        assert_eq!(self.ok(arguments), format!("{expected}\n"), "kubectl {arguments}");
    }

    /// Runs a command that has to fail, with this on standard error.
    #[track_caller]
    pub(crate) fn fails(&self, arguments: &str, expected: &str) {
        let answer = self.run(arguments);
        assert_eq!((answer.code, answer.stderr), (1, format!("{expected}\n")), "kubectl {arguments}");
    }
}

/// Words of a command line.
fn split(arguments: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (index, part) in arguments.split('\'').enumerate() {
        if index % 2 == 1 {
            words.push(part.to_owned());
            continue;
        }
        words.extend(part.split_whitespace().map(str::to_owned));
    }
    words
}

/// A file of the tree, as `kubectl` is told of it.
pub(crate) fn file(path: &str) -> String {
    assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(path).is_file(), "{path} is not there");
    path.to_owned()
}
