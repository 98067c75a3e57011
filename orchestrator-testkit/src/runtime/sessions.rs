//! Commands inside of running containers.

use std::time::Duration;

use orchestrator_core::{
    env::Env,
    runtime::{ExecOptions, RuntimeError},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    Command, Lack, Program, Workbench,
    stage::{Stage, exit, wrong_state},
};
use crate::harness::Outcome;

/// A command's output and code are its own, and the container goes on.
pub async fn commands_end_with_their_codes(workbench: &dyn Workbench, env: &Env) -> Outcome {
    let mut stage = Stage::new(workbench, env);
    let pod = stage.pod("a").await;
    let id = stage.ready(&pod, "main", &Program::Deaf).await;
    for _ in 0..2 {
        for code in [0, 3] {
            let options = ExecOptions { command: workbench.command(&Command::Exit(code)), ..ExecOptions::default() };
            let session = stage.runtime.exec(&id, options).await.unwrap();
            assert!(session.stdin.is_none() && session.stdout.is_none(), "nobody asked for streams");
            assert_eq!(stage.in_time(session.exit).await.unwrap(), code);
        }
        let command = workbench.command(&Command::Print("hello"));
        let options = ExecOptions { command, stdout: true, stderr: true, ..ExecOptions::default() };
        let mut session = stage.runtime.exec(&id, options).await.unwrap();
        let mut output = String::new();
        let mut stdout = session.stdout.take().expect("standard output was asked for");
        stage.in_time(stdout.read_to_string(&mut output)).await.unwrap();
        assert_eq!((output.trim(), stage.in_time(session.exit).await.unwrap()), ("hello", 0));
        assert!(stage.state(&id).await.is_running());
        stage.again();
    }
    Outcome::Held
}

/// What is written to a command reaches it, and so does the end of it.
pub async fn input_reaches_commands(workbench: &dyn Workbench, env: &Env) -> Outcome {
    let stage = Stage::new(workbench, env);
    let pod = stage.pod("a").await;
    let id = stage.ready(&pod, "main", &Program::Deaf).await;
    let command = workbench.command(&Command::Echo);
    let options = ExecOptions { command, stdin: true, stdout: true, ..ExecOptions::default() };
    let mut session = stage.runtime.exec(&id, options).await.unwrap();
    let (mut stdin, mut stdout) = (session.stdin.take().expect("input"), session.stdout.take().expect("output"));
    let sent = "0123456789abcdef\n".repeat(20_000);
    let write = async {
        stdin.write_all(sent.as_bytes()).await.unwrap();
        stdin.shutdown().await.unwrap();
        drop(stdin);
    };
    let mut output = String::new();
    let both = async { futures::join!(write, stdout.read_to_string(&mut output)).1 };
    stage.in_time(both).await.unwrap();
    assert!(output == sent, "{} bytes of {} came back", output.len(), sent.len());
    assert_eq!(stage.in_time(session.exit).await.unwrap(), 0);
    Outcome::Held
}

/// A command that is not there is told before anything is streamed.
pub async fn a_command_that_is_not_there_is_told(workbench: &dyn Workbench, env: &Env) -> Outcome {
    if workbench.lacks().contains(&Lack::MissingCommands) {
        return Outcome::Skipped("noticing commands that are not there");
    }
    let stage = Stage::new(workbench, env);
    let pod = stage.pod("a").await;
    let id = stage.ready(&pod, "main", &Program::Deaf).await;
    let command = workbench.command(&Command::Missing);
    let result = stage.runtime.exec(&id, ExecOptions { command, stdout: true, ..ExecOptions::default() }).await;
    assert!(matches!(&result, Err(RuntimeError::StartFailed(why)) if !why.is_empty()), "{result:?}");
    assert!(stage.state(&id).await.is_running());
    Outcome::Held
}

/// A container that does not run takes no commands.
pub async fn commands_need_a_running_container(workbench: &dyn Workbench, env: &Env) -> Outcome {
    let stage = Stage::new(workbench, env);
    let pod = stage.pod("a").await;
    let created = stage.create(&pod, "created", &Program::Deaf).await;
    let ended = stage.start(&pod, "ended", &exit(0)).await;
    stage.ended(&ended).await;
    let stopped = stage.ready(&pod, "stopped", &Program::Deaf).await;
    stage.runtime.stop_container(&stopped, Duration::ZERO).await.unwrap();
    for id in [created, ended, stopped] {
        let options = ExecOptions { command: workbench.command(&Command::Exit(0)), ..ExecOptions::default() };
        let result = stage.runtime.exec(&id, options).await;
        assert!(wrong_state(result), "{id}");
    }
    Outcome::Held
}
