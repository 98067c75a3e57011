//! Lets the root of a pod that is nobody on the machine reach its container's files, and nothing else.
//!
//! libcontainer names what it mounts by paths, and walks them as the pod's root. Directories of the runtime are for the
//! machine's root only; so in the mount namespace of a container's maker another way leads to the sandbox.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

use nix::mount::{MsFlags, mount};
use rustix::{
    fs::CWD,
    mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree},
};

use crate::layout::{ContainerDirectory, SandboxDirectory};

/// Mode of directories that lead to others and are not listed.
const PASSAGE: u32 = 0o711;

/// To be called in a mount namespace of its own, once everything is mounted.
pub(super) fn expose(sandbox: &SandboxDirectory, container: &ContainerDirectory) -> io::Result<()> {
    // On the machine they lie below directories that only its root can enter.
    let passages =
        [sandbox.path().to_owned(), sandbox.pod_files(), sandbox.all_containers(), container.path().to_owned()];
    for directory in passages {
        fs::set_permissions(directory, Permissions::from_mode(PASSAGE))?;
    }
    let path = sandbox.path().canonicalize()?;
    let above: Vec<&Path> = path.ancestors().skip(1).collect();
    let mut private = None;
    for directory in above.into_iter().rev() {
        if fs::metadata(directory)?.mode() & 0o001 == 0 {
            private = Some(directory);
            break;
        }
    }
    let Some(private) = private else { return Ok(()) };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(CWD, &path, flags)?;
    let options = format!("mode={PASSAGE:o},size=64k");
    mount(Some("tmpfs"), private, Some("tmpfs"), MsFlags::MS_NODEV, Some(options.as_str()))?;
    fs::create_dir_all(&path)?;
    Ok(move_mount(tree, "", CWD, &path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}
