//! A priority level without a limit at work: nobody waits, and how many are served is counted.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use orchestrator_core::env::Env;

use super::demand::{Demand, Observed};

/// Those whom a level serves now.
#[derive(Debug)]
pub(super) struct Crowd {
    env: Env,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    present: usize,
    demand: Demand,
}

/// One of them, for as long as it is kept.
#[derive(Debug)]
pub(crate) struct Guest(Arc<Crowd>);

impl Drop for Guest {
    fn drop(&mut self) {
        self.0.change(|present| present.saturating_sub(1));
    }
}

impl Crowd {
    pub(super) fn new(env: &Env) -> Self {
        Self { env: env.clone(), state: Mutex::default() }
    }

    /// One more is served.
    pub(super) fn enter(self: &Arc<Self>) -> Guest {
        self.change(|present| present + 1);
        Guest(self.clone())
    }

    /// How many there were since the last look.
    pub(super) fn observe(&self) -> Observed {
        let now = self.env.monotonic();
        self.lock().demand.observe(now)
    }

    /// Whether anybody is here.
    pub(super) fn is_busy(&self) -> bool {
        self.lock().present > 0
    }

    fn change(&self, change: impl FnOnce(usize) -> usize) {
        let now = self.env.monotonic();
        let State { present, demand } = &mut *self.lock();
        *present = change(*present);
        demand.set(now, *present);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use orchestrator_core::env::Simulation;

    use super::*;

    #[test]
    fn guests_are_counted_until_they_leave() {
        let crowd = Arc::new(Crowd::new(&Simulation::new(1).env()));
        let guests = [crowd.enter(), crowd.enter(), crowd.enter()];
        drop(guests);
        assert!(!crowd.is_busy());
        let last = crowd.enter();
        assert_eq!(crowd.observe().most, 3.0);
        assert!(crowd.is_busy());
        drop(last);
        assert_eq!(crowd.observe().most, 1.0);
        assert_eq!(crowd.observe().most, 0.0);
    }
}
