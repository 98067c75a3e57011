//! Which events are written, which are counted on an earlier one, and which are dropped; the time is given.
//!
//! The rules are those of `k8s.io/client-go/tools/record` (`events_cache.go`): repeats raise the count of the event
//! that is there; many similar events of one object become one combined event; an object that floods is cut off.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use k8s_openapi::api::core::v1::Event;
use lru::LruCache;

use super::limits;
use crate::object;

/// What to do with an event.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Decision {
    /// Nothing: its source floods.
    Drop,
    /// Write it.
    Create(Box<Event>, Key),
    /// It has been written before: raise its count.
    Repeat(Box<Event>, Key),
}

/// What makes two events the same: a digest of it, since thousands are remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key(u64, u64);

impl Key {
    fn of(parts: &[Option<&str>]) -> Self {
        let digest = |salt: u8| {
            let mut hasher = DefaultHasher::new();
            (salt, parts.len()).hash(&mut hasher);
            parts.iter().for_each(|part| part.unwrap_or_default().hash(&mut hasher));
            hasher.finish()
        };
        Self(digest(0), digest(1))
    }
}

/// What was seen lately; bounded.
#[derive(Debug)]
pub(super) struct Correlator {
    written: LruCache<Key, Written>,
    similar: LruCache<Key, Similar>,
    budgets: LruCache<Key, Budget>,
}

#[derive(Clone, Debug)]
struct Written {
    name: String,
    count: i32,
    first: Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>,
}

#[derive(Debug)]
struct Similar {
    /// Oldest first.
    messages: Vec<Key>,
    last: Duration,
}

/// Tokens of a source and object.
#[derive(Debug)]
struct Budget {
    tokens: f64,
    last: Duration,
}

impl Correlator {
    pub(super) fn new() -> Self {
        // A cache with a capacity would make room for all of it at once.
        Self { written: LruCache::unbounded(), similar: LruCache::unbounded(), budgets: LruCache::unbounded() }
    }

    /// Decides on an event that happened `now`.
    pub(super) fn decide(&mut self, event: Event, now: Duration) -> Decision {
        let (mut event, key) = self.combine(event, now);
        if !self.afford(Key::of(&source_of(&event)), now) {
            return Decision::Drop;
        }
        match self.written.get(&key) {
            Some(written) => {
                event.metadata.name = Some(written.name.clone());
                event.count = Some(written.count.saturating_add(1));
                event.first_timestamp.clone_from(&written.first);
                Decision::Repeat(Box::new(event), key)
            }
            None => Decision::Create(Box::new(event), key),
        }
    }

    /// Takes note of what was written.
    pub(super) fn wrote(&mut self, key: Key, event: &Event) {
        let written = Written {
            name: event.metadata.name.clone().unwrap_or_default(),
            count: event.count.unwrap_or(1),
            first: event.first_timestamp.clone(),
        };
        remember(&mut self.written, key, written);
    }

    /// After so many different messages about the same thing they are combined.
    fn combine(&mut self, mut event: Event, now: Duration) -> (Event, Key) {
        let mut parts = source_of(&event).to_vec();
        parts.extend([event.type_.as_deref(), event.reason.as_deref()]);
        // Everything but the message.
        let similar_key = Key::of(&parts);
        parts.extend([event.involved_object.field_path.as_deref(), event.message.as_deref()]);
        let key = Key::of(&parts);
        let fresh = Similar { messages: Vec::new(), last: now };
        let mut similar = self.similar.pop(&similar_key).unwrap_or(fresh);
        if now.saturating_sub(similar.last) > limits::SIMILAR_TIME {
            similar.messages.clear();
        }
        similar.last = now;
        let message = Key::of(&[event.message.as_deref()]);
        if !similar.messages.contains(&message) {
            similar.messages.push(message);
        }
        let combined = similar.messages.len() >= limits::SIMILAR_MESSAGES;
        if combined {
            similar.messages.remove(0);
        }
        remember(&mut self.similar, similar_key, similar);
        if !combined {
            return (event, key);
        }
        let message = event.message.unwrap_or_default();
        event.message = Some(format!("(combined from similar events): {message}"));
        (event, similar_key)
    }

    fn afford(&mut self, source: Key, now: Duration) -> bool {
        let full = Budget { tokens: limits::BURST_EVENTS, last: now };
        let mut budget = self.budgets.pop(&source).unwrap_or(full);
        let gained = now.saturating_sub(budget.last).as_secs_f64() / limits::REFILL_TIME.as_secs_f64();
        budget.tokens = (budget.tokens + gained).min(limits::BURST_EVENTS);
        budget.last = now;
        let affordable = budget.tokens >= 1.0;
        if affordable {
            budget.tokens -= 1.0;
        }
        remember(&mut self.budgets, source, budget);
        affordable
    }
}

/// An object and who speaks about it.
fn source_of(event: &Event) -> [Option<&str>; 7] {
    let (source, about) = (event.source.as_ref(), &event.involved_object);
    [
        source.and_then(|source| source.component.as_deref()),
        source.and_then(|source| source.host.as_deref()),
        about.kind.as_deref(),
        about.namespace.as_deref(),
        about.name.as_deref(),
        about.uid.as_deref(),
        about.api_version.as_deref(),
    ]
}

/// Remembers, and forgets what was used least recently.
fn remember<V>(recent: &mut LruCache<Key, V>, key: Key, value: V) {
    recent.put(key, value);
    if recent.len() > limits::REMEMBERED_EVENTS {
        recent.pop_lru();
    }
}

/// A time as the state machine wants it, from an event's own.
pub(super) fn seconds(timestamp: jiff::Timestamp) -> Duration {
    Duration::from_secs(u64::try_from(object::time(timestamp).0.as_second()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(message: &str) -> Event {
        Event {
            message: Some(message.to_owned()),
            reason: Some("Reason".to_owned()),
            count: Some(1),
            metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                name: Some(format!("pod.{message}")),
                ..Default::default()
            },
            ..Default::default()
        }
    }

    /// Decides and writes; gives the event that stands for this one afterwards.
    fn publish(correlator: &mut Correlator, message: &str, now: u64) -> Option<(bool, Event)> {
        match correlator.decide(event(message), Duration::from_secs(now)) {
            Decision::Drop => None,
            Decision::Create(event, key) => {
                correlator.wrote(key, &event);
                Some((true, *event))
            }
            Decision::Repeat(event, key) => {
                correlator.wrote(key, &event);
                Some((false, *event))
            }
        }
    }

    #[test]
    fn repeats_are_counted_on_the_first() {
        let mut correlator = Correlator::new();
        assert!(publish(&mut correlator, "a", 0).unwrap().0);
        let (new, repeat) = publish(&mut correlator, "a", 1).unwrap();
        assert!(!new);
        assert_eq!((repeat.count, repeat.metadata.name.as_deref()), (Some(2), Some("pod.a")));
        assert!(publish(&mut correlator, "b", 2).unwrap().0);
    }

    #[test]
    fn the_tenth_similar_message_is_combined() {
        let mut correlator = Correlator::new();
        for number in 0..9 {
            assert!(publish(&mut correlator, &format!("m{number}"), 0).unwrap().0);
        }
        let (new, combined) = publish(&mut correlator, "m9", 0).unwrap();
        assert!(new);
        assert_eq!(combined.message.as_deref(), Some("(combined from similar events): m9"));
        let (new, combined) = publish(&mut correlator, "m10", 0).unwrap();
        assert!(!new);
        assert_eq!(combined.count, Some(2));
        let (_, later) = publish(&mut correlator, "m11", 3600).unwrap();
        assert_eq!(later.message.as_deref(), Some("m11"));
    }

    #[test]
    fn a_flood_is_cut_off_and_trickles() {
        let mut correlator = Correlator::new();
        let passed = (0..100).filter(|_| publish(&mut correlator, "a", 0).is_some()).count();
        assert_eq!(passed, 25);
        assert!(publish(&mut correlator, "a", 299).is_none());
        assert!(publish(&mut correlator, "a", 600).is_some());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut recent = LruCache::unbounded();
        let keys: Vec<Key> = (0..6_000).map(|number: u32| Key::of(&[Some(&number.to_string())])).collect();
        for (number, key) in keys.iter().enumerate() {
            remember(&mut recent, *key, number);
            assert_eq!(recent.get(&keys[0]), Some(&0), "what is used is kept");
            assert!(recent.len() <= limits::REMEMBERED_EVENTS);
        }
        assert_eq!(recent.peek(&keys[1]), None);
        assert_eq!(recent.peek(&keys[5_999]), Some(&5_999));
    }
}
