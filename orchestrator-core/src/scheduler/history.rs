//! What has changed in a snapshot since somebody last looked, so that answers about nodes can be remembered.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// How many changes are known singly. Who has not looked for longer has to look at all nodes.
const MOST_CHANGES: usize = 16 << 10;

/// A state that a snapshot was in.
#[derive(Clone, Debug)]
pub struct Version {
    lineage: Arc<AtomicU64>,
    stamp: u64,
}

/// The changes of nodes, newest last. Copies of a snapshot draw their stamps from one counter, so that no two states
/// have the same.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    lineage: Arc<AtomicU64>,
    /// The state before the first change that is known.
    start: u64,
    changes: VecDeque<(u64, Arc<str>)>,
}

impl History {
    /// A node has other pods or promises, or is another object.
    pub(super) fn changed(&mut self, node: &Arc<str>) {
        if self.changes.len() == MOST_CHANGES
            && let Some((stamp, _)) = self.changes.pop_front()
        {
            self.start = stamp;
        }
        self.changes.push_back((self.next(), node.clone()));
    }

    /// So much has changed that all nodes are to be looked at: one came or went, or a namespace is another.
    pub(super) fn other_nodes(&mut self) {
        self.changes.clear();
        self.start = self.next();
    }

    fn next(&self) -> u64 {
        self.lineage.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn version(&self) -> Version {
        let stamp = self.changes.back().map_or(self.start, |(stamp, _)| *stamp);
        Version { lineage: self.lineage.clone(), stamp }
    }

    /// The nodes that changed after a state; `None` if that is not known, or nodes came or went.
    pub(super) fn since(&self, version: &Version) -> Option<impl Iterator<Item = &str>> {
        if !Arc::ptr_eq(&self.lineage, &version.lineage) {
            return None;
        }
        let at = self.changes.partition_point(|(stamp, _)| *stamp <= version.stamp);
        let before = at.checked_sub(1).and_then(|last| self.changes.get(last)).map_or(self.start, |(stamp, _)| *stamp);
        (before == version.stamp).then(|| self.changes.range(at..).map(|(_, node)| node.as_ref()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn since(history: &History, version: &Version) -> Option<Vec<String>> {
        history.since(version).map(|nodes| nodes.map(str::to_owned).collect())
    }

    #[test]
    fn changes_are_told_to_who_saw_the_state_before() {
        let mut history = History::default();
        let first = history.version();
        history.changed(&"a".into());
        let second = history.version();
        let mut copy = history.clone();
        history.changed(&"b".into());
        copy.changed(&"c".into());
        assert_eq!(since(&history, &first).unwrap(), ["a", "b"]);
        assert_eq!(since(&history, &second).unwrap(), ["b"]);
        assert_eq!(since(&copy, &second).unwrap(), ["c"]);
        assert_eq!(since(&copy, &history.version()), None);
        assert_eq!(since(&History::default(), &first), None);
        history.other_nodes();
        assert_eq!(since(&history, &second), None);
        assert_eq!(since(&history, &history.version()).unwrap(), [""; 0]);
    }

    #[test]
    fn old_changes_are_forgotten() {
        let mut history = History::default();
        let first = history.version();
        let node: Arc<str> = "a".into();
        (0..MOST_CHANGES).for_each(|_| history.changed(&node));
        assert_eq!(since(&history, &first).map(|nodes| nodes.len()), Some(MOST_CHANGES));
        history.changed(&node);
        assert_eq!(since(&history, &first), None);
    }
}
