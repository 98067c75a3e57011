//! What a watch promises, as etcd's own robustness tests name it: each promise is a pure function of the store's log and of what a
//! watch told.
//!
//! Upstream: <https://github.com/etcd-io/etcd/tree/main/tests/robustness>.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use orchestrator_core::store::{Change, KeyRange, Revision, WatchItem};

/// All changes of a store, by their revisions.
pub type Log = BTreeMap<Revision, Vec<Change>>;

/// What a watch was asked for, and what it told until nobody listened any more.
#[derive(Clone, Debug)]
pub struct Told {
    /// The keys that were watched.
    pub range: KeyRange,
    /// The revision behind which the watch began.
    pub after: Revision,
    /// What it gave.
    pub items: Vec<WatchItem>,
}

/// A promise: `Err` has what broke it.
pub type Property = fn(&Log, &Told) -> Result<(), String>;

/// All promises with their names.
pub const PROPERTIES: [(&str, Property); 9] = [
    ("filter", filter),
    ("ordered", ordered),
    ("unique", unique),
    ("atomic", atomic),
    ("bookmarkable", bookmarkable),
    ("resumable", resumable),
    ("create flag", create_flag),
    ("reliable", reliable),
    ("previous value", previous_value),
];

impl Told {
    fn commits(&self) -> impl DoubleEndedIterator<Item = (Revision, &[Change])> {
        self.items.iter().filter_map(|item| match item {
            WatchItem::Changes { revision, changes } => Some((*revision, &**changes)),
            WatchItem::Bookmark(_) => None,
        })
    }

    fn changes(&self) -> impl Iterator<Item = (Revision, &Change)> {
        self.commits().flat_map(|(revision, changes)| changes.iter().map(move |change| (revision, change)))
    }

    /// What the log has of the range between two revisions, the first one excluded.
    fn expected<'a>(
        &'a self,
        log: &'a Log,
        after: Revision,
        until: Revision,
    ) -> impl Iterator<Item = (Revision, Vec<&'a Change>)> {
        let between = (after < until).then(|| log.range((Bound::Excluded(after), Bound::Included(until))));
        between.into_iter().flatten().filter_map(|(revision, changes)| {
            let inside: Vec<&Change> = changes.iter().filter(|change| self.range.contains(&change.key)).collect();
            (!inside.is_empty()).then_some((*revision, inside))
        })
    }
}

fn holds(condition: bool, broken: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(broken()) }
}

/// Only what was asked for is told.
fn filter(_log: &Log, told: &Told) -> Result<(), String> {
    told.changes().try_for_each(|(revision, change)| {
        let asked = told.range.contains(&change.key) && revision > told.after;
        holds(asked, || format!("{} of {revision} was not asked for", change.key))
    })
}

/// Commits come in the order of their revisions.
fn ordered(_log: &Log, told: &Told) -> Result<(), String> {
    let revisions: Vec<Revision> = told.commits().map(|(revision, _)| revision).collect();
    holds(revisions.is_sorted(), || format!("{revisions:?}"))
}

/// No change is told twice.
fn unique(_log: &Log, told: &Told) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    told.changes().try_for_each(|(revision, change)| {
        holds(seen.insert((revision, &change.key)), || format!("{} of {revision} came twice", change.key))
    })
}

/// What a commit did in the range comes in one piece, in the commit's order.
fn atomic(log: &Log, told: &Told) -> Result<(), String> {
    told.commits().try_for_each(|(revision, changes)| {
        let done = log.get(&revision).into_iter().flatten().filter(|change| told.range.contains(&change.key));
        let done: Vec<_> = done.map(|change| (&change.key, &change.entry)).collect();
        let given: Vec<_> = changes.iter().map(|change| (&change.key, &change.entry)).collect();
        holds(given == done, || format!("{revision} did {done:?} and was told as {given:?}"))
    })
}

/// A bookmark is behind everything that it speaks for, and does not go back.
fn bookmarkable(log: &Log, told: &Told) -> Result<(), String> {
    let mut given = told.after;
    for item in &told.items {
        match item {
            WatchItem::Changes { revision, .. } => {
                holds(*revision > given, || format!("{revision} came after {given} had been told"))?;
                given = *revision;
            }
            WatchItem::Bookmark(bookmark) => {
                holds(*bookmark >= given, || format!("the bookmark {bookmark} came after {given}"))?;
                let missing = told.expected(log, given, *bookmark).next();
                holds(missing.is_none(), || format!("the bookmark {bookmark} ran ahead of {missing:?}"))?;
                given = *bookmark;
            }
        }
    }
    Ok(())
}

/// A watch begins with the first change behind its start.
fn resumable(log: &Log, told: &Told) -> Result<(), String> {
    let Some((first, _)) = told.commits().next() else { return Ok(()) };
    let skipped = told.expected(log, told.after, Revision(first.0 - 1)).next();
    holds(skipped.is_none(), || format!("after {} came {first}, without {skipped:?}", told.after))
}

/// A change says rightly whether its key came into being.
fn create_flag(log: &Log, told: &Told) -> Result<(), String> {
    told.changes().try_for_each(|(revision, change)| {
        let is_new = known(log, revision, change).is_none_or(|known| known.previous.is_none());
        let made_now = change.entry.as_ref().is_some_and(|entry| entry.created == revision);
        let says_new = change.previous.is_none();
        let right = says_new == is_new && (change.entry.is_none() || made_now == is_new);
        holds(right, || format!("{change:?} of {revision}"))
    })
}

/// Between the first and the last thing that is told, nothing is missing.
fn reliable(log: &Log, told: &Told) -> Result<(), String> {
    let (Some((first, _)), Some((last, _))) = (told.commits().next(), told.commits().next_back()) else {
        return Ok(());
    };
    let given: BTreeSet<Revision> = told.commits().map(|(revision, _)| revision).collect();
    let missing = told.expected(log, first, last).find(|(revision, _)| !given.contains(revision));
    holds(missing.is_none(), || format!("between {first} and {last} is no {missing:?}"))
}

/// A change has what was there before it.
fn previous_value(log: &Log, told: &Told) -> Result<(), String> {
    told.changes().try_for_each(|(revision, change)| {
        let previous = known(log, revision, change).and_then(|known| known.previous.as_ref());
        holds(change.previous.as_ref() == previous, || {
            format!("{change:?} of {revision}, before which was {previous:?}")
        })
    })
}

/// What the log has of a change.
fn known<'a>(log: &'a Log, revision: Revision, change: &Change) -> Option<&'a Change> {
    log.get(&revision)?.iter().find(|known| known.key == change.key)
}

#[cfg(test)]
mod tests {
    use orchestrator_core::store::{Entry, Key};

    use super::*;

    fn entry(key: &str, created: u64, modified: u64) -> Entry {
        let value = format!("{modified}").into();
        Entry { key: Key::new(key), value, created: Revision(created), modified: Revision(modified) }
    }

    fn change(entry: Option<Entry>, previous: Option<Entry>) -> Change {
        let key = entry.iter().chain(&previous).next().expect("one of the two").key.clone();
        Change { key, entry, previous }
    }

    fn log() -> Log {
        Log::from([
            (Revision(2), vec![change(Some(entry("/a/1", 2, 2)), None), change(Some(entry("/a/2", 2, 2)), None)]),
            (Revision(3), vec![change(Some(entry("/b", 3, 3)), None)]),
            (Revision(4), vec![change(Some(entry("/a/1", 2, 4)), Some(entry("/a/1", 2, 2)))]),
            (Revision(5), vec![change(None, Some(entry("/a/2", 2, 2)))]),
        ])
    }

    fn item(revision: u64, changes: impl IntoIterator<Item = Change>) -> WatchItem {
        WatchItem::Changes { revision: Revision(revision), changes: changes.into_iter().collect() }
    }

    fn logged(revision: u64) -> WatchItem {
        item(revision, log()[&Revision(revision)].clone())
    }

    /// The promises that a watch of `/a/` breaks.
    fn broken(after: u64, items: Vec<WatchItem>) -> Vec<&'static str> {
        let told = Told { range: KeyRange::prefix("/a/"), after: Revision(after), items };
        PROPERTIES.into_iter().filter(|(_, property)| property(&log(), &told).is_err()).map(|(name, _)| name).collect()
    }

    #[test]
    fn what_the_log_has_keeps_every_promise() {
        let whole =
            vec![logged(2), WatchItem::Bookmark(Revision(3)), logged(4), logged(5), WatchItem::Bookmark(Revision(5))];
        assert_eq!(broken(1, whole.clone()), [""; 0]);
        assert_eq!(broken(2, whole[2..].to_vec()), [""; 0]);
        assert_eq!(broken(1, whole[..2].to_vec()), [""; 0], "a watch may be left at any time");
    }

    #[test]
    fn each_promise_can_be_broken() {
        assert_eq!(broken(1, vec![logged(2), logged(3), logged(4)]), ["filter", "atomic"]);
        assert_eq!(broken(1, vec![logged(2), logged(5), logged(4)]), ["ordered", "bookmarkable"]);
        assert_eq!(broken(1, vec![logged(2), logged(2), logged(4)]), ["unique", "bookmarkable"]);
        let [first, second] = &log()[&Revision(2)][..] else { panic!("two changes") };
        assert_eq!(broken(1, vec![item(2, [first.clone()])]), ["atomic"]);
        assert_eq!(broken(1, vec![item(2, [second.clone(), first.clone()])]), ["atomic"]);
        assert_eq!(broken(1, vec![logged(2), WatchItem::Bookmark(Revision(4))]), ["bookmarkable"]);
        assert_eq!(broken(1, vec![logged(4), logged(5)]), ["resumable"]);
        assert_eq!(broken(1, vec![logged(2), logged(5)]), ["reliable"]);
        assert_eq!(
            broken(3, vec![item(4, [change(Some(entry("/a/1", 2, 4)), None)])]),
            ["create flag", "previous value"]
        );
        let stale = change(Some(entry("/a/1", 2, 4)), Some(entry("/a/1", 2, 3)));
        assert_eq!(broken(3, vec![item(4, [stale])]), ["previous value"]);
    }
}
