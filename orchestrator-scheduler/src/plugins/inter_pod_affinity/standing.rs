//! Who wants to be near whom, kept from one pod to the next of its kind.

use orchestrator_core::scheduler::{AffinityTerm, NodeState, PodInfo, Snapshot};

use super::{Weights, scale_between, weigh};
use crate::framework::{Standing, StandingFilter, StandingScore, Sums};

/// Numbers of the domains of several keys, and what each node has added to them.
#[derive(Debug, Default)]
struct Ledger {
    sums: Vec<Sums>,
    /// Of each node: which sum, which domain, how much.
    added: Vec<Vec<(usize, usize, i64)>>,
    total: i64,
    entries: usize,
    /// How many of the sums know the domains of all nodes.
    settled: usize,
}

impl Ledger {
    /// Takes back what a node has added, and learns its domains.
    fn reopen(&mut self, at: usize, node: &NodeState) {
        if self.added.len() <= at {
            self.added.resize(at + 1, Vec::new());
        }
        for (sum, domain, amount) in self.added[at].drain(..) {
            self.sums[sum].add(domain, -amount);
            self.total -= amount;
            self.entries -= 1;
        }
        for sum in &mut self.sums {
            sum.domains.learn(at, node);
        }
    }

    fn add(&mut self, at: usize, node: &NodeState, key: &str, amount: i64) {
        let sum = self.sum(key);
        if let Some(domain) = self.sums[sum].domains.learn(at, node) {
            self.sums[sum].add(domain, amount);
            self.added[at].push((sum, domain, amount));
            self.total += amount;
            self.entries += 1;
        }
    }

    fn sum(&mut self, key: &str) -> usize {
        self.sums.iter().position(|sum| sum.domains.key() == key).unwrap_or_else(|| {
            self.sums.push(Sums::new(key));
            self.sums.len() - 1
        })
    }

    /// All nodes are in domains of the keys that have come since.
    fn settle(&mut self, cluster: &Snapshot) {
        for sum in &mut self.sums[self.settled..] {
            for (at, node) in cluster.nodes().enumerate() {
                sum.domains.learn(at, node);
            }
        }
        self.settled = self.sums.len();
    }
}

/// The filter: pods that the pod wants near or far, and pods that want it far.
#[derive(Debug)]
pub(super) struct Nearness {
    pod: PodInfo,
    wanted: Ledger,
    unwanted: Ledger,
    unwelcome: Ledger,
    wants_itself: bool,
}

impl Nearness {
    pub(super) fn new(pod: &PodInfo) -> Self {
        let mut wanted = Ledger::default();
        for term in &pod.affinity().required {
            wanted.sum(&term.topology_key);
        }
        let (unwanted, unwelcome) = (Ledger::default(), Ledger::default());
        Self { pod: pod.clone(), wanted, unwanted, unwelcome, wants_itself: false }
    }
}

impl Standing for Nearness {
    fn learn(&mut self, at: usize, node: &NodeState, cluster: &Snapshot) {
        let matches =
            |term: &AffinityTerm, pod: &PodInfo| term.matches(pod, cluster.namespace_labels(&pod.key().namespace));
        for ledger in [&mut self.wanted, &mut self.unwanted, &mut self.unwelcome] {
            ledger.reopen(at, node);
        }
        let own = self.pod.affinity();
        for other in node.pods() {
            for term in other.affinity().anti_required.iter().filter(|term| matches(term, &self.pod)) {
                self.unwelcome.add(at, node, &term.topology_key, 1);
            }
            if own.required.iter().all(|term| matches(term, other)) {
                own.required.iter().for_each(|term| self.wanted.add(at, node, &term.topology_key, 1));
            }
            for term in own.anti_required.iter().filter(|term| matches(term, other)) {
                self.unwanted.add(at, node, &term.topology_key, 1);
            }
        }
    }

    fn settle(&mut self, cluster: &Snapshot) {
        let labels = cluster.namespace_labels(&self.pod.key().namespace);
        self.wants_itself = self.pod.affinity().required.iter().all(|term| term.matches(&self.pod, labels));
        for ledger in [&mut self.wanted, &mut self.unwanted, &mut self.unwelcome] {
            ledger.settle(cluster);
        }
    }

    fn is_idle(&self) -> bool {
        self.wanted.sums.is_empty() && self.unwanted.total == 0 && self.unwelcome.total == 0
    }
}

impl StandingFilter for Nearness {
    fn refuses(&self, at: usize) -> bool {
        let first = self.wanted.total == 0 && self.wants_itself;
        let lacks = |sum: &Sums| sum.of_node(at).is_none_or(|count| count == 0 && !first);
        let crowded = |sum: &Sums| sum.of_node(at).is_some_and(|count| count > 0);
        self.wanted.sums.iter().any(lacks)
            || self.unwanted.sums.iter().any(crowded)
            || self.unwelcome.sums.iter().any(crowded)
    }
}

/// The score: what pods say for and against each domain.
#[derive(Debug)]
pub(super) struct Liking {
    by: Weights,
    pod: PodInfo,
    weights: Ledger,
}

impl Liking {
    pub(super) fn new(by: Weights, pod: &PodInfo) -> Self {
        Self { by, pod: pod.clone(), weights: Ledger::default() }
    }
}

impl Standing for Liking {
    fn learn(&mut self, at: usize, node: &NodeState, cluster: &Snapshot) {
        self.weights.reopen(at, node);
        for other in node.pods() {
            weigh(self.by, &self.pod, other, cluster, &mut |key, weight| self.weights.add(at, node, key, weight));
        }
    }

    fn settle(&mut self, cluster: &Snapshot) {
        self.weights.settle(cluster);
    }

    fn is_idle(&self) -> bool {
        self.weights.entries == 0
    }
}

impl StandingScore for Liking {
    fn score(&self, nodes: &[usize]) -> Option<Vec<i64>> {
        let of = |at: &usize| self.weights.sums.iter().filter_map(|sum| sum.of_node(*at)).sum();
        let mut scores: Vec<i64> = nodes.iter().map(of).collect();
        scale_between(&mut scores);
        Some(scores)
    }
}

/// The score of pods for which all nodes are alike.
#[derive(Debug)]
pub(super) struct Indifference;

impl Standing for Indifference {
    fn learn(&mut self, _at: usize, _node: &NodeState, _cluster: &Snapshot) {}

    fn is_idle(&self) -> bool {
        true
    }
}

impl StandingScore for Indifference {
    fn score(&self, _nodes: &[usize]) -> Option<Vec<i64>> {
        None
    }
}
