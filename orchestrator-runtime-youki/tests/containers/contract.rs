//! The contract of a container runtime, kept on real containers.

use std::{sync::Arc, time::Duration};

use orchestrator_core::{
    env::Env,
    runtime::{ContainerConfig, ContainerRuntime},
};
use orchestrator_testkit::{
    harness::Outcome,
    runtime::{Command, Program, Workbench, container},
};

use crate::{
    images::with_tools,
    support::{Place, words},
};

/// Programs are lines of shell.
struct Shell(Place);

impl Workbench for Shell {
    fn runtime(&self) -> Arc<dyn ContainerRuntime> {
        Arc::new(with_tools(self.0.builder()).build(Env::real()).unwrap())
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
            Program::Missing => return container(name, "busybox:1.36", &["/no/such/program"]),
        };
        let mut config = container(name, "busybox:1.36", &["sh", "-c", &line]);
        config.resources.memory_limit_bytes = (*program == Program::Hungry).then_some(32 << 20);
        config
    }

    fn command(&self, command: &Command) -> Vec<String> {
        match command {
            Command::Exit(code) => words(&["sh", "-c", &format!("exit {code}")]),
            Command::Print(text) => words(&["echo", text]),
            Command::Echo => words(&["cat"]),
            Command::Missing => words(&["no-such-program"]),
        }
    }

    fn missing_image(&self) -> String {
        "nothing:1".to_owned()
    }

    fn spare_image(&self) -> Option<String> {
        Some("kit:1".to_owned())
    }

    fn neighbour(&self) -> Option<Arc<dyn ContainerRuntime>> {
        Some(Arc::new(self.0.other_cluster().build(Env::real()).unwrap()))
    }
}

/// A test for each case: it is kept, and nothing is left on the machine.
macro_rules! contract {
    ($($case:ident),+) => {
        crate::tests!($($case),+);
        $(
            async fn $case() {
                let shell = Shell(Place::new());
                let outcome = orchestrator_testkit::runtime::$case(&shell, &Env::real()).await;
                assert_eq!(outcome, Outcome::Held);
                shell.0.other_cluster().build(Env::real()).unwrap().remove_network().await.unwrap();
                if shell.0.directory.join("other-cluster").exists() {
                    std::fs::remove_dir_all(shell.0.directory.join("other-cluster")).unwrap();
                }
                shell.0.clean().await;
            }
        )+
    };
}

orchestrator_testkit::runtime_contract!(@names contract);
