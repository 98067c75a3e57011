//! The workers of a controller: they take keys from the queue and run the reconciler, one run per key at a time.

use std::{panic::AssertUnwindSafe, sync::Arc};

use futures::FutureExt;
use tokio_util::sync::CancellationToken;

use super::{
    Action, Caches, Cause, Context, ControllerMetrics, Outcome, Queue, Reconciler, RunTrace, cache::Progress,
    context::Reads, limits, own::OwnWrites, trace::Noted, writes::Writes,
};
use crate::{
    env::{Watcher, panic_message},
    object::ObjectKey,
};

pub(super) struct Worker<R> {
    name: &'static str,
    caches: Caches,
    queue: Queue<ObjectKey>,
    metrics: Arc<ControllerMetrics>,
    own: OwnWrites,
    reconciler: R,
}

impl<R: Reconciler> Worker<R> {
    pub(super) fn new(
        name: &'static str,
        caches: &Caches,
        queue: &Queue<ObjectKey>,
        metrics: Arc<ControllerMetrics>,
        reconciler: R,
    ) -> Self {
        Self { name, caches: caches.clone(), queue: queue.clone(), metrics, own: OwnWrites::default(), reconciler }
    }

    /// Works until the queue is closed.
    pub(super) async fn work(&self, shutdown: &CancellationToken) {
        while let Some((key, causes)) = self.queue.next_with_causes().await {
            match shutdown.run_until_cancelled(self.sees_own_writes(&key)).await {
                Some(true) => self.run(&key, causes).await,
                Some(false) => {
                    tracing::warn!(controller = self.name, %key, "the caches do not show the last writes yet");
                    self.queue.retry(key.clone());
                }
                None => {}
            }
            self.queue.done(&key);
        }
    }

    /// Sees to what nobody is told: each time that a collection was listed anew, runs the keys again that made something
    /// which is gone by then.
    pub(super) async fn follow_lists(&self, progress: &Watcher<Progress>) {
        let mut lists = progress.get().lists;
        while let Ok(now) = progress.wait_for(|progress| progress.lists != lists).await {
            lists = now.lists;
            self.own.vanished(&self.caches).into_iter().for_each(|key| self.queue.add_for(key, Cause::Vanished));
        }
    }

    /// Waits, for a bounded time, until the caches contain what the last run of the key wrote.
    async fn sees_own_writes(&self, key: &ObjectKey) -> bool {
        let Some(writes) = self.own.of(key) else { return true };
        let contained = writes.contained(&self.caches).boxed();
        writes.is_contained(&self.caches) || self.caches.env().timeout(limits::OWN_WRITES_TIME, contained).await.is_ok()
    }

    /// Runs a key, unless that has to wait.
    async fn run(&self, key: &ObjectKey, mut causes: Noted<Cause>) {
        // The caches contain already what came in the meantime.
        causes.add_all(self.queue.take_more(key));
        match self.own.pause(key, &causes) {
            Some(pause) => self.queue.add_after_for(key.clone(), pause, Cause::OwnWrites),
            None => self.run_now(key, causes).await,
        }
    }

    async fn run_now(&self, key: &ObjectKey, causes: Noted<Cause>) {
        self.metrics.begin();
        let began = self.caches.env().monotonic();
        let writes = Arc::new(Writes::default());
        let context = Context::new(&self.caches, writes.clone());
        let run = AssertUnwindSafe(self.reconciler.reconcile(key, &context)).catch_unwind();
        let (result, reads) = Reads::of(run).await;
        let outcome = match result {
            Ok(Ok(Action::Done)) => Outcome::Done,
            Ok(Ok(Action::RequeueAfter(delay))) => Outcome::RequeueAfter(delay),
            Ok(Err(error)) => Outcome::Failed(describe(&error)),
            Err(panic) => Outcome::Panicked(panic_message(&*panic)),
        };
        self.own.ended(key, writes.clone(), &self.caches);
        if writes.has_vanished(&self.caches) {
            self.queue.add_for(key.clone(), Cause::Vanished);
        }
        self.follow_up(key, &outcome);
        let duration = self.caches.env().monotonic().saturating_sub(began);
        let writes = writes.noted();
        self.metrics.end(RunTrace { key: key.clone(), began, causes, reads, writes, outcome, duration });
    }

    fn follow_up(&self, key: &ObjectKey, outcome: &Outcome) {
        match outcome {
            Outcome::Done => self.queue.forget(key),
            Outcome::RequeueAfter(delay) => {
                self.queue.forget(key);
                self.queue.add_after_for(key.clone(), *delay, Cause::Requeue);
            }
            Outcome::Failed(error) => {
                let pause = self.queue.retry(key.clone());
                tracing::warn!(controller = self.name, %key, error, ?pause, "reconcile failed");
            }
            Outcome::Panicked(message) => {
                let pause = self.queue.retry(key.clone());
                tracing::error!(controller = self.name, %key, message, ?pause, "reconcile panicked");
            }
        }
    }
}

/// An error with its sources.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
