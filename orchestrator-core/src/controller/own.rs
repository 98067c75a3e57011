//! What the keys of a controller wrote themselves: it is waited for, and it does not make a key run in circles.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{
    Caches, limits,
    trace::{Cause, Noted},
    writes::Writes,
};
use crate::object::ObjectKey;

/// What the last runs of the keys wrote.
#[derive(Debug, Default)]
pub(super) struct OwnWrites(Mutex<Keys>);

#[derive(Debug, Default)]
struct Keys {
    last: BTreeMap<ObjectKey, Last>,
    /// The next time that the keys are this many, the settled ones are forgotten.
    forget_at: usize,
}

#[derive(Clone, Debug, Default)]
struct Last {
    writes: Arc<Writes>,
    streak: Streak,
}

impl OwnWrites {
    /// What the last run of a key wrote.
    pub(super) fn of(&self, key: &ObjectKey) -> Option<Arc<Writes>> {
        Some(self.lock().last.get(key)?.writes.clone())
    }

    /// The pause that a key has to make before it runs for these causes, if any.
    pub(super) fn pause(&self, key: &ObjectKey, causes: &Noted<Cause>) -> Option<Duration> {
        let mut keys = self.lock();
        let last = keys.last.get_mut(key)?;
        let Last { writes, streak } = last;
        streak.pause(causes, |cause| writes.caused(cause))
    }

    /// The keys whose last run made something that has vanished.
    pub(super) fn vanished(&self, caches: &Caches) -> Vec<ObjectKey> {
        let keys = self.lock();
        keys.last.iter().filter(|(_, last)| last.writes.has_vanished(caches)).map(|(key, _)| key.clone()).collect()
    }

    /// A run of a key has ended.
    pub(super) fn ended(&self, key: &ObjectKey, writes: Arc<Writes>, caches: &Caches) {
        let mut keys = self.lock();
        if writes.is_empty() {
            keys.last.remove(key);
            return;
        }
        if keys.last.len() >= keys.forget_at.max(limits::REMEMBERED_KEYS) {
            keys.last.retain(|_, Last { writes, streak }| {
                streak.0 > 0 || !writes.is_contained(caches) || writes.has_vanished(caches)
            });
            keys.forget_at = keys.last.len() * 2;
        }
        keys.last.entry(key.clone()).or_default().writes = writes;
    }

    fn lock(&self) -> MutexGuard<'_, Keys> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How often in a row a key ran for nothing but what its last run had written. A reconciler that settles is done after
/// one or a few such runs; one that writes something else each time would go on for ever, as fast as it can.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Streak(u32);

impl Streak {
    /// The rule: the first run for own writes comes at once, and each further one after a pause that doubles. Any cause
    /// from outside ends the streak, and is served at once.
    fn pause(&mut self, causes: &Noted<Cause>, is_own: impl Fn(&Cause) -> bool) -> Option<Duration> {
        let asked_for = |cause: &Cause| matches!(cause, Cause::Retry | Cause::Requeue | Cause::OwnWrites);
        let (items, complete) = (causes.items(), causes.more() == 0);
        if !complete || !items.iter().all(|cause| asked_for(cause) || is_own(cause)) {
            self.0 = 0;
            return None;
        }
        if items.iter().any(asked_for) {
            // It comes after a pause already.
            return None;
        }
        self.0 = self.0.saturating_add(1);
        let doublings = self.0.checked_sub(2)?;
        let pause = limits::OWN_WRITES_PAUSE_FIRST.saturating_mul(2_u32.saturating_pow(doublings));
        Some(pause.min(limits::OWN_WRITES_PAUSE_LONGEST))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{client::Resource, store::Revision};

    fn change(own: bool) -> Cause {
        let resource = Arc::new(Resource::new("", "v1", "pods"));
        Cause::Changed { resource, key: ObjectKey::default(), revision: Some(Revision(own.into())) }
    }

    fn is_own(cause: &Cause) -> bool {
        *cause == change(true)
    }

    fn noted(causes: &[Cause]) -> Noted<Cause> {
        let mut noted = Noted::default();
        causes.iter().cloned().for_each(|cause| noted.add(cause));
        noted
    }

    #[test]
    fn pauses_double_until_something_else_happens() {
        let mut streak = Streak::default();
        let mut pauses = || streak.pause(&noted(&[change(true)]), is_own);
        let pauses: Vec<_> = (0..4).map(|_| pauses().unwrap_or_default().as_millis()).collect();
        assert_eq!(pauses, [0, 5, 10, 20]);
        for _ in 0..40 {
            streak.pause(&noted(&[change(true)]), is_own);
        }
        assert_eq!(streak.pause(&noted(&[change(true)]), is_own), Some(limits::OWN_WRITES_PAUSE_LONGEST));
        assert_eq!(streak.pause(&noted(&[change(true), change(false)]), is_own), None);
        assert_eq!(streak.pause(&noted(&[change(true)]), is_own), None);
    }

    fn cause() -> impl Strategy<Value = Cause> {
        prop_oneof![
            4 => Just(change(true)),
            1 => Just(change(false)),
            1 => Just(Cause::Retry),
            1 => Just(Cause::Requeue),
            1 => Just(Cause::OwnWrites),
            1 => Just(Cause::Resync),
            1 => Just(Cause::ByHand),
        ]
    }

    proptest! {
        #[test]
        fn only_runs_for_nothing_but_own_writes_are_put_off(
            runs in prop::collection::vec(prop::collection::vec(cause(), 1..4), 1..20),
        ) {
            let mut streak = Streak::default();
            for causes in runs {
                let before = streak;
                let pause = streak.pause(&noted(&causes), is_own);
                if causes.iter().all(is_own) {
                    prop_assert_eq!(pause.is_some(), before.0 > 0);
                    prop_assert_eq!(streak.0, before.0 + 1);
                } else {
                    prop_assert_eq!(pause, None, "served at once");
                    let foreign = [change(false), Cause::Resync, Cause::ByHand];
                    let ends = causes.iter().any(|cause| foreign.contains(cause));
                    prop_assert_eq!(streak.0, if ends { 0 } else { before.0 });
                }
            }
        }
    }
}
