//! What containers say, and how it is read.

use futures::StreamExt;
use orchestrator_core::{
    env::Env,
    runtime::{ContainerRuntime, LogOptions, LogStream, RuntimeError},
};

use crate::{
    subject::is_podman,
    support::{Place, container, shell, text},
};

crate::tests!(
    streams_and_long_lines,
    long_lines_of_a_terminal,
    following_from_before_the_start,
    following_the_last_lines_only,
    much_output_is_set_aside,
    a_log_ends_with_its_container,
);

async fn streams_and_long_lines() {
    let place = Place::new().await;
    let pod = place.pod().await;
    let line = "head -c 40000 /dev/zero | tr '\\0' x; echo; echo to-stderr >&2; echo; printf unfinished";
    let id = place.run(&pod, shell("main", line)).await;
    place.ended(&id).await;
    let log = place.log(&id).await;
    let of = |stream| log.iter().filter(move |line| line.stream == stream).collect::<Vec<_>>();
    let shapes: Vec<_> = of(LogStream::Stdout).iter().map(|line| (line.content.len(), line.partial)).collect();
    if is_podman() {
        // What was written without a line break is a part, however short.
        let parts = [(8192, true); 4];
        assert_eq!(shapes, [&parts[..], &[(7232, false), (0, false), (10, true)]].concat());
    } else {
        assert_eq!(shapes, [(16384, true), (16384, true), (7232, false), (0, false), (10, false)]);
    }
    assert_eq!(of(LogStream::Stderr)[0].content, "to-stderr");
    place.clean().await;
}

async fn long_lines_of_a_terminal() {
    let place = Place::new().await;
    let pod = place.pod().await;
    let mut config = shell("main", "stty -onlcr; head -c 40000 /dev/zero | tr '\\0' x; echo; echo short");
    config.tty = true;
    let id = place.run(&pod, config).await;
    place.ended(&id).await;
    let log = place.log(&id).await;
    let whole: Vec<u8> =
        log.iter().filter(|line| line.content != "short").flat_map(|line| line.content.to_vec()).collect();
    assert!(whole == [b'x'; 40000], "{} bytes", whole.len());
    assert_eq!(log.last().unwrap().content, "short");
    assert!(log.iter().all(|line| line.partial == (line.content.len() == 16384)));
    place.clean().await;
}

async fn following_from_before_the_start() {
    let mut place = Place::new().await;
    let pod = place.pod().await;
    let config = shell("main", "echo one; until test -e /tmp/go; do sleep 0.02; done; echo two");
    let id = place.runtime.create_container(&pod.id, &config).await.unwrap();
    let mut lines = place.runtime.logs(&id, LogOptions { follow: true, ..LogOptions::default() }).await.unwrap();
    place.runtime.start_container(&id).await.unwrap();
    assert_eq!(lines.next().await.unwrap().unwrap().content, "one");
    // Goes on although the agent's runtime is another one by now.
    place.again();
    place.exec(&id, &["touch", "/tmp/go"]).await;
    assert_eq!(lines.next().await.unwrap().unwrap().content, "two");
    assert!(lines.next().await.is_none());
    place.clean().await;
}

async fn following_the_last_lines_only() {
    let place = Place::new().await;
    let pod = place.pod().await;
    let line = "seq 1 100; echo ready; until test -e /tmp/go; do sleep 0.02; done; echo after";
    for (name, tail, expected) in [("two", 2, "100\nready\nafter\n"), ("none", 0, "after\n")] {
        let id = place.run(&pod, shell(name, line)).await;
        place.said(&id, "ready").await;
        let options = LogOptions { follow: true, tail_lines: Some(tail), ..LogOptions::default() };
        let log = place.runtime.logs(&id, options).await.unwrap();
        let mut log = log.map(Result::unwrap).peekable();
        if tail > 0 {
            std::pin::Pin::new(&mut log).peek().await.unwrap();
        } else {
            // Until the engine was asked for the log, which it is when somebody waits for a line.
            let waited =
                Env::real().timeout(std::time::Duration::from_millis(500), std::pin::Pin::new(&mut log).peek()).await;
            assert!(waited.is_err(), "{waited:?}");
        }
        place.exec(&id, &["touch", "/tmp/go"]).await;
        assert_eq!(text(&log.collect::<Vec<_>>().await), expected, "{name}");
    }
    place.clean().await;
}

async fn much_output_is_set_aside() {
    let place = Place::new().await;
    let pod = place.pod().await;
    let id = place.run(&pod, shell("main", "seq 1 300000")).await;
    place.ended(&id).await;
    let log = place.log(&id).await;
    let numbers: Vec<u32> = text(&log).lines().map(|line| line.parse().unwrap()).collect();
    assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]));
    assert_eq!(numbers.last(), Some(&300_000));
    // Podman sets nothing aside: what came before goes.
    let least = if is_podman() { 1 } else { 100_000 };
    assert!(numbers.len() < 300_000 && numbers.len() > least, "{}", numbers.len());
    place.clean().await;
}

async fn a_log_ends_with_its_container() {
    let place = Place::new().await;
    let pod = place.pod().await;
    let id = place.run(&pod, shell("main", "echo one; sleep 1000")).await;
    let mut lines = place.runtime.logs(&id, LogOptions { follow: true, ..LogOptions::default() }).await.unwrap();
    assert_eq!(lines.next().await.unwrap().unwrap().content, "one");
    place.runtime.remove_container(&id).await.unwrap();
    assert!(lines.next().await.is_none());
    let gone = place.runtime.logs(&id, LogOptions::default()).await.err();
    assert!(matches!(gone, Some(RuntimeError::NotFound { .. })), "{gone:?}");
    // A start that failed has said nothing, and follows nothing.
    let failed = place.runtime.create_container(&pod.id, &container("failed", &["/no/such"])).await.unwrap();
    place.runtime.start_container(&failed).await.unwrap_err();
    let options = LogOptions { follow: true, ..LogOptions::default() };
    assert!(place.runtime.logs(&failed, options).await.unwrap().next().await.is_none());
    place.clean().await;
}
