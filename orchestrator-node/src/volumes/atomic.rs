//! Files that change all at once: a directory with a time in its name, and a link `..data` that is moved to it.
//!
//! The layout is upstream's (`pkg/volume/util/atomic_writer.go`), which programs in containers rely on:
//! `key -> ..data/key`, `..data -> ..2026_01_31_12_00_00.0123456789`.

use std::os::fd::AsFd;

use jiff::Timestamp;
use nix::{
    fcntl::{readlinkat, renameat},
    sys::stat::{Mode, fchmod},
    unistd::{Gid, fchown, symlinkat},
};

use super::{
    Payload, VolumeError,
    files::{Directory, STRICT},
};
use crate::limits::VOLUME_PAYLOAD_BYTES;

const DATA: &str = "..data";
const NEW_DATA: &str = "..data_tmp";

/// Brings a volume's directory to hold exactly these files. `unique` keeps names of the same second apart.
pub(super) fn write(
    volume: &Directory,
    files: &Payload,
    group: Option<i64>,
    now: Timestamp,
    unique: u64,
) -> Result<(), VolumeError> {
    check(files)?;
    let present = readlinkat(volume.0.as_fd(), DATA).ok().and_then(|target| target.into_string().ok());
    let present = present.filter(|name| is_version(name));
    let unchanged = match &present {
        Some(name) => volume.directory(name).is_ok_and(|version| holds(&version, files)),
        None => false,
    };
    let name = format!("{}.{unique:010}", now.strftime("..%Y_%m_%d_%H_%M_%S"));
    let current = if let Some(present) = present.filter(|_| unchanged) {
        present
    } else {
        write_version(volume, &name, files, group)?;
        volume.remove(NEW_DATA)?;
        let link = symlinkat(name.as_str(), volume.0.as_fd(), NEW_DATA);
        link.map_err(|error| VolumeError::io(NEW_DATA, error))?;
        let moved = renameat(volume.0.as_fd(), NEW_DATA, volume.0.as_fd(), DATA);
        moved.map_err(|error| VolumeError::io(DATA, error))?;
        name
    };
    link_entries(volume, files)?;
    for old in volume.names()? {
        if is_version(&old) && old != current {
            volume.remove(&old)?;
        }
    }
    Ok(())
}

fn is_version(name: &str) -> bool {
    name.starts_with("..2") && !name.contains('/')
}

/// Paths stay inside, and nothing looks like the layout's own names.
fn check(files: &Payload) -> Result<(), VolumeError> {
    let size: usize = files.values().map(|file| file.content.len()).sum();
    if size > VOLUME_PAYLOAD_BYTES {
        return Err(VolumeError(format!("{size} bytes are too many: at most {VOLUME_PAYLOAD_BYTES}")));
    }
    for path in files.keys() {
        let bad = path.is_empty()
            || path.starts_with('/')
            || path.split('/').any(|part| part.is_empty() || part == "." || part == "..");
        if bad || path.starts_with("..") {
            return Err(VolumeError(format!("invalid path: {path}")));
        }
    }
    Ok(())
}

fn holds(version: &Directory, files: &Payload) -> bool {
    let count = count_files(version);
    count == Some(files.len())
        && files.iter().all(|(path, file)| {
            let content = version.read(path, VOLUME_PAYLOAD_BYTES + 1, STRICT);
            matches!(content, Ok(Some(content)) if content == file.content)
        })
}

fn count_files(directory: &Directory) -> Option<usize> {
    let mut count = 0;
    for name in directory.names().ok()? {
        count += match directory.directory(&name) {
            Ok(below) => count_files(&below)?,
            Err(_) => 1,
        };
    }
    Some(count)
}

fn write_version(volume: &Directory, name: &str, files: &Payload, group: Option<i64>) -> Result<(), VolumeError> {
    let version = volume.make(name, 0o755)?;
    // The process's umask may have taken bits away.
    fchmod(&version.0, Mode::from_bits_truncate(0o755)).map_err(|error| VolumeError::io(name, error))?;
    for (path, file) in files {
        if let Some((parent, _)) = path.rsplit_once('/') {
            version.make(parent, 0o755)?;
        }
        let written = version.write(path, &file.content)?;
        let readable_by_group = if group.is_some() { 0o440 } else { 0 };
        let mode = Mode::from_bits_truncate(file.mode | readable_by_group);
        fchmod(&written, mode).map_err(|error| VolumeError::io(path, error))?;
        if let Some(group) = group.and_then(|group| u32::try_from(group).ok()) {
            fchown(&written, None, Some(Gid::from_raw(group))).map_err(|error| VolumeError::io(path, error))?;
        }
    }
    Ok(())
}

/// Makes the names that users see, and removes those that are no more.
fn link_entries(volume: &Directory, files: &Payload) -> Result<(), VolumeError> {
    let wanted: Vec<&str> = files.keys().filter_map(|path| path.split('/').next()).collect();
    for name in volume.names()? {
        if !name.starts_with("..") && !wanted.contains(&name.as_str()) {
            volume.remove(&name)?;
        }
    }
    for name in wanted {
        if !volume.exists(name) {
            let link = symlinkat(format!("{DATA}/{name}").as_str(), volume.0.as_fd(), name);
            link.map_err(|error| VolumeError::io(name, error))?;
        }
    }
    Ok(())
}
