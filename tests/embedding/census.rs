//! An environment that knows which of its tasks are still there, in real time.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::future::BoxFuture;
use jiff::Timestamp;
use orchestrator::env::{Env, Environment};
use tokio::runtime::Handle;

/// How many tasks of which name are there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Census(Arc<Mutex<BTreeMap<&'static str, usize>>>);

impl Census {
    /// An environment whose tasks are counted here.
    pub(crate) fn env(&self) -> Env {
        Env::new(Counting { inner: Env::real(), runtime: Handle::current(), census: self.clone() })
    }

    /// How many tasks there are.
    pub(crate) fn count(&self) -> usize {
        self.0.lock().unwrap().values().sum()
    }

    /// Waits until all tasks are gone. A task that was joined is about to be dropped by its thread.
    pub(crate) async fn empty(&self) {
        for _ in 0..1000 {
            if self.count() == 0 {
                return;
            }
            Env::real().sleep(Duration::from_millis(2)).await;
        }
        panic!("tasks are left: {:?}", self.0.lock().unwrap());
    }

    fn change(&self, name: &'static str, change: isize) {
        let mut living = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = living.entry(name).or_default();
        *count = count.saturating_add_signed(change);
        living.retain(|_, count| *count > 0);
    }
}

struct Counting {
    inner: Env,
    runtime: Handle,
    census: Census,
}

/// One that is there for as long as this is.
struct Living(Census, &'static str);

impl Living {
    fn new(census: &Census, name: &'static str) -> Self {
        census.change(name, 1);
        Self(census.clone(), name)
    }
}

impl Drop for Living {
    fn drop(&mut self) {
        self.0.change(self.1, -1);
    }
}

impl Environment for Counting {
    fn now(&self) -> Timestamp {
        self.inner.now()
    }

    fn monotonic(&self) -> Duration {
        self.inner.monotonic()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.inner.sleep(duration)
    }

    fn run(&self, name: &'static str, future: BoxFuture<'static, ()>) {
        let living = Living::new(&self.census, name);
        self.runtime.spawn(async move {
            future.await;
            drop(living);
        });
    }

    fn run_blocking(&self, function: Box<dyn FnOnce() + Send>) {
        let living = Living::new(&self.census, "blocking");
        self.runtime.spawn_blocking(move || {
            function();
            drop(living);
        });
    }

    fn random(&self) -> u64 {
        self.inner.random()
    }
}
