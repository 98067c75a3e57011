//! Files that survive a crash, and removal that follows no links and crosses no mounts.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
    path::Path,
};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, openat2, unlinkat};

/// Writes a whole file so that after a crash either the old or the new one is there.
pub(crate) fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().ok_or_else(|| io::Error::other("a file needs a directory"))?;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    fs::rename(&temporary, path)?;
    sync_directory(directory)
}

/// Writes a value as JSON, like [`write_durably`].
pub(crate) fn write_json(path: &Path, value: &impl serde::Serialize) -> io::Result<()> {
    write_durably(path, &serde_json::to_vec(value)?)
}

/// Writes a value as JSON, at once, for as long as the machine runs: the disk is not waited for. A crash of the machine may leave
/// the file empty.
pub(crate) fn write_passing_json(path: &Path, value: &impl serde::Serialize) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(&serde_json::to_vec(value)?)?;
    fs::rename(&temporary, path)
}

/// Reads a JSON file; `None` when there is none, or nothing in it.
pub(crate) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) if bytes.is_empty() => Ok(None),
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads a text below a directory; no link leads out of it.
pub(crate) fn read_beneath(directory: &Path, name: &Path, longest_bytes: u64) -> io::Result<String> {
    let directory = File::open(directory)?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let file = File::from(openat2(&directory, name, flags, Mode::empty(), resolve)?);
    let mut text = String::new();
    file.take(longest_bytes + 1).read_to_string(&mut text)?;
    if text.len() as u64 > longest_bytes {
        return Err(io::Error::other(format!("it is longer than {longest_bytes} bytes")));
    }
    Ok(text)
}

/// Makes the entries of a directory durable.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Makes a directory that only root can enter, with its parents.
pub(crate) fn make_private_directory(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Removes a directory with all that is in it. Symbolic links are removed, not followed; what is mounted below the
/// directory stays, and is an error. A directory that is gone is a success.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    let parent = path.parent().ok_or_else(|| io::Error::other("the root directory cannot be removed"))?;
    let name = path.file_name().ok_or_else(|| io::Error::other("a directory needs a name"))?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = match rustix::fs::openat(CWD, parent, flags, Mode::empty()) {
        Err(rustix::io::Errno::NOENT) => return Ok(()),
        other => other?,
    };
    let Some(directory) = open_below(&parent, name.as_encoded_bytes())? else { return Ok(()) };
    remove_contents(directory)?;
    unlinkat(&parent, name, AtFlags::REMOVEDIR)?;
    Ok(())
}

fn open_below(parent: impl AsFd, name: &[u8]) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
    match openat2(parent, name, flags, Mode::empty(), resolve) {
        Ok(directory) => Ok(Some(directory)),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn remove_contents(directory: OwnedFd) -> io::Result<()> {
    let mut entries = Vec::new();
    for entry in Dir::read_from(&directory)? {
        let entry = entry?;
        let name = entry.file_name().to_owned();
        if name.as_bytes() != b"." && name.as_bytes() != b".." {
            entries.push((name, entry.file_type()));
        }
    }
    for (name, kind) in entries {
        if kind == FileType::Directory {
            if let Some(child) = open_below(&directory, name.to_bytes())? {
                remove_contents(child)?;
            }
            unlinkat(&directory, &name, AtFlags::REMOVEDIR)?;
        } else {
            unlinkat(&directory, &name, AtFlags::empty())?;
        }
    }
    Ok(())
}

/// Removes a file; one that is gone is a success.
pub(crate) fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removal_does_not_follow_links() {
        let base = std::env::temp_dir().join(format!("orchestrator-youki-files-{}", std::process::id()));
        fs::create_dir_all(base.join("tree/inner")).unwrap();
        fs::create_dir_all(base.join("kept")).unwrap();
        fs::write(base.join("kept/file"), b"x").unwrap();
        fs::write(base.join("tree/inner/file"), b"x").unwrap();
        std::os::unix::fs::symlink(base.join("kept"), base.join("tree/inner/link")).unwrap();
        remove_tree(&base.join("tree")).unwrap();
        remove_tree(&base.join("tree")).unwrap();
        assert!(!base.join("tree").exists());
        assert!(base.join("kept/file").exists());
        fs::remove_dir_all(base).unwrap();
    }
}
