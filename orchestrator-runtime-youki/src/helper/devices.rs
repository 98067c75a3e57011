//! The devices of the machine, all of which a privileged container has.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use rustix::fs::{major, minor};

/// A device as it is named in an OCI specification.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Device {
    path: PathBuf,
    #[serde(rename = "type")]
    kind: &'static str,
    major: u32,
    minor: u32,
    file_mode: u32,
    uid: u32,
    gid: u32,
}

/// What containers have of their own, and what other tools keep below `/dev` that is no device of the machine:
/// containerd leaves out the same.
const NOT_OF_THE_MACHINE: [&str; 8] = ["pts", "shm", "fd", "mqueue", "console", ".lxc", ".lxd-mounts", ".udev"];

/// All devices below `/dev`, in order of their paths.
pub(super) fn of_machine() -> io::Result<Vec<Device>> {
    let mut devices = Vec::new();
    collect(Path::new("/dev"), &mut devices)?;
    devices.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(devices)
}

fn collect(directory: &Path, into: &mut Vec<Device>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|name| NOT_OF_THE_MACHINE.contains(&name)) {
            continue;
        }
        // A device may be unplugged while it is looked at. Links are no devices, wherever they lead.
        let metadata = match fs::symlink_metadata(entry.path()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        if metadata.is_dir() {
            collect(&entry.path(), into)?;
        } else if let Some(kind) = kind(metadata.file_type()) {
            into.push(Device {
                path: entry.path(),
                kind,
                major: major(metadata.rdev()),
                minor: minor(metadata.rdev()),
                file_mode: metadata.mode() & 0o7777,
                uid: metadata.uid(),
                gid: metadata.gid(),
            });
        }
    }
    Ok(())
}

fn kind(file: fs::FileType) -> Option<&'static str> {
    match file {
        file if file.is_block_device() => Some("b"),
        file if file.is_char_device() => Some("c"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_and_nothing_else() {
        let devices = of_machine().unwrap();
        let null = devices.iter().find(|device| device.path == Path::new("/dev/null")).unwrap();
        assert_eq!((null.kind, null.major, null.minor, null.file_mode), ("c", 1, 3, 0o666));
        assert!(devices.iter().all(|device| !device.path.starts_with("/dev/pts")));
        assert!(devices.is_sorted_by(|one, other| one.path < other.path));
    }
}
