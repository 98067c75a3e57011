//! `/dev/shm` of a pod: one piece of memory that all its containers see, as they share the IPC namespace.
//!
//! The memory is mounted in a mount namespace that has nothing else in it and no process either: the helper holds it
//! by its descriptor, so the machine never sees the mount, and it goes when the helper and the containers go.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
    sys::wait::waitpid,
    unistd::{ForkResult, chdir, pivot_root},
};
use rustix::{
    fs::CWD,
    mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree},
};

use crate::{layout::SandboxDirectory, limits::SHARED_MEMORY_BYTES, sys};

/// Makes the memory. As long as the result is open, it is there.
pub(super) fn hold(directory: &SandboxDirectory) -> io::Result<File> {
    let place = directory.path().join("shm");
    crate::files::make_private_directory(&place)?;
    let (mut here, mut there) = UnixStream::pair()?;
    match sys::fork()? {
        ForkResult::Child => {
            drop(here);
            let answer = match isolate(&place) {
                Ok(()) => String::new(),
                Err(error) => error.to_string(),
            };
            let _ = there.write_all(answer.as_bytes());
            let _ = there.shutdown(std::net::Shutdown::Write);
            // Until the helper has the namespace, this process is what it consists of.
            let _ = there.read(&mut [0]);
            sys::exit_now(0)
        }
        ForkResult::Parent { child } => {
            drop(there);
            let mut answer = String::new();
            here.read_to_string(&mut answer)?;
            let namespace = File::open(format!("/proc/{child}/ns/mnt"));
            drop(here);
            waitpid(child, None)?;
            if answer.is_empty() { namespace } else { Err(io::Error::other(answer)) }
        }
    }
}

/// Enters a mount namespace in which there is nothing but new memory.
fn isolate(place: &Path) -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(None::<&Path>, "/", None::<&Path>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&Path>)?;
    let options = format!("mode=1777,size={SHARED_MEMORY_BYTES}");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_NODEV;
    mount(Some("shm"), place, Some("tmpfs"), flags, Some(options.as_str()))?;
    chdir(place)?;
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    Ok(())
}

/// Another view of the memory, not mounted anywhere yet. To be called in a worker: for a moment, the process is in the
/// other mount namespace.
pub(super) fn view(namespace: impl AsFd) -> io::Result<OwnedFd> {
    let own = File::open("/proc/self/ns/mnt")?;
    setns(namespace, CloneFlags::CLONE_NEWNS)?;
    let view = open_tree(CWD, "/", OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC);
    setns(&own, CloneFlags::CLONE_NEWNS)?;
    Ok(view?)
}

/// Mounts a view.
pub(super) fn place(view: OwnedFd, place: &Path) -> io::Result<()> {
    std::fs::create_dir(place)?;
    Ok(move_mount(view, "", CWD, place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}
