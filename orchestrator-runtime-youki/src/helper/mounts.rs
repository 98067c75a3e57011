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

use super::{
    pod_files,
    users::{Users, is_unmapped},
};
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
    users: Option<&Users>,
) -> Result<Vec<Volume>, Failure> {
    let failed = |what: &str, error: io::Error| Failure::internal(what, error);
    unshare(CloneFlags::CLONE_NEWNS).map_err(|error| failed("making a mount namespace", error.into()))?;
    // What the machine mounts later still arrives; what is mounted here stays here.
    change_propagation(Path::new("/"), MsFlags::MS_SLAVE)
        .map_err(|error| failed("leaving the machine's mounts", error))?;
    overlay(sandbox, record, directory, users)?;
    make_places(record, directory, users).map_err(|error| failed("preparing the root file system", error))?;

    let mut volumes = Vec::new();
    let image = record.image.mounts.iter().map(|image| Mount {
        host_path: image.host_path.clone(),
        container_path: image.container_path.clone(),
        read_only: true,
        propagation: MountPropagation::Private,
    });
    for (number, volume) in image.chain(record.config.mounts.iter().cloned()).enumerate() {
        let source =
            stage(directory, number, &volume, users).map_err(|error| not_mounted(&volume.host_path, &error))?;
        volumes.push(Volume { source, target: volume.container_path, read_only: volume.read_only });
    }
    Ok(volumes)
}

/// What cannot be mapped to a pod's users is what its file system does not do.
fn not_mounted(path: &Path, error: &io::Error) -> Failure {
    if is_unmapped(error) {
        let message = format!("a user namespace with {}: its file system has no mapped mounts", path.display());
        return Failure::new(FailureKind::Unsupported, message);
    }
    Failure::new(FailureKind::StartFailed, format!("mounting {}: {error}", path.display()))
}

/// Mounts the root with a writable layer in memory.
fn overlay(
    sandbox: &SandboxRecord,
    record: &ContainerRecord,
    directory: &ContainerDirectory,
    users: Option<&Users>,
) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::internal("mounting the root file system", error);
    prepare_layers(sandbox, directory, users).map_err(failed)?;
    let machine = [PathBuf::from("/")];
    let layers = match &record.root {
        RootFileSystem::Machine => &machine[..],
        RootFileSystem::Layers { directories, .. } => directories,
    };
    let lower = match users {
        Some(users) => map_layers(layers, &directory.stage().join("layers"), users)?,
        None => link_layers(layers, &directory.stage().join("layers")).map_err(failed)?,
    };
    // Paths with commas or colons would be taken apart: the layers are named relative to the stage.
    std::env::set_current_dir(directory.stage()).map_err(failed)?;
    let options = format!("lowerdir={lower},upperdir=upper,workdir=work");
    let (kind, target) = (Some("overlay"), directory.root_file_system());
    let result = mount(kind, &target, kind, MsFlags::MS_NODEV, Some(options.as_str()));
    std::env::set_current_dir("/").map_err(failed)?;
    result.map_err(|error| failed(error.into()))
}

/// Makes the places of layers and volumes, with memory for what is written.
fn prepare_layers(sandbox: &SandboxRecord, directory: &ContainerDirectory, users: Option<&Users>) -> io::Result<()> {
    let stage = directory.stage();
    // The pod's root walks through it, if that is not the machine's.
    let mode = if users.is_some() { "711" } else { "700" };
    let options = format!("size={},mode={mode}", sandbox.writable_layer_bytes);
    mount(Some("tmpfs"), &stage, Some("tmpfs"), MsFlags::MS_NODEV, Some(options.as_str()))?;
    for name in ["upper", "work", "volumes", "layers"] {
        fs::create_dir(stage.join(name))?;
    }
    // The layer's own mode is that of the container's root directory.
    fs::set_permissions(stage.join("upper"), fs::Permissions::from_mode(0o755))?;
    users.map_or(Ok(()), |users| users.give_path(&stage.join("upper")))
}

/// Mounts layers so that what is root's in them is the pod's root's; returns their names, the highest layer first.
fn map_layers(layers: &[PathBuf], place: &Path, users: &Users) -> Result<String, Failure> {
    let mut names = Vec::new();
    for (number, layer) in layers.iter().enumerate() {
        let place = place.join(number.to_string());
        let mounted = fs::create_dir(&place).and_then(|()| users.mount(layer, &place, false));
        mounted.map_err(|error| not_mounted(layer, &error))?;
        names.push(format!("layers/{number}"));
    }
    names.reverse();
    Ok(names.join(":"))
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
fn make_places(record: &ContainerRecord, directory: &ContainerDirectory, users: Option<&Users>) -> io::Result<()> {
    let root = fs::File::open(directory.root_file_system())?;
    make_directory_in(&root, Path::new("etc"), users)?;
    let etc = open_in(&root, Path::new("etc"))?;
    for name in pod_files::NAMES {
        // A symbolic link, as to /run of systemd-resolved, would lead the mount elsewhere.
        match statat(&etc, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file() => {}
            Ok(_) => {
                unlinkat(&etc, name, AtFlags::empty())?;
                create_file(&etc, name, users)?;
            }
            Err(_) => create_file(&etc, name, users)?,
        }
    }
    if let Some(path) = record.config.working_directory.as_ref().or(record.image.working_directory.as_ref()) {
        make_directory_in(&root, Path::new(path), users)?;
    }
    Ok(())
}

fn create_file(directory: impl AsFd, name: &str, users: Option<&Users>) -> io::Result<()> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    rustix::fs::openat(&directory, name, flags, Mode::from_raw_mode(0o644))?;
    users.map_or(Ok(()), |users| users.give(&directory, name))
}

/// Makes a directory with its parents, following links only within the root.
fn make_directory_in(root: &fs::File, path: &Path, users: Option<&Users>) -> io::Result<()> {
    let mut made = PathBuf::new();
    for part in path.components() {
        let std::path::Component::Normal(part) = part else { continue };
        let parent = open_in(root, &made)?;
        match mkdirat(&parent, part, Mode::from_raw_mode(0o755)) {
            Ok(()) => users.map_or(Ok(()), |users| users.give(&parent, part))?,
            Err(rustix::io::Errno::EXIST) => {}
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
fn stage(directory: &ContainerDirectory, number: usize, volume: &Mount, users: Option<&Users>) -> io::Result<PathBuf> {
    let place = directory.stage().join("volumes").join(number.to_string());
    if fs::metadata(&volume.host_path)?.is_dir() {
        fs::create_dir(&place)?;
    } else {
        fs::File::create(&place)?;
    }
    match users {
        Some(users) => users.mount(&volume.host_path, &place, true)?,
        None => {
            let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
            mount(Some(&volume.host_path), &place, None::<&Path>, flags, None::<&Path>)?;
        }
    }
    if volume.propagation == MountPropagation::Private {
        change_propagation(&place, MsFlags::MS_PRIVATE)?;
    }
    Ok(place)
}

fn change_propagation(path: &Path, kind: MsFlags) -> io::Result<()> {
    Ok(mount(None::<&Path>, path, None::<&Path>, MsFlags::MS_REC | kind, None::<&Path>)?)
}
