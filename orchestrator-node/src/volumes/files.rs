//! File work relative to open directories, through which no symbolic link is followed.

use std::{
    io::{Read, Write},
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use nix::{
    dir::Dir,
    errno::Errno,
    fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, open, openat2},
    sys::stat::{Mode, SFlag, fstatat, mkdirat},
    unistd::{UnlinkatFlags, unlinkat},
};

use super::VolumeError;
use crate::limits::FILES_IN_VOLUME;

/// Paths stay below the directory, and no link is followed.
pub(super) const STRICT: ResolveFlag = ResolveFlag::RESOLVE_BENEATH.union(ResolveFlag::RESOLVE_NO_SYMLINKS);
/// Paths stay below the directory; links inside of it are followed.
pub(super) const BENEATH: ResolveFlag = ResolveFlag::RESOLVE_BENEATH.union(ResolveFlag::RESOLVE_NO_MAGICLINKS);

pub(super) const DIRECTORY: OFlag = OFlag::O_DIRECTORY.union(OFlag::O_RDONLY).union(OFlag::O_CLOEXEC);

/// An open directory.
#[derive(Debug)]
pub(super) struct Directory(pub(super) OwnedFd);

impl Directory {
    /// Opens a directory that the owner of this machine chose.
    pub(super) fn root(path: &Path) -> Result<Self, VolumeError> {
        open(path, DIRECTORY, Mode::empty()).map(Self).map_err(|error| VolumeError::io(path.display(), error))
    }

    fn error(name: &str) -> impl Fn(Errno) -> VolumeError {
        move |error| VolumeError::io(name, error)
    }

    /// Opens something below, by a relative path.
    pub(super) fn open(&self, path: &str, flags: OFlag, mode: Mode, resolve: ResolveFlag) -> Result<OwnedFd, Errno> {
        let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).mode(mode).resolve(resolve);
        loop {
            // The kernel gives up on a race with a rename; the next try sees a stable tree.
            match openat2(self.0.as_fd(), path, how) {
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                result => return result,
            }
        }
    }

    /// Opens a directory below.
    pub(super) fn directory(&self, path: &str) -> Result<Self, VolumeError> {
        self.open(path, DIRECTORY, Mode::empty(), STRICT).map(Self).map_err(Self::error(path))
    }

    /// Opens a directory below, made with all its parents where they are missing.
    pub(super) fn make(&self, path: &str, mode: u32) -> Result<Self, VolumeError> {
        let mut current = self.directory(".")?;
        for part in path.split('/').filter(|part| !part.is_empty()) {
            match mkdirat(current.0.as_fd(), part, Mode::from_bits_truncate(mode)) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(error) => return Err(VolumeError::io(part, error)),
            }
            current = current.directory(part)?;
        }
        Ok(current)
    }

    /// Writes a new file, or an old one anew.
    pub(super) fn write(&self, path: &str, content: &[u8]) -> Result<OwnedFd, VolumeError> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC;
        let file = self.open(path, flags, Mode::from_bits_truncate(0o600), STRICT).map_err(Self::error(path))?;
        let mut file = std::fs::File::from(file);
        file.write_all(content).map_err(|error| VolumeError::io(path, error))?;
        Ok(file.into())
    }

    /// The beginning of a file; `None` when there is none.
    pub(super) fn read(&self, path: &str, limit: usize, resolve: ResolveFlag) -> Result<Option<Vec<u8>>, VolumeError> {
        // A pipe put in place of a file must not block the reader.
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK;
        let file = match self.open(path, flags, Mode::empty(), resolve) {
            Err(Errno::ENOENT) => return Ok(None),
            file => std::fs::File::from(file.map_err(Self::error(path))?),
        };
        let mut content = Vec::new();
        let read = file.take(limit as u64).read_to_end(&mut content);
        read.map_err(|error| VolumeError::io(path, error))?;
        Ok(Some(content))
    }

    pub(super) fn exists(&self, name: &str) -> bool {
        fstatat(self.0.as_fd(), name, AtFlags::AT_SYMLINK_NOFOLLOW).is_ok()
    }

    /// The names in it, in order.
    pub(super) fn names(&self) -> Result<Vec<String>, VolumeError> {
        let again = self.directory(".")?;
        let mut directory = Dir::from_fd(again.0).map_err(Self::error("."))?;
        let mut names = Vec::new();
        for entry in directory.iter().take(FILES_IN_VOLUME) {
            let entry = entry.map_err(Self::error("."))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// Removes a name and all below it. One that is not there is a success.
    pub(super) fn remove(&self, name: &str) -> Result<(), VolumeError> {
        let stat = match fstatat(self.0.as_fd(), name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(Errno::ENOENT) => return Ok(()),
            stat => stat.map_err(Self::error(name))?,
        };
        let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
        let flag = if kind == SFlag::S_IFDIR {
            let inner = self.directory(name)?;
            loop {
                let names = inner.names()?;
                if names.is_empty() {
                    break;
                }
                for below in names {
                    inner.remove(&below)?;
                }
            }
            UnlinkatFlags::RemoveDir
        } else {
            UnlinkatFlags::NoRemoveDir
        };
        match unlinkat(self.0.as_fd(), name, flag) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(error) => Err(VolumeError::io(name, error)),
        }
    }
}
