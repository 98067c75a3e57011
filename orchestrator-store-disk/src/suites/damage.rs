//! Files that are torn, cut short or changed: an error that says so, or a prefix of what was committed. Never something else.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use futures::{StreamExt, executor::block_on};
use orchestrator_core::{
    env::{Env, Simulation},
    store::{
        Batch, Entry, Key, KeyRange, ListOptions, Operation, Revision, Store, StoreError, WatchItem, WatchOptions,
    },
};

use super::memory;
use crate::{DiskError, DiskStore, Engine, Limits};

/// What a disk writes at once, in bytes.
pub const SECTOR_BYTES: u64 = 512;

/// What is written and where it is damaged.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Size of the largest value, in bytes.
    pub value_bytes: u64,
    /// How much of the end of each file is damaged, in bytes.
    pub tail_bytes: u64,
    /// How far apart the places are, in bytes.
    pub step_bytes: u64,
    /// Whether the files are as a process leaves them that is killed, after its last commit was acknowledged.
    pub is_killed: bool,
}

/// What is done to a file.
#[derive(Clone, Copy, Debug)]
pub enum Damage {
    /// Nothing.
    None,
    /// It ends here.
    Cut,
    /// A sector is all zeros.
    Tear,
    /// A bit of a sector is another one.
    Flip,
}

/// The state after each revision.
type History = BTreeMap<u64, BTreeMap<Key, Entry>>;

/// A directory with a store of some commits, and what it held after each of them.
struct Written {
    directory: tempfile::TempDir,
    history: History,
}

fn limits() -> Limits {
    Limits { history_commits: 60, ..Limits::default() }
}

/// Writes in two lives, so that there is something to build on.
fn written<E: Engine>(env: &Env, plan: Plan) -> Written {
    let (directory, value_bytes) = (memory(), plan.value_bytes);
    let mut history = History::from([(1, BTreeMap::new())]);
    for life in 0..2_u64 {
        let store = block_on(DiskStore::<E>::open(env, directory.path(), limits())).unwrap();
        for round in life * 100..(life + 1) * 100 {
            let key = |index: u64| Key::new(format!("/{}", (round * 7 + index * 5) % 31));
            let value = Bytes::from(vec![round as u8; (round * 3701 % value_bytes) as usize]);
            let put = Operation::Put { key: key(0), value: value.clone(), time_to_live: None };
            let second = match round % 3 {
                0 => Operation::Delete { key: key(1) },
                _ => Operation::Put { key: key(1), value, time_to_live: None },
            };
            let batch = Batch { preconditions: Vec::new(), operations: vec![put, second] };
            let revision = block_on(store.commit(batch)).unwrap();
            history.insert(revision.0, block_on(contents(&store, None)).unwrap());
        }
        if life == 1 && plan.is_killed {
            let left = memory();
            copy(directory.path(), left.path());
            return Written { directory: left, history };
        }
    }
    Written { directory, history }
}

async fn contents<E: Engine>(
    store: &DiskStore<E>,
    revision: Option<Revision>,
) -> Result<BTreeMap<Key, Entry>, StoreError> {
    let options = ListOptions { revision, ..ListOptions::default() };
    let listing = store.list(&KeyRange::prefix(""), options).await?;
    Ok(listing.entries.into_iter().map(|entry| (entry.key.clone(), entry)).collect())
}

/// How a store that was damaged ended up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ending {
    /// It was not opened.
    Refused,
    /// It was opened, and a call was answered with an error.
    Told,
    /// It holds all commits.
    Whole,
    /// It holds a prefix of them.
    Prefix,
}

/// Opens what is in a directory, reads all of it, and writes.
fn look<E: Engine>(env: &Env, path: &Path, history: &History) -> Ending {
    let store = match block_on(DiskStore::<E>::open(env, path, limits())) {
        Ok(store) => store,
        Err(DiskError::Damaged(_) | DiskError::Io { .. }) => return Ending::Refused,
        Err(other) => panic!("{other:?}"),
    };
    let revision = block_on(look_at(&store, history));
    match revision {
        Ok(revision) if history.keys().next_back() == Some(&revision.0) => Ending::Whole,
        Ok(_) => Ending::Prefix,
        Err(StoreError::Unavailable { source, .. }) => {
            let error = source.downcast_ref::<DiskError>();
            assert!(
                matches!(error, Some(DiskError::Damaged(_) | DiskError::Io { .. } | DiskError::Engine(_))),
                "{source}"
            );
            Ending::Told
        }
        Err(other) => panic!("{other:?}"),
    }
}

/// Everything that can be read is as it was at some revision, now and in the past.
async fn look_at<E: Engine>(store: &DiskStore<E>, history: &History) -> Result<Revision, StoreError> {
    let status = store.status().await?;
    for revision in status.compacted.0..=status.revision.0 {
        let expected = history.get(&revision).expect("a revision that was there");
        assert_eq!(&contents(store, Some(Revision(revision))).await?, expected, "revision {revision}");
    }
    let options = WatchOptions { after: Some(status.compacted), bookmarks: false };
    let mut changes = store.watch(KeyRange::prefix(""), options).await?;
    for expected in status.compacted.0 + 1..=status.revision.0 {
        match changes.next().await {
            Some(Ok(WatchItem::Changes { revision, .. })) => assert_eq!(revision.0, expected),
            Some(Err(error)) => return Err(error),
            other => panic!("{other:?}"),
        }
    }
    let written = store.commit(Batch::create(Key::new("/new"), Bytes::from_static(b"1"))).await?;
    assert_eq!(written.0, status.revision.0 + 1);
    Ok(status.revision)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        let target = to.join(file.file_name());
        if file.file_type().unwrap().is_dir() {
            copy(&file.path(), &target)
        } else {
            drop(fs::copy(file.path(), target))
        }
    }
}

/// The files of the store that hold anything.
fn files(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path.join("data")).unwrap().map(|file| file.unwrap().path());
    entries.filter(|file| file.is_file() && file.metadata().unwrap().len() > 0).collect()
}

/// Damages a copy at each place near the end of each file that holds something, and looks: how often which ending was met.
///
/// # Panics
/// Something was read that nobody wrote, or a store holds what is no prefix of the commits.
pub fn everywhere<E: Engine>(plan: Plan, damage: Damage) -> BTreeMap<Ending, u32> {
    let simulation = Simulation::new(1);
    let env = simulation.env();
    let written = written::<E>(&env, plan);
    let mut endings = BTreeMap::new();
    for file in files(written.directory.path()) {
        let content = fs::read(&file).unwrap();
        // An engine may have made its file larger than it needs.
        let used = content.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1);
        let start = used.saturating_sub(plan.tail_bytes) / SECTOR_BYTES * SECTOR_BYTES;
        for place in (start..used).step_by(plan.step_bytes as usize) {
            let copied = memory();
            copy(written.directory.path(), copied.path());
            let target = copied.path().join("data").join(file.file_name().unwrap());
            damage.strike(&File::options().write(true).read(true).open(target).unwrap(), place);
            *endings.entry(look::<E>(&env, copied.path(), &written.history)).or_insert(0) += 1;
        }
    }
    endings
}

impl Damage {
    fn strike(self, file: &File, place: u64) {
        match self {
            Self::None => {}
            Self::Cut => file.set_len(place).unwrap(),
            Self::Tear => file.write_all_at(&[0; SECTOR_BYTES as usize], place).unwrap(),
            Self::Flip => {
                let (mut byte, place) = ([0], place + place / SECTOR_BYTES % SECTOR_BYTES);
                if file.read_at(&mut byte, place).unwrap() == 1 {
                    file.write_all_at(&[byte[0] ^ 0x10], place).unwrap();
                }
            }
        }
    }
}
