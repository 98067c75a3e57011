//! The engine slow, gone, back again, and gone in the middle of a word.

use std::{error::Error, fs, time::Duration};

use futures::StreamExt;
use orchestrator_core::{
    env::Env,
    runtime::{ContainerRuntime, ExecOptions, ImageService, LogOptions, RuntimeError, RuntimeEvent, SandboxState},
};
use orchestrator_runtime_docker::{DockerRuntime, EngineError};
use tokio::io::AsyncReadExt;

use crate::{
    proxy::{Mode, Proxy},
    support::{Place, SHELL, container, sandbox, shell, words},
};

crate::tests!(
    an_engine_that_is_gone_is_told_and_comes_back,
    a_slow_engine_is_told_within_a_bound,
    answers_that_break_off_lose_nothing,
    events_tell_of_what_may_have_been_missed,
    logs_are_taken_up_where_they_broke,
    commands_end_although_their_stream_broke,
    stopping_survives_an_engine_that_restarts,
);

/// How long a call may take in these tests.
const CALL_TIME: Duration = Duration::from_millis(1500);

/// A place whose runtime reaches the engine through a proxy.
async fn proxied(call_time: Duration) -> (Place, Proxy, DockerRuntime) {
    let place = Place::new().await;
    place.pull(SHELL).await;
    let proxy = Proxy::new(&place.directory.join("engine.sock"));
    let runtime = place.builder().socket(&proxy.path).call_timeout(call_time).build(Env::real()).unwrap();
    (place, proxy, runtime)
}

async fn finish(place: Place, proxy: Proxy, runtime: DockerRuntime) {
    drop(runtime);
    drop(proxy);
    place.clean().await;
}

/// What the engine's error is, below the runtime's.
pub(crate) fn engine_error(error: &RuntimeError) -> &EngineError {
    let source = error.source().unwrap_or_else(|| panic!("{error:?} has no source"));
    source.downcast_ref().unwrap_or_else(|| panic!("{error:?} is not of the engine"))
}

async fn an_engine_that_is_gone_is_told_and_comes_back() {
    let (place, mut proxy, runtime) = proxied(Duration::from_secs(30)).await;
    let config = sandbox();
    let pod = runtime.run_sandbox(&config).await.unwrap();
    let id = runtime.create_container(&pod.id, &container("main", &["sleep", "1000"])).await.unwrap();
    runtime.start_container(&id).await.unwrap();
    for refusing in [false, true] {
        if refusing {
            proxy.back();
            proxy.set(Mode::Refuse);
            proxy.cut_all();
        } else {
            proxy.gone();
        }
        let begun = std::time::Instant::now();
        let errors = [
            runtime.run_sandbox(&config).await.err(),
            runtime.list_sandboxes().await.err(),
            runtime.inspect_container(&id).await.err(),
            runtime.start_container(&id).await.err(),
            runtime.stop_container(&id, Duration::from_secs(1)).await.err(),
            runtime.remove_container(&id).await.err(),
            runtime.stop_sandbox(&pod.id).await.err(),
            runtime.remove_sandbox(&pod.id).await.err(),
            runtime.stats(&id).await.err(),
            runtime.image_status(SHELL).await.err(),
            runtime.list_images().await.err(),
            runtime.exec(&id, ExecOptions { command: words(&["true"]), ..ExecOptions::default() }).await.err(),
            runtime.logs(&id, LogOptions::default()).await.err(),
        ];
        for (number, error) in errors.into_iter().enumerate() {
            let error = error.unwrap_or_else(|| panic!("call {number} succeeded without an engine"));
            match engine_error(&error) {
                EngineError::Unreachable { .. } if !refusing => {}
                EngineError::Broken(_) | EngineError::Unreachable { .. } if refusing => {}
                other => panic!("call {number}: {other:?}"),
            }
        }
        let status = runtime.status().await.unwrap();
        assert!(status.ready.is_err(), "{status:?}");
        assert!(begun.elapsed() < Duration::from_secs(5), "told at once, not after {:?}", begun.elapsed());
        proxy.set(Mode::Pass);
        if !refusing {
            proxy.back();
        }
        // The same runtime goes on, and nothing was lost.
        assert!(runtime.status().await.unwrap().ready.is_ok());
        assert_eq!(runtime.run_sandbox(&config).await.unwrap(), pod);
        assert!(runtime.inspect_container(&id).await.unwrap().state.is_running());
    }
    finish(place, proxy, runtime).await;
}

async fn a_slow_engine_is_told_within_a_bound() {
    let (place, proxy, runtime) = proxied(CALL_TIME).await;
    let pod = place.runtime.run_sandbox(&sandbox()).await.unwrap();
    for mode in [Mode::Silent, Mode::Delay(CALL_TIME * 2)] {
        proxy.set(mode);
        let begun = std::time::Instant::now();
        let error = runtime.list_sandboxes().await.unwrap_err();
        assert!(matches!(engine_error(&error), EngineError::Slow(time) if *time == CALL_TIME), "{error:?}");
        let took = begun.elapsed();
        assert!(CALL_TIME <= took && took < CALL_TIME * 2, "{took:?}");
    }
    // What the engine did although nobody heard of it is found by the same call, made again: by another agent as well.
    let config = container("main", &["sleep", "1000"]);
    let error = runtime.create_container(&pod.id, &config).await.unwrap_err();
    assert!(matches!(engine_error(&error), EngineError::Slow(_)), "{error:?}");
    let id = place.runtime.create_container(&pod.id, &config).await.unwrap();
    let error = runtime.start_container(&id).await.unwrap_err();
    assert!(matches!(engine_error(&error), EngineError::Slow(_)), "{error:?}");
    place.runtime.start_container(&id).await.unwrap();
    proxy.set(Mode::Pass);
    assert_eq!(place.runtime.list_containers().await.unwrap().len(), 1);
    finish(place, proxy, runtime).await;
}

/// Every answer breaks off, at one place after another, until a call comes through; each verb is repeated like that.
async fn answers_that_break_off_lose_nothing() {
    let (place, proxy, runtime) = proxied(Duration::from_secs(30)).await;
    // Negotiated, so that the calls themselves are cut.
    assert!(runtime.status().await.unwrap().ready.is_ok());
    let sandbox_config = sandbox();
    let config = shell("main", "echo once; sleep 1000");
    // After the head of an answer, within its body, and whole.
    for bytes in [0, 60, 220] {
        proxy.set(Mode::Cut(bytes));
        for _ in 0..3 {
            let error = runtime.run_sandbox(&sandbox_config).await.unwrap_err();
            assert!(matches!(engine_error(&error), EngineError::Broken(_) | EngineError::Unreadable(_)), "{error:?}");
        }
    }
    proxy.set(Mode::Pass);
    let pod = runtime.run_sandbox(&sandbox_config).await.unwrap();
    assert_eq!(pod.state, SandboxState::Ready);
    // The engine starts it, and its answer is lost.
    let id = runtime.create_container(&pod.id, &config).await.unwrap();
    proxy.set(Mode::Cut(0));
    assert!(runtime.start_container(&id).await.is_err());
    proxy.set(Mode::Pass);
    runtime.start_container(&id).await.unwrap();
    place.said(&id, "once").await;
    assert_eq!(place.log(&id).await.len(), 1, "it was started once");
    proxy.set(Mode::Cut(0));
    assert!(runtime.stop_container(&id, Duration::ZERO).await.is_err());
    assert!(runtime.remove_sandbox(&pod.id).await.is_err());
    proxy.set(Mode::Pass);
    runtime.remove_sandbox(&pod.id).await.unwrap();
    assert!(runtime.list_sandboxes().await.unwrap().is_empty());
    finish(place, proxy, runtime).await;
}

async fn events_tell_of_what_may_have_been_missed() {
    let (place, mut proxy, runtime) = proxied(Duration::from_secs(30)).await;
    let mut events = runtime.events();
    let pod = runtime.run_sandbox(&sandbox()).await.unwrap();
    let first = events.next().await.unwrap();
    assert_eq!(first, RuntimeEvent::Sandbox { id: pod.id.clone(), pod_uid: pod.key.pod_uid.clone() });
    proxy.gone();
    // Unseen by the runtime, the container comes and goes.
    let id = place.run(&pod, shell("main", "exit 3")).await;
    place.ended(&id).await;
    proxy.back();
    while events.next().await.unwrap() != RuntimeEvent::Lagged {}
    assert_eq!(runtime.inspect_container(&id).await.unwrap().state.exit_code(), Some(3));
    // And it goes on telling.
    runtime.remove_container(&id).await.unwrap();
    while !matches!(events.next().await.unwrap(), RuntimeEvent::Container { id: told, .. } if told == id) {}
    drop(events);
    finish(place, proxy, runtime).await;
}

async fn logs_are_taken_up_where_they_broke() {
    let (place, mut proxy, runtime) = proxied(Duration::from_secs(30)).await;
    let pod = runtime.run_sandbox(&sandbox()).await.unwrap();
    let line = "for i in $(seq 1 200); do echo $i; test $((i % 7)) = 0 && echo $i >&2; sleep 0.01; done; echo end";
    let id = place.run(&pod, shell("main", line)).await;
    let mut log = runtime.logs(&id, LogOptions { follow: true, ..LogOptions::default() }).await.unwrap();
    let (mut out, mut told) = (Vec::new(), 0);
    while let Some(line) = log.next().await {
        let line = line.unwrap();
        if line.stream == orchestrator_core::runtime::LogStream::Stdout {
            out.push(String::from_utf8_lossy(&line.content).into_owned());
        }
        told += 1;
        match told {
            20 | 60 => proxy.cut_all(),
            40 => {
                proxy.gone();
                proxy.back();
            }
            _ => {}
        }
    }
    let expected: Vec<String> = (1..=200).map(|number| number.to_string()).chain(["end".to_owned()]).collect();
    assert_eq!(out, expected);
    assert_eq!(told, 201 + 200 / 7);
    drop(log);
    finish(place, proxy, runtime).await;
}

async fn commands_end_although_their_stream_broke() {
    let (place, proxy, runtime) = proxied(Duration::from_secs(30)).await;
    let pod = runtime.run_sandbox(&sandbox()).await.unwrap();
    let id = place.run(&pod, container("main", &["sleep", "1000"])).await;
    let command = words(&["sh", "-c", "echo begun; until test -e /tmp/go; do sleep 0.02; done; exit 6"]);
    let options = ExecOptions { command, stdout: true, ..ExecOptions::default() };
    let mut session = runtime.exec(&id, options).await.unwrap();
    let mut begun = [0; 6];
    session.stdout.as_mut().unwrap().read_exact(&mut begun).await.unwrap();
    proxy.cut_all();
    // The output is over for this side; the command is not, and its code is still to be had.
    assert_eq!(session.stdout.as_mut().unwrap().read_to_string(&mut String::new()).await.unwrap(), 0);
    place.exec(&id, &["touch", "/tmp/go"]).await;
    assert_eq!(session.exit.await.unwrap(), 6);
    finish(place, proxy, runtime).await;
}

async fn stopping_survives_an_engine_that_restarts() {
    let (place, mut proxy, runtime) = proxied(Duration::from_secs(30)).await;
    let pod = runtime.run_sandbox(&sandbox()).await.unwrap();
    let line =
        "trap 'until test -e /tmp/go; do sleep 0.02; done; exit 4' TERM; echo ready; while :; do sleep 0.02; done";
    let id = place.run(&pod, shell("main", line)).await;
    place.said(&id, "ready").await;
    let before = proxy.accepted();
    let stop = runtime.stop_container(&id, Duration::from_secs(60));
    let meanwhile = async {
        // It has looked, sent its signal and looked again.
        while proxy.accepted() < before + 4 {
            Env::real().sleep(Duration::from_millis(1)).await;
        }
        // Its events are gone, and come back without it being any the wiser.
        proxy.cut_all();
        place.exec(&id, &["touch", "/tmp/go"]).await;
    };
    let (stopped, ()) = futures::join!(stop, meanwhile);
    if let Err(error) = stopped {
        // A look of its own was cut: it is told, and the call can be made again.
        assert!(matches!(engine_error(&error), EngineError::Broken(_)), "{error:?}");
        runtime.stop_container(&id, Duration::from_secs(60)).await.unwrap();
    }
    assert_eq!(runtime.inspect_container(&id).await.unwrap().state.exit_code(), Some(4));
    proxy.gone();
    fs::write(&proxy.path, "not a socket").unwrap();
    let error = runtime.stop_container(&id, Duration::ZERO).await.unwrap_err();
    assert!(matches!(engine_error(&error), EngineError::Unreachable { .. }), "{error:?}");
    finish(place, proxy, runtime).await;
}
