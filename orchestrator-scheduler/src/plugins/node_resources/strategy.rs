//! Which nodes are better, by how much of them is taken.

use super::Use;
use crate::framework::MAX_SCORE;

/// A resource that scores look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScoredResource {
    /// Its name.
    pub name: String,
    /// How much it counts beside others.
    pub weight: i64,
}

impl ScoredResource {
    /// CPU and memory, alike: what scores look at unless told otherwise.
    pub fn usual() -> Vec<Self> {
        ["cpu", "memory"].map(|name| Self { name: name.to_owned(), weight: 1 }).into()
    }
}

/// Which nodes are better.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// Those with more room: pods are spread.
    #[default]
    LeastAllocated,
    /// Those with less room: pods are packed.
    MostAllocated,
    /// As a line through these points says, which are ordered by utilization.
    RequestedToCapacityRatio(Vec<ShapePoint>),
}

/// A point of a line from how much is taken to how good that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShapePoint {
    /// How much is taken, in percent.
    pub utilization: i64,
    /// How good that is, from 0 to 10.
    pub score: i64,
}

/// The best score of a point.
pub(crate) const MAX_SHAPE_SCORE: i64 = 10;

impl Strategy {
    /// The score of a node by the use of its resources, with their weights.
    pub(super) fn score(&self, uses: impl Iterator<Item = (Use, i64)>) -> i64 {
        let (mut sum, mut weights) = (0, 0);
        for (of, weight) in uses {
            let score = self.score_one(of);
            // On a line, what is worth nothing does not count at all.
            if score > 0 || !matches!(self, Self::RequestedToCapacityRatio(_)) {
                sum += score * weight;
                weights += weight;
            }
        }
        match self {
            _ if weights == 0 => 0,
            Self::RequestedToCapacityRatio(_) => (sum as f64 / weights as f64).round() as i64,
            _ => sum / weights,
        }
    }

    fn score_one(&self, Use { has, with_pod, .. }: Use) -> i64 {
        match self {
            Self::LeastAllocated => percent(has.saturating_sub(with_pod).max(0), has),
            Self::MostAllocated => percent(with_pod.min(has), has),
            Self::RequestedToCapacityRatio(shape) => on_line(shape, percent(with_pod.min(has), has)),
        }
    }
}

fn percent(part: i64, whole: i64) -> i64 {
    let percent = i128::from(part) * i128::from(MAX_SCORE) / i128::from(whole);
    i64::try_from(percent).unwrap_or(MAX_SCORE)
}

/// The value at a place of a line that goes straight from point to point, and level before the first and after the last.
fn on_line(shape: &[ShapePoint], at: i64) -> i64 {
    let scaled = |point: &ShapePoint| point.score * (MAX_SCORE / MAX_SHAPE_SCORE);
    let next = shape.iter().position(|point| at <= point.utilization);
    match (next, shape) {
        (Some(0), [first, ..]) => scaled(first),
        (Some(next), _) => {
            let (before, after) = (&shape[next - 1], &shape[next]);
            let rise = scaled(after) - scaled(before);
            scaled(before) + rise * (at - before.utilization) / (after.utilization - before.utilization)
        }
        (None, _) => shape.last().map_or(0, scaled),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(has: i64, with_pod: i64) -> Use {
        Use { has, taken: 0, with_pod }
    }

    #[test]
    fn strategies_prefer_what_they_say() {
        let uses = || [(of(4000, 1000), 1), (of(10_000, 9_999), 3)].into_iter();
        assert_eq!(Strategy::LeastAllocated.score(uses()), 75 / 4);
        assert_eq!(Strategy::MostAllocated.score(uses()), (25 + 3 * 99) / 4);
        assert_eq!(Strategy::LeastAllocated.score([(of(10, 11), 1)].into_iter()), 0);
        assert_eq!(Strategy::MostAllocated.score([(of(10, 11), 1)].into_iter()), 100);
        assert_eq!(Strategy::MostAllocated.score(std::iter::empty()), 0);
    }

    #[test]
    fn lines_are_followed() {
        let point = |utilization, score| ShapePoint { utilization, score };
        let falling = vec![point(0, 10), point(100, 0)];
        assert_eq!([0, 25, 99, 100, 120].map(|at| on_line(&falling, at)), [100, 75, 1, 0, 0]);
        let peak = vec![point(20, 0), point(50, 10), point(80, 5)];
        assert_eq!([0, 20, 35, 50, 65, 80, 100].map(|at| on_line(&peak, at)), [0, 0, 50, 100, 75, 50, 50]);
        let strategy = Strategy::RequestedToCapacityRatio(falling);
        // The full resource counts for nothing, not for a nought.
        assert_eq!(strategy.score([(of(4, 4), 5), (of(4, 1), 1)].into_iter()), 75);
    }
}
