//! What is needed, and the removal of what is not.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use jiff::Timestamp;

use super::{Shelf, Turn};
use crate::{
    ImageError, files,
    limits::{DOCUMENT_BYTES, DOWNLOAD_AGE},
};

/// Before the names of holders that are pulls: their files are locked while the pull goes on.
const PULL: &str = "pull-";

/// Layers and files that a pull needs, until it is dropped.
#[derive(Debug)]
pub(crate) struct PullUse {
    path: PathBuf,
    /// Locked: a use that nobody has locked is that of a pull that died.
    _file: File,
}

impl Drop for PullUse {
    fn drop(&mut self) {
        // What stays is seen to be nobody's.
        let _ = fs::remove_file(&self.path);
    }
}

impl Shelf {
    /// Keeps these layers while an image is pulled. `unique` tells this pull from others.
    pub(crate) fn begin_pull(&self, diff_ids: &[String], unique: u64) -> Result<PullUse, ImageError> {
        let _turn = self.turn()?;
        let path = self.use_path(&format!("{PULL}{unique:016x}"));
        let failed = |error| ImageError::io(&path, error);
        self.write_use(&format!("{PULL}{unique:016x}"), diff_ids)?;
        let file = File::open(&path).map_err(failed)?;
        file.lock().map_err(failed)?;
        Ok(PullUse { path, _file: file })
    }

    /// Writes down which layers somebody needs. The caller has the turn. What needed them does not run after a crash of the
    /// machine.
    pub(super) fn write_use(&self, holder: &str, diff_ids: &[String]) -> Result<(), ImageError> {
        let path = self.use_path(holder);
        files::write_passing_json(&path, &diff_ids).map_err(|error| ImageError::io(&path, error))
    }

    /// Somebody needs nothing any more. What only they needed is removed.
    pub(crate) fn release(&self, holder: &str) -> Result<(), ImageError> {
        let path = self.use_path(holder);
        if !path.exists() {
            return Ok(());
        }
        let turn = self.turn()?;
        files::remove_file(&path).map_err(|error| ImageError::io(&path, error))?;
        self.clean(&turn)
    }

    /// Of the holders whose names begin so, those that are not told need nothing any more.
    pub(crate) fn release_others(&self, prefix: &str, kept: &BTreeSet<String>) -> Result<(), ImageError> {
        let turn = self.turn()?;
        let mut released = self.holders()?;
        released.retain(|holder| holder.starts_with(prefix) && !kept.contains(holder));
        for holder in &released {
            let path = self.use_path(holder);
            files::remove_file(&path).map_err(|error| ImageError::io(&path, error))?;
        }
        // Each pod that goes asks for this, and few of them had an image of the store.
        if released.is_empty() { Ok(()) } else { self.clean(&turn) }
    }

    /// Removes what nobody needs, as a crash may have left it.
    pub(crate) fn remove_unneeded(&self) -> Result<(), ImageError> {
        let turn = self.turn()?;
        self.clean(&turn)
    }

    /// Removes layers, configurations and unfinished work that nobody needs.
    pub(super) fn clean(&self, _turn: &Turn) -> Result<(), ImageError> {
        let mut layers = BTreeSet::new();
        let mut configurations = BTreeSet::new();
        for record in self.names()? {
            // An image whose configuration is damaged cannot be used; its layers may be another's.
            if let Ok(configuration) = self.configuration(&record.configuration) {
                layers.extend(configuration.diff_ids);
            }
            configurations.insert(record.configuration);
        }
        let mut is_pulling = false;
        for holder in self.holders()? {
            let path = self.use_path(&holder);
            if holder.starts_with(PULL) {
                if is_abandoned(&path).map_err(|error| ImageError::io(&path, error))? {
                    files::remove_file(&path).map_err(|error| ImageError::io(&path, error))?;
                    continue;
                }
                is_pulling = true;
            }
            let held: Option<Vec<String>> =
                files::read_json(&path, DOCUMENT_BYTES).map_err(|error| ImageError::io(&path, error))?;
            layers.extend(held.unwrap_or_default());
        }
        self.remove_others("layers", &layers)?;
        // Whatever a pull works at is young, and not in any record yet.
        if !is_pulling {
            self.remove_others("configurations", &configurations)?;
            self.remove_others("making", &BTreeSet::new())?;
        }
        Ok(())
    }

    /// Removes downloads that nobody has taken up for a while.
    pub(crate) fn expire_downloads(&self, now: Timestamp) -> Result<(), ImageError> {
        let directory = self.directory.join("downloads");
        let failed = |error| ImageError::io(&directory, error);
        for name in files::names_in(&directory).map_err(failed)? {
            let path = directory.join(name);
            let modified = fs::metadata(&path).and_then(|metadata| metadata.modified()).ok();
            let modified = modified.and_then(|time| Timestamp::try_from(time).ok());
            if modified.is_none_or(|modified| now.duration_since(modified) > DOWNLOAD_AGE) {
                files::remove_file(&path).map_err(|error| ImageError::io(&path, error))?;
            }
        }
        Ok(())
    }

    fn remove_others(&self, kind: &str, kept: &BTreeSet<String>) -> Result<(), ImageError> {
        let directory = self.directory.join(kind);
        let failed = |error| ImageError::io(&directory, error);
        for name in files::names_in(&directory).map_err(failed)?.iter().filter(|name| !kept.contains(*name)) {
            let path = directory.join(name);
            let removed = if path.is_dir() { self.discard(&path, name) } else { files::remove_file(&path) };
            removed.map_err(|error| ImageError::io(&path, error))?;
        }
        Ok(())
    }

    /// Removes a directory so that no part of it is ever taken for the whole.
    fn discard(&self, path: &Path, name: &str) -> io::Result<()> {
        let aside = self.directory.join("making").join(format!("{name}.gone"));
        if path != aside && !path.starts_with(self.directory.join("making")) {
            files::remove_tree(&aside)?;
            fs::rename(path, &aside)?;
            return files::remove_tree(&aside);
        }
        files::remove_tree(path)
    }

    fn holders(&self) -> Result<Vec<String>, ImageError> {
        let directory = self.directory.join("uses");
        files::names_in(&directory).map_err(|error| ImageError::io(&directory, error))
    }

    fn use_path(&self, holder: &str) -> PathBuf {
        self.directory.join("uses").join(holder)
    }
}

/// Whether the pull that wrote this is over without having said so.
fn is_abandoned(path: &Path) -> io::Result<bool> {
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
        Ok(file) => match file.try_lock() {
            Ok(()) => Ok(true),
            Err(fs::TryLockError::WouldBlock) => Ok(false),
            Err(fs::TryLockError::Error(error)) => Err(error),
        },
    }
}
