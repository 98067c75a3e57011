//! Files that survive a crash, and removal that follows no links.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::DirBuilderExt},
    },
    path::Path,
};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, unlinkat};

/// Writes a value as JSON, so that after a crash either the old or the new file is there.
pub(crate) fn write_json(path: &Path, value: &impl serde::Serialize) -> io::Result<()> {
    write_durably(path, &serde_json::to_vec(value)?)
}

/// Writes a whole file, like [`write_json`].
pub(crate) fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().ok_or_else(|| io::Error::other("a file needs a directory"))?;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    fs::rename(&temporary, path)?;
    sync_directory(directory)
}

/// Writes a whole JSON file at once, for as long as the machine runs: the disk is not waited for.
pub(crate) fn write_passing_json(path: &Path, value: &impl serde::Serialize) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    fs::write(&temporary, serde_json::to_vec(value)?)?;
    fs::rename(&temporary, path)
}

/// Reads a JSON file; `None` when there is none, or none that can be understood.
pub(crate) fn read_json<T: serde::de::DeserializeOwned>(path: &Path, longest_bytes: u64) -> io::Result<Option<T>> {
    Ok(read(path, longest_bytes)?.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}

/// Reads a file; `None` when there is none.
pub(crate) fn read(path: &Path, longest_bytes: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let mut bytes = Vec::new();
    file.take(longest_bytes + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > longest_bytes {
        return Err(io::Error::other(format!("it is longer than {longest_bytes} bytes")));
    }
    Ok(Some(bytes))
}

/// Makes the entries of a directory durable.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Makes a directory that only its owner can enter, with its parents.
pub(crate) fn make_private_directory(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// The names in a directory, in order; none when it is not there.
pub(crate) fn names_in(path: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

/// Removes a file. One that is gone is a success.
pub(crate) fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Removes a directory with all that is in it. Links are removed, not followed. One that is gone is a success.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::other("the root directory cannot be removed"));
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match openat(CWD, parent, flags, Mode::empty()) {
        Ok(parent) => remove_tree_in(&parent, name),
        Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Removes a directory of a directory, like [`remove_tree`].
pub(crate) fn remove_tree_in(parent: impl AsFd, name: &OsStr) -> io::Result<()> {
    // A path as deep as a stranger made it is gone through without recursion.
    let mut open: Vec<(OwnedFd, Vec<u8>)> = Vec::new();
    match open_directory(&parent, name) {
        Ok(directory) => open.push((directory, name.as_bytes().to_vec())),
        Err(rustix::io::Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    while let Some((directory, _)) = open.last() {
        match remove_files_in(directory)? {
            Some((below, name)) => open.push((below, name)),
            None => {
                let Some((_, name)) = open.pop() else { break };
                let name = OsStr::from_bytes(&name);
                match open.last() {
                    Some((above, _)) => unlinkat(above, name, AtFlags::REMOVEDIR)?,
                    None => unlinkat(&parent, name, AtFlags::REMOVEDIR)?,
                }
            }
        }
    }
    Ok(())
}

/// Removes the files of a directory, up to a directory in it; that one is opened.
fn remove_files_in(directory: &OwnedFd) -> io::Result<Option<(OwnedFd, Vec<u8>)>> {
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if matches!(name.as_bytes(), b"." | b"..") {
            continue;
        }
        let is_directory = match entry.file_type() {
            FileType::Unknown => {
                let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
                FileType::from_raw_mode(stat.st_mode).is_dir()
            }
            kind => kind.is_dir(),
        };
        if is_directory {
            return Ok(Some((open_directory(directory, name)?, name.as_bytes().to_vec())));
        }
        unlinkat(directory, name, AtFlags::empty())?;
    }
    Ok(None)
}

fn open_directory(parent: impl AsFd, name: &OsStr) -> Result<OwnedFd, rustix::io::Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}
