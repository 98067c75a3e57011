//! Files that are torn, cut short or changed: an error that says so, or a prefix of what was committed. Never something else.

use std::collections::BTreeMap;

use orchestrator_store_disk::suites::damage::{Damage, Ending, Plan, SECTOR_BYTES, everywhere};
use orchestrator_store_sled::SledEngine;

/// Each sector of the last writes.
const LAST_WRITES: Plan = Plan { value_bytes: 3000, tail_bytes: 96 << 10, step_bytes: SECTOR_BYTES, is_killed: false };
/// Places in all segments of sled's log, of which it goes on with the next where one is damaged.
const ALL_SEGMENTS: Plan =
    Plan { value_bytes: 60_000, tail_bytes: u64::MAX, step_bytes: SECTOR_BYTES * 149, is_killed: false };

fn damaged(plan: Plan, damage: Damage) -> BTreeMap<Ending, u32> {
    everywhere::<SledEngine>(plan, damage)
}

#[test]
fn undamaged_it_is_whole() {
    for plan in [LAST_WRITES, ALL_SEGMENTS] {
        let endings = damaged(Plan { step_bytes: 128 << 10, ..plan }, Damage::None);
        assert_eq!(endings.keys().collect::<Vec<_>>(), [&Ending::Whole], "{endings:?}");
    }
}

#[test]
fn the_last_writes_are_cut_short() {
    let endings = damaged(LAST_WRITES, Damage::Cut);

    assert!(endings[&Ending::Prefix] > 100, "{endings:?}");
}

#[test]
fn the_last_writes_are_torn() {
    let endings = damaged(LAST_WRITES, Damage::Tear);

    assert!(endings[&Ending::Prefix] > 100, "{endings:?}");
}

#[test]
fn bytes_of_the_last_writes_are_flipped() {
    let endings = damaged(LAST_WRITES, Damage::Flip);

    assert!(endings[&Ending::Prefix] > 100, "{endings:?}");
}

#[test]
fn any_segment_is_torn() {
    let endings = damaged(ALL_SEGMENTS, Damage::Tear);

    assert!(endings[&Ending::Refused] > 10, "{endings:?}");
}

#[test]
fn bytes_of_any_segment_are_flipped() {
    let endings = damaged(ALL_SEGMENTS, Damage::Flip);

    assert!(endings[&Ending::Refused] > 10, "{endings:?}");
}
