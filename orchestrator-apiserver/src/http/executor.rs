//! Tasks of connections: started through the environment, ended with the endpoint.

use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError},
};

use orchestrator_core::env::{Env, TaskGroup};

/// Starts tasks that end when the group is stopped.
#[derive(Clone, Debug)]
pub(super) struct Tasks {
    group: Arc<Mutex<TaskGroup>>,
}

impl Tasks {
    pub(super) fn new(env: &Env) -> Self {
        Self { group: Arc::new(Mutex::new(TaskGroup::new(env))) }
    }

    pub(super) fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        self.group.lock().unwrap_or_else(PoisonError::into_inner).spawn(name, future);
    }

    /// Takes the tasks out, to be stopped or joined.
    pub(super) fn take(&self, env: &Env) -> TaskGroup {
        std::mem::replace(&mut *self.group.lock().unwrap_or_else(PoisonError::into_inner), TaskGroup::new(env))
    }
}

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, future: F) {
        self.spawn("http", async move {
            future.await;
        });
    }
}
