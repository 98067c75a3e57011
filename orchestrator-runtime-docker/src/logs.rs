//! Reading a container's log from the engine. A stream that breaks off is taken up again where it broke.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bollard::{container::LogOutput, errors::Error as ClientError, query_parameters::LogsOptions};
use futures::stream::{BoxStream, StreamExt, unfold};
use jiff::Timestamp;
use orchestrator_core::runtime::{ContainerId, ContainerState, LogLine, LogOptions, RuntimeError, RuntimeEvent};
use tokio::sync::broadcast;

use crate::{
    limits::{LOG_PART_BYTES, LOG_RECONNECT_TIME, LOOK_PAUSE, RECONNECT_PAUSE_MAX, RECONNECT_PAUSE_MIN},
    log_lines::{Seen, lines},
    runtime::Inner,
};

/// The part of the log that was asked for, oldest line first.
pub(crate) fn stream(
    inner: Arc<Inner>,
    id: ContainerId,
    options: LogOptions,
) -> BoxStream<'static, Result<LogLine, RuntimeError>> {
    let log = Log {
        // Subscribed before the first look: no start and no end comes unseen.
        events: inner.subscribe(),
        last_success: inner.env().monotonic(),
        inner,
        id,
        options,
        reading: None,
        ready: VecDeque::new(),
        seen: Seen::default(),
        floor: None,
        pause: RECONNECT_PAUSE_MIN,
        came_to_its_end: false,
    };
    unfold(Some(log), |log| async move {
        let mut log = log?;
        match log.next().await {
            Ok(Some(line)) => Some((Ok(line), Some(log))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    })
    .boxed()
}

struct Log {
    inner: Arc<Inner>,
    id: ContainerId,
    options: LogOptions,
    events: broadcast::Receiver<RuntimeEvent>,
    reading: Option<Reading>,
    ready: VecDeque<LogLine>,
    seen: Seen,
    /// Where the last lines begin that were asked for: what is older is not to come, however often the log is read.
    floor: Option<Timestamp>,
    /// When the engine last had something to say, by the monotonic clock.
    last_success: Duration,
    pause: Duration,
    /// The engine has told all that it had while the container ran, and hung up.
    came_to_its_end: bool,
}

/// One reading of the engine's log.
struct Reading {
    output: BoxStream<'static, Result<LogOutput, ClientError>>,
    /// What was seen before it.
    before: Seen,
    /// How long a part of a line is at least, which has no line break.
    part_bytes: usize,
    /// Nothing comes after it: the container had ended before, or nobody wants to follow.
    is_last: bool,
}

enum Begin {
    Reading(Reading),
    Wait,
    Over,
}

impl Log {
    async fn next(&mut self) -> Result<Option<LogLine>, RuntimeError> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Ok(Some(line));
            }
            let Some(reading) = &mut self.reading else {
                match self.begin().await {
                    Ok(Begin::Reading(reading)) => self.reading = Some(reading),
                    Ok(Begin::Wait) => self.wait().await,
                    Ok(Begin::Over) => return Ok(None),
                    Err(error) => self.hold_out(error).await?,
                }
                continue;
            };
            match reading.output.next().await {
                Some(Ok(output)) => self.take(output),
                Some(Err(error)) => {
                    self.reading = None;
                    let error = self.inner.engine().error(error);
                    if error.is_not_found() {
                        return Ok(None);
                    }
                    self.hold_out(error.during(format!("reading the log of {}", self.id))).await?;
                }
                None if reading.is_last => return Ok(None),
                None => {
                    self.reading = None;
                    self.came_to_its_end = true;
                    // The engine hangs up a little before it says that the container has ended.
                    self.inner.env().sleep(self.pause).await;
                    self.pause = (self.pause * 2).min(LOOK_PAUSE);
                }
            }
        }
    }

    /// Looks at the container and opens its log, if there is one.
    async fn begin(&mut self) -> Result<Begin, RuntimeError> {
        let container = match self.inner.container(&self.id).await {
            Ok(container) => container,
            Err(RuntimeError::NotFound { .. }) => return Ok(Begin::Over),
            Err(error) => return Err(error),
        };
        self.last_success = self.inner.env().monotonic();
        let features = self.inner.features().await?;
        let fine = features.fine_log_times;
        if !fine {
            self.options.since = self.options.since.and_then(second);
        }
        let follow = match container.status.state {
            ContainerState::Created if self.options.follow => return Ok(Begin::Wait),
            ContainerState::Created | ContainerState::Exited { started_at: None, .. } => return Ok(Begin::Over),
            ContainerState::Running { .. } => self.options.follow,
            // The last lines that were asked for cannot be told from those of the same second before them: all has been told.
            ContainerState::Exited { .. } if self.came_to_its_end && self.floor.is_some() && !fine => {
                return Ok(Begin::Over);
            }
            ContainerState::Exited { .. } | ContainerState::Unknown => false,
        };
        let is_first = self.floor.is_none();
        let tail = self.options.tail_lines.filter(|_| is_first);
        if self.options.tail_lines.is_some() && is_first {
            // Until the first of the last lines says better.
            let now = self.inner.env().now();
            self.floor = if fine { Some(now) } else { second(now) };
        }
        if tail == Some(0) && !follow {
            return Ok(Begin::Over);
        }
        let from = self.seen.since().max(self.options.since).max(self.floor.filter(|_| tail.is_none()));
        let options = LogsOptions {
            follow,
            stdout: true,
            stderr: true,
            timestamps: true,
            since: from.map_or(0, |time| i32::try_from(time.as_second()).unwrap_or(i32::MAX)),
            tail: tail.map_or_else(|| "all".to_owned(), |count| count.to_string()),
            ..LogsOptions::default()
        };
        let client = self.inner.engine().client().await.map_err(|error| error.during("reading a log"))?;
        let output = client.logs(&container.engine_id, Some(options)).boxed();
        let part_bytes = if features.cuts_log_lines { LOG_PART_BYTES } else { 0 };
        Ok(Begin::Reading(Reading { output, before: self.seen, part_bytes, is_last: !follow }))
    }

    fn take(&mut self, output: LogOutput) {
        let Some(reading) = &mut self.reading else { return };
        self.last_success = self.inner.env().monotonic();
        self.pause = RECONNECT_PAUSE_MIN;
        for line in lines(output, reading.part_bytes) {
            if let Some(floor) = &mut self.floor {
                if reading.before.is_empty() && self.seen.is_empty() {
                    *floor = line.timestamp.min(*floor);
                }
                if line.timestamp < *floor {
                    continue;
                }
            }
            let is_new = self.seen.note(&line, &mut reading.before);
            if is_new && self.options.since.is_none_or(|since| line.timestamp >= since) {
                self.ready.push_back(line);
            }
        }
    }

    /// Until something happens to a container, or for a while.
    async fn wait(&mut self) {
        let _ = self.inner.env().timeout(LOOK_PAUSE, self.events.recv()).await;
    }

    /// Who follows waits for an engine that is gone, for a while; everyone else is told.
    async fn hold_out(&mut self, error: RuntimeError) -> Result<(), RuntimeError> {
        let env = self.inner.env();
        if !self.options.follow || env.monotonic().saturating_sub(self.last_success) > LOG_RECONNECT_TIME {
            return Err(error);
        }
        env.sleep(self.pause).await;
        self.pause = (self.pause * 2).min(RECONNECT_PAUSE_MAX);
        Ok(())
    }
}

/// The beginning of a time's second: what the engine says of a line that was written at that time.
fn second(time: Timestamp) -> Option<Timestamp> {
    Timestamp::from_second(time.as_second()).ok()
}
