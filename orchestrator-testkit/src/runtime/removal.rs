//! Stopping and removing sandboxes, and names of things that are not there.

use std::time::Duration;

use orchestrator_core::{
    env::Env,
    runtime::{AttachOptions, ContainerId, ExecOptions, LogOptions, SandboxId, SandboxState},
};

use super::{
    Command, Program, Workbench,
    stage::{Stage, exit, not_found, sandbox, wrong_state},
};
use crate::harness::Outcome;

/// What was removed is not there, and its name is free for something new.
pub async fn removal_leaves_nothing(workbench: &dyn Workbench, env: &Env) -> Outcome {
    let stage = Stage::new(workbench, env);
    let pod = stage.pod("a").await;
    let running = stage.ready(&pod, "running", &Program::Deaf).await;
    let ended = stage.start(&pod, "ended", &exit(0)).await;
    stage.ended(&ended).await;
    stage.in_time(stage.runtime.remove_container(&running)).await.unwrap();
    assert!(not_found(stage.runtime.inspect_container(&running).await));
    assert!(not_found(stage.runtime.logs(&running, LogOptions::default()).await));
    let again = stage.ready(&pod, "running", &Program::Deaf).await;
    assert!(stage.state(&again).await.is_running(), "the same key later is another container");

    stage.in_time(stage.runtime.remove_sandbox(&pod.id)).await.unwrap();
    assert!(stage.runtime.list_sandboxes().await.unwrap().is_empty());
    assert!(stage.runtime.list_containers().await.unwrap().is_empty());
    for id in [&ended, &again] {
        assert!(not_found(stage.runtime.inspect_container(id).await));
    }
    let pod = stage.pod("a").await;
    assert_eq!(pod.state, SandboxState::Ready);
    assert!(stage.runtime.list_containers().await.unwrap().is_empty(), "a new sandbox has no containers");
    stage.runtime.remove_sandbox(&pod.id).await.unwrap();
    Outcome::Held
}

/// A sandbox that was stopped has no running container, and gets none; another attempt is another sandbox.
pub async fn stopped_sandboxes_stay_stopped(workbench: &dyn Workbench, env: &Env) -> Outcome {
    let stage = Stage::new(workbench, env);
    let pod = stage.pod("a").await;
    let id = stage.ready(&pod, "main", &Program::Deaf).await;
    let waiting = stage.create(&pod, "waiting", &exit(0)).await;
    stage.in_time(stage.runtime.stop_sandbox(&pod.id)).await.unwrap();
    assert_eq!(stage.state(&id).await.exit_code(), Some(137));
    assert_eq!(stage.runtime.inspect_sandbox(&pod.id).await.unwrap().state, SandboxState::NotReady);
    let config = workbench.container("late", &exit(0));
    assert!(wrong_state(stage.runtime.create_container(&pod.id, &config).await));
    assert!(wrong_state(stage.runtime.run_sandbox(&sandbox("a")).await));
    assert!(!stage.state(&waiting).await.is_running());

    let mut next = sandbox("a");
    next.key.attempt = 1;
    let next = stage.runtime.run_sandbox(&next).await.unwrap();
    assert_eq!(next.state, SandboxState::Ready);
    assert_ne!(next.id, pod.id);
    let main = stage.ready(&next, "main", &Program::Deaf).await;
    stage.runtime.remove_sandbox(&pod.id).await.unwrap();
    assert!(stage.state(&main).await.is_running(), "the other sandbox is left alone");
    stage.runtime.remove_sandbox(&next.id).await.unwrap();
    Outcome::Held
}

/// What is to be gone and never was is gone; everything else that is not there is said not to be there.
pub async fn unknown_names_are_told(workbench: &dyn Workbench, env: &Env) -> Outcome {
    let stage = Stage::new(workbench, env);
    let pod = stage.pod("a").await;
    let container = stage.create(&pod, "main", &exit(0)).await;
    stage.runtime.remove_container(&container).await.unwrap();
    stage.runtime.remove_sandbox(&pod.id).await.unwrap();
    let names = [(pod.id, container), (SandboxId("nothing".to_owned()), ContainerId("nothing".to_owned()))];
    for (sandbox, container) in names {
        let runtime = &stage.runtime;
        runtime.stop_sandbox(&sandbox).await.unwrap();
        runtime.remove_sandbox(&sandbox).await.unwrap();
        runtime.remove_container(&container).await.unwrap();
        assert!(not_found(runtime.inspect_sandbox(&sandbox).await), "inspect_sandbox {sandbox}");
        let config = workbench.container("main", &exit(0));
        assert!(not_found(runtime.create_container(&sandbox, &config).await), "create_container {sandbox}");
        assert!(not_found(runtime.inspect_container(&container).await), "inspect_container {container}");
        assert!(not_found(runtime.start_container(&container).await), "start_container {container}");
        assert!(not_found(runtime.stop_container(&container, Duration::ZERO).await), "stop_container {container}");
        assert!(not_found(runtime.stats(&container).await), "stats {container}");
        assert!(not_found(runtime.logs(&container, LogOptions::default()).await), "logs {container}");
        assert!(not_found(runtime.attach(&container, AttachOptions::default()).await), "attach {container}");
        let command = ExecOptions { command: workbench.command(&Command::Exit(0)), ..ExecOptions::default() };
        assert!(not_found(runtime.exec(&container, command).await), "exec {container}");
        assert!(not_found(runtime.port_forward(&sandbox, 80).await), "port_forward {sandbox}");
    }
    Outcome::Held
}
