//! How a helper comes to be: from a program that the agent executed to the process that holds a pod's namespaces.

use std::{
    fs::{self, File},
    io,
    net::IpAddr,
    os::{fd::AsRawFd, unix::net::UnixListener},
    path::Path,
};

use nix::{
    sched::{CloneFlags, unshare},
    sys::{
        prctl,
        stat::{Mode, umask},
    },
    unistd::{ForkResult, Pid, dup2, setsid},
};
use orchestrator_core::runtime::SandboxState;

use super::{network, pause, pod_files, report, server, shared_memory, users::Users};
use crate::{
    cgroups::Cgroups,
    files::{make_private_directory, remove_tree, write_json},
    layout::{Layout, SandboxDirectory},
    limits::CGROUP_REMOVAL_TIME,
    records::{SandboxProgress, SandboxRecord, take_lock},
    sys,
};

/// The cgroup that the helpers of all pods are in: apart from the pods', whose limits are for the containers.
pub(super) fn helpers_cgroup(record: &SandboxRecord) -> String {
    format!("/{}/helpers", record.cgroup_parent)
}

/// The pod's cgroup.
pub(crate) fn pod_cgroup(record: &SandboxRecord) -> String {
    format!("/{}/{}", record.cgroup_parent, record.id)
}

/// Makes the sandbox and looks after it until it is removed.
pub(super) fn run(record: SandboxRecord) -> io::Result<()> {
    // The agent waits for the process that it started; the helper itself is nobody's child.
    match sys::fork() {
        Ok(ForkResult::Parent { .. }) => return Ok(()),
        Ok(ForkResult::Child) => {}
        Err(error) => return report(Err(at("forking", error))),
    }
    if let Err(error) = setsid() {
        return report(Err(at("leaving the session", error.into())));
    }
    umask(Mode::from_bits_truncate(0o022));
    // What the agent has left open is not for pods.
    if let Err(error) = sys::close_others(&[]) {
        return report(Err(at("closing the agent's files", error)));
    }
    let layout = Layout::new(record.root.clone());
    let directory = match layout.sandbox(&record.id) {
        Ok(directory) => directory,
        Err(error) => return report(Err(io::Error::other(error))),
    };
    let lock = match claim(&directory) {
        Ok(lock) => lock,
        Err(error) => return report(Err(error)),
    };
    match make(&record, &directory) {
        Ok(made) => {
            report(Ok(()))?;
            redirect(&File::options().write(true).open("/dev/null")?, &[1])?;
            let result = server::Server::new(record, directory, made).and_then(server::Server::run);
            drop(lock);
            result
        }
        Err(error) => {
            unmake(&record, &directory);
            report(Err(error))
        }
    }
}

/// Makes the directory and takes its lock.
fn claim(directory: &SandboxDirectory) -> io::Result<File> {
    make_private_directory(directory.path())?;
    let lock = take_lock(directory)?.ok_or_else(|| io::Error::other("the sandbox has a helper already"))?;
    redirect(&File::options().read(true).open("/dev/null")?, &[0])?;
    redirect(&File::options().append(true).create(true).open(directory.helper_log())?, &[2])?;
    Ok(lock)
}

fn redirect(file: &File, descriptors: &[i32]) -> io::Result<()> {
    for descriptor in descriptors {
        dup2(file.as_raw_fd(), *descriptor)?;
    }
    Ok(())
}

/// What the helper of a sandbox holds.
pub(super) struct Made {
    pub(super) cgroups: Cgroups,
    pub(super) listener: UnixListener,
    /// Holds `/dev/shm`; none on the machine's IPC namespace, whose `/dev/shm` is the machine's.
    pub(super) shared_memory: Option<File>,
    /// The pod's own users, if it has some.
    pub(super) users: Option<Users>,
    /// The first process of the pod's process namespace, if it has one.
    pub(super) pause: Option<Pid>,
}

/// Makes everything that the sandbox consists of.
fn make(record: &SandboxRecord, directory: &SandboxDirectory) -> io::Result<Made> {
    write_json(&directory.record(), record)?;
    make_private_directory(&directory.all_containers())?;
    make_private_directory(&directory.libcontainer())?;

    let cgroups = Cgroups::find().map_err(io::Error::other)?;
    cgroups.join(&helpers_cgroup(record)).map_err(|error| at("joining the cgroup of helpers", error))?;
    cgroups
        .make(&pod_cgroup(record), &record.config.resources)
        .map_err(|error| at("making the pod's cgroup", error))?;
    prctl::set_child_subreaper(true)?;

    let options = &record.config.namespaces;
    let mut namespaces = CloneFlags::CLONE_NEWUTS;
    if !options.host_network {
        namespaces |= CloneFlags::CLONE_NEWNET;
    }
    if !options.host_ipc {
        namespaces |= CloneFlags::CLONE_NEWIPC;
    }
    let users = if options.user_namespace {
        let made = Users::make(&record.user_ranges, namespaces);
        Some(made.map_err(|error| at("making a user namespace", error))?)
    } else {
        unshare(namespaces).map_err(|error| at("making namespaces", error.into()))?;
        None
    };
    nix::unistd::sethostname(&record.config.hostname).map_err(|error| at("setting the host name", error.into()))?;
    let addresses: Vec<IpAddr> = if options.host_network {
        Vec::new()
    } else {
        network::loopback().map_err(|error| at("switching on the loopback interface", error))?;
        let address = network::connect(&record.network, &record.root, &record.id)
            .map_err(|error| at("connecting the pod to the network", error))?;
        vec![IpAddr::V4(address)]
    };
    for (name, value) in &record.config.sysctls {
        let path = Path::new("/proc/sys").join(name.replace('.', "/"));
        fs::write(&path, value).map_err(|error| at(&format!("setting {name}"), error))?;
    }
    pod_files::write(record, directory, &addresses, users.as_ref())
        .map_err(|error| at("writing the pod's files", error))?;

    let shared_memory = (!options.host_ipc)
        .then(|| shared_memory::hold(directory))
        .transpose()
        .map_err(|error| at("making shared memory", error))?;
    let pause = options
        .share_process_namespace
        .then(|| pause::start(&cgroups, &format!("{}/pause", pod_cgroup(record)), users.as_ref()))
        .transpose()
        .map_err(|error| at("making the process namespace", error))?;

    let listener = listen(directory)?;
    write_json(&directory.progress(), &SandboxProgress { state: SandboxState::Ready, addresses })?;
    Ok(Made { cgroups, listener, shared_memory, users, pause })
}

/// Listens on the sandbox's socket. Paths of sockets are short, so the directory is named by its descriptor.
fn listen(directory: &SandboxDirectory) -> io::Result<UnixListener> {
    let handle = File::open(directory.path())?;
    let short = format!("/proc/self/fd/{}/{}", handle.as_raw_fd(), SandboxDirectory::socket_name());
    crate::files::remove_file(Path::new(&short))?;
    let listener = UnixListener::bind(&short)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Takes back what a failed [`make`] has left, as far as it goes.
fn unmake(record: &SandboxRecord, directory: &SandboxDirectory) {
    // The pod's end of the cable goes with its network namespace, and that goes with this process.
    let _ = network::release(&record.network, &record.root, &record.id);
    if let Ok(cgroups) = Cgroups::find() {
        let pod = pod_cgroup(record);
        let _ = cgroups.kill(&pod, CGROUP_REMOVAL_TIME);
        let _ = cgroups.remove(&pod, CGROUP_REMOVAL_TIME);
        cgroups.leave(&helpers_cgroup(record));
    }
    let _ = remove_tree(directory.path());
}

fn at(what: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}
