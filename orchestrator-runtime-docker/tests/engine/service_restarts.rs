//! A Podman service that really ends and begins again, in an orderly way and by being killed: its containers go on.

use std::{fs, time::Duration};

use futures::StreamExt;
use orchestrator_core::{
    env::Env,
    runtime::{
        ContainerRuntime, ContainerState, ExecOptions, ImageService, Mount, MountPropagation, PullRequest,
        RuntimeEvent, SandboxState,
    },
};
use orchestrator_runtime_docker::EngineError;
use rustix::process::Signal;

use crate::{
    faults::engine_error,
    service::Service,
    support::{SHELL, builder, sandbox, shell, words},
};

crate::tests!(containers_outlive_the_service);

async fn containers_outlive_the_service() {
    let mut service = Service::start("restarts");
    let runtime = builder(&service.path("agent"), "restarts").socket(service.socket()).build(Env::real()).unwrap();
    runtime.pull_image(&PullRequest { image: SHELL.to_owned(), credentials: Vec::new() }).await.unwrap();
    let pod = runtime.run_sandbox(&sandbox()).await.unwrap();
    let data = service.path("data");
    fs::create_dir_all(&data).unwrap();
    let mut config = shell("main", "until test -e /data/go; do sleep 0.02; done; exit 5");
    config.mounts = vec![Mount {
        host_path: data.clone(),
        container_path: "/data".into(),
        read_only: true,
        propagation: MountPropagation::Private,
    }];
    let id = runtime.create_container(&pod.id, &config).await.unwrap();
    runtime.start_container(&id).await.unwrap();
    let before = runtime.inspect_container(&id).await.unwrap();
    assert!(before.state.is_running());
    let mut events = runtime.events();
    for signal in [Signal::TERM, Signal::KILL] {
        service.end(signal);
        let error = runtime.list_containers().await.unwrap_err();
        assert!(matches!(engine_error(&error), EngineError::Unreachable { .. }), "{error:?}");
        assert!(runtime.status().await.unwrap().ready.is_err());
        service.run();
        while events.next().await.unwrap() != RuntimeEvent::Lagged {}
        assert_eq!(runtime.inspect_container(&id).await.unwrap(), before);
        assert_eq!(runtime.inspect_sandbox(&pod.id).await.unwrap().state, SandboxState::Ready);
        let command = ExecOptions { command: words(&["true"]), ..ExecOptions::default() };
        assert_eq!(runtime.exec(&id, command).await.unwrap().exit.await.unwrap(), 0);
    }
    // What ends while nobody serves is seen afterwards.
    service.end(Signal::KILL);
    fs::write(data.join("go"), "").unwrap();
    Env::real().sleep(Duration::from_millis(500)).await;
    service.run();
    let state = runtime.inspect_container(&id).await.unwrap().state;
    assert!(matches!(state, ContainerState::Exited { exit_code: 5, .. }), "{state:?}");
    runtime.remove_sandbox(&pod.id).await.unwrap();
    assert!(runtime.list_containers().await.unwrap().is_empty());
    runtime.remove_leftovers().await.unwrap();
}
