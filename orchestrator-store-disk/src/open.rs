//! Opening a directory: what stands in it, how it comes into being, and what is checked before anything is served.
//!
//! | name | what |
//! |---|---|
//! | `lock` | held by the one store that has the directory open |
//! | `data` | the engine's files |
//! | `new` | the engine's files while the store is made: it becomes `data` when it is complete, and is thrown away when it did not |

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use crate::{
    database::{Database, lock, sync_directory},
    engine::{Engine, Flush, Place},
    error::{DiskError, contained},
    limits::Limits,
    record::{
        COMMITS, DEADLINES, FORMAT_KEY, META_KEY, Meta, POINTERS, Pointer, checksum, commit_key, damaged, decode,
        encode, parse_commit_key, parse_pointer_key, unseal,
    },
    records::Records,
    writes::Writes,
};

/// A step from one format to the next, for directories of older versions: it changes the records in place.
pub(crate) type Migration = fn(&mut dyn Engine) -> Result<(), DiskError>;

/// The steps from format 1 on. The format of this version is the one behind the last of them.
const MIGRATIONS: &[Migration] = &[];

/// What a directory held when it was opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub(crate) meta: Meta,
    /// Size of the present keys and values, in bytes.
    pub(crate) live_bytes: u64,
    /// Whether any key expires.
    pub(crate) expires: bool,
}

/// Opens a directory, which is made when it is not there.
pub(crate) fn open<E: Engine>(path: &Path, limits: &Limits, flush: Flush) -> Result<(Database, Found), DiskError> {
    let told = |error| DiskError::io(format!("making {}", path.display()), error);
    fs::create_dir_all(path).map_err(told)?;
    let lock = lock(path)?;
    let data = path.join("data");
    if !data.try_exists().map_err(told)? {
        create::<E>(path, limits, &flush)?;
    }
    contained(|| {
        let engine = E::open(Place { directory: &data, is_new: false, limits, flush })?;
        examine(Box::new(engine), path, &data, lock)
    })
    .map_err(DiskError::while_opening)
}

/// Brings what an engine holds up to date, and looks whether it is whole.
fn examine(mut engine: Box<dyn Engine>, path: &Path, data: &Path, lock: File) -> Result<(Database, Found), DiskError> {
    sync_directory(data)?;
    migrate(&mut *engine, path, MIGRATIONS)?;
    let database = Database::new(engine, data, lock);
    let records = database.records()?;
    let meta = records.meta()?;
    let live_bytes = verify(&records, &meta)?;
    let expires = !records.deadlines(1)?.is_empty();
    drop(records);
    Ok((database, Found { meta, live_bytes, expires }))
}

/// Makes an empty store beside its place and moves it there, so that there is never half of one.
fn create<E: Engine>(path: &Path, limits: &Limits, flush: &Flush) -> Result<(), DiskError> {
    let told = |error| DiskError::io(format!("making a store in {}", path.display()), error);
    let unfinished = path.join("new");
    match fs::remove_dir_all(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(told(error)),
        _ => {}
    }
    fs::create_dir(&unfinished).map_err(told)?;
    contained(|| {
        let mut engine = E::open(Place { directory: &unfinished, is_new: true, limits, flush: flush.clone() })?;
        let mut writes = Writes::new(engine.bounds().piece_bytes);
        writes.put(META_KEY.to_vec(), &encode(&Meta::EMPTY)?);
        set_format(&mut engine, MIGRATIONS.len() as u32 + 1, writes)?;
        Box::new(engine).close()
    })?;
    for file in fs::read_dir(&unfinished).map_err(told)? {
        File::open(file.map_err(told)?.path()).and_then(|file| file.sync_all()).map_err(told)?;
    }
    sync_directory(&unfinished)?;
    fs::rename(&unfinished, path.join("data")).map_err(told)?;
    sync_directory(path)
}

/// Puts the format onto the disk, with whatever else is written.
pub(crate) fn set_format(engine: &mut dyn Engine, format: u32, mut writes: Writes) -> Result<(), DiskError> {
    writes.put(FORMAT_KEY.to_vec(), &format.to_be_bytes());
    engine.apply(writes.into_changes())?;
    engine.flush()
}

pub(crate) fn format(engine: &dyn Engine) -> Result<u32, DiskError> {
    let records = Records::new(engine.reader()?, engine.bounds().piece_bytes);
    let bytes = records.get(FORMAT_KEY)?.ok_or_else(|| damaged(FORMAT_KEY))?;
    Ok(u32::from_be_bytes(bytes.try_into().map_err(|_| damaged(FORMAT_KEY))?))
}

/// Brings an older format up to date, step by step: each step is on disk before its number is.
pub(crate) fn migrate(engine: &mut dyn Engine, path: &Path, migrations: &[Migration]) -> Result<(), DiskError> {
    let (found, known) = (format(engine)?, migrations.len() as u32 + 1);
    if found == 0 || found > known {
        return Err(DiskError::UnknownFormat { path: path.to_owned(), found, known });
    }
    for (step, migration) in migrations.iter().enumerate().skip(found as usize - 1) {
        migration(engine)?;
        engine.flush()?;
        let writes = Writes::new(engine.bounds().piece_bytes);
        set_format(engine, step as u32 + 2, writes)?;
    }
    Ok(())
}

/// Whether what follows from the log is what the log says, without reading values: an engine that finds damage may go on with
/// the rest. The size of what is present, in bytes.
fn verify(records: &Records<'_>, meta: &Meta) -> Result<u64, DiskError> {
    let (mut keys, mut fingerprint, mut live_bytes) = (0_u64, 0_u64, 0_u64);
    for prefix in [POINTERS, DEADLINES] {
        let mut last: Vec<u8> = Vec::new();
        records.each(prefix, |key, sealed| {
            if last.as_slice() >= key {
                return Err(DiskError::Damaged("keys are out of order".to_owned()));
            }
            last.clear();
            last.extend_from_slice(key);
            let payload = unseal(key, sealed)?;
            fingerprint = fingerprint.wrapping_add(u64::from(checksum(key, payload)));
            if prefix == POINTERS {
                let pointer: Pointer = decode(key, payload)?;
                keys += 1;
                live_bytes = live_bytes.saturating_add(pointer.live_bytes(&parse_pointer_key(key)?));
            }
            Ok(())
        })?;
    }
    if (keys, fingerprint) != (meta.keys, meta.fingerprint) {
        return Err(DiskError::Damaged(format!("{keys} keys are not the {} that should be there", meta.keys)));
    }
    verify_log(records, meta)?;
    Ok(live_bytes)
}

/// Whether the log has each commit that it should have, and no other.
fn verify_log(records: &Records<'_>, meta: &Meta) -> Result<(), DiskError> {
    let (mut newest, mut history_bytes) = (None, 0_u64);
    records.each(COMMITS, |key, _| {
        let revision = parse_commit_key(key)?;
        if newest == Some(revision) {
            // Another piece of the commit that was just read.
            return Ok(());
        }
        let expected = newest.unwrap_or(meta.compacted) + 1;
        if revision != expected {
            return Err(damaged(&commit_key(expected)));
        }
        history_bytes = history_bytes.saturating_add(records.commit(revision)?.history_bytes());
        newest = Some(revision);
        Ok(())
    })?;
    if (newest.unwrap_or(meta.compacted), history_bytes) != (meta.revision, meta.history_bytes) {
        return Err(DiskError::Damaged(format!("the log does not end at revision {}", meta.revision)));
    }
    Ok(())
}
