//! Commits from the messages of a watch: etcd may put several into one message, and a large one into several. Pure.

use etcd_client::proto::PbEvent;
use orchestrator_core::store::{Change, Revision, WatchItem};

use crate::{
    error::EtcdError,
    layout::{Layout, revision},
};

/// What an event of etcd's tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) revision: Revision,
    pub(crate) change: Change,
    /// It lacks the entry before, which was compacted away.
    pub(crate) incomplete: bool,
}

/// Number of the event type that says that a key is gone.
const DELETE: i32 = 1;

/// Reads an event.
pub(crate) fn read(event: PbEvent, layout: &Layout) -> Result<Told, EtcdError> {
    let kv = event.kv.unwrap_or_default();
    let at = revision(kv.mod_revision);
    let previous = event.prev_kv.map(|previous| layout.entry(previous)).transpose()?;
    let (key, entry, is_new) = if event.r#type == DELETE {
        (layout.decode(&kv.key)?, None, false)
    } else {
        let is_new = kv.version == 1;
        let entry = layout.entry(kv)?;
        (entry.key.clone(), Some(entry), is_new)
    };
    let incomplete = previous.is_none() && !is_new;
    Ok(Told { revision: at, change: Change { key, entry, previous }, incomplete })
}

/// What a watch was told, and how far it is.
#[derive(Debug)]
pub(crate) struct Assembly {
    /// All commits up to here were given.
    cursor: Revision,
    /// The commit that may not be whole yet.
    pending: Vec<Change>,
    pending_revision: Revision,
}

impl Assembly {
    pub(crate) fn new(after: Revision) -> Self {
        Self { cursor: after, pending: Vec::new(), pending_revision: after }
    }

    /// All commits up to here were given.
    pub(crate) fn cursor(&self) -> Revision {
        self.cursor
    }

    /// A new stream begins behind the cursor.
    pub(crate) fn restart(&mut self) {
        self.pending.clear();
    }

    /// Takes the events of a message, and gives the commits that are whole with it. The last one may not be, when the message is
    /// a fragment.
    pub(crate) fn take(&mut self, events: Vec<Told>, is_fragment: bool) -> Vec<WatchItem> {
        let mut whole = Vec::new();
        for Told { revision, change, .. } in events {
            if revision <= self.cursor {
                continue;
            }
            if revision != self.pending_revision {
                whole.extend(self.flush());
            }
            self.pending_revision = revision;
            self.pending.push(change);
        }
        if !is_fragment {
            whole.extend(self.flush());
        }
        whole
    }

    /// etcd says that all up to a revision was told. Gives the bookmark, when that is news.
    pub(crate) fn progress(&mut self, revision: Revision) -> Option<WatchItem> {
        let news = self.pending.is_empty() && revision > self.cursor;
        news.then(|| {
            self.cursor = revision;
            WatchItem::Bookmark(revision)
        })
    }

    fn flush(&mut self) -> Option<WatchItem> {
        if self.pending.is_empty() {
            return None;
        }
        self.cursor = self.pending_revision;
        let changes = std::mem::take(&mut self.pending).into();
        Some(WatchItem::Changes { revision: self.cursor, changes })
    }
}

#[cfg(test)]
mod tests {
    use etcd_client::proto::PbKeyValue;
    use orchestrator_core::store::Key;
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn told(revision: u64, key: &str) -> Told {
        let change = Change { key: Key::new(key), entry: None, previous: None };
        Told { revision: Revision(revision), change, incomplete: false }
    }

    fn shown(items: &[WatchItem]) -> Vec<(u64, usize)> {
        let shown = |item: &WatchItem| match item {
            WatchItem::Changes { revision, changes } => (revision.0, changes.len()),
            WatchItem::Bookmark(revision) => (revision.0, 0),
        };
        items.iter().map(shown).collect()
    }

    #[test]
    fn a_commit_in_fragments_is_given_whole() {
        let mut assembly = Assembly::new(Revision(3));
        assert_eq!(shown(&assembly.take(vec![told(4, "/a"), told(5, "/a")], true)), [(4, 1)]);
        assert_eq!(assembly.progress(Revision(9)), None, "the commit is not whole");
        assert_eq!(shown(&assembly.take(vec![told(5, "/b")], true)), []);
        assert_eq!(shown(&assembly.take(vec![told(5, "/c")], false)), [(5, 3)]);
        assert_eq!(assembly.progress(Revision(5)), None, "that is no news");
        assert_eq!(assembly.progress(Revision(9)), Some(WatchItem::Bookmark(Revision(9))));
        assert_eq!(assembly.cursor(), Revision(9));
    }

    #[test]
    fn a_new_stream_repeats_nothing() {
        let mut assembly = Assembly::new(Revision(3));
        assert_eq!(shown(&assembly.take(vec![told(4, "/a"), told(5, "/a")], true)), [(4, 1)]);
        assembly.restart();
        let again = vec![told(4, "/a"), told(5, "/a"), told(5, "/b")];
        assert_eq!(shown(&assembly.take(again, false)), [(5, 2)]);
    }

    #[test]
    fn what_is_missing_is_seen() {
        let kv = |version, revision| PbKeyValue {
            key: b"/a".to_vec(),
            version,
            create_revision: 1,
            mod_revision: revision,
            ..PbKeyValue::default()
        };
        let layout = Layout::new("");
        let event = |delete, version, previous| PbEvent {
            r#type: i32::from(delete),
            kv: Some(kv(version, 5)),
            prev_kv: previous,
        };
        for (delete, version, previous, incomplete) in [
            (false, 1, None, false),
            (false, 2, Some(kv(1, 4)), false),
            (false, 2, None, true),
            (true, 0, Some(kv(1, 4)), false),
            (true, 0, None, true),
        ] {
            let told = read(event(delete, version, previous), &layout).unwrap();
            assert_eq!((told.revision, told.incomplete), (Revision(5), incomplete), "{delete} {version}");
            assert_eq!(told.change.entry.is_none(), delete);
        }
        assert!(read(PbEvent::default(), &Layout::new("/root")).is_err());
    }

    proptest! {
        /// However etcd cuts its messages, the commits are the same.
        #[test]
        fn cuts_do_not_matter(sizes in vec(1..5_usize, 1..20), cuts in vec(any::<bool>(), 100)) {
            let mut events = Vec::new();
            for (index, size) in sizes.iter().enumerate() {
                events.extend((0..*size).map(|key| told(10 + 2 * index as u64, &format!("/{key}"))));
            }
            let whole = Assembly::new(Revision(9)).take(events.clone(), false);
            let (mut assembly, mut given, mut message) = (Assembly::new(Revision(9)), Vec::new(), Vec::new());
            let last = events.len() - 1;
            for (index, event) in events.into_iter().enumerate() {
                message.push(event);
                if index == last || cuts[index] {
                    given.extend(assembly.take(std::mem::take(&mut message), index != last));
                }
            }
            prop_assert_eq!(&given, &whole);
            prop_assert_eq!(given.len(), sizes.len());
        }
    }
}
