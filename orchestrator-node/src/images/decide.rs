//! Which images go: pure.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;
use orchestrator_core::runtime::{DiskSpace, Image};

use crate::config::ImageCollection;

/// What is known of the images, by their identity.
#[derive(Debug, Default)]
pub(super) struct Known(BTreeMap<String, Record>);

#[derive(Clone, Debug)]
struct Record {
    names: Vec<String>,
    size_bytes: u64,
    pinned: bool,
    is_used: bool,
    first_seen: Timestamp,
    last_used: Timestamp,
}

/// What is to be done.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// To be removed, in this order.
    pub(super) images: Vec<Doomed>,
    /// How much space is to be freed.
    pub(super) wanted_bytes: u64,
}

/// An image that is to be removed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Doomed {
    pub(super) id: String,
    pub(super) names: Vec<String>,
    pub(super) size_bytes: u64,
}

impl Known {
    /// Takes note of what is there now, and of what containers are made of.
    pub(super) fn observe(&mut self, images: &[Image], used: &BTreeSet<&str>, now: Timestamp) {
        let mut seen: BTreeMap<String, Record> = BTreeMap::new();
        for image in images {
            let before = self.0.get(&image.id);
            let is_used = used.contains(image.id.as_str());
            let record = seen.entry(image.id.clone()).or_insert_with(|| Record {
                names: Vec::new(),
                size_bytes: image.size_bytes,
                pinned: image.pinned,
                is_used,
                first_seen: before.map_or(now, |before| before.first_seen),
                last_used: if is_used { now } else { before.map_or(Timestamp::MIN, |before| before.last_used) },
            });
            record.names.push(image.name.clone());
        }
        self.0 = seen;
    }

    pub(super) fn forget(&mut self, id: &str) {
        self.0.remove(id);
    }
}

/// Chooses images that nobody uses, those first that were used least recently.
pub(super) fn choose(known: &Known, disk: DiskSpace, policy: &ImageCollection, now: Timestamp) -> Plan {
    let older = |time: Timestamp, age: Duration| now.duration_since(time).unsigned_abs() >= age && now >= time;
    let mut candidates: Vec<(&String, &Record)> =
        known.0.iter().filter(|(_, record)| !record.is_used && !record.pinned && record.last_used < now).collect();
    candidates.sort_by_key(|(_, record)| (record.last_used, record.first_seen, Reverse(record.size_bytes)));
    let mut plan = Plan { images: Vec::new(), wanted_bytes: wanted(disk, policy) };
    let mut freed_bytes = 0;
    for (id, record) in candidates {
        let idle_since = record.last_used.max(record.first_seen);
        let is_too_old = policy.maximum_age.is_some_and(|age| older(idle_since, age));
        let is_wanted = freed_bytes < plan.wanted_bytes && older(record.first_seen, policy.minimum_age);
        if is_too_old || is_wanted {
            freed_bytes += record.size_bytes;
            let doomed = Doomed { id: id.clone(), names: record.names.clone(), size_bytes: record.size_bytes };
            plan.images.push(doomed);
        }
    }
    plan
}

/// How much is to be freed, in bytes.
fn wanted(disk: DiskSpace, policy: &ImageCollection) -> u64 {
    let capacity = u128::from(disk.capacity_bytes);
    let available = u128::from(disk.available_bytes).min(capacity);
    if capacity == 0 || policy.high_threshold_percent >= 100 {
        return 0;
    }
    let used_percent = 100 - available * 100 / capacity;
    if used_percent < u128::from(policy.high_threshold_percent) {
        return 0;
    }
    let free_after = capacity * u128::from(100 - policy.low_threshold_percent.min(100)) / 100;
    u64::try_from(free_after.saturating_sub(available)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn image(id: &str, size_bytes: u64) -> Image {
        Image { name: format!("{id}:1"), id: id.to_owned(), size_bytes, user: None, pinned: id == "pinned" }
    }

    fn disk(available_bytes: u64) -> DiskSpace {
        DiskSpace { capacity_bytes: 1_000, available_bytes }
    }

    fn names(plan: &Plan) -> Vec<&str> {
        plan.images.iter().map(|image| image.id.as_str()).collect()
    }

    #[test]
    fn the_least_recently_used_go_first() {
        let mut known = Known::default();
        let images = [image("a", 60), image("b", 60), image("c", 60), image("pinned", 60)];
        known.observe(&images, &BTreeSet::from(["a"]), at(0));
        known.observe(&images, &BTreeSet::from(["b"]), at(100));
        known.observe(&images, &BTreeSet::from(["c"]), at(500));
        let policy = ImageCollection::default();
        // 84 percent are in use: nothing is to be done.
        assert_eq!(choose(&known, disk(160), &policy, at(600)), Plan::default());
        let plan = choose(&known, disk(150), &policy, at(600));
        assert_eq!((names(&plan), plan.wanted_bytes), (vec!["a"], 50));
        let plan = choose(&known, disk(100), &policy, at(600));
        assert_eq!((names(&plan), plan.wanted_bytes), (vec!["a", "b"], 100));
        // What is used stays, even if that is not enough.
        assert_eq!(names(&choose(&known, disk(0), &policy, at(600))), ["a", "b"]);
    }

    #[test]
    fn the_young_stay_and_the_old_go() {
        let mut known = Known::default();
        known.observe(&[image("old", 10)], &BTreeSet::new(), at(0));
        known.observe(&[image("old", 10), image("young", 10)], &BTreeSet::new(), at(1_000));
        let policy = ImageCollection::default();
        assert_eq!(names(&choose(&known, disk(0), &policy, at(1_010))), ["old"]);
        let policy = ImageCollection { maximum_age: Some(Duration::from_secs(500)), ..policy };
        assert_eq!(names(&choose(&known, disk(900), &policy, at(1_010))), ["old"]);
        assert_eq!(names(&choose(&known, disk(900), &policy, at(1_600))), ["old", "young"]);
    }

    proptest! {
        /// Nothing that is used or pinned goes, and no more than is wanted but for the last one.
        #[test]
        fn no_more_than_needed(
            sizes in proptest::collection::vec(1_u64..500, 0..12),
            used in proptest::collection::vec(any::<bool>(), 12),
            available in 0_u64..1_000,
        ) {
            let images: Vec<Image> =
                sizes.iter().enumerate().map(|(number, size)| image(&format!("i{number}"), *size)).collect();
            let is_used: BTreeSet<&str> = images.iter().zip(&used).filter(|(_, used)| **used).map(|(image, _)| image.id.as_str()).collect();
            let mut known = Known::default();
            known.observe(&images, &is_used, at(0));
            known.observe(&images, &is_used, at(1_000));
            let plan = choose(&known, disk(available), &ImageCollection::default(), at(2_000));
            prop_assert!(plan.images.iter().all(|image| !is_used.contains(image.id.as_str())));
            let freed: u64 = plan.images.iter().map(|image| image.size_bytes).sum();
            let last = plan.images.last().map_or(0, |image| image.size_bytes);
            prop_assert!(plan.images.is_empty() || freed - last < plan.wanted_bytes);
        }
    }
}
