//! What is on disk about sandboxes and containers, enough for a new agent to carry on.

use std::{
    fs::File,
    io,
    net::IpAddr,
    ops::RangeInclusive,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use nix::{
    fcntl::{FcntlArg, fcntl},
    libc,
    unistd::Pid,
};
use orchestrator_core::runtime::{
    ContainerConfig, ContainerId, ContainerState, ContainerStatus, SandboxConfig, SandboxId, SandboxState,
    SandboxStatus,
};

use crate::{
    Ipv4Network,
    config::ImageConfig,
    files::read_json,
    layout::{ContainerDirectory, Layout, SandboxDirectory},
};

/// A sandbox as asked for, with all that a helper needs to make it and a later one to remove it.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct SandboxRecord {
    pub(crate) id: SandboxId,
    pub(crate) root: PathBuf,
    pub(crate) config: SandboxConfig,
    pub(crate) created_at: Timestamp,
    pub(crate) network: NetworkRecord,
    pub(crate) cgroup_parent: String,
    pub(crate) hidden_paths: Vec<PathBuf>,
    pub(crate) writable_layer_bytes: u64,
    /// Numbers of the ranges of users that pods get.
    pub(crate) user_ranges: RangeInclusive<u16>,
}

/// Where the pod's address comes from.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct NetworkRecord {
    pub(crate) directory: PathBuf,
    pub(crate) cluster: Ipv4Network,
    pub(crate) pods: Ipv4Network,
}

/// What became of a sandbox. There is none until it was ready for the first time.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct SandboxProgress {
    pub(crate) state: SandboxState,
    pub(crate) addresses: Vec<IpAddr>,
}

/// A container as asked for, with what its image means.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct ContainerRecord {
    pub(crate) id: ContainerId,
    pub(crate) config: ContainerConfig,
    pub(crate) image: ImageConfig,
    pub(crate) image_id: String,
    pub(crate) root: RootFileSystem,
    /// The text of the seccomp profile that a file of the machine held when the container was made.
    pub(crate) seccomp: Option<String>,
    /// The name of the AppArmor profile.
    pub(crate) apparmor: Option<String>,
    pub(crate) created_at: Timestamp,
}

/// What a container sees as its root, under a writable layer of its own.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) enum RootFileSystem {
    /// The machine's own.
    Machine,
    /// An image's.
    Layers {
        /// The layers, the lowest first.
        directories: Vec<PathBuf>,
        /// Who the image runs as: `user` or `user:group`, of names or numbers.
        user: Option<String>,
    },
}

/// Where a container is in its life.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct ContainerProgress {
    pub(crate) state: ContainerState,
    pub(crate) pid: Option<i32>,
}

/// The process that holds the sandbox's lock, its helper; `None` when none does.
pub(crate) fn lock_holder(directory: &SandboxDirectory) -> io::Result<Option<Pid>> {
    let file = match File::options().read(true).write(true).open(directory.lock()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let mut lock = whole_file_lock();
    fcntl(file.as_raw_fd(), FcntlArg::F_GETLK(&mut lock))?;
    Ok((lock.l_type != libc::F_UNLCK as libc::c_short).then(|| Pid::from_raw(lock.l_pid)))
}

/// Takes the sandbox's lock for this process; `None` when another one has it. The lock is the process's own: forked
/// copies do not inherit it, and it goes when the process ends, however it ends.
pub(crate) fn take_lock(directory: &SandboxDirectory) -> io::Result<Option<File>> {
    let file = File::options().read(true).write(true).create(true).truncate(false).open(directory.lock())?;
    match fcntl(file.as_raw_fd(), FcntlArg::F_SETLK(&whole_file_lock())) {
        Ok(_) => Ok(Some(file)),
        Err(nix::Error::EAGAIN | nix::Error::EACCES) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn whole_file_lock() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

/// A sandbox as its files and its lock tell it.
#[derive(Debug)]
pub(crate) struct ObservedSandbox {
    pub(crate) record: SandboxRecord,
    pub(crate) progress: Option<SandboxProgress>,
    pub(crate) helper: Option<Pid>,
}

impl ObservedSandbox {
    /// Reads a sandbox; `None` when there is none, or not enough of it to know what it is.
    pub(crate) fn read(directory: &SandboxDirectory) -> io::Result<Option<Self>> {
        let Some(record) = read_json(&directory.record())? else { return Ok(None) };
        // The lock is asked first: a helper that ends in between has written its last state before.
        let helper = lock_holder(directory)?;
        Ok(Some(Self { record, progress: read_json(&directory.progress())?, helper }))
    }

    /// Whether the helper died without saying so: containers may still run, and nobody looks after them.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.helper.is_none() && self.progress.as_ref().is_none_or(|progress| progress.state == SandboxState::Ready)
    }

    /// Whether it is being made just now, and nobody has seen it yet.
    pub(crate) fn is_unfinished(&self) -> bool {
        self.helper.is_some() && self.progress.is_none()
    }

    pub(crate) fn status(&self) -> SandboxStatus {
        let record = &self.record;
        let (state, addresses) = match &self.progress {
            Some(progress) if self.helper.is_some() => (progress.state, progress.addresses.clone()),
            Some(progress) => (SandboxState::NotReady, progress.addresses.clone()),
            None => (SandboxState::NotReady, Vec::new()),
        };
        SandboxStatus {
            id: record.id.clone(),
            key: record.config.key.clone(),
            namespace: record.config.namespace.clone(),
            name: record.config.name.clone(),
            state,
            created_at: record.created_at,
            addresses,
            labels: record.config.labels.clone(),
            annotations: record.config.annotations.clone(),
        }
    }
}

/// Reads a container; `None` when there is none. What ran in an abandoned sandbox may or may not run.
pub(crate) fn read_container(
    sandbox: &SandboxId,
    directory: &ContainerDirectory,
    abandoned: bool,
) -> io::Result<Option<(ContainerRecord, ContainerStatus)>> {
    let Some(record) = read_json::<ContainerRecord>(&directory.record())? else { return Ok(None) };
    let progress: Option<ContainerProgress> = read_json(&directory.progress())?;
    let status = ContainerStatus {
        id: record.id.clone(),
        sandbox: sandbox.clone(),
        key: record.config.key.clone(),
        image: record.config.image.clone(),
        image_id: record.image_id.clone(),
        created_at: record.created_at,
        state: match progress.map(|progress| progress.state) {
            Some(ContainerState::Running { .. }) if abandoned => ContainerState::Unknown,
            Some(state) => state,
            None => ContainerState::Created,
        },
        labels: record.config.labels.clone(),
        annotations: record.config.annotations.clone(),
    };
    Ok(Some((record, status)))
}

/// Reads a sandbox's record; for helpers that are given the sandbox's directory.
pub(crate) fn read_record(root: &Path, id: &SandboxId) -> io::Result<(SandboxDirectory, Option<SandboxRecord>)> {
    let directory = Layout::new(root.to_owned()).sandbox(id).map_err(io::Error::other)?;
    let record = read_json(&directory.record())?;
    Ok((directory, record))
}
