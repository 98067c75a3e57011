//! The contract of a container runtime, kept on a real engine.

use std::{sync::Arc, time::Duration};

use orchestrator_core::{
    env::Env,
    runtime::{ContainerConfig, ContainerRuntime},
};
use orchestrator_testkit::{
    harness::Outcome,
    runtime::{Command, Lack, Program, Workbench, container},
};

use crate::{
    subject::is_podman,
    support::{Place, SHELL, shell_image, words},
};

/// Programs are lines of shell.
struct Shell(Place);

impl Workbench for Shell {
    fn runtime(&self) -> Arc<dyn ContainerRuntime> {
        // Another image than the first, because the engine has one for all who have the same.
        let spare = shell_image(&format!("{}-spare", self.0.cluster));
        Arc::new(self.0.builder().image("spare:1", spare).build(Env::real()).unwrap())
    }

    fn container(&self, name: &str, program: &Program) -> ContainerConfig {
        let sleep = |time: &Duration| format!("sleep {:.3}", time.as_secs_f32());
        let idle = "echo ready; while true; do sleep 0.05; done";
        let line = match program {
            Program::Exit { after, code } if after.is_zero() => format!("exit {code}"),
            Program::Exit { after, code } => format!("{}; exit {code}", sleep(after)),
            Program::Print { lines, pause } => {
                lines.iter().map(|line| format!("echo '{line}'; {}; ", sleep(pause))).collect()
            }
            Program::Polite { code } => format!("trap 'exit {code}' TERM; {idle}"),
            Program::Deaf => format!("trap '' TERM; {idle}"),
            Program::Hungry => "exec tail /dev/zero".to_owned(),
            Program::Missing => return container(name, SHELL, &["/no/such/program"]),
        };
        let mut config = container(name, SHELL, &["sh", "-c", &line]);
        config.resources.memory_limit_bytes = (*program == Program::Hungry).then_some(32 << 20);
        config
    }

    fn command(&self, command: &Command) -> Vec<String> {
        match command {
            Command::Exit(code) => words(&["sh", "-c", &format!("exit {code}")]),
            // Not a program of its own: the shell has it.
            Command::Print(text) => words(&["sh", "-c", &format!("echo {text}")]),
            Command::Echo => words(&["cat"]),
            Command::Missing => words(&["no-such-program"]),
        }
    }

    /// Podman begins a session, and tells in it that there is no such command; it does not tell why a process was killed; and
    /// its lines of logs have their time to the second.
    fn lacks(&self) -> &[Lack] {
        if is_podman() { &[Lack::MissingCommands, Lack::MemoryLimits, Lack::LogTimes] } else { &[] }
    }

    /// A registry at a port where nobody listens.
    fn missing_image(&self) -> String {
        "127.0.0.1:1/nothing:1".to_owned()
    }

    fn spare_image(&self) -> Option<String> {
        Some("spare:1".to_owned())
    }

    fn neighbour(&self) -> Option<Arc<dyn ContainerRuntime>> {
        Some(Arc::new(self.0.other_cluster()))
    }

    /// An engine makes a few a second, and Podman not so many.
    fn crowd(&self) -> usize {
        if is_podman() { 4 } else { 12 }
    }

    /// A container takes a good part of a second to begin.
    fn moment(&self) -> Duration {
        Duration::from_millis(800)
    }
}

/// A test for each case: it is kept, and nothing is left on the engine.
macro_rules! contract {
    ($($case:ident),+) => {
        crate::tests!($($case),+);
        $(
            async fn $case() {
                let shell = Shell(Place::new().await);
                let outcome = orchestrator_testkit::runtime::$case(&shell, &Env::real()).await;
                if let Outcome::Skipped(missing) = outcome {
                    assert!(!shell.lacks().is_empty(), "nobody has declared {missing} as missing");
                    eprintln!("skipped {}: {missing} is declared as missing", stringify!($case));
                }
                shell.0.end_other_cluster().await;
                shell.0.clean().await;
            }
        )+
    };
}

orchestrator_testkit::runtime_contract!(@names contract);
