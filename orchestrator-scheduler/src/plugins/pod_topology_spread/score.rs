//! The score: how even the spread would be.

use std::collections::BTreeMap;

use orchestrator_core::scheduler::{NodeState, PodInfo, Snapshot};

use super::{
    Constraints,
    constraint::{Constraint, HOSTNAME, has_all_keys},
};
use crate::framework::{MAX_SCORE, Score};

/// How many pods count in each domain of each constraint, and how much that counts.
pub(super) struct Evenness<'a> {
    namespace: &'a str,
    all_keys: bool,
    constraints: Vec<(Constraint, BTreeMap<&'a str, i64>, f64)>,
}

impl<'a> Evenness<'a> {
    pub(super) fn new(
        constraints: Constraints,
        pod: &'a PodInfo,
        cluster: &'a Snapshot,
        nodes: &[&'a NodeState],
    ) -> Self {
        let Constraints { list, all_keys } = constraints;
        let looks_at = |node: &NodeState| !all_keys || has_all_keys(node, &list);
        let scored = nodes.iter().filter(|node| looks_at(node));
        let hosts = scored.clone().count();
        let mut counts: Vec<BTreeMap<&str, i64>> = vec![BTreeMap::new(); list.len()];
        for node in scored {
            for (constraint, counts) in
                list.iter().zip(&mut counts).filter(|(constraint, _)| constraint.key != HOSTNAME)
            {
                counts.insert(node.label(&constraint.key).unwrap_or_default(), 0);
            }
        }
        for node in cluster.nodes().filter(|node| looks_at(node)) {
            for (constraint, counts) in list.iter().zip(&mut counts) {
                let count = counts.get_mut(node.label(&constraint.key).unwrap_or_default());
                if let Some(count) = count
                    && constraint.includes(pod.spec.as_ref(), node)
                {
                    *count += constraint.count(node, &pod.key().namespace);
                }
            }
        }
        let weigh = |(constraint, counts): (Constraint, BTreeMap<&'a str, i64>)| {
            let domains = if constraint.key == HOSTNAME { hosts } else { counts.len() };
            (constraint, counts, weight(domains))
        };
        let constraints = list.into_iter().zip(counts).map(weigh).collect();
        Self { namespace: &pod.key().namespace, all_keys, constraints }
    }

    fn ignores(&self, node: &NodeState) -> bool {
        self.all_keys && self.constraints.iter().any(|(constraint, ..)| node.label(&constraint.key).is_none())
    }
}

impl Score for Evenness<'_> {
    fn score(&self, node: &NodeState) -> i64 {
        if self.ignores(node) {
            return 0;
        }
        let parts = self.constraints.iter().filter_map(|(constraint, counts, weight)| {
            let domain = node.label(&constraint.key)?;
            let count = if constraint.key == HOSTNAME {
                constraint.count(node, self.namespace)
            } else {
                counts.get(domain).copied().unwrap_or(0)
            };
            Some(part(count, constraint.max_skew, *weight))
        });
        total(parts)
    }

    fn normalize(&self, nodes: &[&NodeState], scores: &mut [i64]) {
        let ignored: Vec<_> = nodes.iter().map(|node| self.ignores(node)).collect();
        turn_round(scores, &ignored);
    }
}

/// A domain counts more where there are many, or few would drown the many.
pub(super) fn weight(domains: usize) -> f64 {
    ((domains + 2) as f64).ln()
}

/// What one constraint says about a domain with so many pods: the more, the worse.
pub(super) fn part(count: i64, max_skew: i64, weight: f64) -> f64 {
    count as f64 * weight + (max_skew - 1) as f64
}

/// What all constraints say.
pub(super) fn total(parts: impl Iterator<Item = f64>) -> i64 {
    parts.sum::<f64>().round() as i64
}

/// Makes the least the best, and nodes that are ignored the worst.
pub(super) fn turn_round(scores: &mut [i64], ignored: &[bool]) {
    let counted = || scores.iter().zip(ignored).filter(|(_, ignored)| !**ignored).map(|(score, _)| *score);
    let (least, most) = (counted().min().unwrap_or(i64::MAX), counted().max().unwrap_or(0));
    for (score, ignored) in scores.iter_mut().zip(ignored) {
        *score = match most {
            _ if *ignored => 0,
            0 => MAX_SCORE,
            most => MAX_SCORE * (most + least - *score) / most,
        };
    }
}
