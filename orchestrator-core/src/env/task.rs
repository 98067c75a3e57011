//! Tasks that end when asked, and whose panics are reported instead of lost.

use std::{any::Any, fmt, future::Future, panic::AssertUnwindSafe};

use futures::{
    FutureExt,
    future::{AbortHandle, BoxFuture, abortable},
};

use super::{Env, Watched, Watcher};

/// How a task ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskEnd {
    /// Its future ended.
    Completed,
    /// It was cancelled, or its handle was dropped.
    Cancelled,
    /// It panicked, with this message. Needs `panic = "unwind"`, the default.
    Panicked(String),
}

/// A running task. Dropping the handle cancels the task.
pub struct TaskHandle {
    name: &'static str,
    abort: AbortHandle,
    end: Watcher<Option<TaskEnd>>,
}

impl fmt::Debug for TaskHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskHandle").field("name", &self.name).field("end", &self.end.get()).finish()
    }
}

impl TaskHandle {
    /// What the task was named.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Asks the task to stop at its next wait. Its future is dropped there.
    pub fn cancel(&self) {
        self.abort.abort();
    }

    /// Whether it has ended.
    pub fn is_finished(&self) -> bool {
        self.end.get().is_some()
    }

    /// Waits for the end.
    pub async fn join(&self) -> TaskEnd {
        let ended = self.end.wait_for(Option::is_some).await;
        ended.ok().flatten().unwrap_or(TaskEnd::Cancelled)
    }

    /// Cancels and waits until the task's future is gone.
    pub async fn stop(self) -> TaskEnd {
        self.cancel();
        self.join().await
    }
}

impl Drop for TaskHandle {
    fn drop(&mut self) {
        self.abort.abort();
    }
}

/// Wraps a future so that it can be cancelled, and so that its panic becomes a [`TaskEnd`].
pub(super) fn supervised<F>(name: &'static str, future: F) -> (BoxFuture<'static, ()>, TaskHandle)
where
    F: Future<Output = ()> + Send + 'static,
{
    let ended = Watched::new(None);
    let end = ended.watcher();
    // On the heap first: each wrapper that awaits a future would hold room for it twice.
    let (future, abort) = abortable(AssertUnwindSafe(Box::pin(future)).catch_unwind());
    let future = async move {
        let end = match future.await {
            Ok(Ok(())) => TaskEnd::Completed,
            Ok(Err(panic)) => TaskEnd::Panicked(panic_message(&*panic)),
            Err(_) => TaskEnd::Cancelled,
        };
        if let TaskEnd::Panicked(message) = &end {
            tracing::error!(task = name, message, "task panicked");
        }
        ended.set(Some(end));
    };
    (Box::pin(future), TaskHandle { name, abort, end })
}

/// The text of a panic that was caught.
pub fn panic_message(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "panic without a message".to_owned())
}

/// Tasks that live and end together.
#[derive(Debug)]
pub struct TaskGroup {
    env: Env,
    tasks: Vec<TaskHandle>,
}

impl TaskGroup {
    /// An empty group.
    pub fn new(env: &Env) -> Self {
        Self { env: env.clone(), tasks: Vec::new() }
    }

    /// Starts a task of the group.
    pub fn spawn<F>(&mut self, name: &'static str, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tasks.retain(|task| !task.is_finished());
        self.tasks.push(self.env.spawn(name, future));
    }

    /// How many tasks of the group still run.
    pub fn running(&self) -> usize {
        self.tasks.iter().filter(|task| !task.is_finished()).count()
    }

    /// Waits until all tasks have ended by themselves.
    pub async fn join(&mut self) -> Vec<TaskEnd> {
        let mut ends = Vec::with_capacity(self.tasks.len());
        for task in self.tasks.drain(..) {
            ends.push(task.join().await);
        }
        ends
    }

    /// Cancels all tasks and waits until they are gone.
    pub async fn stop(&mut self) -> Vec<TaskEnd> {
        self.tasks.iter().for_each(TaskHandle::cancel);
        self.join().await
    }
}
