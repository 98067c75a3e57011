//! Pools of consecutive numbers that services draw from: the addresses of a range, the ports of nodes.
//!
//! The first numbers are for those who ask for one by value, as long as others are free:
//! <https://kubernetes.io/docs/concepts/services-networking/cluster-ip-allocation/>.

use std::{collections::BTreeSet, ops::Range};

/// Numbers that can be drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Pool {
    first: u64,
    /// The first of those that are drawn while there are any.
    preferred: u64,
    /// Behind the last.
    end: u64,
}

/// How many of a pool's numbers are drawn last: a part of them, within bounds. Of a pool that is smaller than the lower
/// bound, none.
struct SetAside {
    part: u64,
    least: u64,
    most: u64,
}

const OF_ADDRESSES: SetAside = SetAside { part: 16, least: 16, most: 256 };
const OF_PORTS: SetAside = SetAside { part: 32, least: 16, most: 128 };

/// Upstream's `--service-node-port-range`.
const NODE_PORTS: Range<u64> = 30_000..32_768;

impl SetAside {
    fn of(&self, size: u64) -> u64 {
        if size <= self.least { 0 } else { (size / self.part).clamp(self.least, self.most) }
    }
}

impl Pool {
    /// The ports of nodes.
    pub(super) fn node_ports() -> Self {
        let Range { start: first, end } = NODE_PORTS;
        Self { first, preferred: first + OF_PORTS.of(end - first), end }
    }

    /// The addresses of an IPv4 network that a service can have: all but the first, which is the network's, and the last,
    /// at which everybody is reached.
    pub(super) fn of_network(address: u32, prefix_bits: u8) -> Self {
        let size = 1_u64 << 32_u32.saturating_sub(prefix_bits.into());
        let base = u64::from(address) / size * size;
        let (first, end) = (base + 1, (base + size - 1).max(base + 1));
        Self { first, preferred: (first + OF_ADDRESSES.of(size)).min(end), end }
    }

    /// The address of the network, which no service can have.
    pub(super) fn network(&self) -> u64 {
        self.first - 1
    }

    pub(super) fn contains(&self, number: u64) -> bool {
        (self.first..self.end).contains(&number)
    }

    /// A number that is not taken, the first from a random one on. `None` where all are.
    pub(super) fn free(&self, random_below: impl Fn(u64) -> u64, taken: &BTreeSet<u64>) -> Option<u64> {
        [self.preferred..self.end, self.first..self.preferred].into_iter().find_map(|part| {
            let middle = part.start + random_below(part.end - part.start);
            (middle..part.end).chain(part.start..middle).find(|number| !taken.contains(number))
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parts_are_set_aside_as_upstream() {
        let cases = [
            (32, (1, 1, 1)),
            (31, (1, 1, 1)),
            (30, (1, 1, 3)),
            (28, (1, 1, 15)),
            (27, (1, 17, 31)),
            (24, (1, 17, 255)),
            (22, (1, 65, 1_023)),
            (16, (1, 257, 65_535)),
            (0, (1, 257, u64::from(u32::MAX))),
        ];
        for (bits, (first, preferred, end)) in cases {
            assert_eq!(Pool::of_network(0, bits), Pool { first, preferred, end }, "/{bits}");
        }
        assert_eq!(Pool::of_network(0x0a00_0105, 24).network(), 0x0a00_0100, "of the network that the address lies in");
        assert_eq!(Pool::node_ports(), Pool { first: 30_000, preferred: 30_086, end: 32_768 });
    }

    #[test]
    fn what_is_set_aside_is_drawn_last() {
        let pool = Pool::of_network(0, 27);
        let mut taken: BTreeSet<u64> = (17..31).collect();
        assert_eq!(pool.free(|_| 3, &taken), Some(4));
        taken.extend(4..17);
        assert_eq!(pool.free(|_| 3, &taken), Some(1), "it begins anew at the first");
        taken.extend(1..4);
        assert_eq!(pool.free(|_| 3, &taken), None);
    }

    proptest! {
        #[test]
        fn every_number_is_found(bits in 24..=32_u8, taken: BTreeSet<u8>, random: u64) {
            let pool = Pool::of_network(0, bits);
            let taken: BTreeSet<u64> = taken.into_iter().map(u64::from).collect();
            let free = pool.free(|bound| random.checked_rem(bound).unwrap_or(0), &taken);
            prop_assert!(free.is_none_or(|free| pool.contains(free) && !taken.contains(&free)));
            prop_assert_eq!(free.is_some(), (0..256).any(|number| pool.contains(number) && !taken.contains(&number)));
        }
    }
}
