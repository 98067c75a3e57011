//! What containers say, and how it is read.

use futures::StreamExt;
use orchestrator_core::runtime::{ContainerId, ContainerRuntime, LogOptions, LogStream};

use crate::support::{Place, shell, text};

crate::tests!(streams_and_long_lines, following, last_lines_and_times, much_output_is_set_aside);

/// Waits until a container has said this.
pub(crate) async fn wait_for(place: &Place, id: &ContainerId, line: &str) {
    let options = LogOptions { follow: true, ..LogOptions::default() };
    let mut lines = place.runtime.logs(id, options).await.unwrap();
    while let Some(next) = lines.next().await {
        if next.unwrap().content == line.as_bytes() {
            return;
        }
    }
    panic!("the container ended without saying {line}");
}

async fn streams_and_long_lines() {
    let place = Place::new();
    let pod = place.pod().await;
    let line = "head -c 40000 /dev/zero | tr '\\0' x; echo; echo to-stderr >&2; echo; printf unfinished";
    let id = place.run(&pod, shell("main", line)).await;
    place.ended(&id).await;
    let log = place.log(&id).await;
    let of = |stream| log.iter().filter(move |line| line.stream == stream).collect::<Vec<_>>();
    let out = of(LogStream::Stdout);
    let shapes: Vec<_> = out.iter().map(|line| (line.content.len(), line.partial)).collect();
    assert_eq!(shapes, [(16384, true), (16384, true), (7232, false), (0, false), (10, false)]);
    assert_eq!(of(LogStream::Stderr)[0].content, "to-stderr");
    assert!(log.windows(2).all(|pair| pair[0].timestamp <= pair[1].timestamp));
    place.clean().await;
}

async fn following() {
    let mut place = Place::new();
    let pod = place.pod().await;
    let id = place.run(&pod, shell("main", "echo one; until test -e /tmp/go; do sleep 0.02; done; echo two")).await;
    let mut lines = place.runtime.logs(&id, LogOptions { follow: true, ..LogOptions::default() }).await.unwrap();
    assert_eq!(lines.next().await.unwrap().unwrap().content, "one");
    // Goes on although the agent has changed: it reads files.
    place.again();
    place.exec(&id, &["touch", "/tmp/go"]).await;
    assert_eq!(lines.next().await.unwrap().unwrap().content, "two");
    assert!(lines.next().await.is_none());
    place.clean().await;
}

async fn last_lines_and_times() {
    let place = Place::new();
    let pod = place.pod().await;
    let id = place.run(&pod, shell("main", "seq 1 100")).await;
    place.ended(&id).await;
    let read = |options| async {
        text(&place.runtime.logs(&id, options).await.unwrap().map(Result::unwrap).collect::<Vec<_>>().await)
    };
    assert_eq!(read(LogOptions { tail_lines: Some(2), ..LogOptions::default() }).await, "99\n100\n");
    assert_eq!(read(LogOptions { tail_lines: Some(0), follow: true, ..LogOptions::default() }).await, "");
    assert_eq!(read(LogOptions::default()).await.lines().count(), 100);
    let since = place.log(&id).await[99].timestamp;
    assert!(read(LogOptions { since: Some(since), ..LogOptions::default() }).await.ends_with("100\n"));
    let later = since + std::time::Duration::from_secs(1);
    assert_eq!(read(LogOptions { since: Some(later), ..LogOptions::default() }).await, "");
    place.clean().await;
}

async fn much_output_is_set_aside() {
    let place = Place::new();
    let pod = place.pod().await;
    let id = place.run(&pod, shell("main", "seq 1 500000")).await;
    let mut lines = place.runtime.logs(&id, LogOptions { follow: true, ..LogOptions::default() }).await.unwrap();
    // Whoever reads along misses nothing, unless it is more than one part behind.
    let mut last = 0;
    while let Some(line) = lines.next().await {
        last = String::from_utf8_lossy(&line.unwrap().content).parse::<u32>().unwrap();
    }
    assert_eq!(last, 500_000);
    let log = place.log(&id).await;
    let numbers: Vec<u32> = log.iter().map(|line| String::from_utf8_lossy(&line.content).parse().unwrap()).collect();
    assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]));
    assert!(numbers.len() < 500_000 && numbers.len() > 200_000, "{}", numbers.len());
    place.clean().await;
}
