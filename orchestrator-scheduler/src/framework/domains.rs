//! The domains that nodes are in by the values of their labels, as numbers.

use std::collections::BTreeMap;

use orchestrator_core::scheduler::NodeState;

/// Of one label's key, which value each node has. Values and nodes are numbers from 0.
#[derive(Debug)]
pub(crate) struct Domains {
    key: String,
    numbers: BTreeMap<String, usize>,
    of_nodes: Vec<Option<usize>>,
}

impl Domains {
    /// No node is known yet.
    pub(crate) fn new(key: &str) -> Self {
        Self { key: key.to_owned(), numbers: BTreeMap::new(), of_nodes: Vec::new() }
    }

    /// The label's key.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// Learns the domain of a node.
    pub(crate) fn learn(&mut self, at: usize, node: &NodeState) -> Option<usize> {
        if self.of_nodes.len() <= at {
            self.of_nodes.resize(at + 1, None);
        }
        let domain = node.label(&self.key).map(|value| match self.numbers.get(value) {
            Some(number) => *number,
            None => {
                let number = self.numbers.len();
                self.numbers.insert(value.to_owned(), number);
                number
            }
        });
        self.of_nodes[at] = domain;
        domain
    }

    /// The domain of a node, as it was learned.
    pub(crate) fn of(&self, at: usize) -> Option<usize> {
        self.of_nodes.get(at).copied().flatten()
    }

    /// How many domains were ever known.
    pub(crate) fn len(&self) -> usize {
        self.numbers.len()
    }
}

/// A number of each domain of a key.
#[derive(Debug)]
pub(crate) struct Sums {
    pub(crate) domains: Domains,
    sums: Vec<i64>,
}

impl Sums {
    /// Nothing in any domain of a label's key.
    pub(crate) fn new(key: &str) -> Self {
        Self { domains: Domains::new(key), sums: Vec::new() }
    }

    /// Adds to a domain.
    pub(crate) fn add(&mut self, domain: usize, by: i64) {
        if self.sums.len() <= domain {
            self.sums.resize(domain + 1, 0);
        }
        self.sums[domain] += by;
    }

    /// The number of a domain.
    pub(crate) fn of_domain(&self, domain: usize) -> i64 {
        self.sums.get(domain).copied().unwrap_or(0)
    }

    /// The number of the domain that a node is in; `None` if it is in none.
    pub(crate) fn of_node(&self, at: usize) -> Option<i64> {
        self.domains.of(at).map(|domain| self.of_domain(domain))
    }
}
