//! Files that are torn, cut short or changed: an error that says so, or a prefix of what was committed. Never something else.

use std::collections::BTreeMap;

use orchestrator_store_disk::suites::damage::{Damage, Ending, Plan, SECTOR_BYTES, everywhere};
use orchestrator_store_redb::RedbEngine;

/// Places in the whole file: redb's pages are everywhere.
const CLOSED: Plan = Plan { value_bytes: 9000, tail_bytes: u64::MAX, step_bytes: SECTOR_BYTES * 7, is_killed: false };
/// The same after a kill.
const KILLED: Plan = Plan { is_killed: true, ..CLOSED };
/// All of redb's header and what comes next.
const HEADER: Plan = Plan { value_bytes: 10, tail_bytes: u64::MAX, step_bytes: SECTOR_BYTES, is_killed: false };

fn damaged(plan: Plan, damage: Damage) -> BTreeMap<Ending, u32> {
    everywhere::<RedbEngine>(plan, damage)
}

#[test]
fn undamaged_it_is_whole() {
    for plan in [CLOSED, KILLED] {
        let endings = damaged(Plan { step_bytes: 128 << 10, ..plan }, Damage::None);
        assert_eq!(endings.keys().collect::<Vec<_>>(), [&Ending::Whole], "{endings:?}");
    }
}

/// Most places are in use, and what was damaged there is told: redb has no earlier state to go back to.
fn assert_told(plan: Plan, damage: Damage) {
    let endings = damaged(plan, damage);
    let told = |ending| endings.get(&ending).copied().unwrap_or_default();
    assert!(told(Ending::Refused) + told(Ending::Told) > 20, "{plan:?} {endings:?}");
    assert!(!endings.contains_key(&Ending::Prefix), "{plan:?} {endings:?}");
}

#[test]
fn any_place_is_torn() {
    for plan in [CLOSED, KILLED, HEADER] {
        assert_told(plan, Damage::Tear);
    }
}

#[test]
fn a_bit_of_any_place_is_flipped() {
    for plan in [CLOSED, KILLED, HEADER] {
        assert_told(plan, Damage::Flip);
    }
}

#[test]
fn the_file_is_cut_short() {
    for plan in [CLOSED, KILLED] {
        let endings = damaged(plan, Damage::Cut);
        assert_eq!(endings.keys().collect::<Vec<_>>(), [&Ending::Refused], "{plan:?} {endings:?}");
    }
}
