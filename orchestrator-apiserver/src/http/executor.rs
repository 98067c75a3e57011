//! Tasks of connections: started through the environment, ended with the endpoint.

use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError},
};

use orchestrator_core::env::{Env, TaskGroup};

/// Starts tasks that end when the group is stopped.
#[derive(Clone, Debug)]
pub(super) struct Tasks {
    env: Env,
    group: Arc<Mutex<TaskGroup>>,
}

impl Tasks {
    pub(super) fn new(env: &Env) -> Self {
        Self { env: env.clone(), group: Arc::new(Mutex::new(TaskGroup::new(env))) }
    }

    pub(super) fn env(&self) -> &Env {
        &self.env
    }

    pub(super) fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        self.group.lock().unwrap_or_else(PoisonError::into_inner).spawn(name, future);
    }

    /// Takes the tasks out, to be stopped or joined.
    pub(super) fn take(&self) -> TaskGroup {
        std::mem::replace(&mut *self.group.lock().unwrap_or_else(PoisonError::into_inner), TaskGroup::new(&self.env))
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
