//! What containers say, and how it is read.

use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use orchestrator_core::{
    env::Env,
    runtime::{LogOptions, LogStream},
};

use super::{Lack, Program, Workbench, stage::Stage};
use crate::harness::Outcome;

fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("line {number}")).collect()
}

/// Lines come back in order, with their times and their stream.
pub async fn logs_keep_lines_in_order(workbench: &dyn Workbench, env: &Env) -> Outcome {
    let mut stage = Stage::new(workbench, env);
    let pod = stage.pod("a").await;
    let lines = numbered(20);
    let coarse = workbench.lacks().contains(&Lack::LogTimes);
    let begun = env.now();
    let id = stage.create(&pod, "main", &Program::Print { lines: lines.clone(), pause: Duration::ZERO }).await;
    assert_eq!(stage.log(&id, LogOptions::default()).await, [""; 0], "who has not begun has said nothing");
    stage.runtime.start_container(&id).await.unwrap();
    stage.ended(&id).await;
    let ended = env.now();
    for _ in 0..2 {
        assert_eq!(stage.log(&id, LogOptions::default()).await, lines);
        let log = stage.lines(&id, LogOptions::default()).await;
        assert!(log.iter().all(|line| line.stream == LogStream::Stdout && !line.partial), "{log:?}");
        assert!(log.windows(2).all(|pair| pair[0].timestamp <= pair[1].timestamp), "{log:?}");
        let is_after = |time: Timestamp| if coarse { begun.as_second() <= time.as_second() } else { begun <= time };
        assert!(log.iter().all(|line| is_after(line.timestamp) && line.timestamp <= ended), "{log:?}");
        stage.again();
    }
    Outcome::Held
}

/// The last lines, and the lines from a time on.
pub async fn logs_are_cut_as_asked(workbench: &dyn Workbench, env: &Env) -> Outcome {
    let stage = Stage::new(workbench, env);
    let pod = stage.pod("a").await;
    let lines = numbered(4);
    let pause = workbench.moment() / 4;
    let id = stage.start(&pod, "main", &Program::Print { lines: lines.clone(), pause }).await;
    stage.ended(&id).await;
    let tail = |count| LogOptions { tail_lines: Some(count), ..LogOptions::default() };
    assert_eq!(stage.log(&id, tail(2)).await, lines[2..]);
    assert_eq!(stage.log(&id, tail(0)).await, [""; 0]);
    assert_eq!(stage.log(&id, tail(100)).await, lines);
    if workbench.lacks().contains(&Lack::LogTimes) {
        return Outcome::Skipped("times of log lines to less than a second");
    }
    let times = stage.lines(&id, LogOptions::default()).await;
    for (number, line) in times.iter().enumerate() {
        let options = LogOptions { since: Some(line.timestamp), ..LogOptions::default() };
        assert_eq!(stage.log(&id, options).await, lines[number..], "since {}", line.timestamp);
    }
    let options = LogOptions { since: Some(times[1].timestamp), ..tail(1) };
    assert_eq!(stage.log(&id, options).await, lines[3..]);
    let later = times[3].timestamp + Duration::from_nanos(1);
    assert_eq!(stage.log(&id, LogOptions { since: Some(later), ..LogOptions::default() }).await, [""; 0]);
    Outcome::Held
}

/// Who follows a log gets each line when it is written, and the end when the container has ended.
pub async fn logs_are_followed_to_the_end(workbench: &dyn Workbench, env: &Env) -> Outcome {
    let stage = Stage::new(workbench, env);
    let pod = stage.pod("a").await;
    let lines = numbered(3);
    let id = stage.start(&pod, "main", &Program::Print { lines: lines.clone(), pause: workbench.moment() }).await;
    let follow = LogOptions { follow: true, ..LogOptions::default() };
    let mut log = stage.runtime.logs(&id, follow.clone()).await.unwrap();
    for line in &lines {
        let next = stage.in_time(log.next()).await.expect("the container runs").expect("a line");
        assert_eq!(next.content, line.as_bytes());
        assert!(stage.state(&id).await.is_running(), "the line came when it was written, not at the end");
    }
    assert!(stage.in_time(log.next()).await.is_none());
    stage.ended(&id).await;
    assert_eq!(stage.log(&id, follow.clone()).await, lines, "a log that is over ends at once");
    assert_eq!(stage.log(&id, LogOptions { tail_lines: Some(1), ..follow }).await, lines[2..]);
    Outcome::Held
}
