//! How levels lend each other seats that they do not need. Pure.
//!
//! Upstream: KEP-1040, "Borrowing", and `computeConcurrencyAllocation` of `apiserver/pkg/util/flowcontrol`.

use super::demand::Observed;

/// The least that a level is thought to want, so that levels at rest share what nobody wants.
const LEAST_TARGET: f64 = 0.001;

/// Halvings of an interval after which its ends are as good as equal.
const HALVINGS: usize = 100;

/// How many seats a level has by its share, keeps at least, and gets at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) nominal: usize,
    pub(super) least: usize,
    pub(super) most: usize,
}

impl Bounds {
    /// `lendable` and `borrowing` are percentages of what the level has by its share; without a limit it may borrow `all`.
    pub(super) fn new(nominal: usize, lendable: Option<i32>, borrowing: Option<i32>, all: usize) -> Self {
        let percent = |percent: i32| (nominal as f64 * f64::from(percent.max(0)) / 100.0).round() as usize;
        let lent = lendable.map_or(0, percent).min(nominal);
        Self { nominal, least: nominal - lent, most: nominal.saturating_add(borrowing.map_or(all, percent)) }
    }

    /// Of a level without a limit: it takes what it wants, and of its own share lends what it did not use.
    pub(super) fn exempt(nominal: usize, lendable: Option<i32>) -> Self {
        let lender = Self::new(nominal, lendable, Some(0), 0);
        Self { most: lender.least, ..lender }
    }

    /// What the level wants after a while in which this was asked of it.
    fn wish(self, observed: Observed) -> Wish {
        // It keeps what it used of its own share.
        let least = (self.least as f64).max(observed.most.min(self.nominal as f64));
        Wish { least, most: least.max(self.most as f64), target: least.max(observed.smoothed).max(LEAST_TARGET) }
    }
}

/// Seats that a level has to get, may get, and would use.
#[derive(Clone, Copy, Debug)]
struct Wish {
    least: f64,
    most: f64,
    target: f64,
}

impl Wish {
    /// What it gets where everybody gets this part of the target.
    fn at(self, part: f64) -> f64 {
        (part * self.target).clamp(self.least, self.most)
    }
}

/// Divides the seats that levels have by their shares anew. Everybody gets the same part of what he would use, within bounds.
pub(super) fn divide(levels: &[(Bounds, Observed)]) -> Vec<usize> {
    let wishes: Vec<Wish> = levels.iter().map(|(bounds, observed)| bounds.wish(*observed)).collect();
    let seats: usize = levels.iter().map(|(bounds, _)| bounds.nominal).sum();
    let part = fair_part(&wishes, seats as f64);
    wishes.iter().map(|wish| wish.at(part).round() as usize).collect()
}

/// The part of their targets at which levels get so many seats together, as near as their bounds let them.
fn fair_part(wishes: &[Wish], seats: f64) -> f64 {
    let together = |part: f64| wishes.iter().map(|wish| wish.at(part)).sum::<f64>();
    let (mut low, mut high) = (0.0, wishes.iter().map(|wish| wish.most / wish.target).fold(0.0, f64::max));
    for _ in 0..HALVINGS {
        let middle = (low + high) / 2.0;
        if together(middle) < seats { low = middle } else { high = middle }
    }
    high
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const IDLE: Observed = Observed { most: 0.0, smoothed: 0.0 };

    fn busy(seats: f64) -> Observed {
        Observed { most: seats, smoothed: seats }
    }

    #[test]
    fn a_level_at_rest_lends_as_much_as_it_may() {
        let lender = Bounds::new(10, Some(50), Some(0), 100);
        let borrower = Bounds::new(10, Some(0), None, 100);
        assert_eq!(divide(&[(lender, IDLE), (borrower, busy(40.0))]), [5, 15]);
        // What it uses it does not lend, and it has it back as soon as it asks.
        assert_eq!(divide(&[(lender, busy(8.0)), (borrower, busy(40.0))]), [8, 12]);
        assert_eq!(divide(&[(lender, busy(40.0)), (borrower, busy(40.0))]), [10, 10]);
    }

    #[test]
    fn nobody_borrows_beyond_the_limit() {
        let lender = Bounds::new(10, Some(100), Some(0), 100);
        let borrower = Bounds::new(10, Some(0), Some(20), 100);
        assert_eq!(divide(&[(lender, IDLE), (borrower, busy(40.0))]), [8, 12]);
    }

    #[test]
    fn borrowers_get_the_same_part_of_what_they_would_use() {
        let lender = Bounds::new(30, Some(100), None, 100);
        let small = Bounds::new(1, Some(0), None, 100);
        assert_eq!(divide(&[(lender, IDLE), (small, busy(100.0)), (small, busy(50.0))]), [0, 21, 11]);
    }

    #[test]
    fn what_a_level_without_a_limit_uses_of_its_share_it_does_not_lend() {
        let exempt = Bounds::exempt(10, Some(80));
        let borrower = Bounds::new(10, Some(0), None, 100);
        assert_eq!(divide(&[(exempt, IDLE), (borrower, busy(40.0))]), [2, 18]);
        assert_eq!(divide(&[(exempt, busy(5.0)), (borrower, busy(40.0))]), [5, 15]);
        assert_eq!(divide(&[(exempt, busy(50.0)), (borrower, busy(40.0))]), [10, 10]);
        // Nor does anybody lend to it.
        let lender = Bounds::new(10, Some(100), Some(0), 100);
        assert_eq!(divide(&[(exempt, busy(50.0)), (lender, IDLE)]), [10, 10]);
    }

    fn levels() -> impl Strategy<Value = Vec<(Bounds, Observed)>> {
        let bounds = (0_usize..200, prop::option::of(0_i32..=100), prop::option::of(0_i32..300))
            .prop_map(|(nominal, lendable, borrowing)| Bounds::new(nominal, lendable, borrowing, 600));
        let observed = (0.0..400.0_f64, 0.0..400.0_f64).prop_map(|(most, smoothed)| Observed { most, smoothed });
        prop::collection::vec((bounds, observed), 1..8)
    }

    proptest! {
        #[test]
        fn seats_are_neither_made_nor_lost(levels in levels()) {
            let given = divide(&levels);
            let all: usize = levels.iter().map(|(bounds, _)| bounds.nominal).sum();
            let sum: usize = given.iter().sum();
            // But for rounding.
            prop_assert!(sum.abs_diff(all) <= levels.len(), "{given:?}");
            for (seats, (bounds, observed)) in given.iter().zip(&levels) {
                prop_assert!((bounds.least..=bounds.most).contains(seats));
                // What somebody used of his own share he keeps.
                prop_assert!(*seats as f64 + 0.5 >= observed.most.min(bounds.nominal as f64));
            }
        }

        #[test]
        fn who_wants_more_gets_no_less(levels in levels(), more in 1.0..100.0_f64) {
            let before = divide(&levels);
            let mut eager = levels;
            eager[0].1.smoothed += more;
            prop_assert!(divide(&eager)[0] + 1 >= before[0]);
        }
    }
}
