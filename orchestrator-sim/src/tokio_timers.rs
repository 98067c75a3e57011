//! Tokio's timers and tasks in virtual time, for code that knows no other runtime.
#![expect(clippy::disallowed_methods, reason = "the clock of tokio is what is led here")]

use std::{fmt, pin::pin, sync::OnceLock, time::Duration};

use futures::future::{Either, select};
use orchestrator_core::env::{Simulation, Timers};
use tokio::{
    runtime::{Builder, Runtime},
    time::Instant,
};

use crate::limits;

/// A world in which so much time has passed already, with tokio's timers in it where they are asked for.
///
/// # Errors
/// The system refuses.
pub(crate) fn simulation(seed: u64, elapsed: Duration, beside_tokio: bool) -> std::io::Result<Simulation> {
    let simulation = Simulation::starting_at(seed, elapsed);
    Ok(if beside_tokio { simulation.with_timers(TokioTimers::new()?) } else { simulation })
}

/// A runtime of tokio whose clock follows that of a world.
pub(crate) struct TokioTimers {
    runtime: Runtime,
    /// Where tokio's clock stood when no time had passed in the world.
    origin: OnceLock<Instant>,
}

impl fmt::Debug for TokioTimers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokioTimers").field("origin", &self.origin.get()).finish_non_exhaustive()
    }
}

impl TokioTimers {
    fn new() -> std::io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build()?;
        Ok(Self { runtime, origin: OnceLock::new() })
    }
}

impl Timers for TokioTimers {
    fn within(&self, call: &mut dyn FnMut()) {
        let _within = self.runtime.enter();
        call();
    }

    fn pass(
        &self,
        now: Duration,
        until: Option<Duration>,
        woken: &mut (dyn Future<Output = ()> + Unpin),
    ) -> Option<Duration> {
        self.runtime.block_on(async {
            let origin = *self.origin.get_or_init(|| Instant::now().checked_sub(now).unwrap_or_else(Instant::now));
            // Tokio counts in milliseconds, so that its clock may be ahead by a part of one.
            let end = origin + until.unwrap_or(now + limits::LONGEST_WAIT);
            match select(woken, pin!(tokio::time::sleep_until(end))).await {
                Either::Left(_) => Some(origin.elapsed()),
                Either::Right(_) => until,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use orchestrator_core::env::Stuck;

    use super::*;
    use crate::lock::lock;

    fn world() -> Simulation {
        simulation(0, Duration::ZERO, true).unwrap()
    }

    #[test]
    fn both_kinds_of_timers_fire_in_their_order() {
        let simulation = world();
        let env = simulation.env();
        let heard: Arc<Mutex<Vec<(u64, &str)>>> = Arc::default();
        let note = |what| lock(&heard).push((env.monotonic().as_secs(), what));
        let ended = simulation.run(async {
            let own = async {
                for seconds in [10, 20, 3600] {
                    env.sleep(Duration::from_secs(seconds)).await;
                    note("own");
                }
            };
            let tokios = async {
                for seconds in [5, 30, 4000] {
                    tokio::time::sleep(Duration::from_secs(seconds)).await;
                    note("tokio's");
                }
            };
            futures::join!(own, tokios);
        });
        assert_eq!(ended, Ok(()));
        let expected = [(5, "tokio's"), (10, "own"), (30, "own"), (35, "tokio's"), (3630, "own"), (4035, "tokio's")];
        assert_eq!(*lock(&heard), expected);
    }

    #[test]
    fn tasks_of_tokio_wake_those_of_the_world() {
        let ended = world().run(async {
            tokio::spawn(async {
                tokio::time::sleep(Duration::from_secs(7)).await;
                7
            })
            .await
        });
        assert_eq!(ended.map(Result::unwrap), Ok(7));
    }

    #[test]
    fn tasks_of_tokio_set_timers_of_the_world() {
        let simulation = world();
        let env = simulation.env();
        let inner = env.clone();
        let waited = simulation.run(async {
            let long = env.spawn("long", env.sleep(Duration::from_secs(60)));
            let short = tokio::spawn(async move {
                inner.sleep(Duration::from_secs(3)).await;
                inner.monotonic()
            });
            let waited = short.await.unwrap();
            long.join().await;
            waited
        });
        assert_eq!((waited, env.monotonic()), (Ok(Duration::from_secs(3)), Duration::from_secs(60)));
    }

    #[test]
    fn clocks_do_not_drift_apart() {
        let simulation = world();
        let env = simulation.env();
        let begin = env.monotonic();
        let apart = simulation.run(async {
            let tokios = Instant::now();
            for _ in 0..10_000 {
                env.sleep(Duration::from_micros(300)).await;
            }
            tokios.elapsed().abs_diff(env.monotonic() - begin)
        });
        assert!(apart.is_ok_and(|apart| apart < Duration::from_millis(2)));
    }

    #[test]
    fn a_world_in_which_nothing_can_happen_says_so() {
        let ended = world().run(std::future::pending::<()>());
        assert_eq!(ended, Err(Stuck));
    }
}
