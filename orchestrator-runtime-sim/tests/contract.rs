//! The simulated runtime keeps the contract of a container runtime.

use std::{sync::Arc, time::Duration};

use orchestrator_core::{
    env::Env,
    runtime::{ContainerConfig, ContainerRuntime},
};
use orchestrator_runtime_sim::{ExecAnswer, ImageScript, MachineConfig, Matcher, OnStop, Script, SimMachine};
use orchestrator_testkit::{
    runtime::{Command, Lack, Program, Workbench, container},
    runtime_contract,
};

/// A simulated machine. Programs are scripts for containers of a name.
struct Simulated(SimMachine);

impl Simulated {
    fn new(env: &Env) -> Self {
        let machine = SimMachine::new(env, MachineConfig::default());
        machine.image("image", ImageScript { absent: true, pull_delay: Duration::from_secs(1), ..Default::default() });
        let failure = Some("no such image".to_owned());
        machine.image("spare", ImageScript { absent: true, ..Default::default() });
        machine.image("missing", ImageScript { absent: true, pull_failure: failure, ..Default::default() });
        Self(machine)
    }
}

/// Written out to the last of its lines, each after a pause.
fn printing(lines: &[String], pause: Duration) -> Script {
    let mut script = Script::exits(pause * lines.len() as u32, 0);
    script.log = lines.iter().enumerate().map(|(number, line)| (pause * number as u32, line.clone())).collect();
    script
}

impl Workbench for Simulated {
    fn runtime(&self) -> Arc<dyn ContainerRuntime> {
        Arc::new(self.0.runtime())
    }

    fn container(&self, name: &str, program: &Program) -> ContainerConfig {
        let script = match program {
            Program::Exit { after, code } => Script::exits(*after, *code),
            Program::Print { lines, pause } => printing(lines, *pause),
            Program::Polite { code } => {
                let on_stop = OnStop::Exit { after: Duration::from_millis(5), code: *code };
                Script::forever().prints("ready").on_stop(on_stop)
            }
            Program::Deaf => Script::forever().prints("ready").on_stop(OnStop::Ignore),
            Program::Hungry => Script { out_of_memory: true, ..Script::exits(Duration::from_secs(1), 0) },
            Program::Missing => Script::fails_to_start("no such program"),
        };
        let answer = |exit_code| ExecAnswer { exit_code, ..ExecAnswer::default() };
        let script = script
            .answers(&["exit", "0"], answer(0))
            .answers(&["exit", "3"], answer(3))
            .answers(&["print", "hello"], ExecAnswer { stdout: "hello\n".to_owned(), ..ExecAnswer::default() })
            .answers(&["echo"], ExecAnswer { echo: true, ..ExecAnswer::default() });
        self.0.script(Matcher::Container(name.to_owned()), script);
        container(name, "image", &[])
    }

    fn command(&self, command: &Command) -> Vec<String> {
        match command {
            Command::Exit(code) => vec!["exit".to_owned(), code.to_string()],
            Command::Print(text) => vec!["print".to_owned(), (*text).to_owned()],
            Command::Echo => vec!["echo".to_owned()],
            Command::Missing => vec!["missing".to_owned()],
        }
    }

    fn missing_image(&self) -> String {
        "missing".to_owned()
    }

    fn spare_image(&self) -> Option<String> {
        Some("spare".to_owned())
    }

    fn lacks(&self) -> &[Lack] {
        // Scripts answer every command.
        &[Lack::MissingCommands]
    }

    fn moment(&self) -> Duration {
        Duration::from_secs(20)
    }
}

runtime_contract!(simulated, simulated, async |env: &Env| Simulated::new(env));
