//! Shuffle sharding: which few of many queues a flow may wait in.

use crate::limits;

/// Some queues, in ascending order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hand {
    queues: [usize; limits::HAND_QUEUES],
    size: usize,
}

impl Hand {
    /// Deals `size` of so many queues. Equal hashes give equal hands; others share all of their queues very rarely.
    pub(super) fn deal(mut hash: u64, queues: usize, size: usize) -> Self {
        let mut hand = Self { queues: [0; limits::HAND_QUEUES], size: 0 };
        for dealt in 0..size.min(queues).min(limits::HAND_QUEUES) {
            let left = (queues - dealt) as u64;
            hand.insert((hash % left) as usize);
            hash /= left;
        }
        hand
    }

    /// Takes the queue at this place among those that were not dealt yet.
    fn insert(&mut self, place: usize) {
        let mut queue = place;
        let mut at = 0;
        while at < self.size && self.queues[at] <= queue {
            queue += 1;
            at += 1;
        }
        self.queues.copy_within(at..self.size, at + 1);
        self.queues[at] = queue;
        self.size += 1;
    }

    pub(super) fn queues(&self) -> &[usize] {
        self.queues.get(..self.size).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_hand_holds_different_queues(hash: u64, queues in 1_usize..500, size in 1_usize..40) {
            let hand = Hand::deal(hash, queues, size);
            let different: BTreeSet<usize> = hand.queues().iter().copied().collect();
            prop_assert_eq!(different.len(), size.min(queues).min(limits::HAND_QUEUES));
            prop_assert!(hand.queues().is_sorted());
            prop_assert!(different.iter().all(|queue| *queue < queues));
        }

        #[test]
        fn a_hand_is_dealt_like_cards_from_a_deck(hash: u64, queues in 1_usize..100, size in 1_usize..10) {
            let (mut deck, mut dealt, mut rest) = ((0..queues).collect::<Vec<_>>(), Vec::new(), hash);
            for _ in 0..size.min(queues) {
                let left = deck.len() as u64;
                dealt.push(deck.remove((rest % left) as usize));
                rest /= left;
            }
            dealt.sort_unstable();
            let hand = Hand::deal(hash, queues, size);
            prop_assert_eq!(hand.queues(), dealt.as_slice());
        }
    }
}
