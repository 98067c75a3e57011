//! Leases of keys that go away by themselves. Keys that may live a little longer share one, as upstream's API server has it, because
//! etcd is slow with very many of them.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::limits::{LEASE_KEYS, LEASE_SLACK, LEASE_SLACK_SECONDS, LEASES_REMEMBERED};

/// The leases that more keys may join, by the time that their keys are to live, in seconds.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    open: Mutex<BTreeMap<u64, Open>>,
}

#[derive(Debug)]
struct Open {
    lease: i64,
    /// Who joins later would not live long enough.
    until: Duration,
    keys: usize,
}

impl Leases {
    fn open(&self) -> MutexGuard<'_, BTreeMap<u64, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A lease that these keys may join.
    pub(crate) fn join(&self, seconds: u64, keys: usize, now: Duration) -> Option<i64> {
        let mut open = self.open();
        let lease = open.get_mut(&seconds)?;
        if now > lease.until || lease.keys + keys > LEASE_KEYS {
            open.remove(&seconds);
            return None;
        }
        lease.keys += keys;
        Some(lease.lease)
    }

    /// Others may join a lease that was asked for at this time.
    pub(crate) fn add(&self, seconds: u64, lease: i64, keys: usize, asked: Duration) {
        let slack = slack(seconds);
        if slack == 0 {
            return;
        }
        let mut open = self.open();
        open.retain(|_, lease| lease.until >= asked);
        if open.len() < LEASES_REMEMBERED {
            open.insert(seconds, Open { lease, until: asked + Duration::from_secs(slack), keys });
        }
    }

    /// Nobody may join any of these: one of them is gone.
    pub(crate) fn forget(&self, seconds: impl IntoIterator<Item = u64>) {
        let mut open = self.open();
        for seconds in seconds {
            open.remove(&seconds);
        }
    }
}

/// By how much keys may outlive this time, in seconds.
pub(crate) fn slack(seconds: u64) -> u64 {
    (seconds / LEASE_SLACK).min(LEASE_SLACK_SECONDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn keys_share_a_lease_for_a_while() {
        let leases = Leases::default();
        assert_eq!(leases.join(3600, 1, at(0)), None);
        leases.add(3600, 7, 1, at(0));
        assert_eq!(leases.join(3600, 1, at(60)), Some(7));
        assert_eq!(leases.join(1800, 1, at(1)), None);
        assert_eq!(leases.join(3600, LEASE_KEYS, at(2)), None, "it has keys enough");
        assert_eq!(leases.join(3600, 1, at(2)), None, "and is not remembered any more");
        leases.add(3600, 8, 1, at(100));
        assert_eq!(leases.join(3600, 1, at(161)), None, "whoever joins now would not live long enough");
    }

    #[test]
    fn short_lives_are_not_shared_and_lost_leases_forgotten() {
        let leases = Leases::default();
        leases.add(LEASE_SLACK - 1, 7, 1, at(0));
        assert_eq!(leases.join(LEASE_SLACK - 1, 1, at(0)), None);
        leases.add(100, 8, 1, at(0));
        leases.forget([100]);
        assert_eq!(leases.join(100, 1, at(0)), None);
    }

    #[test]
    fn few_leases_are_remembered() {
        let leases = Leases::default();
        for seconds in 0..2 * LEASES_REMEMBERED as u64 {
            leases.add(1000 + seconds, 7, 1, at(0));
        }
        assert_eq!(leases.open().len(), LEASES_REMEMBERED);
        leases.add(5000, 8, 1, at(10_000));
        assert_eq!(leases.open().len(), 1, "those that nobody can join are dropped");
    }
}
