//! A client that writes only while its holder leads.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{StatusCause, StatusDetails};

use crate::{
    client::{Backend, Call, Client, Reply, Request, WatchRequest, WatchStream},
    env::Env,
    status::{ApiError, ApiResult, Reason},
};

const NOT_LEADING: &str = "NotLeading";

/// Whether a write was refused because its sender does not lead (any more). Nothing was sent then.
pub fn is_not_leading(error: &ApiError) -> bool {
    let causes = error.status().details.iter().flat_map(|details| details.causes.iter().flatten());
    causes.into_iter().any(|cause| cause.reason.as_deref() == Some(NOT_LEADING))
}

/// Open until a time that each renewal moves on.
#[derive(Clone)]
pub(super) struct Fence {
    env: Env,
    until: Arc<Mutex<Option<Moment>>>,
}

/// A moment on both clocks. Of two ends the earlier counts: the monotonic clock may stand still while the machine
/// sleeps, the other one may be set back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) monotonic: Duration,
    pub(super) wall: Timestamp,
}

impl Moment {
    pub(super) fn now(env: &Env) -> Self {
        Self { monotonic: env.monotonic(), wall: env.now() }
    }

    fn after(self, time: Duration) -> Self {
        let wall = self.wall.checked_add(time).unwrap_or(Timestamp::MAX);
        Self { monotonic: self.monotonic.saturating_add(time), wall }
    }
}

impl fmt::Debug for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fence").field("open", &self.is_open()).finish()
    }
}

impl Fence {
    /// A closed fence.
    pub(super) fn new(env: &Env) -> Self {
        Self { env: env.clone(), until: Arc::default() }
    }

    /// Opens it for a time that began at a moment.
    pub(super) fn open(&self, from: Moment, time: Duration) {
        *self.lock() = Some(from.after(time));
    }

    /// Closes it for good.
    pub(super) fn close(&self) {
        *self.lock() = None;
    }

    pub(super) fn is_open(&self) -> bool {
        let until = *self.lock();
        let now = Moment::now(&self.env);
        until.is_some_and(|until| now.monotonic < until.monotonic && now.wall < until.wall)
    }

    /// A client whose writes this fence stops.
    pub(super) fn around(&self, client: &Client) -> Client {
        Client::new(Arc::new(Fenced { client: client.clone(), fence: self.clone() }))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Moment>> {
        self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Fenced {
    client: Client,
    fence: Fence,
}

#[async_trait]
impl Backend for Fenced {
    async fn request(&self, request: Request) -> ApiResult<Reply> {
        let reads = matches!(request.call, Call::Get { .. } | Call::List(_));
        if reads || self.fence.is_open() { self.client.request(request).await } else { Err(not_leading()) }
    }

    async fn watch(&self, request: WatchRequest) -> ApiResult<WatchStream> {
        self.client.watch(request).await
    }
}

fn not_leading() -> ApiError {
    let message = "nothing was sent: the lease of the leader election is not held any more";
    let cause = StatusCause { reason: Some(NOT_LEADING.to_owned()), ..Default::default() };
    let details = StatusDetails { causes: Some(vec![cause]), ..Default::default() };
    ApiError::with_details(Reason::Forbidden, message, Some(details))
}

#[cfg(test)]
mod tests {
    use futures::future::BoxFuture;

    use super::*;
    use crate::env::{Environment, Simulation};

    /// A machine whose clocks are set by hand.
    #[derive(Clone)]
    struct Clocks(Env, Arc<Mutex<(Duration, Timestamp)>>);

    impl Environment for Clocks {
        fn now(&self) -> Timestamp {
            self.1.lock().unwrap().1
        }

        fn monotonic(&self) -> Duration {
            self.1.lock().unwrap().0
        }

        fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
            self.0.sleep(duration)
        }

        fn run(&self, name: &'static str, future: BoxFuture<'static, ()>) {
            Environment::run(&self.0, name, future);
        }

        fn run_blocking(&self, function: Box<dyn FnOnce() + Send>) {
            self.0.run_blocking(function);
        }

        fn random(&self) -> u64 {
            self.0.random()
        }
    }

    #[test]
    fn a_sleep_that_only_one_clock_counts_closes_the_fence() {
        let seconds = Duration::from_secs;
        for (monotonic, wall, open) in [(9, 9, true), (10, 0, false), (0, 10, false), (9, -3600, true)] {
            let start = Timestamp::UNIX_EPOCH;
            let times = Arc::new(Mutex::new((Duration::ZERO, start)));
            let env = Env::new(Clocks(Simulation::new(1).env(), times.clone()));
            let fence = Fence::new(&env);
            assert!(!fence.is_open());
            fence.open(Moment::now(&env), seconds(10));
            *times.lock().unwrap() = (seconds(monotonic), start + jiff::SignedDuration::from_secs(wall));
            assert_eq!(fence.is_open(), open, "{monotonic} s and {wall} s later");
            fence.close();
            assert!(!fence.is_open());
        }
    }

    #[test]
    fn the_refusal_is_told_from_others() {
        assert!(is_not_leading(&not_leading()));
        assert!(!is_not_leading(&ApiError::new(Reason::Forbidden, "no")));
    }
}
