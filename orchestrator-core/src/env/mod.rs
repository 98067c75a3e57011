//! The one door to time, chance and tasks: everything that differs from run to run comes through [`Env`].
//!
//! [`Env::real`] is the machine's clock and tokio's tasks. [`Simulation`] is virtual time on one thread: tasks run in
//! an order drawn from a seed, and time passes only when nothing else can happen, so the same seed gives the same run.

mod real;
mod sim;
mod task;
mod watched;

use std::{fmt, future::Future, sync::Arc, time::Duration};

use futures::{
    FutureExt,
    future::{BoxFuture, Either},
};
use jiff::Timestamp;

pub use sim::{Simulation, Stuck, Timers};
pub use task::{TaskEnd, TaskGroup, TaskHandle, panic_message};
pub use watched::{Dropped, Watched, Watcher};

/// The letters of generated names: no vowels, and nothing that looks like something else.
const SUFFIX_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// A clock, a source of chance and a place for tasks. Cheap to clone.
#[derive(Clone)]
pub struct Env(Arc<dyn Environment>);

/// What an [`Env`] is made of: implement it to bring your own clock and executor.
pub trait Environment: Send + Sync + 'static {
    /// The time of day.
    fn now(&self) -> Timestamp;
    /// Time since some fixed point; it never goes back.
    fn monotonic(&self) -> Duration;
    /// Resolves after this time.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;
    /// Runs a future to its end. The future does not panic: [`Env::spawn`] sees to that.
    fn run(&self, name: &'static str, future: BoxFuture<'static, ()>);
    /// Runs a function that may block its thread.
    fn run_blocking(&self, function: Box<dyn FnOnce() + Send>);
    /// 64 random bits.
    fn random(&self) -> u64;
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Env")
    }
}

impl Env {
    /// The real thing, on the tokio runtime that the caller runs in.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn real() -> Self {
        Self(Arc::new(real::RealEnvironment::current()))
    }

    /// An environment of the caller's own.
    pub fn new(environment: impl Environment) -> Self {
        Self(Arc::new(environment))
    }

    /// The time of day.
    pub fn now(&self) -> Timestamp {
        self.0.now()
    }

    /// Time since some fixed point, for measuring durations; it never goes back.
    pub fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }

    /// Waits.
    pub fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.0.sleep(duration)
    }

    /// Waits for a future, but not longer than this.
    pub async fn timeout<F: Future>(&self, duration: Duration, future: F) -> Result<F::Output, Elapsed> {
        let future = std::pin::pin!(future);
        match futures::future::select(future, self.sleep(duration)).await {
            Either::Left((output, _)) => Ok(output),
            Either::Right(_) => Err(Elapsed(duration)),
        }
    }

    /// Starts a task. It ends when its future ends, when it is cancelled, or when the handle is dropped.
    #[must_use = "dropping the handle cancels the task"]
    pub fn spawn<F>(&self, name: &'static str, future: F) -> TaskHandle
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (future, handle) = task::supervised(name, future);
        self.0.run(name, future);
        handle
    }

    /// Runs a function that may block, such as file work, away from the tasks. `None` when it panicked.
    pub async fn blocking<T, F>(&self, function: F) -> Option<T>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        self.0.run_blocking(Box::new(move || {
            let _ = sender.send(function());
        }));
        receiver.map(Result::ok).await
    }

    /// 64 random bits.
    pub fn random(&self) -> u64 {
        self.0.random()
    }

    /// A random number below `bound`; 0 when `bound` is 0.
    pub fn random_below(&self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { ((u128::from(self.random()) * u128::from(bound)) >> 64) as u64 }
    }

    /// A random UUID, version 4 (RFC 9562), as objects have in `metadata.uid`.
    pub fn uid(&self) -> String {
        let bits = (u128::from(self.random()) << 64) | u128::from(self.random());
        let bits = (bits & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
        let hex = format!("{bits:032x}");
        format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }

    /// A random ending for a generated name, as upstream's `rand.String`.
    pub fn name_suffix(&self, length: usize) -> String {
        (0..length).map(|_| SUFFIX_LETTERS[self.random_below(SUFFIX_LETTERS.len() as u64) as usize] as char).collect()
    }
}

/// An environment can be wrapped.
impl Environment for Env {
    fn now(&self) -> Timestamp {
        self.0.now()
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.0.sleep(duration)
    }

    fn run(&self, name: &'static str, future: BoxFuture<'static, ()>) {
        self.0.run(name, future);
    }

    fn run_blocking(&self, function: Box<dyn FnOnce() + Send>) {
        self.0.run_blocking(function);
    }

    fn random(&self) -> u64 {
        self.0.random()
    }
}

/// A wait took longer than allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not within {0:?}")]
pub struct Elapsed(pub Duration);
