//! A container's log, computed from its script and the time: nothing runs while nobody reads.

use std::sync::Arc;

use bytes::Bytes;
use futures::{
    StreamExt,
    future::{Either, select},
    stream::{self, BoxStream},
};
use jiff::{SignedDuration, Timestamp};
use orchestrator_core::runtime::{ContainerId, LogLine, LogOptions, LogStream, RuntimeError};

use crate::{machine::Machine, script::Script};

/// The line of this number, if the script has one.
fn line(script: &Script, started_at: Timestamp, number: usize) -> Option<LogLine> {
    let (offset, text) = match script.log.get(number) {
        Some((offset, text)) => (*offset, text),
        None => {
            let (period, text) = script.log_every.as_ref()?;
            let repeat = u32::try_from(number - script.log.len() + 1).ok()?;
            (period.checked_mul(repeat)?, text)
        }
    };
    let timestamp = started_at.checked_add(SignedDuration::try_from(offset).ok()?).ok()?;
    Some(LogLine {
        timestamp,
        stream: LogStream::Stdout,
        content: Bytes::copy_from_slice(text.as_bytes()),
        partial: false,
    })
}

/// The lines written up to this time, oldest first.
fn written(script: &Script, started_at: Timestamp, until: Timestamp) -> impl Iterator<Item = LogLine> {
    (0..).map_while(move |number| line(script, started_at, number)).take_while(move |line| line.timestamp <= until)
}

/// The log as asked for.
pub(crate) fn read(
    machine: &Arc<Machine>,
    id: &ContainerId,
    options: &LogOptions,
) -> Result<BoxStream<'static, Result<LogLine, RuntimeError>>, RuntimeError> {
    let now = machine.env.now();
    let state = machine.lock();
    let container = state.containers.get(id).ok_or_else(|| RuntimeError::no_container(id))?;
    let Some(started_at) = container.started_at() else { return Ok(stream::empty().boxed()) };
    let until = container.finished_at().unwrap_or(now);
    let mut lines: Vec<LogLine> = written(&container.script, started_at, until).collect();
    let next = lines.len();
    lines.retain(|line| options.since.is_none_or(|since| line.timestamp >= since));
    if let Some(tail) = options.tail_lines {
        lines.drain(..lines.len().saturating_sub(tail));
    }
    let present = stream::iter(lines.into_iter().map(Ok));
    if !options.follow || container.finished_at().is_some() {
        return Ok(present.boxed());
    }
    let follower = Follower { machine: machine.clone(), id: id.clone(), next, started_at };
    let future = stream::unfold(follower, |mut follower| async move {
        let line = follower.next().await?;
        Some((Ok(line), follower))
    });
    Ok(present.chain(future).boxed())
}

struct Follower {
    machine: Arc<Machine>,
    id: ContainerId,
    next: usize,
    started_at: Timestamp,
}

impl Follower {
    /// Waits for the next line; `None` once the container has ended.
    async fn next(&mut self) -> Option<LogLine> {
        let (line, finished_at, ended) = {
            let state = self.machine.lock();
            let container = state.containers.get(&self.id)?;
            let line = line(&container.script, self.started_at, self.next);
            (line, container.finished_at(), container.ended.watcher())
        };
        let now = self.machine.env.now();
        let due = |line: &LogLine, until: Timestamp| line.timestamp <= until;
        if let Some(line) = line.filter(|line| due(line, finished_at.unwrap_or(Timestamp::MAX))) {
            let wait = line.timestamp.duration_since(now).try_into().unwrap_or_default();
            let ending = std::pin::pin!(ended.wait_for(|ended| *ended));
            if finished_at.is_none()
                && let Either::Right(_) = select(self.machine.env.sleep(wait), ending).await
            {
                let finished = self.machine.lock().containers.get(&self.id)?.finished_at()?;
                if !due(&line, finished) {
                    return None;
                }
            }
            self.next += 1;
            return Some(line);
        }
        if finished_at.is_none() {
            let _ = ended.wait_for(|ended| *ended).await;
        }
        None
    }
}
