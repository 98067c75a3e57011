//! What processes run on: it may stand still, and its clock may be wrong.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use orchestrator_core::env::{Env, Environment};

use crate::lock::lock;

/// The environment of all lives of a process. Clones are the same host.
#[derive(Clone)]
pub(crate) struct Host {
    world: Env,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// Until when nothing runs.
    still_until: Duration,
    /// By how much the time of day is ahead of the world's.
    ahead: SignedDuration,
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("state", &lock(&self.state)).finish_non_exhaustive()
    }
}

impl Host {
    pub(crate) fn new(world: &Env) -> Self {
        Self { world: world.clone(), state: Arc::default() }
    }

    pub(crate) fn env(&self) -> Env {
        Env::new(self.clone())
    }

    /// Nothing runs for a while, as after `kill -STOP`, and time passes.
    pub(crate) fn stand_still(&self, time: Duration) {
        let until = self.world.monotonic() + time;
        let state = &mut lock(&self.state).still_until;
        *state = until.max(*state);
    }

    /// The time of day jumps ahead, or back.
    pub(crate) fn jump(&self, by: SignedDuration) {
        let ahead = &mut lock(&self.state).ahead;
        *ahead = ahead.saturating_add(by);
    }

    /// The time of day is right again.
    pub(crate) fn set_clock(&self) {
        lock(&self.state).ahead = SignedDuration::ZERO;
    }
}

impl Environment for Host {
    fn now(&self) -> Timestamp {
        self.world.now().saturating_add(lock(&self.state).ahead).unwrap_or(Timestamp::MAX)
    }

    fn monotonic(&self) -> Duration {
        self.world.monotonic()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.world.sleep(duration)
    }

    fn run(&self, name: &'static str, future: BoxFuture<'static, ()>) {
        self.world.run(name, Box::pin(Awake { host: self.clone(), future, sleep: None }));
    }

    fn run_blocking(&self, function: Box<dyn FnOnce() + Send>) {
        self.world.run_blocking(function);
    }

    fn random(&self) -> u64 {
        self.world.random()
    }
}

/// A task of the process, which goes on only while the host does not stand still.
struct Awake {
    host: Host,
    future: BoxFuture<'static, ()>,
    /// The rest of the standstill that it found itself in.
    sleep: Option<BoxFuture<'static, ()>>,
}

impl Future for Awake {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(sleep) = &mut self.sleep {
                std::task::ready!(sleep.as_mut().poll(context));
                self.sleep = None;
            }
            let until = lock(&self.host.state).still_until;
            // Most hosts never stand still, and need not know the time.
            let rest = if until.is_zero() { until } else { until.saturating_sub(self.host.world.monotonic()) };
            if rest.is_zero() {
                return self.future.as_mut().poll(context);
            }
            self.sleep = Some(self.host.world.sleep(rest));
        }
    }
}
