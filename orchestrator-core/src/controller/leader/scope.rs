//! Tasks that end together, whoever started them: an environment that keeps hold of all that is spawned in it.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::future::BoxFuture;
use jiff::Timestamp;

use crate::env::{Env, Environment, TaskGroup};

/// The tasks of one term. Dropping it cancels them.
pub(super) struct Scope {
    tasks: Arc<Tasks>,
}

struct Tasks {
    outer: Env,
    /// `None` when it is over; what is spawned then is dropped.
    group: Mutex<Option<TaskGroup>>,
}

impl Scope {
    pub(super) fn new(outer: &Env) -> Self {
        let group = Mutex::new(Some(TaskGroup::new(outer)));
        Self { tasks: Arc::new(Tasks { outer: outer.clone(), group }) }
    }

    /// The environment whose tasks are of this scope.
    pub(super) fn env(&self) -> Env {
        Env::new(ScopeEnvironment(self.tasks.clone()))
    }

    /// Cancels all tasks and waits until their futures are gone.
    pub(super) async fn stop(self) {
        let group = self.tasks.lock().take();
        if let Some(mut group) = group {
            group.stop().await;
        }
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        let group = self.tasks.lock().take();
        drop(group);
    }
}

impl Tasks {
    fn lock(&self) -> MutexGuard<'_, Option<TaskGroup>> {
        self.group.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct ScopeEnvironment(Arc<Tasks>);

impl Environment for ScopeEnvironment {
    fn now(&self) -> Timestamp {
        self.0.outer.now()
    }

    fn monotonic(&self) -> Duration {
        self.0.outer.monotonic()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.0.outer.sleep(duration)
    }

    fn run(&self, name: &'static str, future: BoxFuture<'static, ()>) {
        if let Some(group) = &mut *self.0.lock() {
            group.spawn(name, future);
        }
    }

    fn run_blocking(&self, function: Box<dyn FnOnce() + Send>) {
        self.0.outer.run_blocking(function);
    }

    fn random(&self) -> u64 {
        self.0.outer.random()
    }
}
