//! How evenly pods are spread, kept from one pod to the next of its kind.

use orchestrator_core::scheduler::{NodeState, PodInfo, Snapshot};

use super::{
    Constraints,
    constraint::{Constraint, HOSTNAME, has_all_keys},
    score::{part, total, turn_round, weight},
};
use crate::framework::{Standing, StandingFilter, StandingScore, Sums};

/// One constraint's domains, and what each node has added to them.
#[derive(Debug)]
struct Tally {
    constraint: Constraint,
    counts: Sums,
    /// How many nodes are counted in each domain.
    nodes: Sums,
    added: Vec<Option<(usize, i64)>>,
    /// How many pods count on each node, wherever it is.
    here: Vec<i64>,
}

impl Tally {
    fn new(constraint: Constraint) -> Self {
        let sums = || Sums::new(&constraint.key);
        Self { counts: sums(), nodes: sums(), constraint, added: Vec::new(), here: Vec::new() }
    }

    fn learn(&mut self, at: usize, node: &NodeState, pod: &PodInfo, counts: bool) {
        if self.added.len() <= at {
            self.added.resize(at + 1, None);
            self.here.resize(at + 1, 0);
        }
        if let Some((domain, count)) = self.added[at].take() {
            self.counts.add(domain, -count);
            self.nodes.add(domain, -1);
        }
        self.here[at] = self.constraint.count(node, &pod.key().namespace);
        let domain = self.counts.domains.learn(at, node);
        if let Some(domain) = domain.filter(|_| counts && self.constraint.includes(pod.spec.as_ref(), node)) {
            self.counts.add(domain, self.here[at]);
            self.nodes.add(domain, 1);
            self.added[at] = Some((domain, self.here[at]));
        }
    }

    /// The domains that count: how many, and the fewest pods in one.
    fn domains(&self) -> (usize, i64) {
        let domains = (0..self.counts.domains.len()).filter(|domain| self.nodes.of_domain(*domain) > 0);
        let counts = domains.map(|domain| self.counts.of_domain(domain));
        counts.fold((0, i64::MAX), |(domains, fewest), count| (domains + 1, fewest.min(count)))
    }
}

/// The filter.
#[derive(Debug)]
pub(super) struct Skew {
    pod: PodInfo,
    tallies: Vec<Tally>,
    /// Of each constraint, the fewest pods in a domain.
    fewest: Vec<i64>,
}

impl Skew {
    pub(super) fn new(pod: &PodInfo, constraints: Constraints) -> Self {
        Self { pod: pod.clone(), tallies: constraints.list.into_iter().map(Tally::new).collect(), fewest: Vec::new() }
    }
}

impl Standing for Skew {
    fn learn(&mut self, at: usize, node: &NodeState, _cluster: &Snapshot) {
        let counts = self.tallies.iter().all(|tally| node.label(&tally.constraint.key).is_some());
        self.tallies.iter_mut().for_each(|tally| tally.learn(at, node, &self.pod, counts));
    }

    fn settle(&mut self, _cluster: &Snapshot) {
        let fewest = |tally: &Tally| match tally.domains() {
            (domains, _) if domains < tally.constraint.min_domains => 0,
            (_, fewest) => fewest,
        };
        self.fewest = self.tallies.iter().map(fewest).collect();
    }

    fn is_idle(&self) -> bool {
        self.tallies.is_empty()
    }
}

impl StandingFilter for Skew {
    fn refuses(&self, at: usize) -> bool {
        self.tallies.iter().zip(&self.fewest).any(|(tally, fewest)| {
            let own = i64::from(tally.constraint.matches_itself);
            let here = tally.counts.of_node(at).map(|count| count + own);
            here.is_none_or(|here| here.saturating_sub(*fewest) > tally.constraint.max_skew)
        })
    }
}

/// The score.
#[derive(Debug)]
pub(super) struct Evenness {
    pod: PodInfo,
    all_keys: bool,
    constraints: Vec<Constraint>,
    tallies: Vec<Tally>,
}

impl Evenness {
    pub(super) fn new(pod: &PodInfo, constraints: Constraints) -> Self {
        let Constraints { list, all_keys } = constraints;
        Self { pod: pod.clone(), all_keys, tallies: list.iter().cloned().map(Tally::new).collect(), constraints: list }
    }

    /// How much each constraint counts if these nodes are to choose from.
    fn weights(&self, nodes: &[usize], ignored: &[bool]) -> Vec<f64> {
        let looked_at = || nodes.iter().zip(ignored).filter(|(_, ignored)| !**ignored).map(|(at, _)| *at);
        let of = |tally: &Tally| {
            if tally.constraint.key == HOSTNAME {
                return weight(looked_at().count());
            }
            // Nodes without a domain are one together.
            let mut seen = vec![false; tally.counts.domains.len() + 1];
            looked_at().for_each(|at| seen[tally.counts.domains.of(at).map_or(0, |domain| domain + 1)] = true);
            weight(seen.into_iter().filter(|seen| *seen).count())
        };
        self.tallies.iter().map(of).collect()
    }
}

impl Standing for Evenness {
    fn learn(&mut self, at: usize, node: &NodeState, _cluster: &Snapshot) {
        let counts = !self.all_keys || has_all_keys(node, &self.constraints);
        self.tallies.iter_mut().for_each(|tally| tally.learn(at, node, &self.pod, counts));
    }

    fn is_idle(&self) -> bool {
        self.tallies.is_empty()
    }
}

impl StandingScore for Evenness {
    fn score(&self, nodes: &[usize]) -> Option<Vec<i64>> {
        let ignored =
            |at: &usize| self.all_keys && self.tallies.iter().any(|tally| tally.counts.domains.of(*at).is_none());
        let ignored: Vec<_> = nodes.iter().map(ignored).collect();
        let weights = self.weights(nodes, &ignored);
        let of = |at: usize| {
            let parts = self.tallies.iter().zip(&weights).filter_map(|(tally, weight)| {
                let sum = tally.counts.of_node(at)?;
                let count = if tally.constraint.key == HOSTNAME { tally.here[at] } else { sum };
                Some(part(count, tally.constraint.max_skew, *weight))
            });
            total(parts)
        };
        let mut scores: Vec<_> =
            nodes.iter().zip(&ignored).map(|(at, ignored)| if *ignored { 0 } else { of(*at) }).collect();
        turn_round(&mut scores, &ignored);
        Some(scores)
    }
}
