//! The verbs, one after the other and again: creating, starting, ending, stopping, removing.

use std::time::Duration;

use futures::StreamExt;
use orchestrator_core::runtime::{
    AppArmorProfile, ContainerRuntime, ContainerState, ImageService, PullRequest, Resources, RuntimeError,
    RuntimeEvent, SandboxState, SeccompProfile,
};

use crate::support::{Place, container, sandbox, shell};

crate::tests!(
    a_whole_life,
    every_call_can_be_repeated,
    exit_codes_and_signals,
    out_of_memory,
    stopping_takes_its_time,
    stop_signal_of_ones_own,
    a_program_that_is_not_there,
    what_is_not_done_is_refused,
    images,
    events_tell_of_changes,
    commands_and_environment,
);

async fn a_whole_life() {
    let place = Place::new();
    let pod = place.pod().await;
    assert_eq!(pod.state, SandboxState::Ready);
    assert_eq!(pod.addresses.len(), 1);
    let id =
        place.runtime.create_container(&pod.id, &shell("main", "echo hello; echo problem >&2; exit 3")).await.unwrap();
    assert_eq!(place.runtime.inspect_container(&id).await.unwrap().state, ContainerState::Created);
    place.runtime.start_container(&id).await.unwrap();
    let state = place.ended(&id).await;
    let ContainerState::Exited { started_at: Some(started_at), finished_at, exit_code, reason, .. } = state else {
        panic!("{state:?}")
    };
    assert_eq!((exit_code, reason.as_str()), (3, "Error"));
    assert!(started_at <= finished_at);
    let log = place.log(&id).await;
    assert_eq!(log.len(), 2);
    place.runtime.remove_container(&id).await.unwrap();
    assert!(place.runtime.list_containers().await.unwrap().is_empty());
    place.runtime.stop_sandbox(&pod.id).await.unwrap();
    assert_eq!(place.runtime.list_sandboxes().await.unwrap()[0].state, SandboxState::NotReady);
    place.runtime.remove_sandbox(&pod.id).await.unwrap();
    place.clean().await;
}

async fn every_call_can_be_repeated() {
    let mut place = Place::new();
    let config = sandbox();
    let one = place.runtime.run_sandbox(&config).await.unwrap();
    assert_eq!(one, place.runtime.run_sandbox(&config).await.unwrap());
    // Two at once are one.
    let other = sandbox();
    let (left, right) = futures::join!(place.runtime.run_sandbox(&other), place.runtime.run_sandbox(&other));
    assert_eq!(left.unwrap(), right.unwrap());

    let main = container("main", &["sleep", "1000"]);
    let id = place.runtime.create_container(&one.id, &main).await.unwrap();
    assert_eq!(id, place.runtime.create_container(&one.id, &main).await.unwrap());
    let (left, right) = futures::join!(place.runtime.start_container(&id), place.runtime.start_container(&id));
    left.unwrap();
    right.unwrap();
    place.again();
    assert_eq!(one, place.runtime.run_sandbox(&config).await.unwrap());
    assert_eq!(id, place.runtime.create_container(&one.id, &main).await.unwrap());
    place.runtime.start_container(&id).await.unwrap();
    let (left, right) = futures::join!(
        place.runtime.stop_container(&id, Duration::from_millis(10)),
        place.runtime.stop_container(&id, Duration::from_secs(100)),
    );
    left.unwrap();
    right.unwrap();
    place.runtime.stop_container(&id, Duration::ZERO).await.unwrap();
    place.runtime.start_container(&id).await.unwrap();
    assert_eq!(place.runtime.inspect_container(&id).await.unwrap().state.exit_code(), Some(137));
    for _ in 0..2 {
        place.runtime.remove_container(&id).await.unwrap();
        place.runtime.stop_sandbox(&one.id).await.unwrap();
    }
    assert!(matches!(place.runtime.stop_container(&id, Duration::ZERO).await, Err(RuntimeError::NotFound { .. })));
    assert!(matches!(place.runtime.run_sandbox(&config).await, Err(RuntimeError::WrongState(_))));
    assert!(matches!(place.runtime.create_container(&one.id, &main).await, Err(RuntimeError::WrongState(_))));
    for _ in 0..2 {
        place.runtime.remove_sandbox(&one.id).await.unwrap();
        place.runtime.stop_sandbox(&one.id).await.unwrap();
    }
    assert!(matches!(place.runtime.create_container(&one.id, &main).await, Err(RuntimeError::NotFound { .. })));
    place.clean().await;
}

async fn exit_codes_and_signals() {
    let place = Place::new();
    let pod = place.pod().await;
    let well = place.run(&pod, shell("well", "true")).await;
    let ContainerState::Exited { exit_code: 0, signal: None, reason, .. } = place.ended(&well).await else { panic!() };
    assert_eq!(reason, "Completed");
    // A first process ignores signals that it does not handle, so a second one is needed to die of one.
    let line = "(sh -c 'kill -TERM $$'; echo $?) 2>/dev/null; exit 7";
    let code = place.output(&pod, shell("seven", line)).await;
    assert_eq!(code, (7, "143\n".to_owned()));
    let killed = place.run(&pod, container("killed", &["sleep", "1000"])).await;
    place.runtime.stop_container(&killed, Duration::ZERO).await.unwrap();
    let ContainerState::Exited { exit_code: 137, signal: Some(9), .. } =
        place.runtime.inspect_container(&killed).await.unwrap().state
    else {
        panic!()
    };
    place.clean().await;
}

async fn out_of_memory() {
    let place = Place::new();
    let pod = place.pod().await;
    let mut config = container("eater", &["/usr/bin/python3", "-c", "x = bytearray(200_000_000); print(len(x))"]);
    config.resources = Resources { memory_limit_bytes: Some(32 << 20), ..Resources::default() };
    let id = place.run(&pod, config).await;
    let ContainerState::Exited { exit_code, reason, .. } = place.ended(&id).await else { panic!() };
    assert_eq!((exit_code, reason.as_str()), (137, "OOMKilled"));
    place.clean().await;
}

async fn stopping_takes_its_time() {
    let place = Place::new();
    let pod = place.pod().await;
    let line = "trap 'echo bye; exit 5' TERM; echo ready; while true; do sleep 0.05; done";
    let polite = place.run(&pod, shell("polite", line)).await;
    crate::logs::wait_for(&place, &polite, "ready").await;
    place.runtime.stop_container(&polite, Duration::from_secs(60)).await.unwrap();
    assert_eq!(place.runtime.inspect_container(&polite).await.unwrap().state.exit_code(), Some(5));
    assert!(crate::support::text(&place.log(&polite).await).ends_with("bye\n"));

    let deaf = place.run(&pod, shell("deaf", "trap '' TERM; echo ready; while true; do sleep 0.05; done")).await;
    crate::logs::wait_for(&place, &deaf, "ready").await;
    let before = std::time::Instant::now();
    place.runtime.stop_container(&deaf, Duration::from_millis(300)).await.unwrap();
    assert!(before.elapsed() >= Duration::from_millis(300));
    assert_eq!(place.runtime.inspect_container(&deaf).await.unwrap().state.exit_code(), Some(137));
    place.clean().await;
}

async fn stop_signal_of_ones_own() {
    let place = Place::new();
    let pod = place.pod().await;
    let mut config = shell("main", "trap 'exit 9' USR1; echo ready; while true; do sleep 0.05; done");
    config.stop_signal = Some("SIGUSR1".to_owned());
    let id = place.run(&pod, config).await;
    crate::logs::wait_for(&place, &id, "ready").await;
    place.runtime.stop_container(&id, Duration::from_secs(60)).await.unwrap();
    assert_eq!(place.runtime.inspect_container(&id).await.unwrap().state.exit_code(), Some(9));
    place.clean().await;
}

async fn a_program_that_is_not_there() {
    let place = Place::new();
    let pod = place.pod().await;
    for (name, program, says) in [
        ("name", "no-such-program", "exec: \"no-such-program\": executable file not found in $PATH"),
        ("path", "/no/such/program", "stat /no/such/program: no such file or directory"),
        ("directory", "/etc", "is a directory"),
        ("mode", "/etc/passwd", "permission denied"),
    ] {
        let id = place.runtime.create_container(&pod.id, &container(name, &[program])).await.unwrap();
        let Err(RuntimeError::StartFailed(message)) = place.runtime.start_container(&id).await else {
            panic!("{name}")
        };
        assert!(message.contains(says), "{message}");
        let state = place.runtime.inspect_container(&id).await.unwrap().state;
        let ContainerState::Exited { started_at: None, exit_code: 128, reason, message, .. } = state else {
            panic!("{state:?}")
        };
        assert_eq!(reason, "StartError");
        assert!(message.contains(says), "{message}");
    }
    // Found out only by the kernel: a file without a format.
    let mut config = container("format", &["/data/file"]);
    let file = place.directory.join("file");
    std::fs::write(&file, "not a program").unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    config.mounts.push(crate::isolation::mount(&file, "/data/file", true));
    let id = place.runtime.create_container(&pod.id, &config).await.unwrap();
    let Err(RuntimeError::StartFailed(message)) = place.runtime.start_container(&id).await else { panic!() };
    assert!(message.contains("exec format error"), "{message}");
    std::fs::remove_file(&file).unwrap();
    place.clean().await;
}

async fn what_is_not_done_is_refused() {
    let place = Place::new();
    let pod = place.pod().await;
    let base = container("main", &["true"]);
    let mut seccomp = base.clone();
    seccomp.security.seccomp_profile = SeccompProfile::Localhost("team/profile.json".into());
    let mut apparmor = base.clone();
    apparmor.security.apparmor_profile = Some(AppArmorProfile::RuntimeDefault);
    for config in [seccomp, apparmor] {
        let result = place.runtime.create_container(&pod.id, &config).await;
        assert!(matches!(result, Err(RuntimeError::Unsupported(_))), "{result:?}");
    }
    let mut kernel = sandbox();
    kernel.sysctls.insert("kernel.panic".to_owned(), "1".to_owned());
    assert!(matches!(place.runtime.run_sandbox(&kernel).await, Err(RuntimeError::Unsupported(_))));
    place.clean().await;
}

async fn images() {
    let place = Place::new();
    let pull = |image: &str| PullRequest { image: image.to_owned(), credentials: Vec::new() };
    let image = place.runtime.pull_image(&pull("docker.io/library/busybox:1.36")).await.unwrap();
    assert_eq!(image.name, "docker.io/library/busybox:1.36");
    let Err(RuntimeError::ImagePull(message)) = place.runtime.pull_image(&pull("nothing:1")).await else { panic!() };
    assert!(message.contains("not found"));
    let pod = place.pod().await;
    let mut config = container("main", &[]);
    config.image = "nothing:1".to_owned();
    assert!(matches!(
        place.runtime.create_container(&pod.id, &config).await,
        Err(RuntimeError::NotFound { kind: "image", .. })
    ));
    place.clean().await;
}

async fn events_tell_of_changes() {
    let place = Place::new();
    let mut events = place.runtime.events();
    let config = sandbox();
    let pod = place.runtime.run_sandbox(&config).await.unwrap();
    let event = events.next().await.unwrap();
    assert_eq!(event, RuntimeEvent::Sandbox { id: pod.id.clone(), pod_uid: config.key.pod_uid.clone() });
    let id = place.run(&pod, shell("main", "exit 0")).await;
    loop {
        let event = events.next().await.unwrap();
        assert_eq!(event, RuntimeEvent::Container { id: id.clone(), pod_uid: config.key.pod_uid.clone() });
        if place.runtime.inspect_container(&id).await.unwrap().state.exit_code() == Some(0) {
            break;
        }
    }
    place.runtime.remove_sandbox(&pod.id).await.unwrap();
    loop {
        let event = events.next().await.unwrap();
        if matches!(event, RuntimeEvent::Sandbox { .. }) && place.runtime.list_sandboxes().await.unwrap().is_empty() {
            break;
        }
    }
    drop(events);
    place.clean().await;
}

async fn commands_and_environment() {
    let place = Place::new();
    let pod = place.pod().await;
    let mut config = container("main", &[]);
    config.image = "tools".to_owned();
    config.args = crate::support::words(&[
        "sh",
        "-c",
        "pwd; echo $FROM_IMAGE $OWN $HOME; /opt/tools/env | grep -c OWN; hostname; id -u; id -g",
    ]);
    config.working_directory = Some("/made/for/this".to_owned());
    config.environment = vec![("OWN".to_owned(), "a b".to_owned()), ("HOME".to_owned(), "/made".to_owned())];
    config.security.run_as_user = Some(1234);
    config.security.run_as_group = Some(4321);
    let (code, output) = place.output(&pod, config).await;
    let hostname = pod.name.replace("pod", "host");
    assert_eq!((code, output), (0, format!("/made/for/this\nyes a b /made\n1\n{hostname}\n1234\n4321\n")));
    place.clean().await;
}
