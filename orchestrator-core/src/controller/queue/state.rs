//! The queue's rules as a pure state machine; the time is given.
//!
//! Upstream: `k8s.io/client-go/util/workqueue` (a key is in the queue at most once, and with one holder at most).

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use crate::controller::trace::{Cause, Noted};

/// What a queue has to offer at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Offer<T> {
    /// Take this one, for these causes; call `done` for it afterwards.
    Take { key: T, causes: Noted<Cause>, waited: Duration },
    /// Nothing before this time, as things are; `None`: nothing at all.
    Wait(Option<Duration>),
    /// Nothing any more.
    Closed,
}

#[derive(Debug)]
pub(super) struct State<T> {
    /// To be handed out, in order of arrival.
    ready: VecDeque<T>,
    /// To be worked on, since when and why: all of `ready`, and keys that were added while they were held.
    dirty: BTreeMap<T, (Duration, Noted<Cause>)>,
    held: BTreeSet<T>,
    /// Ordered by time, then by arrival.
    delayed: BTreeMap<(Duration, u64), (T, Cause)>,
    due: BTreeMap<T, (Duration, u64)>,
    arrivals: u64,
    failures: BTreeMap<T, u32>,
    /// How often a key came that did not wait already.
    adds: u64,
    /// How often a key failed.
    retries: u64,
    closed: bool,
}

impl<T: Ord + Clone> State<T> {
    pub(super) fn new() -> Self {
        Self {
            ready: VecDeque::new(),
            dirty: BTreeMap::new(),
            held: BTreeSet::new(),
            delayed: BTreeMap::new(),
            due: BTreeMap::new(),
            arrivals: 0,
            failures: BTreeMap::new(),
            adds: 0,
            retries: 0,
            closed: false,
        }
    }

    pub(super) fn add(&mut self, key: T, now: Duration, cause: Cause) {
        if self.closed {
            return;
        }
        if let Some((_, causes)) = self.dirty.get_mut(&key) {
            return causes.add(cause);
        }
        let mut causes = Noted::default();
        causes.add(cause);
        self.adds += 1;
        self.dirty.insert(key.clone(), (now, causes));
        if !self.held.contains(&key) {
            self.ready.push_back(key);
        }
    }

    /// Adds a key at a later time. Of several times the earliest counts.
    pub(super) fn add_at(&mut self, key: T, at: Duration, cause: Cause) {
        if self.closed {
            return;
        }
        if let Some(due) = self.due.get(&key).copied() {
            if due.0 <= at {
                return;
            }
            self.delayed.remove(&due);
        }
        self.arrivals += 1;
        self.delayed.insert((at, self.arrivals), (key.clone(), cause));
        self.due.insert(key, (at, self.arrivals));
    }

    /// Counts a failure and gives how many there were before.
    pub(super) fn fail(&mut self, key: &T) -> u32 {
        let failures = self.failures.entry(key.clone()).or_default();
        let before = *failures;
        *failures = before.saturating_add(1);
        self.retries += 1;
        before
    }

    pub(super) fn forget(&mut self, key: &T) {
        self.failures.remove(key);
    }

    pub(super) fn failures(&self, key: &T) -> u32 {
        self.failures.get(key).copied().unwrap_or_default()
    }

    pub(super) fn take(&mut self, now: Duration) -> Offer<T> {
        if self.closed {
            return Offer::Closed;
        }
        while let Some((&(at, arrival), _)) = self.delayed.first_key_value()
            && at <= now
        {
            if let Some((key, cause)) = self.delayed.remove(&(at, arrival)) {
                self.due.remove(&key);
                self.add(key, at, cause);
            }
        }
        match self.ready.pop_front() {
            Some(key) => {
                let (since, causes) = self.dirty.remove(&key).unwrap_or_default();
                self.held.insert(key.clone());
                Offer::Take { key, causes, waited: now.saturating_sub(since) }
            }
            None => Offer::Wait(self.delayed.first_key_value().map(|(&(at, _), _)| at)),
        }
    }

    /// The causes that came since a key was taken. Its holder sees to them now; the key does not come again for them.
    pub(super) fn take_more(&mut self, key: &T) -> Noted<Cause> {
        if self.held.contains(key) { self.dirty.remove(key).unwrap_or_default().1 } else { Noted::default() }
    }

    pub(super) fn done(&mut self, key: &T) {
        if self.held.remove(key) && self.dirty.contains_key(key) && !self.closed {
            self.ready.push_back(key.clone());
        }
    }

    pub(super) fn close(&mut self) {
        let (held, adds, retries) = (std::mem::take(&mut self.held), self.adds, self.retries);
        *self = Self { held, adds, retries, closed: true, ..Self::new() };
    }

    /// Keys that can be taken now or are due by now.
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// What is counted: keys that came, keys that failed, and keys that could be worked on now.
    pub(super) fn counts(&self) -> (u64, u64, usize) {
        (self.adds, self.retries, self.dirty.len())
    }

    /// Keys that wait to be taken, delayed ones included.
    pub(super) fn len(&self) -> usize {
        let only_delayed = self.due.keys().filter(|key| !self.dirty.contains_key(key)).count();
        self.dirty.len() + only_delayed
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Operation {
        Add(u8),
        AddAfter(u8, u8),
        Take,
        TakeMore(usize),
        Done(usize),
        Pass(u8),
    }

    fn operation() -> impl Strategy<Value = Operation> {
        prop_oneof![
            (0..5_u8).prop_map(Operation::Add),
            (0..5_u8, 0..20_u8).prop_map(|(key, delay)| Operation::AddAfter(key, delay)),
            Just(Operation::Take),
            any::<usize>().prop_map(Operation::TakeMore),
            any::<usize>().prop_map(Operation::Done),
            (0..10_u8).prop_map(Operation::Pass),
        ]
    }

    /// The obvious model: who wants to be worked on, who will want to, and who is.
    #[derive(Default)]
    struct Model {
        wanted: BTreeSet<u8>,
        delayed: BTreeMap<u8, Duration>,
        held: Vec<u8>,
    }

    proptest! {
        #[test]
        fn every_wish_is_served_once_by_one_holder(operations in prop::collection::vec(operation(), 0..200)) {
            let (mut state, mut model, mut now) = (State::new(), Model::default(), Duration::ZERO);
            for operation in operations {
                match operation {
                    Operation::Add(key) => {
                        state.add(key, now, Cause::ByHand);
                        model.wanted.insert(key);
                    }
                    Operation::AddAfter(key, delay) => {
                        let at = now + Duration::from_secs(delay.into());
                        state.add_at(key, at, Cause::Requeue);
                        model.delayed.entry(key).and_modify(|known| *known = at.min(*known)).or_insert(at);
                    }
                    Operation::Take => {
                        model.wanted.extend(model.delayed.extract_if(.., |_, at| *at <= now).map(|(key, _)| key));
                        match state.take(now) {
                            Offer::Take { key, .. } => {
                                prop_assert!(!model.held.contains(&key), "one holder per key");
                                prop_assert!(model.wanted.remove(&key), "nobody asked for {key}");
                                model.held.push(key);
                            }
                            Offer::Wait(until) => {
                                prop_assert_eq!(until, model.delayed.values().min().copied());
                                prop_assert!(model.wanted.iter().all(|key| model.held.contains(key)), "overdue");
                            }
                            Offer::Closed => prop_assert!(false),
                        }
                    }
                    Operation::TakeMore(index) if !model.held.is_empty() => {
                        let key = model.held[index % model.held.len()];
                        prop_assert_eq!(state.take_more(&key).count() > 0, model.wanted.remove(&key));
                    }
                    Operation::Done(index) if !model.held.is_empty() => {
                        let key = model.held.remove(index % model.held.len());
                        state.done(&key);
                    }
                    Operation::TakeMore(_) | Operation::Done(_) => {}
                    Operation::Pass(seconds) => now += Duration::from_secs(seconds.into()),
                }
                let waiting: BTreeSet<u8> = model.delayed.keys().chain(&model.wanted).copied().collect();
                prop_assert_eq!(state.len(), waiting.len());
            }
        }
    }

    #[test]
    fn a_key_added_while_held_comes_again_after_done() {
        let mut state = State::new();
        state.add(1, Duration::ZERO, Cause::ByHand);
        assert!(matches!(state.take(Duration::ZERO), Offer::Take { key: 1, .. }));
        state.add(1, Duration::ZERO, Cause::ByHand);
        state.add(1, Duration::ZERO, Cause::ByHand);
        assert_eq!(state.take(Duration::ZERO), Offer::Wait(None));
        state.done(&1);
        assert!(matches!(state.take(Duration::ZERO), Offer::Take { key: 1, .. }));
        state.done(&1);
        assert_eq!(state.take(Duration::ZERO), Offer::Wait(None));
    }

    #[test]
    fn failures_count_until_forgotten() {
        let mut state = State::new();
        assert_eq!([state.fail(&1), state.fail(&1), state.fail(&2)], [0, 1, 0]);
        state.forget(&1);
        assert_eq!(state.fail(&1), 0);
    }

    #[test]
    fn a_closed_queue_gives_and_takes_nothing() {
        let mut state = State::new();
        state.add(1, Duration::ZERO, Cause::ByHand);
        state.close();
        assert_eq!(state.counts(), (1, 0, 0));
        state.add(2, Duration::ZERO, Cause::ByHand);
        state.add_at(3, Duration::ZERO, Cause::Requeue);
        assert_eq!(state.take(Duration::ZERO), Offer::Closed);
        assert_eq!(state.len(), 0);
    }
}
