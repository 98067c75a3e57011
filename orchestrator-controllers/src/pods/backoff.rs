//! Pauses that double each time, for each of many keys, kept in memory as upstream keeps them.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;

/// How long to wait for each key.
#[derive(Clone, Debug)]
pub(crate) struct Backoff<K> {
    first: Duration,
    longest: Duration,
    entries: BTreeMap<K, Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    pause: Duration,
    since: Timestamp,
}

impl<K: Ord> Backoff<K> {
    pub(crate) fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, entries: BTreeMap::new() }
    }

    /// Whether no key is known.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How long a key still has to wait; `None` when it has not.
    pub(crate) fn remaining(&self, key: &K, now: Timestamp) -> Option<Duration> {
        let entry = self.entries.get(key)?;
        entry.pause.checked_sub(passed(entry, now)).filter(|left| !left.is_zero())
    }

    /// It happened again: the next pause begins, twice as long. What is long ago is forgotten.
    pub(crate) fn next(&mut self, key: K, now: Timestamp) {
        let (first, longest) = (self.first, self.longest);
        self.entries.retain(|_, entry| passed(entry, now) <= longest * 2);
        let pause = self.entries.get(&key).map_or(first, |entry| entry.pause * 2);
        self.entries.insert(key, Entry { pause: pause.min(longest), since: now });
    }

    /// Forgets the keys that are not to be kept.
    pub(crate) fn retain(&mut self, keep: impl Fn(&K) -> bool) {
        self.entries.retain(|key, _| keep(key));
    }
}

fn passed(entry: &Entry, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(entry.since)).unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use super::{super::fixtures::at, *};

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn pauses_double_up_to_the_longest_and_are_forgotten_in_time() {
        let mut backoff = Backoff::new(SECOND, SECOND * 3);
        assert_eq!(backoff.remaining(&"a", at(0)), None);
        backoff.next("a", at(0));
        assert_eq!(backoff.remaining(&"a", at(0)), Some(SECOND));
        assert_eq!(backoff.remaining(&"a", at(1)), None);
        backoff.next("a", at(1));
        assert_eq!(backoff.remaining(&"a", at(2)), Some(SECOND));
        backoff.next("a", at(3));
        assert_eq!(backoff.remaining(&"a", at(3)), Some(SECOND * 3));
        backoff.next("a", at(10));
        assert_eq!(backoff.remaining(&"a", at(10)), Some(SECOND), "long ago");
        backoff.retain(|_| false);
        assert_eq!(backoff.remaining(&"a", at(10)), None);
    }
}
