//! A queue of keys that holds each key once, delays it where asked, and retries it ever later.

mod state;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::future::select;
use tokio::sync::Notify;

use self::state::{Offer, State};
use super::{
    limits,
    trace::{Cause, Noted},
};
use crate::{
    env::Env,
    metrics::{Buckets, Distribution, Histogram},
};

/// A deduplicating, delayed queue with exponential backoff per key. Cheap to clone.
///
/// Its size is bounded by the number of distinct keys.
pub struct Queue<T> {
    shared: Arc<Shared<T>>,
}

struct Shared<T> {
    env: Env,
    state: Mutex<State<T>>,
    changed: Notify,
    /// How long keys waited to be taken.
    waited: Histogram,
}

/// Times of queues and of what works on their keys; upstream's buckets.
pub(super) const TIMES: Buckets = Buckets {
    bounds: &[
        10,
        100,
        1_000,
        10_000,
        100_000,
        1_000_000,
        10_000_000,
        100_000_000,
        1_000_000_000,
        10_000_000_000,
        100_000_000_000,
        1_000_000_000_000,
    ],
    units: 1_000_000_000,
};

/// What a queue has counted; upstream's `workqueue_` metrics.
#[derive(Clone, Debug)]
pub(super) struct QueueCounts {
    pub(super) adds: u64,
    pub(super) retries: u64,
    /// Keys that wait, without the delayed ones.
    pub(super) depth: usize,
    pub(super) waited: Distribution,
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<T: Ord + Clone> fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("len", &self.len()).finish()
    }
}

impl<T: Ord + Clone> Queue<T> {
    /// An empty queue.
    pub fn new(env: &Env) -> Self {
        let (state, waited) = (Mutex::new(State::new()), Histogram::new(TIMES));
        let shared = Shared { env: env.clone(), state, changed: Notify::new(), waited };
        Self { shared: Arc::new(shared) }
    }

    /// Adds a key, unless it waits already. A key that is being worked on comes again afterwards.
    pub fn add(&self, key: T) {
        self.add_for(key, Cause::ByHand);
    }

    /// As [`Self::add`], and says why.
    pub(super) fn add_for(&self, key: T, cause: Cause) {
        let now = self.shared.env.monotonic();
        self.lock().add(key, now, cause);
        self.shared.changed.notify_one();
    }

    /// Adds a key after a time; of several times the earliest counts.
    pub fn add_after(&self, key: T, delay: Duration) {
        self.add_after_for(key, delay, Cause::ByHand);
    }

    /// As [`Self::add_after`], and says why.
    pub(super) fn add_after_for(&self, key: T, delay: Duration, cause: Cause) {
        if delay.is_zero() {
            return self.add_for(key, cause);
        }
        let at = self.shared.env.monotonic().saturating_add(delay);
        self.lock().add_at(key, at, cause);
        self.shared.changed.notify_one();
    }

    /// Adds a key after a pause that doubles with each call until [`Self::forget`]; gives the pause.
    pub fn retry(&self, key: T) -> Duration {
        let failures = self.lock().fail(&key);
        let pause = backoff(failures, self.shared.env.random());
        self.add_after_for(key, pause, Cause::Retry);
        pause
    }

    /// Forgets the failures of a key.
    pub fn forget(&self, key: &T) {
        self.lock().forget(key);
    }

    /// How often a key was retried since it was last forgotten.
    pub fn failures(&self, key: &T) -> u32 {
        self.lock().failures(key)
    }

    /// Waits for a key. Whoever gets it is its only holder until [`Self::done`]. `None` when the queue is closed.
    pub async fn next(&self) -> Option<T> {
        Some(self.next_with_causes().await?.0)
    }

    /// As [`Self::next`], and tells why the key is here.
    pub(super) async fn next_with_causes(&self) -> Option<(T, Noted<Cause>)> {
        loop {
            let changed = self.shared.changed.notified();
            let now = self.shared.env.monotonic();
            let (offer, more) = {
                let mut state = self.lock();
                (state.take(now), state.has_ready())
            };
            if more {
                // One notification may stand for several keys.
                self.shared.changed.notify_one();
            }
            match offer {
                Offer::Take { key, causes, waited } => {
                    self.shared.waited.observe_time(waited);
                    return Some((key, causes));
                }
                Offer::Closed => return None,
                Offer::Wait(None) => changed.await,
                Offer::Wait(Some(until)) => {
                    let sleep = self.shared.env.sleep(until.saturating_sub(now));
                    select(std::pin::pin!(changed), sleep).await;
                }
            }
        }
    }

    /// Why a key that is held was added once more. It does not come again for these: its holder sees to them.
    pub(super) fn take_more(&self, key: &T) -> Noted<Cause> {
        self.lock().take_more(key)
    }

    /// Gives a key back.
    pub fn done(&self, key: &T) {
        self.lock().done(key);
        self.shared.changed.notify_one();
    }

    /// How many keys wait, delayed ones included.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    pub(super) fn counts(&self) -> QueueCounts {
        let (adds, retries, depth) = self.lock().counts();
        QueueCounts { adds, retries, depth, waited: self.shared.waited.distribution() }
    }

    /// Whether no key waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Drops all keys that wait and takes no more.
    pub fn close(&self) {
        self.lock().close();
        self.shared.changed.notify_waiters();
        self.shared.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The pause after so many failures: doubling, with up to a tenth more by chance, so that keys that failed together
/// do not come back together.
fn backoff(failures: u32, chance: u64) -> Duration {
    let doubled = limits::RETRY_FIRST.saturating_mul(2_u32.saturating_pow(failures.min(31)));
    let pause = doubled.min(limits::RETRY_LONGEST);
    let tenth = pause.as_nanos() / 10;
    let extra = (tenth * u128::from(chance)) >> 64;
    pause.saturating_add(Duration::from_nanos(u64::try_from(extra).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::Simulation;

    #[test]
    fn pauses_double_up_to_the_longest() {
        assert_eq!(backoff(0, 0), Duration::from_millis(5));
        assert_eq!(backoff(3, 0), Duration::from_millis(40));
        assert_eq!(backoff(40, 0), Duration::from_secs(1000));
        assert!(backoff(40, u64::MAX) <= Duration::from_secs(1100));
    }

    #[test]
    fn delayed_keys_come_in_time_and_in_order() {
        let simulation = Simulation::new(1);
        let env = simulation.env();
        let taken = simulation.run(async move {
            let queue = Queue::new(&env);
            queue.add_after("late", Duration::from_secs(20));
            queue.add_after("early", Duration::from_secs(10));
            queue.add_after("late", Duration::from_secs(30));
            queue.add("now");
            let mut taken = Vec::new();
            for _ in 0..3 {
                let key = queue.next().await.unwrap();
                taken.push((key, env.monotonic().as_secs()));
            }
            taken
        });
        assert_eq!(taken.unwrap(), [("now", 0), ("early", 10), ("late", 20)]);
    }

    #[test]
    fn several_waiters_share_the_keys_and_end_with_the_queue() {
        for seed in 0..50 {
            let simulation = Simulation::new(seed);
            let env = simulation.env();
            let count = simulation.run(async move {
                let queue = Queue::new(&env);
                let taken = Arc::new(Mutex::new(Vec::new()));
                let mut group = crate::env::TaskGroup::new(&env);
                for _ in 0..4 {
                    let (queue, taken, env) = (queue.clone(), taken.clone(), env.clone());
                    group.spawn("worker", async move {
                        while let Some(key) = queue.next().await {
                            env.sleep(Duration::from_secs(5)).await;
                            taken.lock().unwrap().push(key);
                            queue.done(&key);
                        }
                    });
                }
                (0..8).for_each(|key| queue.add(key));
                env.sleep(Duration::from_secs(11)).await;
                queue.close();
                group.join().await;
                let mut taken = taken.lock().unwrap().clone();
                taken.sort_unstable();
                taken
            });
            assert_eq!(count.unwrap(), (0..8).collect::<Vec<_>>(), "seed {seed}");
        }
    }
}
