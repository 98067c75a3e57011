//! Opening a directory: what stands in it, how it comes into being, and what is checked before anything is served.
//!
//! | name | what |
//! |---|---|
//! | `lock` | held by the one store that has the directory open |
//! | `data` | sled's files |
//! | `new` | sled's files while the store is made: it becomes `data` when it is complete, and is thrown away when it did not |

use std::{
    fs::{self, File, TryLockError},
    io,
    path::Path,
};

use crate::{
    engine::{Engine, Flush, sync_directory, wait_for_release},
    error::{SledError, contained},
    limits::{Limits, RECLAIM_INTERVAL_MILLISECONDS},
    record::{
        COMMITS, DEADLINES, FORMAT_KEY, META_KEY, Meta, POINTERS, checksum, commit_key, damaged, encode,
        parse_commit_key, seal, unseal,
    },
};

/// A step from one format to the next, for directories of older versions: it changes the records in place.
type Migration = fn(&sled::Db) -> Result<(), SledError>;

/// The steps from format 1 on. The format of this version is the one behind the last of them.
const MIGRATIONS: &[Migration] = &[];

/// Opens a directory, which is made when it is not there.
pub(crate) fn open(path: &Path, limits: &Limits, flush: Flush) -> Result<(Engine, Meta), SledError> {
    let told = |error| SledError::io(format!("making {}", path.display()), error);
    fs::create_dir_all(path).map_err(told)?;
    let lock = lock(path)?;
    let data = path.join("data");
    if !data.try_exists().map_err(told)? {
        create(path, limits)?;
    }
    remove_unfinished_snapshots(&data)?;
    wait_for_release(&data)?;
    contained(|| {
        let db = open_sled(&data, limits)?;
        sync_directory(&data)?;
        migrate(&db, path, MIGRATIONS)?;
        let engine = Engine::new(db, &data, lock, flush)?;
        let meta = engine.meta()?;
        verify(&engine, &meta)?;
        Ok((engine, meta))
    })
    .map_err(SledError::while_opening)
}

fn lock(path: &Path) -> Result<File, SledError> {
    let told = |error| SledError::io(format!("locking {}", path.display()), error);
    let mut options = File::options();
    let file = options.read(true).write(true).create(true).truncate(false).open(path.join("lock")).map_err(told)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(SledError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(error)) => Err(told(error)),
    }
}

fn open_sled(directory: &Path, limits: &Limits) -> Result<sled::Db, SledError> {
    let config = sled::Config::new()
        .path(directory)
        .cache_capacity(limits.cache_bytes)
        .mode(sled::Mode::LowSpace)
        .flush_every_ms(Some(RECLAIM_INTERVAL_MILLISECONDS));
    Ok(config.open()?)
}

/// Makes an empty store beside its place and moves it there, so that there is never half of one.
fn create(path: &Path, limits: &Limits) -> Result<(), SledError> {
    let told = |error| SledError::io(format!("making a store in {}", path.display()), error);
    let unfinished = path.join("new");
    match fs::remove_dir_all(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(told(error)),
        _ => {}
    }
    contained(|| {
        let db = open_sled(&unfinished, limits)?;
        set_format(&db, MIGRATIONS.len() as u32 + 1)?;
        db.insert(META_KEY, seal(META_KEY, &encode(&Meta::EMPTY)?))?;
        db.flush()?;
        Ok::<_, SledError>(())
    })?;
    wait_for_release(&unfinished)?;
    for file in fs::read_dir(&unfinished).map_err(told)? {
        File::open(file.map_err(told)?.path()).and_then(|file| file.sync_all()).map_err(told)?;
    }
    sync_directory(&unfinished)?;
    fs::rename(&unfinished, path.join("data")).map_err(told)?;
    sync_directory(path)
}

/// sled takes a snapshot that it did not finish for the newest one, and then for damage.
fn remove_unfinished_snapshots(data: &Path) -> Result<(), SledError> {
    let told = |error| SledError::io(format!("looking through {}", data.display()), error);
    for file in fs::read_dir(data).map_err(told)? {
        let file = file.map_err(told)?;
        if file.file_name().to_string_lossy().ends_with(".generating") {
            fs::remove_file(file.path()).map_err(told)?;
        }
    }
    Ok(())
}

fn set_format(db: &sled::Db, format: u32) -> Result<(), SledError> {
    db.insert(FORMAT_KEY, seal(FORMAT_KEY, &format.to_be_bytes()))?;
    Ok(())
}

fn format(db: &sled::Db) -> Result<u32, SledError> {
    let sealed = db.get(FORMAT_KEY)?.ok_or_else(|| damaged(FORMAT_KEY))?;
    let bytes = unseal(FORMAT_KEY, &sealed)?.try_into().map_err(|_| damaged(FORMAT_KEY))?;
    Ok(u32::from_be_bytes(bytes))
}

/// Brings an older format up to date, step by step: each step is on disk before its number is.
fn migrate(db: &sled::Db, path: &Path, migrations: &[Migration]) -> Result<(), SledError> {
    let (found, known) = (format(db)?, migrations.len() as u32 + 1);
    if found == 0 || found > known {
        return Err(SledError::UnknownFormat { path: path.to_owned(), found, known });
    }
    for (step, migration) in migrations.iter().enumerate().skip(found as usize - 1) {
        migration(db)?;
        db.flush()?;
        set_format(db, step as u32 + 2)?;
        db.flush()?;
    }
    Ok(())
}

/// Whether what follows from the log is what the log says, without reading values. sled drops parts of its own log when it finds
/// damage there, and goes on with the rest.
fn verify(engine: &Engine, meta: &Meta) -> Result<(), SledError> {
    let (mut keys, mut fingerprint) = (0_u64, 0_u64);
    for prefix in [POINTERS, DEADLINES] {
        let mut last = None;
        for item in engine.scan(prefix) {
            let (key, sealed) = item?;
            if last.is_some_and(|last| last >= key) {
                return Err(SledError::Damaged("keys are out of order".to_owned()));
            }
            let payload = unseal(&key, &sealed)?;
            fingerprint = fingerprint.wrapping_add(u64::from(checksum(&key, payload)));
            keys += u64::from(prefix == POINTERS);
            last = Some(key);
        }
    }
    if (keys, fingerprint) != (meta.keys, meta.fingerprint) {
        return Err(SledError::Damaged(format!("{keys} keys are not the {} that should be there", meta.keys)));
    }
    verify_log(engine, meta)
}

/// Whether the log has each commit that it should have, and no other.
fn verify_log(engine: &Engine, meta: &Meta) -> Result<(), SledError> {
    let (mut newest, mut history_bytes) = (None, 0);
    for item in engine.scan(COMMITS) {
        let revision = parse_commit_key(&item?.0)?;
        if newest == Some(revision) {
            // Another piece of the commit that was just read.
            continue;
        }
        let expected = newest.unwrap_or(meta.compacted) + 1;
        if revision != expected {
            return Err(damaged(&commit_key(expected)));
        }
        history_bytes += engine.commit(revision)?.history_bytes();
        newest = Some(revision);
    }
    if (newest.unwrap_or(meta.compacted), history_bytes) != (meta.revision, meta.history_bytes) {
        return Err(SledError::Damaged(format!("the log does not end at revision {}", meta.revision)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use orchestrator_core::env::Simulation;

    use super::*;
    use crate::SledStore;

    /// A directory with an empty store, which nobody has open.
    fn made() -> tempfile::TempDir {
        let (simulation, directory) = (Simulation::new(1), tempfile::TempDir::new().unwrap());
        let open = async { SledStore::open(&simulation.env(), directory.path(), Limits::default()).await.map(drop) };
        simulation.run(open).unwrap().unwrap();
        directory
    }

    #[test]
    fn an_unknown_format_is_refused() {
        for unknown in [0, 2, 99] {
            let directory = made();
            let data = directory.path().join("data");
            let db = open_sled(&data, &Limits::default()).unwrap();
            set_format(&db, unknown).unwrap();
            drop(db);
            let opened = open(directory.path(), &Limits::default(), Box::new(File::sync_data)).map(drop);
            let Err(SledError::UnknownFormat { found, known, .. }) = opened else { panic!("{opened:?}") };
            assert_eq!((found, known), (unknown, 1));
        }
    }

    #[test]
    fn older_formats_are_brought_up_to_date_once() {
        fn add(db: &sled::Db, letter: &[u8]) -> Result<(), SledError> {
            let old = db.get(b"steps")?.unwrap_or_default();
            db.insert(b"steps", [&old, letter].concat())?;
            Ok(())
        }
        let directory = made();
        let db = open_sled(&directory.path().join("data"), &Limits::default()).unwrap();
        let steps: [Migration; 2] = [|db| add(db, b"a"), |db| add(db, b"b")];
        migrate(&db, directory.path(), &steps[..1]).unwrap();
        migrate(&db, directory.path(), &steps).unwrap();
        migrate(&db, directory.path(), &steps).unwrap();
        assert_eq!((db.get(b"steps").unwrap().unwrap().as_ref(), format(&db).unwrap()), (b"ab".as_slice(), 3));
        let failing: [Migration; 3] = [steps[0], steps[1], |_| Err(damaged(b"steps"))];
        assert!(migrate(&db, directory.path(), &failing).is_err());
        assert_eq!(format(&db).unwrap(), 3, "a step that failed is not counted");
    }

    #[test]
    fn a_record_that_is_missing_or_left_over_is_found() {
        type Change = (&'static str, fn(&sled::Db));
        let changes: [Change; 4] = [
            ("a key too many", |db| {
                let key = crate::record::pointer_key("/a");
                db.insert(&key, seal(&key, b"")).unwrap();
            }),
            ("a commit too many", |db| {
                let key = crate::record::piece_key(&commit_key(2), 0);
                db.insert(&key, seal(&key, b"")).unwrap();
            }),
            ("a record without a checksum", |db| {
                db.insert(META_KEY, b"").unwrap();
            }),
            ("no record of where the store stands", |db| {
                db.remove(META_KEY).unwrap();
            }),
        ];
        for (name, change) in changes {
            let directory = made();
            let db = open_sled(&directory.path().join("data"), &Limits::default()).unwrap();
            change(&db);
            drop(db);
            let opened = open(directory.path(), &Limits::default(), Box::new(File::sync_data)).map(drop);
            assert!(matches!(opened, Err(SledError::Damaged(_))), "{name}: {opened:?}");
        }
    }
}
