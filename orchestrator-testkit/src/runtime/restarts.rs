//! Repeated calls, and agents that come back.

use std::time::Duration;

use orchestrator_core::{
    env::Env,
    runtime::{ContainerState, LogOptions, SandboxState},
};

use super::{
    Program, Workbench,
    stage::{LONG_GRACE, Stage, exit, sandbox},
};
use crate::harness::Outcome;

/// A call that is made again, or twice at once, is the same call.
pub async fn every_call_can_be_repeated(workbench: &dyn Workbench, env: &Env) -> Outcome {
    let mut stage = Stage::new(workbench, env);
    let config = sandbox("a");
    let (one, other) = futures::join!(stage.runtime.run_sandbox(&config), stage.runtime.run_sandbox(&config));
    let pod = one.unwrap();
    assert_eq!(other.unwrap(), pod);
    let id = stage.create(&pod, "main", &Program::Deaf).await;
    let container = workbench.container("main", &Program::Deaf);
    assert_eq!(stage.runtime.create_container(&pod.id, &container).await.unwrap(), id);
    let (one, other) = futures::join!(stage.runtime.start_container(&id), stage.runtime.start_container(&id));
    one.unwrap();
    other.unwrap();
    let running = stage.state(&id).await;
    for _ in 0..2 {
        assert_eq!(stage.runtime.run_sandbox(&config).await.unwrap(), pod);
        assert_eq!(stage.runtime.create_container(&pod.id, &container).await.unwrap(), id);
        stage.runtime.start_container(&id).await.unwrap();
        assert_eq!(stage.state(&id).await, running, "nothing has begun anew");
        stage.again();
    }
    assert_eq!(stage.runtime.list_containers().await.unwrap().len(), 1);
    // Whoever is in more of a hurry is right.
    let (short, long) = futures::join!(
        stage.in_time(stage.runtime.stop_container(&id, Duration::from_millis(10))),
        stage.in_time(stage.runtime.stop_container(&id, LONG_GRACE)),
    );
    short.unwrap();
    long.unwrap();
    let ended = stage.state(&id).await;
    assert_eq!(ended.exit_code(), Some(137));
    stage.runtime.stop_container(&id, Duration::ZERO).await.unwrap();
    assert_eq!(stage.state(&id).await, ended);
    for _ in 0..2 {
        stage.runtime.remove_container(&id).await.unwrap();
        stage.runtime.stop_sandbox(&pod.id).await.unwrap();
    }
    for _ in 0..2 {
        stage.runtime.remove_sandbox(&pod.id).await.unwrap();
    }
    Outcome::Held
}

/// A new instance sees every sandbox and container as the old one left it, down to the last word.
pub async fn a_new_instance_finds_everything(workbench: &dyn Workbench, env: &Env) -> Outcome {
    let mut stage = Stage::new(workbench, env);
    let (first, second) = (stage.pod("a").await, stage.pod("b").await);
    stage.create(&first, "created", &Program::Deaf).await;
    stage.ready(&first, "running", &Program::Deaf).await;
    let lines = vec!["one".to_owned(), "two".to_owned()];
    let printed = stage.start(&first, "printed", &Program::Print { lines, pause: Duration::ZERO }).await;
    stage.ended(&printed).await;
    let failed = stage.start(&second, "failed", &exit(3)).await;
    stage.ended(&failed).await;
    stage.runtime.stop_sandbox(&second.id).await.unwrap();

    let sandboxes = stage.runtime.list_sandboxes().await.unwrap();
    let containers = stage.runtime.list_containers().await.unwrap();
    let log = stage.log(&printed, LogOptions::default()).await;
    assert_eq!(sandboxes.iter().map(|pod| pod.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(sandboxes[1].state, SandboxState::NotReady);
    let of_first: Vec<&str> = containers
        .iter()
        .filter(|container| container.sandbox == first.id)
        .map(|container| container.key.name.as_str())
        .collect();
    assert_eq!(of_first, ["created", "printed", "running"], "in order of their keys");
    for _ in 0..2 {
        stage.again();
        assert_eq!(stage.runtime.list_sandboxes().await.unwrap(), sandboxes);
        assert_eq!(stage.runtime.list_containers().await.unwrap(), containers);
        assert_eq!(stage.log(&printed, LogOptions::default()).await, log);
        for container in &containers {
            assert_eq!(&stage.runtime.inspect_container(&container.id).await.unwrap(), container);
        }
    }
    Outcome::Held
}

/// A new instance goes on where the old one stopped.
pub async fn a_new_instance_carries_on(workbench: &dyn Workbench, env: &Env) -> Outcome {
    let mut stage = Stage::new(workbench, env);
    let pod = stage.pod("a").await;
    let created = stage.create(&pod, "created", &exit(4)).await;
    let running = stage.ready(&pod, "running", &Program::Polite { code: 6 }).await;
    stage.again();
    stage.runtime.start_container(&created).await.unwrap();
    assert_eq!(stage.ended(&created).await.exit_code(), Some(4));
    let another = stage.start(&pod, "another", &exit(0)).await;
    assert_eq!(stage.ended(&another).await.exit_code(), Some(0));
    stage.again();
    stage.in_time(stage.runtime.stop_container(&running, LONG_GRACE)).await.unwrap();
    assert_eq!(stage.state(&running).await.exit_code(), Some(6));
    stage.again();
    stage.runtime.remove_sandbox(&pod.id).await.unwrap();
    assert!(stage.runtime.list_sandboxes().await.unwrap().is_empty());
    Outcome::Held
}

/// What ends while no agent is there has ended when one comes back, with its code and at its own time.
pub async fn what_happens_meanwhile_is_seen_afterwards(workbench: &dyn Workbench, env: &Env) -> Outcome {
    let (id, begun) = {
        let stage = Stage::new(workbench, env);
        let pod = stage.pod("a").await;
        let id = stage.start(&pod, "main", &Program::Exit { after: workbench.moment(), code: 4 }).await;
        (id, env.now())
    };
    env.sleep(workbench.moment() * 4).await;
    let returned = env.now();
    let stage = Stage::new(workbench, env);
    let state = stage.ended(&id).await;
    let ContainerState::Exited { finished_at, exit_code, .. } = state else { panic!("{state:?}") };
    assert_eq!(exit_code, 4);
    assert!(begun <= finished_at && finished_at <= returned, "it ended at {finished_at}, not when somebody looked");
    Outcome::Held
}
