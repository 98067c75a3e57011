//! Lives of containers: beginnings, ends, and how they are brought about.

use std::time::Duration;

use orchestrator_core::{
    env::Env,
    runtime::{ContainerState, RuntimeError, SandboxState},
};

use super::{
    Lack, Program, Workbench,
    stage::{LONG_GRACE, Stage, exit, sandbox},
};
use crate::harness::Outcome;

/// A container is created, runs and ends, once, and says when and how.
pub async fn a_container_lives_once(workbench: &dyn Workbench, env: &Env) -> Outcome {
    let stage = Stage::new(workbench, env);
    let config = sandbox("a");
    let pod = stage.pod("a").await;
    assert_eq!((pod.state, &pod.key, pod.name.as_str()), (SandboxState::Ready, &config.key, "a"));
    assert_eq!((&pod.labels, &pod.annotations), (&config.labels, &config.annotations));
    assert_eq!(stage.runtime.inspect_sandbox(&pod.id).await.unwrap(), pod);

    let program = Program::Exit { after: workbench.moment(), code: 0 };
    let id = stage.create(&pod, "main", &program).await;
    let made = stage.runtime.inspect_container(&id).await.unwrap();
    assert_eq!((&made.id, &made.sandbox, made.key.name.as_str()), (&id, &pod.id, "main"));
    assert_eq!(made.state, ContainerState::Created);
    assert_eq!(made.labels, workbench.container("main", &program).labels);
    assert!(!made.image_id.is_empty(), "an image without identity");

    stage.runtime.start_container(&id).await.unwrap();
    let ContainerState::Running { started_at } = stage.state(&id).await else { panic!("a moment is long enough") };
    let state = stage.ended(&id).await;
    let ContainerState::Exited { started_at: Some(since), finished_at, exit_code, signal, reason, .. } = state else {
        panic!("{state:?}")
    };
    assert_eq!((exit_code, signal, reason.as_str()), (0, None, "Completed"));
    assert!(made.created_at <= started_at && since == started_at && started_at < finished_at);
    stage.runtime.start_container(&id).await.unwrap();
    assert_eq!(stage.state(&id).await.exit_code(), Some(0), "what has ended does not begin again");
    Outcome::Held
}

/// The code with which a program ends is the container's.
pub async fn exit_codes_are_kept(workbench: &dyn Workbench, env: &Env) -> Outcome {
    let stage = Stage::new(workbench, env);
    let pod = stage.pod("a").await;
    for (code, expected) in [(0, "Completed"), (1, "Error"), (3, "Error"), (255, "Error")] {
        let id = stage.start(&pod, &format!("with-{code}"), &exit(code)).await;
        let ContainerState::Exited { exit_code, reason, .. } = stage.ended(&id).await else { panic!("it has ended") };
        assert_eq!((exit_code, reason.as_str()), (code, expected));
    }
    Outcome::Held
}

/// Who heeds the stop signal ends with a code of its own, and nobody waits for the rest of the grace.
pub async fn a_polite_container_ends_in_its_own_way(workbench: &dyn Workbench, env: &Env) -> Outcome {
    let stage = Stage::new(workbench, env);
    let pod = stage.pod("a").await;
    let id = stage.ready(&pod, "main", &Program::Polite { code: 5 }).await;
    stage.in_time(stage.runtime.stop_container(&id, LONG_GRACE)).await.unwrap();
    let ContainerState::Exited { exit_code, signal, .. } = stage.state(&id).await else { panic!("it has ended") };
    assert_eq!((exit_code, signal), (5, None));
    Outcome::Held
}

/// Who does not heed it is killed when the grace is over, not sooner.
pub async fn stopping_kills_when_the_grace_is_over(workbench: &dyn Workbench, env: &Env) -> Outcome {
    let stage = Stage::new(workbench, env);
    let pod = stage.pod("a").await;
    let id = stage.ready(&pod, "main", &Program::Deaf).await;
    let (grace, begun) = (workbench.moment(), env.monotonic());
    stage.in_time(stage.runtime.stop_container(&id, grace)).await.unwrap();
    assert!(env.monotonic() - begun >= grace, "killed before its time");
    let ContainerState::Exited { exit_code, signal, reason, .. } = stage.state(&id).await else {
        panic!("it has ended")
    };
    assert_eq!((exit_code, signal, reason.as_str()), (137, Some(9), "Error"));
    Outcome::Held
}

/// A grace of nothing is a kill.
pub async fn no_grace_is_a_kill(workbench: &dyn Workbench, env: &Env) -> Outcome {
    let stage = Stage::new(workbench, env);
    let pod = stage.pod("a").await;
    for (name, program) in [("polite", Program::Polite { code: 5 }), ("deaf", Program::Deaf)] {
        let id = stage.ready(&pod, name, &program).await;
        stage.in_time(stage.runtime.stop_container(&id, Duration::ZERO)).await.unwrap();
        assert_eq!(stage.state(&id).await.exit_code(), Some(137), "{name}");
    }
    Outcome::Held
}

/// A program that cannot be started is told at the start, and the container has ended.
pub async fn a_start_that_fails_is_an_end(workbench: &dyn Workbench, env: &Env) -> Outcome {
    if workbench.lacks().contains(&Lack::StartFailures) {
        return Outcome::Skipped("start failures");
    }
    let stage = Stage::new(workbench, env);
    let pod = stage.pod("a").await;
    let id = stage.create(&pod, "main", &Program::Missing).await;
    let failure = stage.runtime.start_container(&id).await;
    assert!(matches!(&failure, Err(RuntimeError::StartFailed(why)) if !why.is_empty()), "{failure:?}");
    let ContainerState::Exited { started_at: None, exit_code, reason, message, .. } = stage.state(&id).await else {
        panic!("it never began")
    };
    assert_eq!((exit_code, reason.as_str()), (128, "StartError"));
    assert!(!message.is_empty());
    Outcome::Held
}

/// What a container uses is known while it runs.
pub async fn usage_is_of_running_containers(workbench: &dyn Workbench, env: &Env) -> Outcome {
    if workbench.lacks().contains(&Lack::Usage) {
        return Outcome::Skipped("usage");
    }
    let stage = Stage::new(workbench, env);
    let pod = stage.pod("a").await;
    let id = stage.create(&pod, "main", &Program::Deaf).await;
    assert_eq!(stage.runtime.stats(&id).await.unwrap(), None);
    stage.runtime.start_container(&id).await.unwrap();
    let usage = stage.runtime.stats(&id).await.unwrap().expect("it runs");
    assert!(usage.pids > 0, "{usage:?}");
    stage.runtime.stop_container(&id, Duration::ZERO).await.unwrap();
    assert_eq!(stage.runtime.stats(&id).await.unwrap(), None);
    Outcome::Held
}

/// Who exceeds its memory is killed, and that is said; its neighbours go on.
pub async fn memory_that_runs_out_is_told(workbench: &dyn Workbench, env: &Env) -> Outcome {
    if workbench.lacks().contains(&Lack::MemoryLimits) {
        return Outcome::Skipped("limits of memory");
    }
    let stage = Stage::new(workbench, env);
    let pod = stage.pod("a").await;
    let neighbour = stage.ready(&pod, "neighbour", &Program::Deaf).await;
    let id = stage.start(&pod, "hungry", &Program::Hungry).await;
    let ContainerState::Exited { exit_code, reason, .. } = stage.ended(&id).await else { panic!("it has ended") };
    assert_eq!((exit_code, reason.as_str()), (137, "OOMKilled"));
    assert!(stage.state(&neighbour).await.is_running());
    stage.runtime.remove_sandbox(&pod.id).await.unwrap();
    Outcome::Held
}
