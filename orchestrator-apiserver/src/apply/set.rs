//! Sets of fields: a tree of path elements, each of them a member of the set or not.

use std::collections::{BTreeMap, btree_map::Entry};

use super::path::PathElement;

/// A set of paths. A path in the set says nothing of the paths above and below it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FieldSet {
    nodes: BTreeMap<PathElement, Node>,
}

/// What a set holds at one path and below. In a set no node is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Node {
    /// The path itself is in the set.
    pub(crate) member: bool,
    /// The paths below, without what leads to here.
    pub(crate) below: FieldSet,
}

impl Node {
    pub(crate) fn member() -> Self {
        Self { member: true, below: FieldSet::default() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.member && self.below.is_empty()
    }
}

impl FieldSet {
    /// The set of these paths. The empty path is in no set: nobody owns a whole object.
    #[cfg(test)]
    pub(crate) fn of<'a>(paths: impl IntoIterator<Item = &'a [PathElement]>) -> Self {
        let mut set = Self::default();
        for path in paths {
            set.insert(path);
        }
        set
    }

    /// The set of these paths of plain members, their names joined by dots.
    pub(crate) fn of_fields(paths: &[&str]) -> Self {
        let mut set = Self::default();
        for path in paths {
            set.insert(&path.split('.').map(PathElement::field).collect::<Vec<_>>());
        }
        set
    }

    pub(crate) fn insert(&mut self, path: &[PathElement]) {
        match path {
            [] => {}
            [last] => self.nodes.entry(last.clone()).or_default().member = true,
            [first, rest @ ..] => self.nodes.entry(first.clone()).or_default().below.insert(rest),
        }
    }

    /// Adds what is at an element and below.
    pub(crate) fn add(&mut self, element: PathElement, node: Node) {
        if node.is_empty() {
            return;
        }
        match self.nodes.entry(element) {
            Entry::Vacant(place) => drop(place.insert(node)),
            Entry::Occupied(mut place) => {
                let old = place.get_mut();
                old.member |= node.member;
                old.below.extend(node.below);
            }
        }
    }

    /// Adds all paths of another set.
    pub(crate) fn extend(&mut self, other: Self) {
        if self.nodes.is_empty() {
            *self = other;
            return;
        }
        for (element, node) in other.nodes {
            self.add(element, node);
        }
    }

    pub(crate) fn union(&self, other: &Self) -> Self {
        let mut union = self.clone();
        union.extend(other.clone());
        union
    }

    pub(crate) fn intersection(&self, other: &Self) -> Self {
        other.filter_map(|element, other| {
            let node = self.nodes.get(element)?;
            Some(Node { member: node.member && other.member, below: node.below.intersection(&other.below) })
        })
    }

    /// What is here and not there.
    pub(crate) fn difference(&self, other: &Self) -> Self {
        let mut difference = self.clone();
        difference.subtract(other);
        difference
    }

    /// Takes away what is there. A path does not take those below it with it.
    pub(crate) fn subtract(&mut self, other: &Self) {
        self.retain(other, |node, other| {
            node.member &= !other.member;
            node.below.subtract(&other.below);
        });
    }

    /// As [`Self::subtract`], but a path takes everything below it with it.
    pub(crate) fn subtract_with_all_below(&mut self, other: &Self) {
        self.retain(other, |node, other| {
            if other.member {
                *node = Node::default();
            } else {
                node.below.subtract_with_all_below(&other.below);
            }
        });
    }

    /// Changes the nodes that another set has, too; those that become empty go.
    fn retain(&mut self, other: &Self, change: impl Fn(&mut Node, &Node)) {
        for (element, other) in &other.nodes {
            if let Some(node) = self.nodes.get_mut(element) {
                change(node, other);
                if node.is_empty() {
                    self.nodes.remove(element);
                }
            }
        }
    }

    /// The paths with none below them.
    #[cfg(test)]
    pub(crate) fn leaves(&self) -> Self {
        self.filter_map(|_, node| {
            Some(Node { member: node.member && node.below.is_empty(), below: node.below.leaves() })
        })
    }

    fn filter_map(&self, make: impl Fn(&PathElement, &Node) -> Option<Node>) -> Self {
        let nodes = self.nodes.iter().filter_map(|(element, node)| {
            let made = make(element, node).filter(|made| !made.is_empty())?;
            Some((element.clone(), made))
        });
        Self { nodes: nodes.collect() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    pub(crate) fn contains(&self, path: &[PathElement]) -> bool {
        match path {
            [] => false,
            [last] => self.nodes.get(last).is_some_and(|node| node.member),
            [first, rest @ ..] => self.nodes.get(first).is_some_and(|node| node.below.contains(rest)),
        }
    }

    /// Whether every path of another set is in this one.
    pub(crate) fn contains_all(&self, other: &Self) -> bool {
        other.nodes.iter().all(|(element, wanted)| {
            let node = self.nodes.get(element);
            node.is_some_and(|node| (node.member || !wanted.member) && node.below.contains_all(&wanted.below))
        })
    }

    /// What the set holds at an element and below.
    pub(crate) fn get(&self, element: &PathElement) -> Option<&Node> {
        self.nodes.get(element)
    }

    /// The elements that lead into the set, in order, with what is there.
    pub(crate) fn nodes(&self) -> impl ExactSizeIterator<Item = (&PathElement, &Node)> {
        self.nodes.iter()
    }

    /// All paths, those of one level before those below them.
    pub(crate) fn paths(&self) -> Vec<Vec<PathElement>> {
        let mut paths = Vec::new();
        self.collect_paths(&mut Vec::new(), &mut paths);
        paths
    }

    fn collect_paths(&self, prefix: &mut Vec<PathElement>, paths: &mut Vec<Vec<PathElement>>) {
        for (element, _) in self.nodes.iter().filter(|(_, node)| node.member) {
            paths.push(prefix.iter().chain([element]).cloned().collect());
        }
        for (element, node) in &self.nodes {
            prefix.push(element.clone());
            node.below.collect_paths(prefix, paths);
            prefix.pop();
        }
    }
}
