//! What waits for the writer.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

use orchestrator_core::store::{Batch, Revision, StoreError};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::limits::GROUP_BYTES;

/// A call that writes, with the way back to its caller.
pub(crate) struct Write {
    pub(crate) job: Job,
    pub(crate) answer: Answer,
    /// Its place among those that may wait.
    pub(crate) _permit: OwnedSemaphorePermit,
}

pub(crate) type Answer = oneshot::Sender<Result<Revision, StoreError>>;

pub(crate) enum Job {
    Commit(Batch),
    /// Forgets the history before a revision.
    Compact(Revision),
    /// Removes keys whose time has come.
    Expire,
}

impl Job {
    fn bytes(&self) -> usize {
        let Self::Commit(batch) = self else { return 0 };
        let operations = batch.operations.iter();
        operations
            .map(|operation| operation.key().as_str().len() + operation.value().map_or(0, |value| value.len()))
            .sum()
    }
}

/// Calls in their order, and whether someone is at work on them.
#[derive(Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    idle: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Write>,
    busy: bool,
    closed: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a call. Whether the caller has to see to it that someone gets to work.
    pub(crate) fn push(&self, write: Write) -> Result<bool, StoreError> {
        let mut state = self.lock();
        if state.closed {
            return Err(StoreError::Closed);
        }
        state.waiting.push_back(write);
        Ok(!std::mem::replace(&mut state.busy, true))
    }

    /// The next calls, which are written together; `None` when nothing waits, and work has ended.
    pub(crate) fn take(&self) -> Option<Vec<Write>> {
        let mut state = self.lock();
        let (mut group, mut bytes) = (Vec::new(), 0);
        while let Some(next) = state.waiting.front() {
            bytes += next.job.bytes();
            if bytes > GROUP_BYTES && !group.is_empty() {
                break;
            }
            group.extend(state.waiting.pop_front());
        }
        if group.is_empty() {
            state.busy = false;
            self.idle.notify_all();
            return None;
        }
        Some(group)
    }

    /// Puts calls that are not done yet before all others.
    pub(crate) fn put_back(&self, unfinished: Vec<Write>) {
        let mut state = self.lock();
        unfinished.into_iter().rev().for_each(|write| state.waiting.push_front(write));
    }

    /// Work was given up: those who wait are told.
    pub(crate) fn abandon(&self) {
        let mut state = self.lock();
        state.waiting.clear();
        state.busy = false;
        self.idle.notify_all();
    }

    /// Lets nobody in any more, and waits until the work is done.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        while state.busy {
            state = self.idle.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
