//! How the agent starts helpers: by executing a program, never by forking itself.

use std::{
    io::{self, Write},
    os::unix::process::CommandExt,
    process::{Command, Stdio},
};

use orchestrator_core::{env::Env, runtime::RuntimeError};

use crate::{
    config::Helper,
    helper::{MARKER, is_initialized},
    protocol::{Errand, Outcome},
};

/// Has a helper do something and waits for the outcome. For a sandbox, the helper stays. What the caller holds is held until the
/// outcome is there, even if the caller has lost interest by then.
pub(crate) async fn launch(
    env: &Env,
    helper: &Helper,
    errand: Errand,
    held: impl Send + 'static,
) -> Result<(), RuntimeError> {
    let program = match helper {
        Helper::CurrentExe if !is_initialized() => {
            let message = "a `main` that calls `orchestrator_runtime_youki::init` first, or a helper program";
            return Err(RuntimeError::Missing(message.to_owned()));
        }
        Helper::CurrentExe => "/proc/self/exe".into(),
        Helper::Program(path) => path.clone(),
    };
    // In one piece, so that no child is left behind when the caller loses interest half-way.
    let outcome = env.blocking(move || {
        let outcome = run(&program, &errand);
        drop(held);
        outcome
    });
    let outcome = outcome.await;
    match outcome {
        Some(Ok(Outcome::Done)) => Ok(()),
        Some(Ok(Outcome::Failed(message))) => Err(RuntimeError::internal("pod helper", message)),
        Some(Err(error)) => Err(RuntimeError::internal("starting the pod helper", error)),
        None => Err(RuntimeError::internal("starting the pod helper", "the runtime is shutting down")),
    }
}

fn run(program: &std::path::Path, errand: &Errand) -> io::Result<Outcome> {
    let errand = serde_json::to_vec(errand)?;
    let mut child = Command::new(program)
        .arg0(MARKER)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read is found out by what it does not write.
        let _ = stdin.write_all(&errand);
    }
    let output = child.wait_with_output()?;
    serde_json::from_slice(&output.stdout).map_err(|_| {
        io::Error::other(format!(
            "{} is no pod helper, or died as one ({}); does its `main` call `orchestrator_runtime_youki::init` first?",
            program.display(),
            output.status
        ))
    })
}
