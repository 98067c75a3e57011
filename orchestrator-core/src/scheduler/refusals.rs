//! Why nodes are refused: each reason is kept once, however many nodes it is about.

use std::{collections::BTreeMap, fmt, sync::Arc};

use super::Rejection;

/// Why nodes are refused. A clone shares everything until one of both changes.
#[derive(Clone, Default)]
pub struct Refusals(Arc<Inner>);

#[derive(Clone, Default)]
struct Inner {
    /// In order.
    names: Arc<Vec<Box<str>>>,
    /// Of each node, where its reason is in `reasons`.
    of_nodes: Vec<Option<u32>>,
    reasons: Vec<Reason>,
    /// Where each reason is that any node is refused for.
    places: BTreeMap<Arc<Rejection>, u32>,
    /// Where reasons are that no node is refused for any more.
    free: Vec<u32>,
    refused: usize,
}

#[derive(Clone)]
struct Reason {
    rejection: Arc<Rejection>,
    nodes: usize,
}

impl fmt::Debug for Refusals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl Refusals {
    /// Of nodes that go by their places in this order from now on. None is refused yet.
    pub fn of_nodes<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut names: Vec<Box<str>> = names.into_iter().map(Box::from).collect();
        names.sort_unstable();
        names.dedup();
        let of_nodes = vec![None; names.len()];
        Self(Arc::new(Inner { names: Arc::new(names), of_nodes, ..Inner::default() }))
    }

    /// The place of a node.
    pub fn place(&self, node: &str) -> Option<usize> {
        self.0.find(node).ok()
    }

    /// The node at a place.
    pub fn name(&self, place: usize) -> Option<&str> {
        self.0.names.get(place).map(AsRef::as_ref)
    }

    /// Why the node at a place is refused.
    pub fn at(&self, place: usize) -> Option<&Rejection> {
        self.0.reason_of(place).map(|reason| reason.rejection.as_ref())
    }

    /// Why a node is refused.
    pub fn get(&self, node: &str) -> Option<&Rejection> {
        self.at(self.place(node)?)
    }

    /// The node at a place is refused, or not.
    pub fn set(&mut self, place: usize, rejection: Option<Rejection>) {
        if self.at(place) != rejection.as_ref() {
            Arc::make_mut(&mut self.0).set(place, rejection);
        }
    }

    /// A node is refused.
    pub fn insert(&mut self, node: &str, rejection: Rejection) {
        let place = self.0.find(node).unwrap_or_else(|place| {
            let inner = Arc::make_mut(&mut self.0);
            Arc::make_mut(&mut inner.names).insert(place, node.into());
            inner.of_nodes.insert(place, None);
            place
        });
        self.set(place, Some(rejection));
    }

    /// How many nodes are refused.
    pub fn len(&self) -> usize {
        self.0.refused
    }

    /// Whether no node is refused.
    pub fn is_empty(&self) -> bool {
        self.0.refused == 0
    }

    /// The nodes that are refused, ordered by name, and why.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Rejection)> {
        let places = 0..self.0.names.len();
        places.filter_map(|place| Some((self.name(place)?, self.at(place)?)))
    }

    /// Each reason, and how many nodes are refused for it.
    pub fn reasons(&self) -> impl Iterator<Item = (&Rejection, usize)> {
        self.0.places.values().filter_map(|place| {
            let reason = self.0.reasons.get(*place as usize)?;
            Some((reason.rejection.as_ref(), reason.nodes))
        })
    }

    /// Each reason with the first node only that is refused for it.
    #[must_use]
    pub fn examples(&self) -> Self {
        let mut examples = Self::default();
        let mut missing: Vec<&Rejection> = self.reasons().map(|(rejection, _)| rejection).collect();
        for (node, rejection) in self.iter() {
            if missing.is_empty() {
                break;
            }
            if let Some(at) = missing.iter().position(|wanted| std::ptr::eq(*wanted, rejection)) {
                missing.swap_remove(at);
                examples.insert(node, rejection.clone());
            }
        }
        examples
    }
}

impl Inner {
    /// Nodes mostly come in order.
    fn find(&self, node: &str) -> Result<usize, usize> {
        match self.names.last() {
            Some(last) if last.as_ref() >= node => self.names.binary_search_by(|known| known.as_ref().cmp(node)),
            _ => Err(self.names.len()),
        }
    }

    fn reason_of(&self, place: usize) -> Option<&Reason> {
        self.reasons.get((*self.of_nodes.get(place)?)? as usize)
    }

    fn set(&mut self, place: usize, rejection: Option<Rejection>) {
        let Some(old) = self.of_nodes.get(place).copied() else { return };
        let new = rejection.map(|rejection| self.place_of(rejection));
        if let Some(reason) = new.and_then(|new| self.reasons.get_mut(new as usize)) {
            reason.nodes += 1;
            self.refused += 1;
        }
        if let Some((old, reason)) = old.and_then(|old| Some((old, self.reasons.get_mut(old as usize)?))) {
            reason.nodes -= 1;
            self.refused -= 1;
            if reason.nodes == 0 {
                self.places.remove(&reason.rejection);
                self.free.push(old);
            }
        }
        self.of_nodes[place] = new;
    }

    fn place_of(&mut self, rejection: Rejection) -> u32 {
        if let Some(place) = self.places.get(&rejection) {
            return *place;
        }
        let rejection = Arc::new(rejection);
        let reason = Reason { rejection: rejection.clone(), nodes: 0 };
        let place = match self.free.pop() {
            Some(place) => {
                self.reasons[place as usize] = reason;
                place
            }
            None => {
                self.reasons.push(reason);
                // There are fewer reasons than nodes.
                u32::try_from(self.reasons.len() - 1).unwrap_or(u32::MAX)
            }
        };
        self.places.insert(rejection, place);
        place
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_map_that_counts(steps in prop::collection::vec((0..6_u8, prop::option::of(0..3_u8)), 0..40), known: bool) {
            let mut refusals = if known { Refusals::of_nodes(["0", "1", "2"]) } else { Refusals::default() };
            let mut expected: BTreeMap<String, Rejection> = BTreeMap::new();
            for (node, reason) in steps {
                let before = (refusals.clone(), expected.clone());
                let node = node.to_string();
                match reason {
                    Some(reason) => {
                        let rejection = Rejection::new("P", reason.to_string());
                        refusals.insert(&node, rejection.clone());
                        expected.insert(node, rejection);
                    }
                    None => {
                        refusals.place(&node).into_iter().for_each(|place| refusals.set(place, None));
                        expected.remove(&node);
                    }
                }
                for (refusals, expected) in [(&refusals, &expected), (&before.0, &before.1)] {
                    prop_assert_eq!(format!("{refusals:?}"), format!("{expected:?}"));
                    prop_assert_eq!(refusals.len(), expected.len());
                    let examples = refusals.examples();
                    for (rejection, nodes) in refusals.reasons() {
                        prop_assert_eq!(nodes, expected.values().filter(|other| *other == rejection).count());
                        let first = expected.iter().find(|(_, other)| *other == rejection).unwrap().0;
                        prop_assert_eq!(examples.get(first), Some(rejection));
                    }
                    prop_assert_eq!(refusals.reasons().map(|(_, nodes)| nodes).sum::<usize>(), expected.len());
                    prop_assert_eq!(examples.len(), refusals.reasons().count());
                }
            }
        }
    }
}
