//! Turns: one at a time for each name, for calls that look first and then act.

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::{Mutex, OwnedMutexGuard};

/// A lock for each name, there while somebody holds it or waits for it.
#[derive(Debug, Default)]
pub(crate) struct Turns(std::sync::Mutex<BTreeMap<String, Arc<Mutex<()>>>>);

impl Turns {
    /// Waits for the turn of a name.
    pub(crate) async fn take(&self, name: &str) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.all();
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            Arc::clone(turns.entry(name.to_owned()).or_default())
        };
        turn.lock_owned().await
    }

    /// Whether somebody is at it, or waits to be.
    pub(crate) fn is_taken(&self, name: &str) -> bool {
        self.all().get(name).is_some_and(|turn| Arc::strong_count(turn) > 1)
    }

    fn all(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<Mutex<()>>>> {
        // Nothing can panic while it is held.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn one_at_a_time_for_each_name() {
        let turns = Turns::default();
        let first = turns.take("a").now_or_never().unwrap();
        assert!(turns.is_taken("a") && !turns.is_taken("b"));
        assert!(turns.take("a").now_or_never().is_none());
        assert!(turns.take("b").now_or_never().is_some());
        drop(first);
        assert!(!turns.is_taken("a"));
        assert!(turns.take("a").now_or_never().is_some());
    }
}
