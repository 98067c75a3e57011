//! What nodes would lose, by their order: the best of the first so many where room can be made, counted from any node on.

use std::{cmp::Reverse, ops::ControlFlow};

use jiff::Timestamp;

/// What it costs to make room on a node. The least is the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cost {
    /// How many disruption budgets' limits are broken.
    pub(super) violations: usize,
    /// The highest priority of a victim.
    pub(super) highest: i32,
    /// The sum of the victims' priorities, each shifted to be positive, so that more victims are never better.
    pub(super) sum: i64,
    pub(super) victims: usize,
    /// When the first of the most important victims started.
    pub(super) earliest: Reverse<Option<Timestamp>>,
}

/// What is known of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Prospect {
    /// Removing pods cannot help.
    Out,
    /// It has not been looked at.
    Unknown,
    /// No room can be made for the pod.
    Hopeless,
    /// Room can be made.
    Room(Cost),
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// This node has to be looked at first.
    Unknown(usize),
    /// The best node; `None` if there is none.
    Best(Option<usize>),
}

/// The nodes in their order, and a tree of sums above them.
#[derive(Debug)]
pub(super) struct Field {
    nodes: Vec<Prospect>,
    /// Of each place: 1 is the root, below a place `p` are `2p` and `2p + 1`, and the second half are the nodes.
    sums: Vec<Sum>,
}

/// What is known of all nodes below a place.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    /// Those that are not out.
    candidates: u32,
    unknown: u32,
    rooms: u32,
    /// Those where room can be made without breaking a budget.
    clean: u32,
    best: Option<u32>,
}

/// A way through the tree, from one node up to another.
struct Walk {
    from: usize,
    to: usize,
    enough: usize,
    sum: Sum,
}

impl Field {
    /// Of these nodes.
    pub(super) fn new(nodes: Vec<Prospect>) -> Self {
        let width = nodes.len().next_power_of_two();
        let mut field = Self { nodes, sums: vec![Sum::default(); width * 2] };
        (0..field.nodes.len()).for_each(|at| field.sums[width + at] = field.leaf(at));
        (1..width).rev().for_each(|place| field.sums[place] = field.below(place));
        field
    }

    /// What is known of a node.
    pub(super) fn get(&self, at: usize) -> Prospect {
        self.nodes.get(at).copied().unwrap_or(Prospect::Out)
    }

    /// Something else is known of a node.
    pub(super) fn set(&mut self, at: usize, prospect: Prospect) {
        if self.get(at) == prospect {
            return;
        }
        self.nodes[at] = prospect;
        let mut place = self.width() + at;
        self.sums[place] = self.leaf(at);
        while place > 1 {
            place /= 2;
            self.sums[place] = self.below(place);
        }
    }

    /// How many nodes are not out.
    pub(super) fn candidates(&self) -> usize {
        self.sums.get(1).map_or(0, |sum| sum.candidates as usize)
    }

    /// The best node of those that come after skipping so many that are not out, all around: of the first `enough` where room
    /// can be made, and of more as long as each breaks a budget.
    pub(super) fn best(&self, skip: usize, enough: usize) -> Found {
        let start = self.after(skip);
        let mut walk = Walk { from: start, to: self.width(), enough, sum: Sum::default() };
        let mut end = self.walk(1, 0, self.width(), &mut walk);
        if end.is_continue() {
            (walk.from, walk.to) = (0, start);
            end = self.walk(1, 0, self.width(), &mut walk);
        }
        match end {
            ControlFlow::Break(Some(unknown)) => Found::Unknown(unknown),
            _ => Found::Best(walk.sum.best.map(|at| at as usize)),
        }
    }

    fn width(&self) -> usize {
        self.sums.len() / 2
    }

    fn leaf(&self, at: usize) -> Sum {
        let one = Sum { candidates: 1, ..Sum::default() };
        match self.nodes[at] {
            Prospect::Out => Sum::default(),
            Prospect::Unknown => Sum { unknown: 1, ..one },
            Prospect::Hopeless => one,
            Prospect::Room(cost) => {
                let clean = u32::from(cost.violations == 0);
                Sum { rooms: 1, clean, best: u32::try_from(at).ok(), ..one }
            }
        }
    }

    fn below(&self, place: usize) -> Sum {
        self.join(self.sums[place * 2], self.sums[place * 2 + 1])
    }

    /// Of two that are equally good, the first is the better.
    fn join(&self, first: Sum, second: Sum) -> Sum {
        let better = match (first.best, second.best) {
            (Some(a), Some(b)) => self.cost(b) < self.cost(a),
            (a, _) => a.is_none(),
        };
        Sum {
            candidates: first.candidates + second.candidates,
            unknown: first.unknown + second.unknown,
            rooms: first.rooms + second.rooms,
            clean: first.clean + second.clean,
            best: if better { second.best } else { first.best },
        }
    }

    fn cost(&self, at: u32) -> Option<Cost> {
        match self.get(at as usize) {
            Prospect::Room(cost) => Some(cost),
            _ => None,
        }
    }

    /// The node after so many that are not out.
    fn after(&self, mut skip: usize) -> usize {
        let mut place = 1;
        while place < self.width() {
            place *= 2;
            let left = self.sums[place].candidates as usize;
            if skip >= left {
                skip -= left;
                place += 1;
            }
        }
        place - self.width()
    }

    /// Goes through the nodes below a place, which are `width` from `first` on. Breaks off once there is enough, or where
    /// something is not known.
    fn walk(&self, place: usize, first: usize, width: usize, walk: &mut Walk) -> ControlFlow<Option<usize>> {
        let Some(here) = self.sums.get(place).filter(|sum| sum.candidates > 0) else {
            return ControlFlow::Continue(());
        };
        if first >= walk.to || first + width <= walk.from {
            return ControlFlow::Continue(());
        }
        if walk.from <= first && first + width <= walk.to {
            let all = self.join(walk.sum, *here);
            let enough = all.rooms as usize >= walk.enough && all.clean > 0;
            if here.unknown == 0 && (!enough || width == 1) {
                walk.sum = all;
                return if enough { ControlFlow::Break(None) } else { ControlFlow::Continue(()) };
            }
            if width == 1 {
                return ControlFlow::Break(Some(first));
            }
        }
        self.walk(place * 2, first, width / 2, walk)?;
        self.walk(place * 2 + 1, first + width / 2, width / 2, walk)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn prospect() -> impl Strategy<Value = Prospect> {
        let room = (0..2_usize, 0..3).prop_map(|(violations, highest)| {
            Prospect::Room(Cost { violations, highest, sum: 0, victims: 1, earliest: Reverse(None) })
        });
        prop_oneof![Just(Prospect::Out), Just(Prospect::Hopeless), Just(Prospect::Unknown), room.clone(), room]
    }

    /// As [`Field::best`], by looking at all.
    fn best(nodes: &[Prospect], skip: usize, enough: usize) -> Found {
        let candidates: Vec<_> = (0..nodes.len()).filter(|at| nodes[*at] != Prospect::Out).collect();
        let (before, from) = candidates.split_at(skip.min(candidates.len()));
        let mut rooms: Vec<(Cost, usize)> = Vec::new();
        for at in from.iter().chain(before) {
            match nodes[*at] {
                Prospect::Unknown => return Found::Unknown(*at),
                Prospect::Room(cost) => rooms.push((cost, *at)),
                _ => {}
            }
            if rooms.len() >= enough && rooms.iter().any(|(cost, _)| cost.violations == 0) {
                break;
            }
        }
        Found::Best(rooms.into_iter().min_by_key(|(cost, _)| *cost).map(|(_, at)| at))
    }

    proptest! {
        #[test]
        fn the_best_is_found_as_by_looking_at_all(
            nodes in prop::collection::vec(prospect(), 0..40),
            changes in prop::collection::vec((any::<prop::sample::Index>(), prospect()), 0..40),
            skip in any::<prop::sample::Index>(),
            enough in 0..12_usize,
        ) {
            let mut nodes = nodes;
            let mut field = Field::new(nodes.clone());
            let count = nodes.len();
            for (at, prospect) in changes.into_iter().filter(|_| count > 0) {
                let at = at.index(count);
                nodes[at] = prospect;
                field.set(at, prospect);
            }
            let candidates = nodes.iter().filter(|prospect| **prospect != Prospect::Out).count();
            prop_assert_eq!(field.candidates(), candidates);
            let skip = if candidates == 0 { 0 } else { skip.index(candidates) };
            prop_assert_eq!(field.best(skip, enough), best(&nodes, skip, enough));
        }
    }
}
