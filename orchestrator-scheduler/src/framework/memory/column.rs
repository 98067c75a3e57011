//! A score of all nodes that is scaled to the largest.

use std::collections::BTreeMap;

use crate::framework::scaled;

/// A score that is scaled.
pub(super) struct Column {
    pub(super) weight: i64,
    pub(super) reverse: bool,
    /// Unscaled, of each node.
    pub(super) scores: Vec<i64>,
    /// How many nodes, of those that are not refused, have each score.
    pub(super) counts: BTreeMap<i64, usize>,
}

impl Column {
    pub(super) fn new(weight: i64, reverse: bool, nodes: usize) -> Self {
        Self { weight, reverse, scores: vec![0; nodes], counts: BTreeMap::new() }
    }

    pub(super) fn largest(&self) -> i64 {
        self.counts.last_key_value().map_or(0, |(score, _)| *score)
    }

    pub(super) fn scaled(&self, at: usize) -> i64 {
        self.weight * scaled(self.scores[at], self.largest(), self.reverse)
    }

    pub(super) fn count(&mut self, at: usize, come: bool) {
        let score = self.scores[at];
        let count = self.counts.entry(score).or_default();
        *count = if come { *count + 1 } else { count.saturating_sub(1) };
        if *count == 0 {
            self.counts.remove(&score);
        }
    }
}
