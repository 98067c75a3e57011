//! What a simulated container does.

use std::{collections::BTreeMap, time::Duration};

use orchestrator_core::runtime::{ContainerConfig, SandboxStatus};

use crate::limits::SCRIPT_LOG_LINES;

/// An annotation of a pod or container whose value is a script in text form: see [`Script::parse`].
pub const SCRIPT_ANNOTATION: &str = "sim.orchestrator.dev/script";

/// The behaviour of a container. The default runs until it is stopped and then ends at once with code 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Script {
    /// How long a start takes.
    pub start_delay: Duration,
    /// The start fails with these words; the container ends with `StartError` and code 128.
    pub start_failure: Option<String>,
    /// Ends by itself after this time; `None` runs until stopped.
    pub run_for: Option<Duration>,
    /// The code with which it ends by itself.
    pub exit_code: i32,
    /// It ends by itself because memory ran out: code 137, reason `OOMKilled`.
    pub out_of_memory: bool,
    /// What the stop signal does.
    pub on_stop: OnStop,
    /// Lines on standard output, each at this time after the start.
    pub log: Vec<(Duration, String)>,
    /// A line on standard output at each multiple of this time after the start.
    pub log_every: Option<(Duration, String)>,
    /// Answers to commands, by the beginning of the command; the longest match wins.
    pub exec: Vec<(Vec<String>, ExecAnswer)>,
    /// What listens on TCP ports.
    pub ports: BTreeMap<u16, PortAnswer>,
    /// CPU in use, in thousandths of a core.
    pub cpu_millis: u64,
    /// Memory in use, in bytes.
    pub memory_bytes: u64,
}

/// What the stop signal does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnStop {
    /// The container ends after this time, with this code.
    Exit {
        /// How long it takes to end.
        after: Duration,
        /// Its exit code.
        code: i32,
    },
    /// Nothing: only a kill ends it.
    Ignore,
}

impl Default for OnStop {
    fn default() -> Self {
        Self::Exit { after: Duration::ZERO, code: 0 }
    }
}

/// What a command in a container does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecAnswer {
    /// How long it takes.
    pub delay: Duration,
    /// What it writes to standard output.
    pub stdout: String,
    /// What it writes to standard error.
    pub stderr: String,
    /// Its exit code.
    pub exit_code: i32,
    /// It copies standard input to standard output until the end of the input.
    pub echo: bool,
}

/// What listens on a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortAnswer {
    /// Everything sent comes back.
    Echo,
    /// An HTTP server that gives the same answer always.
    Http {
        /// The status code.
        status: u16,
        /// The body.
        body: String,
    },
}

/// How an image is had. The default is that it is on the machine already.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageScript {
    /// It is not on the machine until it was pulled.
    pub absent: bool,
    /// How long a pull takes.
    pub pull_delay: Duration,
    /// Pulls fail with these words.
    pub pull_failure: Option<String>,
    /// Its size, in bytes.
    pub size_bytes: u64,
    /// The numeric user it runs as.
    pub user: Option<i64>,
}

/// Which containers a script is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Matcher {
    /// Every container.
    Any,
    /// Containers of this image.
    Image(String),
    /// Containers of this name.
    Container(String),
    /// Containers of pods of this name.
    Pod(String),
    /// Containers whose command and arguments begin with these words.
    Command(Vec<String>),
    /// Containers with this annotation, on themselves or on their pod.
    Annotation(String, String),
}

impl Matcher {
    pub(crate) fn matches(&self, config: &ContainerConfig, sandbox: &SandboxStatus) -> bool {
        match self {
            Self::Any => true,
            Self::Image(image) => config.image == *image,
            Self::Container(name) => config.key.name == *name,
            Self::Pod(name) => sandbox.name == *name,
            Self::Command(words) => {
                let mut command = config.command.iter().chain(&config.args);
                words.iter().all(|word| command.next() == Some(word))
            }
            Self::Annotation(key, value) => [&config.annotations, &sandbox.annotations]
                .iter()
                .any(|annotations| annotations.get(key) == Some(value)),
        }
    }
}

/// A script's text form cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("script: {0}")]
pub struct ScriptError(String);

impl Script {
    /// Runs until stopped.
    pub fn forever() -> Self {
        Self::default()
    }

    /// Ends by itself after this time with this code.
    pub fn exits(after: Duration, code: i32) -> Self {
        Self { run_for: Some(after), exit_code: code, ..Self::default() }
    }

    /// Cannot be started.
    pub fn fails_to_start(message: impl Into<String>) -> Self {
        Self { start_failure: Some(message.into()), ..Self::default() }
    }

    /// What the stop signal does.
    #[must_use]
    pub fn on_stop(mut self, on_stop: OnStop) -> Self {
        self.on_stop = on_stop;
        self
    }

    /// A line on standard output right after the start.
    #[must_use]
    pub fn prints(mut self, line: impl Into<String>) -> Self {
        self.log.push((Duration::ZERO, line.into()));
        self
    }

    /// The answer to commands that begin with these words; no words mean all commands.
    #[must_use]
    pub fn answers(mut self, command: &[&str], answer: ExecAnswer) -> Self {
        self.exec.push((command.iter().map(ToString::to_string).collect(), answer));
        self
    }

    /// What listens on a port.
    #[must_use]
    pub fn listens(mut self, port: u16, answer: PortAnswer) -> Self {
        self.ports.insert(port, answer);
        self
    }

    /// Reads the text form, for annotations: `run=5s,exit=1,log=hello,stop=hang`.
    ///
    /// Members: `start` (delay), `run` (time until it ends), `exit` (code), `stop` (`hang`, or the time it takes),
    /// `stopcode`, `log` (a line), `fail` (start failure), `oom`, `cpu` (millis), `memory` (bytes). Times are whole
    /// numbers with `ms`, `s`, `m` or `h`.
    pub fn parse(text: &str) -> Result<Self, ScriptError> {
        let mut script = Self::default();
        let (mut stop_after, mut stop_code) = (Some(Duration::ZERO), 0);
        for member in text.split(',').map(str::trim).filter(|member| !member.is_empty()) {
            let (name, value) = member.split_once('=').unwrap_or((member, ""));
            match name {
                "start" => script.start_delay = parse_duration(value)?,
                "run" => script.run_for = Some(parse_duration(value)?),
                "exit" => script.exit_code = parse_number(value)?,
                "stop" if value == "hang" => stop_after = None,
                "stop" => stop_after = Some(parse_duration(value)?),
                "stopcode" => stop_code = parse_number(value)?,
                "log" if script.log.len() < SCRIPT_LOG_LINES => script.log.push((Duration::ZERO, value.to_owned())),
                "fail" => script.start_failure = Some(value.to_owned()),
                "oom" => script.out_of_memory = true,
                "cpu" => script.cpu_millis = parse_number(value)?,
                "memory" => script.memory_bytes = parse_number(value)?,
                _ => return Err(ScriptError(format!("{name:?} is not known"))),
            }
        }
        script.on_stop = stop_after.map_or(OnStop::Ignore, |after| OnStop::Exit { after, code: stop_code });
        Ok(script)
    }

    pub(crate) fn answer(&self, command: &[String]) -> ExecAnswer {
        let matching = self.exec.iter().filter(|(words, _)| command.starts_with(words));
        matching.max_by_key(|(words, _)| words.len()).map(|(_, answer)| answer.clone()).unwrap_or_default()
    }
}

fn parse_number<T: std::str::FromStr>(text: &str) -> Result<T, ScriptError> {
    text.parse().map_err(|_| ScriptError(format!("{text:?} is not a number")))
}

fn parse_duration(text: &str) -> Result<Duration, ScriptError> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = parse_number(number)?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(ScriptError(format!("{text:?} is not a time"))),
    };
    Ok(Duration::from_millis(number.saturating_mul(millis)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form() {
        let script = Script::parse("run=5s, exit=3, stop=hang, log=hello").unwrap();
        assert_eq!(
            script,
            Script { on_stop: OnStop::Ignore, ..Script::exits(Duration::from_secs(5), 3).prints("hello") }
        );
        assert_eq!(Script::parse("").unwrap(), Script::default());
        for wrong in ["walk=5s", "run=5", "exit=x", "run=s"] {
            assert!(Script::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_longest_command_answers() {
        let answer = |code| ExecAnswer { exit_code: code, ..ExecAnswer::default() };
        let script = Script::default().answers(&[], answer(1)).answers(&["cat", "/ready"], answer(2));
        assert_eq!(script.answer(&["ls".into()]).exit_code, 1);
        assert_eq!(script.answer(&["cat".into(), "/ready".into()]).exit_code, 2);
    }
}
