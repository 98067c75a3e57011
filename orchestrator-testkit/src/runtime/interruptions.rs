//! Calls that are given up: whoever asked goes away, and asks again.

use std::time::Duration;

use orchestrator_core::{
    env::Env,
    runtime::{ContainerRuntime, ExecOptions, SandboxState},
};

use super::{
    Command, Program, Workbench,
    stage::{Stage, sandbox},
};
use crate::harness::Outcome;

/// How long calls are waited for before they are given up: not at all, and in the midst of them.
const PATIENCE_MILLISECONDS: [u64; 4] = [0, 1, 5, 25];

/// A call that was given up at any point can be made again, and comes to the same end.
pub async fn calls_may_be_given_up(workbench: &dyn Workbench, env: &Env) -> Outcome {
    for milliseconds in PATIENCE_MILLISECONDS {
        give_up(&Stage::new(workbench, env), Duration::from_millis(milliseconds)).await;
    }
    Outcome::Held
}

async fn give_up(stage: &Stage<'_>, patience: Duration) {
    let name = format!("a{}", patience.as_millis());
    let config = sandbox(&name);
    let runtime: &dyn ContainerRuntime = &*stage.runtime;
    abandon(stage, patience, runtime.run_sandbox(&config)).await;
    let pod = stage.in_time(runtime.run_sandbox(&config)).await.unwrap();
    assert_eq!(pod.state, SandboxState::Ready);

    // Brings the image, so that only the container is left to be made.
    let before = stage.create(&pod, "before", &Program::Deaf).await;
    let container = stage.workbench.container("main", &Program::Deaf);
    abandon(stage, patience, runtime.create_container(&pod.id, &container)).await;
    let id = stage.in_time(runtime.create_container(&pod.id, &container)).await.unwrap();
    abandon(stage, patience, runtime.start_container(&id)).await;
    stage.in_time(runtime.start_container(&id)).await.unwrap();
    assert!(stage.state(&id).await.is_running(), "{patience:?}");

    let command = stage.workbench.command(&Command::Exit(3));
    let options = ExecOptions { command, ..ExecOptions::default() };
    abandon(stage, patience, runtime.exec(&id, options.clone())).await;
    let session = stage.in_time(runtime.exec(&id, options)).await.unwrap();
    assert_eq!(stage.in_time(session.exit).await.unwrap(), 3);
    abandon(stage, patience, runtime.inspect_container(&id)).await;
    abandon(stage, patience, runtime.list_containers()).await;
    abandon(stage, patience, runtime.stats(&id)).await;
    assert_eq!(runtime.list_containers().await.unwrap().len(), 2);

    abandon(stage, patience, runtime.stop_container(&id, Duration::ZERO)).await;
    stage.in_time(runtime.stop_container(&id, Duration::ZERO)).await.unwrap();
    assert_eq!(stage.state(&id).await.exit_code(), Some(137));
    for id in [&id, &before] {
        abandon(stage, patience, runtime.remove_container(id)).await;
        stage.in_time(runtime.remove_container(id)).await.unwrap();
    }
    assert!(runtime.list_containers().await.unwrap().is_empty());
    abandon(stage, patience, runtime.stop_sandbox(&pod.id)).await;
    stage.in_time(runtime.stop_sandbox(&pod.id)).await.unwrap();
    abandon(stage, patience, runtime.remove_sandbox(&pod.id)).await;
    stage.in_time(runtime.remove_sandbox(&pod.id)).await.unwrap();
    assert!(runtime.list_sandboxes().await.unwrap().is_empty());
}

/// Waits for a call as long as the patience lasts, then drops it.
async fn abandon<T>(stage: &Stage<'_>, patience: Duration, call: impl Future<Output = T>) {
    let _ = stage.env.timeout(patience, call).await;
}
