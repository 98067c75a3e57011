//! The root file system of a container: an image's or the machine's own under a private writable layer, and what is mounted on it.
//!
//! All mounts are made in a mount namespace that only the container's maker and the container itself are in: the
//! machine never sees them, and they go when the container goes.

use std::{
    fs, io,
    os::{fd::AsFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use orchestrator_core::runtime::{Mount, MountPropagation};
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, mkdirat, openat2, statat, unlinkat};

use super::pod_files;
use crate::{
    layout::ContainerDirectory,
    protocol::{Failure, FailureKind},
    records::{ContainerRecord, RootFileSystem, SandboxRecord},
};

/// A mount that the container gets besides the standard ones.
pub(super) struct Volume {
    pub(super) source: PathBuf,
    pub(super) target: PathBuf,
    pub(super) read_only: bool,
}

/// Enters a mount namespace of its own and prepares the root file system and the volumes there.
pub(super) fn prepare(
    sandbox: &SandboxRecord,
    record: &ContainerRecord,
    directory: &ContainerDirectory,
) -> Result<Vec<Volume>, Failure> {
    let failed = |what: &str, error: io::Error| Failure::internal(what, error);
    unshare(CloneFlags::CLONE_NEWNS).map_err(|error| failed("making a mount namespace", error.into()))?;
    // What the machine mounts later still arrives; what is mounted here stays here.
    change_propagation(Path::new("/"), MsFlags::MS_SLAVE)
        .map_err(|error| failed("leaving the machine's mounts", error))?;
    overlay(sandbox, record, directory).map_err(|error| failed("mounting the root file system", error))?;
    make_places(record, directory).map_err(|error| failed("preparing the root file system", error))?;

    let mut volumes = Vec::new();
    let image = record.image.mounts.iter().map(|image| Mount {
        host_path: image.host_path.clone(),
        container_path: image.container_path.clone(),
        read_only: true,
        propagation: MountPropagation::Private,
    });
    for (number, volume) in image.chain(record.config.mounts.iter().cloned()).enumerate() {
        let source = stage(directory, number, &volume).map_err(|error| {
            let message = format!("mounting {}: {error}", volume.host_path.display());
            Failure::new(FailureKind::StartFailed, message)
        })?;
        volumes.push(Volume { source, target: volume.container_path, read_only: volume.read_only });
    }
    Ok(volumes)
}

/// Mounts the root with a writable layer in memory.
fn overlay(sandbox: &SandboxRecord, record: &ContainerRecord, directory: &ContainerDirectory) -> io::Result<()> {
    let stage = directory.stage();
    let options = format!("size={},mode=700", sandbox.writable_layer_bytes);
    mount(Some("tmpfs"), &stage, Some("tmpfs"), MsFlags::MS_NODEV, Some(options.as_str()))?;
    for name in ["upper", "work", "volumes", "layers"] {
        fs::create_dir(stage.join(name))?;
    }
    // The layer's own mode is that of the container's root directory.
    fs::set_permissions(stage.join("upper"), fs::Permissions::from_mode(0o755))?;
    let lower = match &record.root {
        RootFileSystem::Machine => "/".to_owned(),
        RootFileSystem::Layers { directories, .. } => link_layers(directories, &stage.join("layers"))?,
    };
    // Paths with commas or colons would be taken apart: the layers are named relative to the stage.
    std::env::set_current_dir(&stage)?;
    let options = format!("lowerdir={lower},upperdir=upper,workdir=work");
    let (kind, target) = (Some("overlay"), directory.root_file_system());
    let result = mount(kind, &target, kind, MsFlags::MS_NODEV, Some(options.as_str()));
    std::env::set_current_dir("/")?;
    Ok(result?)
}

/// Gives layers short names, so that all of them fit into the options of one mount; returns those, the highest layer first.
fn link_layers(directories: &[PathBuf], place: &Path) -> io::Result<String> {
    let mut names = Vec::new();
    for (number, layer) in directories.iter().enumerate() {
        std::os::unix::fs::symlink(layer, place.join(number.to_string()))?;
        names.push(format!("layers/{number}"));
    }
    names.reverse();
    Ok(names.join(":"))
}

/// Makes sure that the pod's files can be mounted and the working directory can be entered.
fn make_places(record: &ContainerRecord, directory: &ContainerDirectory) -> io::Result<()> {
    let root = fs::File::open(directory.root_file_system())?;
    make_directory_in(&root, Path::new("etc"))?;
    let etc = open_in(&root, Path::new("etc"))?;
    for name in pod_files::NAMES {
        // A symbolic link, as to /run of systemd-resolved, would lead the mount elsewhere.
        match statat(&etc, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file() => {}
            Ok(_) => {
                unlinkat(&etc, name, AtFlags::empty())?;
                create_file(&etc, name)?;
            }
            Err(_) => create_file(&etc, name)?,
        }
    }
    if let Some(path) = record.config.working_directory.as_ref().or(record.image.working_directory.as_ref()) {
        make_directory_in(&root, Path::new(path))?;
    }
    Ok(())
}

fn create_file(directory: impl AsFd, name: &str) -> io::Result<()> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(0o644))?;
    Ok(())
}

/// Makes a directory with its parents, following links only within the root.
fn make_directory_in(root: &fs::File, path: &Path) -> io::Result<()> {
    let mut made = PathBuf::new();
    for part in path.components() {
        let std::path::Component::Normal(part) = part else { continue };
        let parent = open_in(root, &made)?;
        match mkdirat(&parent, part, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        made.push(part);
    }
    Ok(())
}

fn open_in(root: &fs::File, path: &Path) -> io::Result<std::os::fd::OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT)?)
}

/// Mounts a volume where its propagation can be set, which libcontainer does not do. Returns the place.
fn stage(directory: &ContainerDirectory, number: usize, volume: &Mount) -> io::Result<PathBuf> {
    let place = directory.stage().join("volumes").join(number.to_string());
    if fs::metadata(&volume.host_path)?.is_dir() {
        fs::create_dir(&place)?;
    } else {
        fs::File::create(&place)?;
    }
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(&volume.host_path), &place, None::<&Path>, flags, None::<&Path>)?;
    if volume.propagation == MountPropagation::Private {
        change_propagation(&place, MsFlags::MS_PRIVATE)?;
    }
    Ok(place)
}

fn change_propagation(path: &Path, kind: MsFlags) -> io::Result<()> {
    Ok(mount(None::<&Path>, path, None::<&Path>, MsFlags::MS_REC | kind, None::<&Path>)?)
}
