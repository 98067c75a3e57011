//! How many seats a level asks for, over time. Pure.

use std::time::Duration;

/// How much of the past counts when demand falls; upstream's, for one period of adjustment.
const SMOOTHING: f64 = 0.977;

/// What was asked for since the last look.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Demand {
    /// Since when, and until when it is summed up.
    since: Duration,
    until: Duration,
    /// Seats that are asked for now.
    seats: f64,
    most: f64,
    /// Seats by seconds, and their squares.
    sum: f64,
    squares: f64,
    /// Falls slowly, and rises at once.
    smoothed: f64,
}

/// What was asked for over a while.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Observed {
    /// The most at one time.
    pub(super) most: f64,
    /// What is to be expected.
    pub(super) smoothed: f64,
}

impl Demand {
    /// So many seats are asked for from now on.
    pub(super) fn set(&mut self, now: Duration, seats: usize) {
        self.sum_up(now);
        self.seats = seats as f64;
        self.most = self.most.max(self.seats);
    }

    /// What was asked for since the last look.
    pub(super) fn observe(&mut self, now: Duration) -> Observed {
        self.sum_up(now);
        let seconds = self.until.saturating_sub(self.since).as_secs_f64();
        let (average, deviation) = if seconds > 0.0 {
            let average = self.sum / seconds;
            (average, (self.squares / seconds - average * average).max(0.0).sqrt())
        } else {
            (self.seats, 0.0)
        };
        let envelope = average + deviation;
        let smoothed = envelope.max(SMOOTHING * self.smoothed + (1.0 - SMOOTHING) * envelope);
        let most = self.most;
        let seats = self.seats;
        *self = Self { since: self.until, until: self.until, seats, most: seats, smoothed, ..Self::default() };
        Observed { most, smoothed }
    }

    fn sum_up(&mut self, now: Duration) {
        let seconds = now.saturating_sub(self.until).as_secs_f64();
        self.sum += seconds * self.seats;
        self.squares += seconds * self.seats * self.seats;
        self.until = self.until.max(now);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_expected_rises_at_once_and_falls_slowly() {
        let mut demand = Demand::default();
        demand.set(Duration::ZERO, 10);
        assert_eq!(demand.observe(Duration::from_secs(10)), Observed { most: 10.0, smoothed: 10.0 });
        demand.set(Duration::from_secs(10), 0);
        let fallen = demand.observe(Duration::from_secs(20));
        assert_eq!(fallen.most, 10.0);
        assert!((fallen.smoothed - 9.77).abs() < 1e-9, "{fallen:?}");
        demand.set(Duration::from_secs(20), 50);
        assert_eq!(demand.observe(Duration::from_secs(30)).smoothed, 50.0);
    }

    proptest! {
        #[test]
        fn expectations_lie_within_what_was_asked_for(steps in prop::collection::vec((0_u64..5000, 0_usize..100), 1..40)) {
            let (mut demand, mut now, mut most) = (Demand::default(), Duration::ZERO, 0);
            for (millis, seats) in steps {
                now += Duration::from_millis(millis);
                demand.set(now, seats);
                most = most.max(seats);
            }
            let observed = demand.observe(now);
            prop_assert_eq!(observed.most, most as f64);
            // No average with its deviation is beyond the most by more than half of it.
            prop_assert!(observed.smoothed >= 0.0 && observed.smoothed <= 1.5 * most as f64 + 1e-6, "{:?}", observed);
        }
    }
}
