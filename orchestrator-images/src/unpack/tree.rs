//! Makes the files of a layer below one directory, which no path and no link leads out of.
//!
//! What a layer takes away from those below it is marked as overlayfs wants it: a device 0/0 in the place of a file, an
//! attribute on a directory that hides what is below it.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read, Write},
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{
        AtFlags, Dev, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags, chmodat,
        chownat, fsetxattr, fstatvfs, linkat, makedev, mkdirat, mknodat, openat, openat2, statat, symlinkat, unlinkat,
        utimensat,
    },
    io::Errno,
};
use tar::EntryType;

use super::{
    Allowance,
    archive::{Archive, Entry},
    broken,
};
use crate::{
    ImageError, files,
    limits::{BUFFER_BYTES, PATH_DEPTH, SPACE_CHECK_BYTES},
};

/// Before the name of a file that a layer takes away.
const WHITEOUT: &[u8] = b".wh.";
/// The file that says that a directory hides what is below it.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Before the names of what another storage driver kept for itself.
const FOREIGN: &[u8] = b".wh..wh.";
const OPAQUE_ATTRIBUTE: &str = "trusted.overlay.opaque";

/// The directory as it grows.
pub(super) struct Tree {
    root: OwnedFd,
    allowance: Allowance,
    content_bytes: u64,
    entries: u64,
    unchecked_bytes: u64,
    buffer: Vec<u8>,
    /// Set at the end: files that come later would change it.
    directory_times: Vec<(PathBuf, i64)>,
}

/// Where an entry goes: an open directory and a name in it.
struct Place<'a> {
    parent: OwnedFd,
    name: &'a OsStr,
}

impl Tree {
    pub(super) fn open(path: &Path, allowance: Allowance) -> Result<Self, ImageError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root =
            openat(rustix::fs::CWD, path, flags, Mode::empty()).map_err(|error| ImageError::io(path, error.into()))?;
        let tree = Self {
            root,
            allowance,
            content_bytes: 0,
            entries: 0,
            unchecked_bytes: 0,
            buffer: vec![0; BUFFER_BYTES],
            directory_times: Vec::new(),
        };
        tree.check_space()?;
        Ok(tree)
    }

    /// Makes one entry; its content is read from the archive.
    pub(super) fn add(&mut self, entry: &Entry, content: &mut Archive<impl Read>) -> Result<(), ImageError> {
        self.entries += 1;
        if self.entries > self.allowance.entries {
            let limit = self.allowance.entries.to_string();
            return Err(ImageError::TooLarge { what: "the number of the image's files".to_owned(), limit });
        }
        let path = relative(&entry.path)?;
        let at = |error: Errno| failed(&path, error);
        let Some(name) = path.file_name() else {
            // The root itself: all that can be said of it is whose it is.
            return self.describe_root(entry);
        };
        let place = Place { parent: self.parent(&path)?, name };
        if let Some(taken) = name.as_bytes().strip_prefix(WHITEOUT) {
            return self.take_away(&place, &path, taken);
        }
        self.make_room(&place, entry.kind).map_err(|error| ImageError::io(&path, error))?;
        match entry.kind {
            EntryType::Regular | EntryType::Continuous => self.file(&place, &path, content)?,
            EntryType::Directory => match mkdirat(&place.parent, name, Mode::from_raw_mode(0o700)) {
                Ok(()) | Err(Errno::EXIST) => self.directory_times.push((path.clone(), entry.modified_seconds)),
                Err(error) => return Err(at(error)),
            },
            EntryType::Symlink => symlinkat(OsStr::from_bytes(&entry.link), &place.parent, name).map_err(at)?,
            EntryType::Link => return self.link(&place, &path, &entry.link),
            EntryType::Char => self.node(&place, FileType::CharacterDevice, entry).map_err(at)?,
            EntryType::Block => self.node(&place, FileType::BlockDevice, entry).map_err(at)?,
            EntryType::Fifo => self.node(&place, FileType::Fifo, entry).map_err(at)?,
            other => return Err(ImageError::Unsupported(format!("the layer has an entry of the type {other:?}"))),
        }
        self.describe(&place, &path, entry)
    }

    /// Ends the tree: times of directories, and how much it is.
    pub(super) fn finish(self) -> Result<(u64, u64), ImageError> {
        for (path, seconds) in &self.directory_times {
            // A later entry may have taken the directory's place.
            if let Ok(directory) = self.open_beneath(path) {
                let _ = rustix::fs::futimens(&directory, &times(*seconds));
            }
        }
        rustix::fs::syncfs(&self.root).map_err(|error| failed(Path::new("."), error))?;
        Ok((self.content_bytes, self.entries))
    }

    /// The directory that a path is in, made where it is missing. Links are followed as long as they stay below the root.
    fn parent(&self, path: &Path) -> Result<OwnedFd, ImageError> {
        let parent = path.parent().unwrap_or(Path::new(""));
        match self.open_beneath(parent) {
            Err(Errno::NOENT) => {}
            other => return other.map_err(|error| failed(path, error)),
        }
        let mut made = PathBuf::new();
        for part in parent.components() {
            let above = self.open_beneath(&made).map_err(|error| failed(path, error))?;
            match mkdirat(&above, part.as_os_str(), Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => made.push(part),
                Err(error) => return Err(failed(path, error)),
            }
        }
        self.open_beneath(parent).map_err(|error| failed(path, error))
    }

    fn open_beneath(&self, path: &Path) -> Result<OwnedFd, Errno> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat2(&self.root, path, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS)
    }

    /// Removes what stands where an entry goes, unless both are directories.
    fn make_room(&self, place: &Place<'_>, kind: EntryType) -> io::Result<()> {
        let stat = match statat(&place.parent, place.name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(()),
            other => other?,
        };
        let is_directory = FileType::from_raw_mode(stat.st_mode).is_dir();
        if is_directory && kind == EntryType::Directory {
            return Ok(());
        }
        if is_directory {
            files::remove_tree_in(&place.parent, place.name)
        } else {
            Ok(unlinkat(&place.parent, place.name, AtFlags::empty())?)
        }
    }

    fn file(&mut self, place: &Place<'_>, path: &Path, content: &mut Archive<impl Read>) -> Result<(), ImageError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&place.parent, place.name, flags, Mode::from_raw_mode(0o600));
        let mut file = File::from(file.map_err(|error| failed(path, error))?);
        loop {
            let count = content.read(&mut self.buffer).map_err(broken)?;
            if count == 0 {
                return Ok(());
            }
            file.write_all(&self.buffer[..count]).map_err(|error| ImageError::io(path, error))?;
            self.content_bytes += count as u64;
            self.unchecked_bytes += count as u64;
            if self.unchecked_bytes >= SPACE_CHECK_BYTES {
                self.unchecked_bytes = 0;
                self.check_space()?;
            }
        }
    }

    fn link(&self, place: &Place<'_>, path: &Path, target: &[u8]) -> Result<(), ImageError> {
        let target = relative(target)?;
        let Some(name) = target.file_name() else {
            return Err(ImageError::Invalid(format!("the layer links {} to its root", path.display())));
        };
        let parent =
            self.open_beneath(target.parent().unwrap_or(Path::new(""))).map_err(|error| failed(&target, error))?;
        linkat(&parent, name, &place.parent, place.name, AtFlags::empty()).map_err(|error| failed(path, error))
    }

    fn node(&self, place: &Place<'_>, kind: FileType, entry: &Entry) -> Result<(), Errno> {
        let device: Dev = if kind == FileType::Fifo { 0 } else { makedev(entry.device.0, entry.device.1) };
        mknodat(&place.parent, place.name, kind, Mode::from_raw_mode(0o600), device)
    }

    /// Hides a file of the layers below, or all that is in a directory there.
    fn take_away(&self, place: &Place<'_>, path: &Path, name: &[u8]) -> Result<(), ImageError> {
        let at = |error| failed(path, error);
        if place.name.as_bytes() == OPAQUE {
            return fsetxattr(&place.parent, OPAQUE_ATTRIBUTE, b"y", XattrFlags::empty()).map_err(at);
        }
        if place.name.as_bytes().starts_with(FOREIGN) {
            return Ok(());
        }
        if matches!(name, b"" | b"." | b"..") {
            return Err(ImageError::Invalid(format!("the layer takes away {}", path.display())));
        }
        let name = OsStr::from_bytes(name);
        match mknodat(&place.parent, name, FileType::CharacterDevice, Mode::empty(), 0) {
            // The layer has a file of its own there, which hides the one below anyway.
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(at(error)),
        }
    }

    /// Owner, mode, attributes and time. The owner first: changing it takes special modes and capabilities away.
    fn describe(&self, place: &Place<'_>, path: &Path, entry: &Entry) -> Result<(), ImageError> {
        let at = |error| failed(path, error);
        let (parent, name) = (&place.parent, place.name);
        let (user, group) = owner(entry)?;
        chownat(parent, name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW).map_err(at)?;
        if entry.kind == EntryType::Symlink {
            return utimensat(parent, name, &times(entry.modified_seconds), AtFlags::SYMLINK_NOFOLLOW).map_err(at);
        }
        chmodat(parent, name, Mode::from_raw_mode(entry.mode), AtFlags::empty()).map_err(at)?;
        self.attributes(place, path, entry)?;
        if entry.kind == EntryType::Directory {
            return Ok(());
        }
        utimensat(parent, name, &times(entry.modified_seconds), AtFlags::SYMLINK_NOFOLLOW).map_err(at)
    }

    /// The user's own attributes and a program's capabilities. Others are for the machine's administrator to give: those of
    /// overlayfs would lead into other directories.
    fn attributes(&self, place: &Place<'_>, path: &Path, entry: &Entry) -> Result<(), ImageError> {
        let is_kept = |name: &str| name == "security.capability" || name.starts_with("user.");
        let is_file = matches!(entry.kind, EntryType::Regular | EntryType::Continuous);
        if entry.attributes.is_empty() || !(is_file || entry.kind == EntryType::Directory) {
            return Ok(());
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&place.parent, place.name, flags, Mode::empty()).map_err(|error| failed(path, error))?;
        for (name, value) in entry.attributes.iter().filter(|(name, _)| is_kept(name)) {
            match fsetxattr(&file, name.as_str(), value, XattrFlags::empty()) {
                // Not every file system has them.
                Ok(()) | Err(Errno::NOTSUP) => {}
                Err(error) => return Err(failed(path, error)),
            }
        }
        Ok(())
    }

    fn describe_root(&mut self, entry: &Entry) -> Result<(), ImageError> {
        if entry.kind != EntryType::Directory {
            return Err(ImageError::Invalid("the layer's root is no directory".to_owned()));
        }
        let at = |error| failed(Path::new("/"), error);
        let (user, group) = owner(entry)?;
        rustix::fs::fchown(&self.root, Some(user), Some(group)).map_err(at)?;
        rustix::fs::fchmod(&self.root, Mode::from_raw_mode(entry.mode)).map_err(at)?;
        self.directory_times.push((PathBuf::new(), entry.modified_seconds));
        Ok(())
    }

    fn check_space(&self) -> Result<(), ImageError> {
        let disk = fstatvfs(&self.root).map_err(|error| failed(Path::new("."), error))?;
        let available_bytes = disk.f_bavail.saturating_mul(disk.f_frsize);
        let reserved_bytes = self.allowance.reserved_bytes;
        if available_bytes < reserved_bytes {
            return Err(ImageError::NoSpace { available_bytes, reserved_bytes });
        }
        Ok(())
    }
}

fn owner(entry: &Entry) -> Result<(Uid, Gid), ImageError> {
    // The highest number means "leave it as it is" to the kernel.
    if entry.user == u32::MAX || entry.group == u32::MAX {
        return Err(ImageError::Invalid("the layer has a file of nobody's".to_owned()));
    }
    Ok((Uid::from_raw(entry.user), Gid::from_raw(entry.group)))
}

fn times(seconds: i64) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}

/// A path below the root.
fn relative(bytes: &[u8]) -> Result<PathBuf, ImageError> {
    let text = || String::from_utf8_lossy(bytes).into_owned();
    if bytes.contains(&0) || bytes.starts_with(b"/") {
        return Err(ImageError::Invalid(format!("the layer has the path {:?}", text())));
    }
    let mut path = PathBuf::new();
    for part in bytes.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                return Err(ImageError::Invalid(format!("the layer has the path {:?}, which leads out of it", text())));
            }
            part => path.push(OsStr::from_bytes(part)),
        }
    }
    if path.components().count() > PATH_DEPTH {
        let what = "the number of directories within each other in the image".to_owned();
        return Err(ImageError::TooLarge { what, limit: PATH_DEPTH.to_string() });
    }
    Ok(path)
}

/// What the kernel says of a path of a layer.
fn failed(path: &Path, error: Errno) -> ImageError {
    let told = path.display();
    match error {
        Errno::XDEV => ImageError::Invalid(format!("the layer has the path {told}, which a link leads out of it")),
        Errno::LOOP | Errno::NOTDIR | Errno::NAMETOOLONG | Errno::ISDIR | Errno::NOENT | Errno::INVAL => {
            ImageError::Invalid(format!("the layer's path {told}: {error}"))
        }
        Errno::NOSPC | Errno::DQUOT => ImageError::NoSpace { available_bytes: 0, reserved_bytes: 0 },
        error => ImageError::File { path: path.to_owned(), source: error.into() },
    }
}
