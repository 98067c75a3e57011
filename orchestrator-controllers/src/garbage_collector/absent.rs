//! Owners that were asked for and are not there. UIDs never come back, so nobody has to ask twice.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::limits;

/// The UIDs of the latest of them.
#[derive(Debug, Default)]
pub(super) struct Absent(Mutex<Uids>);

#[derive(Debug, Default)]
struct Uids {
    known: BTreeSet<String>,
    order: VecDeque<String>,
}

impl Absent {
    pub(super) fn contains(&self, uid: &str) -> bool {
        self.lock().known.contains(uid)
    }

    pub(super) fn note(&self, uid: &str) {
        let mut uids = self.lock();
        if uids.known.insert(uid.to_owned()) {
            uids.order.push_back(uid.to_owned());
        }
        if uids.order.len() > limits::ABSENT_OWNERS
            && let Some(oldest) = uids.order.pop_front()
        {
            uids.known.remove(&oldest);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Uids> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
