//! Which ranges of addresses for pods each node has.
//!
//! Upstream: `pkg/controller/nodeipam/ipam`.

use std::collections::{BTreeMap, BTreeSet};

use crate::addresses::Prefix;

/// The addresses of a cluster's pods, cut into ranges of nodes.
#[derive(Debug)]
pub(super) struct Ranges {
    pools: Vec<Pool>,
    /// What each node has, by its name.
    nodes: BTreeMap<String, Vec<Prefix>>,
}

/// One range of the cluster: one for each family of addresses.
#[derive(Debug)]
struct Pool {
    whole: Prefix,
    /// The length of a node's range in bits.
    length: u8,
    taken: BTreeSet<u64>,
    /// Services have these.
    excluded: Vec<std::ops::Range<u64>>,
    /// Where the search begins, so that a range that became free is not given away at once.
    next: u64,
}

/// A range of the cluster has no range of a node left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exhausted {
    /// Which one.
    pub index: usize,
}

impl Ranges {
    /// Of ranges of the cluster, with the length of a node's ranges, without what services have.
    pub(super) fn new(cluster: &[(Prefix, u8)], services: &[Prefix]) -> Self {
        let pool = |(whole, length): &(Prefix, u8)| Pool {
            whole: *whole,
            length: *length,
            taken: BTreeSet::new(),
            excluded: services.iter().map(|services| whole.taken_up(*length, *services)).collect(),
            next: 0,
        };
        Self { pools: cluster.iter().map(pool).collect(), nodes: BTreeMap::new() }
    }

    /// A node is seen with these ranges; with none it gives back what it had.
    pub(super) fn observe(&mut self, node: &str, ranges: Vec<Prefix>) {
        self.release(node);
        for (pool, range) in self.pools.iter_mut().zip(&ranges) {
            pool.taken.extend(pool.whole.taken_up(pool.length, *range));
        }
        if !ranges.is_empty() {
            self.nodes.insert(node.to_owned(), ranges);
        }
    }

    /// A node is gone.
    pub(super) fn release(&mut self, node: &str) {
        for (pool, range) in self.pools.iter_mut().zip(self.nodes.remove(node).unwrap_or_default()) {
            for index in pool.whole.taken_up(pool.length, range) {
                pool.taken.remove(&index);
            }
        }
    }

    /// Ranges for a node, one of each family: those that it has been given already, or free ones.
    pub(super) fn allocate(&mut self, node: &str) -> Result<Vec<Prefix>, Exhausted> {
        if let Some(known) = self.nodes.get(node) {
            return Ok(known.clone());
        }
        let free = self.pools.iter().enumerate().map(|(index, pool)| pool.free().ok_or(Exhausted { index }));
        let free = free.collect::<Result<Vec<u64>, _>>()?;
        let take = |(pool, index): (&mut Pool, u64)| {
            pool.taken.insert(index);
            pool.next = index.saturating_add(1);
            pool.whole.part(pool.length, index)
        };
        let ranges: Vec<Prefix> = self.pools.iter_mut().zip(free).map(take).collect();
        self.nodes.insert(node.to_owned(), ranges.clone());
        Ok(ranges)
    }
}

impl Pool {
    /// The first range that is free, from `next` on and then from the start.
    fn free(&self) -> Option<u64> {
        let total = self.whole.parts(self.length);
        self.free_in(self.next..total).or_else(|| self.free_in(0..self.next.min(total)))
    }

    fn free_in(&self, range: std::ops::Range<u64>) -> Option<u64> {
        let mut index = range.start;
        while index < range.end {
            match self.excluded.iter().find(|excluded| excluded.contains(&index)) {
                Some(excluded) => index = excluded.end,
                None if self.taken.contains(&index) => index += 1,
                None => return Some(index),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    fn texts(ranges: Result<Vec<Prefix>, Exhausted>) -> Vec<String> {
        ranges.unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn nodes_get_a_range_of_each_family_beside_the_services() {
        let cluster = [(prefix("10.244.0.0/22"), 24), (prefix("fd00::/62"), 64)];
        let mut ranges = Ranges::new(&cluster, &[prefix("10.244.1.0/24")]);
        ranges.observe("old", vec![prefix("10.244.0.0/24"), prefix("fd00::/64")]);
        assert_eq!(texts(ranges.allocate("a")), ["10.244.2.0/24", "fd00:0:0:1::/64"]);
        assert_eq!(texts(ranges.allocate("a")), ["10.244.2.0/24", "fd00:0:0:1::/64"], "the same again");
        ranges.release("old");
        assert_eq!(texts(ranges.allocate("b")), ["10.244.3.0/24", "fd00:0:0:2::/64"], "not what became free just now");
        assert_eq!(texts(ranges.allocate("c")), ["10.244.0.0/24", "fd00:0:0:3::/64"]);
        assert_eq!(ranges.allocate("d"), Err(Exhausted { index: 0 }));
        ranges.observe("a", Vec::new());
        assert_eq!(texts(ranges.allocate("d")), ["10.244.2.0/24", "fd00::/64"]);
    }

    proptest! {
        #[test]
        fn no_two_nodes_share_a_range(steps in prop::collection::vec((0..12_u8, any::<bool>()), 0..60)) {
            let mut ranges = Ranges::new(&[(prefix("10.0.0.0/21"), 24)], &[prefix("10.0.4.0/23")]);
            let mut held = BTreeMap::new();
            for (node, arrives) in steps {
                let name = format!("n{node}");
                if !arrives {
                    ranges.release(&name);
                    held.remove(&name);
                } else if let Ok(given) = ranges.allocate(&name) {
                    held.insert(name, given[0]);
                } else {
                    prop_assert_eq!(held.len(), 6, "only a full range refuses");
                }
                let distinct: BTreeSet<_> = held.values().collect();
                prop_assert_eq!(distinct.len(), held.len());
                prop_assert!(held.values().all(|range| !prefix("10.0.4.0/23").contains(*range)));
            }
        }
    }
}
