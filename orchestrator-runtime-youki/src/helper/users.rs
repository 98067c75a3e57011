//! The user namespace of a pod: the users and groups of its containers are a range of the machine's that no other pod has.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    ops::RangeInclusive,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram, UnixStream},
    },
    path::Path,
};

use nix::{
    errno::Errno,
    sched::{CloneFlags, setns, unshare},
    sys::wait::waitpid,
    unistd::{ForkResult, Gid, Uid, setgroups, setresgid, setresuid},
};
use rustix::{
    fs::{AtFlags, CWD, chownat},
    mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree},
};

use crate::{limits::USER_RANGE_IDS, sys};

/// A range and the namespace that maps it to 0 and on.
#[derive(Debug)]
pub(super) struct Users {
    /// The machine's number of whoever is 0 in the pod.
    first: u32,
    namespace: File,
    /// As long as it is bound, no other helper takes the range.
    _claim: UnixDatagram,
}

impl Users {
    /// Takes a range that is free and makes its user namespace with others that belong to it, which this process enters. It
    /// stays root of the machine itself.
    pub(super) fn make(ranges: &RangeInclusive<u16>, namespaces: CloneFlags) -> io::Result<Self> {
        let (number, claim) = claim(ranges)?;
        let first = u32::from(number) * USER_RANGE_IDS;
        let (mut here, mut there) = UnixStream::pair()?;
        match sys::fork()? {
            ForkResult::Child => {
                drop(here);
                let answer = match unshare(CloneFlags::CLONE_NEWUSER | namespaces) {
                    Ok(()) => String::new(),
                    Err(error) => error.to_string(),
                };
                let _ = there.write_all(answer.as_bytes());
                let _ = there.shutdown(std::net::Shutdown::Write);
                // Until the helper has the namespaces, this process is what they consist of.
                let _ = there.read(&mut [0]);
                sys::exit_now(0)
            }
            ForkResult::Parent { child } => {
                drop(there);
                let mut answer = String::new();
                here.read_to_string(&mut answer)?;
                let entered = if answer.is_empty() {
                    enter(Path::new(&format!("/proc/{child}")), first, namespaces)
                } else {
                    Err(io::Error::other(answer))
                };
                drop(here);
                waitpid(child, None)?;
                Ok(Self { first, namespace: entered?, _claim: claim })
            }
        }
    }

    /// The descriptor of the namespace.
    pub(super) fn namespace(&self) -> RawFd {
        self.namespace.as_raw_fd()
    }

    /// The machine's number of a user or group of the pod.
    pub(super) fn on_machine(&self, id: u32) -> u32 {
        self.first + id
    }

    /// Gives a file, not followed where it is a link, to the pod's root.
    pub(super) fn give(&self, directory: impl AsFd, name: impl rustix::path::Arg) -> io::Result<()> {
        let (user, group) = self.ids();
        Ok(chownat(directory, name, user, group, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Gives a file by its path to the pod's root.
    pub(super) fn give_path(&self, path: &Path) -> io::Result<()> {
        self.give(CWD, path)
    }

    fn ids(&self) -> (Option<rustix::fs::Uid>, Option<rustix::fs::Gid>) {
        (Some(rustix::fs::Uid::from_raw(self.first)), Some(rustix::fs::Gid::from_raw(self.first)))
    }

    /// Becomes the pod's root.
    pub(super) fn become_root(&self) -> io::Result<()> {
        setns(&self.namespace, CloneFlags::CLONE_NEWUSER)?;
        setgroups(&[])?;
        setresgid(Gid::from_raw(0), Gid::from_raw(0), Gid::from_raw(0))?;
        setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0))?;
        Ok(())
    }

    /// Mounts files of the machine so that whoever they belong to is the same number in the pod. `whole` takes what is mounted
    /// below along.
    pub(super) fn mount(&self, source: &Path, place: &Path, whole: bool) -> io::Result<()> {
        let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        if whole {
            flags |= OpenTreeFlags::AT_RECURSIVE;
        }
        let tree: OwnedFd = open_tree(CWD, source, flags)?;
        sys::map_mount(&tree, self.namespace.as_fd()).map_err(|error| io::Error::new(error.kind(), Unmapped(error)))?;
        Ok(move_mount(tree, "", CWD, place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
    }
}

/// Why a mount cannot have the pod's users.
#[derive(Debug, thiserror::Error)]
#[error("mapping its users: {0}")]
struct Unmapped(#[source] io::Error);

/// Whether a mount failed because its file system, or the kernel, maps no users.
pub(super) fn is_unmapped(error: &io::Error) -> bool {
    let mapping = error.get_ref().and_then(|error| error.downcast_ref::<Unmapped>());
    mapping.is_some_and(|Unmapped(error)| {
        matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP))
    })
}

/// Takes the first range that nobody has. The name of a socket is one machine's and ends with the process, however it ends.
fn claim(ranges: &RangeInclusive<u16>) -> io::Result<(u16, UnixDatagram)> {
    for number in ranges.clone() {
        let name = SocketAddr::from_abstract_name(format!("orchestrator/users/{number}"))?;
        match UnixDatagram::bind_addr(&name) {
            Ok(socket) => return Ok((number, socket)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other(format!("all ranges of users from {} to {} are taken", ranges.start(), ranges.end())))
}

/// Says which users the namespaces of a process have, enters all but the user namespace, and opens that.
fn enter(process: &Path, first: u32, namespaces: CloneFlags) -> io::Result<File> {
    let map = format!("0 {first} {USER_RANGE_IDS}");
    fs::write(process.join("uid_map"), &map)?;
    fs::write(process.join("gid_map"), &map)?;
    let open = |name: &str| File::open(process.join("ns").join(name));
    let kinds =
        [(CloneFlags::CLONE_NEWNET, "net"), (CloneFlags::CLONE_NEWIPC, "ipc"), (CloneFlags::CLONE_NEWUTS, "uts")];
    for (kind, name) in kinds {
        if namespaces.contains(kind) {
            setns(open(name)?, kind)?;
        }
    }
    open("user")
}

/// The namespace of a pod, for messages and for what is checked before anything is made: what the machine lacks for one.
pub(crate) fn missing(ranges: &RangeInclusive<u16>) -> Option<String> {
    let limit = fs::read_to_string("/proc/sys/user/max_user_namespaces").ok();
    if limit.and_then(|text| text.trim().parse::<u64>().ok()).is_none_or(|limit| limit == 0) {
        return Some("the kernel makes no user namespaces".to_owned());
    }
    // In a user namespace itself, the agent can give only what it has.
    let own = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let last = (u32::from(*ranges.end()) + 1).checked_mul(USER_RANGE_IDS).map_or(u32::MAX, |end| end - 1);
    let has_all = own.lines().any(|line| {
        let numbers: Vec<u64> = line.split_whitespace().filter_map(|number| number.parse().ok()).collect();
        matches!(numbers[..], [0, _, count] if count > u64::from(last))
    });
    (!has_all).then(|| format!("this process does not have the users up to {last}"))
}

impl AsFd for Users {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_taken_once() {
        // Far from those that pods get.
        let ranges = 65_001..=65_002;
        let (one, first) = claim(&ranges).unwrap();
        let (two, _second) = claim(&ranges).unwrap();
        assert_eq!((one, two), (65_001, 65_002));
        assert!(claim(&ranges).unwrap_err().to_string().contains("taken"));
        drop(first);
        assert_eq!(claim(&ranges).unwrap().0, 65_001);
    }
}
