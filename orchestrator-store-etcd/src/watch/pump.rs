//! The task of a watch: it reads the stream, and makes a new one when that breaks or the watcher has caught up.

use std::{pin::pin, sync::Arc, time::Duration};

use etcd_client::{Client, WatchOptions, WatchStream, proto::PbWatchResponse};
use futures::future::Either;
use orchestrator_core::store::{KeyRange, Revision, StoreError, WatchItem};

use super::{
    assembly::{self, Assembly, Told},
    buffer::Buffer,
};
use crate::{
    error::{EtcdError, Failed, Failure},
    layout::revision,
    limits::{RETRY_PAUSE, WATCH_SETTLE_TIME},
    shared::Shared,
    version::Version,
};

pub(crate) struct Pump {
    shared: Arc<Shared>,
    range: KeyRange,
    bookmarks: bool,
    buffer: Arc<Buffer>,
    assembly: Assembly,
}

/// How a stream ended.
enum End {
    /// The watcher has enough to read for the moment.
    Full,
    /// The stream broke. Whether it had begun.
    Broken { failed: Failed, had_begun: bool },
    /// The watch has to end.
    Over(StoreError),
}

/// A stream that has begun.
struct Stream {
    stream: WatchStream,
    endpoint: String,
    /// Where etcd was when it began: up to there, changes come from its history, of which some may be compacted.
    history: Option<Revision>,
    tells_progress: bool,
    asked_progress: bool,
}

impl Pump {
    pub(crate) fn new(
        shared: Arc<Shared>,
        range: KeyRange,
        after: Revision,
        bookmarks: bool,
        buffer: Arc<Buffer>,
    ) -> Self {
        Self { shared, range, bookmarks, buffer, assembly: Assembly::new(after) }
    }

    pub(crate) fn buffer(&self) -> Arc<Buffer> {
        self.buffer.clone()
    }

    /// Reads until there is a reason to end.
    pub(crate) async fn run(mut self) -> StoreError {
        let (mut failing_since, mut refreshed) = (None, false);
        loop {
            self.buffer.room().await;
            let member = self.shared.endpoints.preferred();
            let (failed, had_begun) = match self.read(member).await {
                End::Full => {
                    (failing_since, refreshed) = (None, false);
                    continue;
                }
                End::Over(error) => return error,
                End::Broken { failed, had_begun } => (failed, had_begun),
            };
            tracing::debug!(endpoint = self.shared.endpoints.url(member), ?failed, "a watch is broken");
            if had_begun {
                (failing_since, refreshed) = (None, false);
            }
            let now = self.shared.env.monotonic();
            if now - *failing_since.get_or_insert(now) >= self.shared.limits.outage_time {
                return failed.into();
            }
            match failed.failure() {
                Some(Failure::TokenOld) if !refreshed => {
                    // The watch fails again at once if that did not help.
                    let _ = self.shared.endpoints.refresh(member).await;
                    refreshed = true;
                }
                Some(Failure::TokenOld | Failure::Denied) => return failed.into(),
                _ => {
                    self.shared.endpoints.leave(member);
                    self.shared.env.sleep(RETRY_PAUSE).await;
                }
            }
        }
    }

    /// Reads one stream, from behind what was given.
    async fn read(&mut self, member: usize) -> End {
        self.assembly.restart();
        let mut stream = match self.open(member).await {
            Ok(stream) => stream,
            Err(failed) => return End::Broken { failed, had_begun: false },
        };
        let mut had_begun = false;
        loop {
            let settling = stream.history.is_some();
            let time = if settling { WATCH_SETTLE_TIME } else { self.shared.limits.bookmark_interval };
            let next = match self.next(&mut stream, time).await {
                Ok(Some(message)) => self.take(&mut stream, message).await,
                // It was silent: what etcd had in its history for this watch has come.
                Ok(None) if settling => self.settle(&mut stream).await,
                Ok(None) => self.ask(&mut stream).await,
                Err(failed) => Err(End::Broken { failed, had_begun }),
            };
            match next {
                Ok(()) => had_begun = true,
                Err(End::Broken { failed, .. }) => return End::Broken { failed, had_begun },
                Err(end) => return end,
            }
        }
    }

    async fn open(&self, member: usize) -> Result<Stream, Failed> {
        let endpoints = &self.shared.endpoints;
        let version = async |client: Client| client.maintenance_client().status().await;
        let status = endpoints.call_member(member, version).await?;
        let tells_progress = Version::parse(status.version()).is_some_and(Version::tells_progress);
        let span = self.shared.layout.span(&self.range);
        let start = i64::try_from(self.assembly.cursor().0).unwrap_or(i64::MAX - 1) + 1;
        let options =
            WatchOptions::new().with_range(span.end).with_start_revision(start).with_prev_key().with_fragment();
        let answer_bytes = self.shared.limits.answer_bytes;
        let watch = |client: Client| {
            let (start, options) = (span.start.clone(), options.clone());
            async move { client.watch_client().max_decoding_message_size(answer_bytes).watch(start, Some(options)).await }
        };
        let stream = endpoints.call_member(member, watch).await?;
        let endpoint = endpoints.url(member).to_owned();
        Ok(Stream { stream, endpoint, history: None, tells_progress, asked_progress: false })
    }

    /// The next message; `None` when there is none for this long.
    async fn next(&self, stream: &mut Stream, time: Duration) -> Result<Option<PbWatchResponse>, Failed> {
        let message = {
            let message = pin!(stream.stream.message());
            match futures::future::select(message, self.shared.env.sleep(time)).await {
                Either::Left((message, _)) => message,
                Either::Right(_) => return Ok(None),
            }
        };
        match message {
            Ok(Some(message)) => Ok(Some(message.0)),
            Ok(None) => Err(stream.broken(Failure::Unknown, "the stream has ended")),
            Err(error) => Err(Failed::at(&stream.endpoint, &error)),
        }
    }

    /// Gives what a message tells.
    async fn take(&mut self, stream: &mut Stream, message: PbWatchResponse) -> Result<(), End> {
        let at = message.header.as_ref().map(|header| revision(header.revision));
        if message.canceled {
            return Err(self.cancelled(stream, &message));
        }
        if message.created {
            stream.history = at.filter(|at| *at > self.assembly.cursor());
            return self.look_back(stream).await;
        }
        if message.events.is_empty() {
            stream.asked_progress = false;
            let bookmark = at.filter(|_| stream.tells_progress).and_then(|at| self.assembly.progress(at));
            return self.give(bookmark.filter(|_| self.bookmarks));
        }
        let layout = &self.shared.layout;
        let events: Result<Vec<Told>, EtcdError> =
            message.events.into_iter().map(|event| assembly::read(event, layout)).collect();
        let events = events.map_err(|error| End::Over(error.into()))?;
        self.look_back(stream).await?;
        if events.iter().any(|event| event.incomplete && event.revision > self.assembly.cursor()) {
            return Err(End::Over(self.shared.gone(self.assembly.cursor()).await));
        }
        let commits = self.assembly.take(events, message.fragment);
        if stream.history.is_some_and(|history| history <= self.assembly.cursor()) {
            stream.history = None;
        }
        self.give(commits)
    }

    fn give(&self, items: impl IntoIterator<Item = WatchItem>) -> Result<(), End> {
        if self.buffer.push(items) { Ok(()) } else { Err(End::Full) }
    }

    /// While a watch reads history: nothing of it may have been compacted, because etcd then passes over deletions.
    async fn look_back(&self, stream: &Stream) -> Result<(), End> {
        if stream.history.is_none() {
            return Ok(());
        }
        match self.shared.is_left(self.assembly.cursor()).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(End::Over(self.shared.gone(self.assembly.cursor()).await)),
            Err(failed) => Err(End::Broken { failed, had_begun: true }),
        }
    }

    async fn settle(&self, stream: &mut Stream) -> Result<(), End> {
        self.look_back(stream).await?;
        stream.history = None;
        Ok(())
    }

    /// Asks etcd how far the watch is, where the answer can be believed. Also for watchers who do not want to know: a watch of a
    /// silent range can then go on from there.
    async fn ask(&self, stream: &mut Stream) -> Result<(), End> {
        if !stream.tells_progress || stream.asked_progress {
            return Ok(());
        }
        stream.asked_progress = true;
        let asked = stream.stream.request_progress().await;
        asked.map_err(|error| End::Broken { failed: Failed::at(&stream.endpoint, &error), had_begun: true })
    }

    /// etcd ended the watch.
    fn cancelled(&self, stream: &Stream, message: &PbWatchResponse) -> End {
        if message.compact_revision > 0 {
            let oldest = revision(message.compact_revision);
            self.shared.note_compacted(oldest);
            return End::Over(StoreError::Compacted { asked: self.assembly.cursor(), oldest });
        }
        let failed = stream.broken(Failure::of_watch(&message.cancel_reason), &message.cancel_reason);
        End::Broken { failed, had_begun: true }
    }
}

impl Stream {
    fn broken(&self, failure: Failure, reason: &str) -> Failed {
        let (endpoint, reason) = (self.endpoint.clone(), reason.to_owned());
        let error = match failure {
            Failure::TokenOld => EtcdError::Denied { endpoint, reason },
            _ => EtcdError::Failed { endpoint, reason },
        };
        Failed::Etcd(failure, error)
    }
}
