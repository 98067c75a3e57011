//! The machine's clock, the operating system's randomness and tokio's tasks.
#![expect(clippy::disallowed_methods, reason = "this is the door that the other doors are closed for")]

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures::future::BoxFuture;
use jiff::Timestamp;
use rand::{Rng, SeedableRng, rngs::SysRng};
use rand_chacha::ChaCha12Rng;
use tokio::runtime::Handle;

use super::Environment;

pub(super) struct RealEnvironment {
    runtime: Handle,
    start: Instant,
    random: Mutex<ChaCha12Rng>,
}

impl RealEnvironment {
    pub(super) fn current() -> Self {
        let random = ChaCha12Rng::try_from_rng(&mut SysRng).expect("the operating system gives random numbers");
        Self { runtime: Handle::current(), start: Instant::now(), random: Mutex::new(random) }
    }
}

impl Environment for RealEnvironment {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let guard = self.runtime.enter();
        let sleep = tokio::time::sleep(duration);
        drop(guard);
        Box::pin(sleep)
    }

    fn run(&self, _name: &'static str, future: BoxFuture<'static, ()>) {
        self.runtime.spawn(future);
    }

    fn run_blocking(&self, function: Box<dyn FnOnce() + Send>) {
        self.runtime.spawn_blocking(function);
    }

    fn random(&self) -> u64 {
        self.random.lock().unwrap_or_else(PoisonError::into_inner).next_u64()
    }
}
