//! The best of many numbers, and any of those that tie for it, while single numbers change.

/// A tree of matches: each inner place holds the best number below it, and how often it is there.
#[derive(Clone, Debug, Default)]
pub(super) struct Tournament {
    /// Of each place: 1 is the root, below a place `p` are `2p` and `2p + 1`, and the second half are the numbers.
    places: Vec<Best>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Best {
    number: i64,
    count: u32,
}

/// Out of the tournament.
const OUT: Best = Best { number: i64::MIN, count: 0 };

impl Tournament {
    /// Of these numbers; those that are `None` do not take part.
    pub(super) fn new(numbers: impl ExactSizeIterator<Item = Option<i64>>) -> Self {
        let width = numbers.len().next_power_of_two();
        let mut places = vec![OUT; width * 2];
        for (place, number) in places[width..].iter_mut().zip(numbers) {
            *place = entrant(number);
        }
        let mut tree = Self { places };
        (1..width).rev().for_each(|place| tree.play(place));
        tree
    }

    /// A number changes.
    pub(super) fn set(&mut self, index: usize, number: Option<i64>) {
        let mut place = self.places.len() / 2 + index;
        self.places[place] = entrant(number);
        while place > 1 {
            place /= 2;
            self.play(place);
        }
    }

    fn play(&mut self, place: usize) {
        let (left, right) = (self.places[place * 2], self.places[place * 2 + 1]);
        self.places[place] = match left.number.cmp(&right.number) {
            std::cmp::Ordering::Greater => left,
            std::cmp::Ordering::Less => right,
            std::cmp::Ordering::Equal => Best { count: left.count + right.count, ..left },
        };
    }

    /// The index of one of the best: of all of them in order, the one that `tie` (modulo their count) says.
    pub(super) fn best(&self, tie: u64) -> Option<usize> {
        let root = self.places.get(1).filter(|root| root.count > 0)?;
        let mut skipped = (tie % u64::from(root.count)) as u32;
        let width = self.places.len() / 2;
        let mut place = 1;
        while place < width {
            place *= 2;
            let left = self.places[place];
            let among_left = if left.number == root.number { left.count } else { 0 };
            if skipped >= among_left {
                skipped -= among_left;
                place += 1;
            }
        }
        Some(place - width)
    }
}

fn entrant(number: Option<i64>) -> Best {
    number.map_or(OUT, |number| Best { number, count: 1 })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_best_are_found_as_by_looking_at_all(
            numbers in prop::collection::vec(prop::option::of(0..4_i64), 0..40),
            changes in prop::collection::vec((any::<prop::sample::Index>(), prop::option::of(0..4_i64)), 0..40),
            tie: u64,
        ) {
            let mut numbers = numbers;
            let mut tree = Tournament::new(numbers.iter().copied());
            let count = numbers.len();
            for (index, number) in changes.into_iter().filter(|_| count > 0) {
                let index = index.index(count);
                numbers[index] = number;
                tree.set(index, number);
            }
            let best = numbers.iter().flatten().max();
            let best: Vec<_> = (0..numbers.len()).filter(|at| best.is_some() && numbers[*at].as_ref() == best).collect();
            let expected = (!best.is_empty()).then(|| best[(tie % best.len() as u64) as usize]);
            prop_assert_eq!(tree.best(tie), expected);
        }
    }
}
