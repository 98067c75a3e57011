//! A commit as a transaction of etcd, and what a transaction that did not happen tells. Pure.

use std::collections::BTreeSet;

use etcd_client::{Compare, CompareOp, PutOptions, Txn, TxnOp, TxnOpResponse, TxnResponse};
use orchestrator_core::store::{Batch, Entry, Key, Operation, Precondition, Revision, StoreError};

use crate::{
    error::EtcdError,
    layout::Layout,
    limits::{LEASE_SECONDS, Limits},
};

/// What a request weighs besides keys and values, at most, for each of its parts, in bytes.
const PART_BYTES: usize = 64;

/// Refuses what etcd would refuse, and what it cannot hold.
pub(crate) fn check(batch: &Batch, limits: &Limits, layout: &Layout) -> Result<(), StoreError> {
    let refused = |why: String| Err(StoreError::Refused(why));
    let (operations, preconditions) = (batch.operations.len(), batch.preconditions.len());
    if operations.max(preconditions) > limits.batch_operations {
        return refused(format!("more than {} operations", limits.batch_operations));
    }
    let mut bytes = 0;
    let mut seen = BTreeSet::new();
    for operation in &batch.operations {
        let (key, size) = (operation.key(), operation.value().map_or(0, |value| value.len()));
        if size > limits.value_bytes {
            return refused(format!("a value of {size} bytes"));
        }
        if !seen.insert(key) {
            return refused(format!("{key} occurs twice"));
        }
        if seconds(operation).is_some_and(|seconds| seconds > LEASE_SECONDS) {
            return refused(format!("{key} is to live longer than {LEASE_SECONDS} seconds"));
        }
        bytes += size;
    }
    // A precondition goes there twice: to be compared, and to be read if it does not hold.
    let compared = batch.preconditions.iter().flat_map(|precondition| [key_of(precondition); 2]);
    for key in batch.operations.iter().map(Operation::key).chain(compared) {
        if key.as_str().len() > limits.key_bytes {
            return refused(format!("a key of {} bytes", key.as_str().len()));
        }
        let Some(encoded) = layout.encode(key) else { return refused("etcd cannot hold an empty key".to_owned()) };
        bytes += encoded.len() + PART_BYTES;
    }
    if bytes > limits.request_bytes {
        return refused(format!("a commit of {bytes} bytes"));
    }
    Ok(())
}

/// How long the lease of what an operation puts has to be, in whole seconds, never too short.
pub(crate) fn seconds(operation: &Operation) -> Option<u64> {
    let Operation::Put { time_to_live: Some(time), .. } = operation else { return None };
    let begun = u64::from(time.subsec_nanos() > 0);
    Some(time.as_secs().saturating_add(begun).max(1))
}

/// The time to live that all mortal keys of a batch get: leases are of whole seconds.
pub(crate) fn times(batch: &Batch) -> BTreeSet<u64> {
    batch.operations.iter().filter_map(seconds).collect()
}

/// The transaction of a batch that was checked. It reads what the preconditions are about when one of them does not hold.
pub(crate) fn transaction(batch: &Batch, layout: &Layout, lease: impl Fn(u64) -> i64) -> Txn {
    let encode = |key: &Key| layout.encode(key).unwrap_or_default();
    let compares: Vec<Compare> = batch.preconditions.iter().map(|what| compare(what, encode(key_of(what)))).collect();
    let reads: Vec<TxnOp> = batch.preconditions.iter().map(|what| TxnOp::get(encode(key_of(what)), None)).collect();
    let operation = |operation: &Operation| match operation {
        Operation::Put { key, value, .. } => {
            let options = seconds(operation).map(|seconds| PutOptions::new().with_lease(lease(seconds)));
            TxnOp::put(encode(key), value.to_vec(), options)
        }
        Operation::Delete { key } => TxnOp::delete(encode(key), None),
    };
    let operations: Vec<TxnOp> = batch.operations.iter().map(operation).collect();
    Txn::new().when(compares).and_then(operations).or_else(reads)
}

fn compare(precondition: &Precondition, key: Vec<u8>) -> Compare {
    match precondition {
        Precondition::Absent { .. } => Compare::create_revision(key, CompareOp::Equal, 0),
        Precondition::AtRevision { revision, .. } => match i64::try_from(revision.0) {
            Ok(revision) if revision > 0 => Compare::mod_revision(key, CompareOp::Equal, revision),
            // No entry has such a revision, but etcd gives 0 to a key that is not there.
            _ => Compare::mod_revision(key, CompareOp::Less, 0),
        },
    }
}

fn key_of(precondition: &Precondition) -> &Key {
    match precondition {
        Precondition::Absent { key } | Precondition::AtRevision { key, .. } => key,
    }
}

/// What a transaction comes to that did not happen: the first precondition that did not hold, and what is there.
pub(crate) fn conflict(batch: &Batch, layout: &Layout, answer: &TxnResponse) -> Result<StoreError, EtcdError> {
    let mut present = Vec::with_capacity(batch.preconditions.len());
    for read in answer.op_responses() {
        if let TxnOpResponse::Get(mut found) = read {
            present.push(found.take_kvs().pop().map(|found| layout.entry(found.0)).transpose()?);
        }
    }
    first_broken(&batch.preconditions, present).ok_or_else(|| EtcdError::Failed {
        endpoint: "etcd".to_owned(),
        reason: "it refused a transaction of which all preconditions hold".to_owned(),
    })
}

/// The first precondition that these entries, one for each, do not meet.
fn first_broken(preconditions: &[Precondition], present: Vec<Option<Entry>>) -> Option<StoreError> {
    let broken = |(precondition, current): (&Precondition, Option<Entry>)| {
        let expected: Option<Revision> = match precondition {
            Precondition::Absent { .. } => None,
            Precondition::AtRevision { revision, .. } => Some(*revision),
        };
        let holds = current.as_ref().map(|entry| entry.modified) == expected;
        (!holds).then(|| StoreError::Conflict { key: key_of(precondition).clone(), current })
    };
    preconditions.iter().zip(present).find_map(broken)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;

    fn put(key: &str, bytes: usize, time_to_live: Option<Duration>) -> Operation {
        Operation::Put { key: Key::new(key), value: Bytes::from(vec![0; bytes]), time_to_live }
    }

    fn refusal(preconditions: Vec<Precondition>, operations: Vec<Operation>) -> Option<String> {
        let limits =
            Limits { value_bytes: 1000, key_bytes: 10, batch_operations: 3, request_bytes: 2030, ..Limits::default() };
        match check(&Batch { preconditions, operations }, &limits, &Layout::new("")) {
            Ok(()) => None,
            Err(StoreError::Refused(why)) => Some(why),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn what_etcd_cannot_take_is_refused() {
        let absent = |key: &str| Precondition::Absent { key: Key::new(key) };
        let at_bound = vec![put("/a", 1000, None), put("/b", 700, None), put("/c", 0, None)];
        assert_eq!(refusal(vec![absent("/a")], at_bound), None);
        let century = Some(Duration::from_secs(u64::MAX));
        for (preconditions, operations) in [
            (vec![], vec![put("/a", 1001, None)]),
            (vec![], vec![put("/a", 1000, None), put("/b", 1000, None)]),
            (vec![], ["/a", "/b", "/c", "/d"].map(|key| put(key, 0, None)).to_vec()),
            (["/a", "/b", "/c", "/d"].map(absent).to_vec(), vec![]),
            (vec![], vec![put("/a", 0, None), Operation::Delete { key: Key::new("/a") }]),
            (vec![], vec![put("/a/b/c/d/e/", 0, None)]),
            (vec![absent("/a/b/c/d/e/")], vec![]),
            (vec![], vec![put("", 0, None)]),
            (vec![absent("")], vec![]),
            (vec![], vec![put("/a", 0, century)]),
        ] {
            let refused = refusal(preconditions.clone(), operations.clone());
            assert!(refused.is_some(), "{preconditions:?} {operations:?}");
        }
    }

    #[test]
    fn leases_are_never_too_short() {
        for (time, expected) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (2000, 2), (2999, 3)] {
            assert_eq!(seconds(&put("/a", 0, Some(Duration::from_millis(time)))), Some(expected), "{time} ms");
        }
        assert_eq!(seconds(&put("/a", 0, None)), None);
    }

    #[test]
    fn the_first_broken_precondition_is_told() {
        let entry = |key: &str, modified: u64| Entry {
            key: Key::new(key),
            value: Bytes::new(),
            created: Revision(1),
            modified: Revision(modified),
        };
        let at =
            |key: &str, revision: u64| Precondition::AtRevision { key: Key::new(key), revision: Revision(revision) };
        let preconditions = [Precondition::Absent { key: Key::new("/a") }, at("/b", 7), at("/c", 0)];
        for (present, expected) in [
            (vec![Some(entry("/a", 3)), None, None], ("/a", Some(3))),
            (vec![None, Some(entry("/b", 8)), None], ("/b", Some(8))),
            (vec![None, None, None], ("/b", None)),
            (vec![None, Some(entry("/b", 7)), None], ("/c", None)),
        ] {
            match first_broken(&preconditions, present) {
                Some(StoreError::Conflict { key, current }) => {
                    assert_eq!((key.as_str(), current.map(|entry| entry.modified.0)), expected);
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(first_broken(&preconditions[..2], vec![None, Some(entry("/b", 7))]).is_none());
    }
}
