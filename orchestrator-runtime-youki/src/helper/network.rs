//! The pods' network: one bridge per cluster in a network namespace of its own, and leases of addresses in files.
//!
//! The namespace is held by a file that it is mounted on, so it outlives every process and is found again by its
//! path. Nothing is added to the machine's own network namespace, and nothing leads out.

use std::{
    fs::{self, File},
    io,
    net::Ipv4Addr,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{Flock, FlockArg},
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
    sys::{
        statfs::{NSFS_MAGIC, fstatfs},
        wait::{WaitStatus, waitpid},
    },
    unistd::ForkResult,
};
use orchestrator_core::runtime::SandboxId;

use super::netlink::Netlink;
use crate::{
    Ipv4Network,
    files::{make_private_directory, remove_file, remove_tree, write_durably},
    records::NetworkRecord,
    sys,
};

const BRIDGE: &str = "pods";
/// The pod's end of its cable.
const POD_INTERFACE: &str = "eth0";

/// The files of one cluster's network.
pub(super) struct NetworkDirectory {
    path: PathBuf,
}

impl NetworkDirectory {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    fn namespace(&self) -> PathBuf {
        self.path.join("netns")
    }

    fn leases(&self) -> PathBuf {
        self.path.join("leases")
    }

    /// Keeps all others out until the result is dropped.
    fn lock(&self) -> io::Result<Flock<File>> {
        loop {
            make_private_directory(&self.path)?;
            let path = self.path.join("lock");
            let file = match File::options().read(true).write(true).create(true).truncate(false).open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other?,
            };
            let lock = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| error)?;
            // Whoever held it may have removed the whole network, and the lock file with it.
            match fs::metadata(&path) {
                Ok(there) if there.ino() == lock.metadata()?.ino() => return Ok(lock),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The bridge's network namespace, if there is one.
    fn open(&self) -> io::Result<Option<File>> {
        match File::open(self.namespace()) {
            Ok(file) if fstatfs(&file)?.filesystem_type() == NSFS_MAGIC => Ok(Some(file)),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The bridge's network namespace, made if there is none. The lock is held.
    fn open_or_make(&self, network: &Ipv4Network) -> io::Result<File> {
        if let Some(namespace) = self.open()? {
            return Ok(namespace);
        }
        // No namespace, so the machine was started anew, or this is the first pod: no address is in use.
        remove_tree(&self.leases())?;
        make_private_directory(&self.leases())?;
        File::create(self.namespace())?;
        let (address, prefix) = (network.gateway(), network.prefix());
        in_child(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            let mut netlink = Netlink::open()?;
            let loopback = netlink.index("lo")?;
            netlink.set_up(loopback)?;
            netlink.add_bridge(BRIDGE)?;
            let bridge = netlink.index(BRIDGE)?;
            netlink.add_address(bridge, address, prefix)?;
            netlink.set_up(bridge)?;
            let here = Path::new("/proc/self/ns/net");
            mount(Some(here), &self.namespace(), None::<&Path>, MsFlags::MS_BIND, None::<&Path>)?;
            Ok(())
        })?;
        self.open()?.ok_or_else(|| io::Error::other("the network namespace that was made is not there"))
    }

    /// Removes the network, unless an address is in use. A network that is gone is a success.
    pub(super) fn remove(&self) -> io::Result<()> {
        if !self.path.exists() {
            return Ok(());
        }
        let lock = self.lock()?;
        if self.leases().exists() {
            let count = fs::read_dir(self.leases())?.count();
            if count > 0 && self.open()?.is_some() {
                return Err(io::Error::other(format!("{count} addresses are in use")));
            }
        }
        if self.open()?.is_some() {
            umount2(&self.namespace(), MntFlags::MNT_DETACH)?;
        }
        remove_tree(&self.path)?;
        drop(lock);
        Ok(())
    }

    /// Takes the next free address. The lock is held.
    fn lease(&self, record: &NetworkRecord, holder: &str) -> io::Result<Ipv4Addr> {
        let last_path = self.path.join("last");
        // Addresses go round, so that one that was just given back is not given out at once.
        let last: u32 = fs::read_to_string(&last_path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        for number in 1..=record.pods.size() {
            let number = last.wrapping_add(number) % record.pods.size();
            let address = record.pods.nth(number);
            let is_reserved = record.pods.is_reserved(address)
                || record.cluster.is_reserved(address)
                || address == record.cluster.gateway();
            if is_reserved || self.lease_file(address).exists() {
                continue;
            }
            write_durably(&self.lease_file(address), holder.as_bytes())?;
            write_durably(&last_path, number.to_string().as_bytes())?;
            return Ok(address);
        }
        Err(io::Error::other(format!("all addresses of {} are in use", record.pods)))
    }

    fn lease_file(&self, address: Ipv4Addr) -> PathBuf {
        self.leases().join(address.to_string())
    }
}

/// Connects the network namespace that this process is in to the bridge. Returns the pod's address.
pub(super) fn connect(record: &NetworkRecord, root: &Path, id: &SandboxId) -> io::Result<Ipv4Addr> {
    let directory = NetworkDirectory::new(&record.directory);
    let _lock = directory.lock()?;
    let bridge_namespace = directory.open_or_make(&record.cluster)?;
    let address = directory.lease(record, &holder(root, id))?;
    let peer = format!("p{:08x}", u32::from(address));

    let own_namespace = File::open("/proc/self/ns/net")?;
    setns(&bridge_namespace, CloneFlags::CLONE_NEWNET)?;
    let beyond = Netlink::open();
    setns(&own_namespace, CloneFlags::CLONE_NEWNET)?;
    let mut beyond = beyond?;
    let mut here = Netlink::open()?;

    here.add_pair(POD_INTERFACE, &peer, &bridge_namespace)?;
    let bridge = beyond.index(BRIDGE)?;
    let port = beyond.index(&peer)?;
    beyond.set_bridge(port, bridge)?;
    beyond.set_up(port)?;
    let interface = here.index(POD_INTERFACE)?;
    here.add_address(interface, address, record.cluster.prefix())?;
    here.set_up(interface)?;
    here.add_default_route(interface, record.cluster.gateway())?;
    Ok(address)
}

/// Switches on the loopback interface of the network namespace that this process is in.
pub(super) fn loopback() -> io::Result<()> {
    let mut netlink = Netlink::open()?;
    let index = netlink.index("lo")?;
    netlink.set_up(index)
}

/// Pulls the pod's cable. To be called in the pod's network namespace.
pub(super) fn disconnect() -> io::Result<()> {
    match Netlink::open()?.remove_link(POD_INTERFACE) {
        Err(error) if error.raw_os_error() != Some(nix::libc::ENODEV) => Err(error),
        _ => Ok(()),
    }
}

/// Gives back all addresses of a sandbox.
pub(super) fn release(record: &NetworkRecord, root: &Path, id: &SandboxId) -> io::Result<()> {
    let directory = NetworkDirectory::new(&record.directory);
    if !directory.leases().exists() {
        return Ok(());
    }
    let _lock = directory.lock()?;
    let holder = holder(root, id);
    for entry in fs::read_dir(directory.leases())? {
        let path = entry?.path();
        if fs::read(&path).is_ok_and(|content| content == holder.as_bytes()) {
            remove_file(&path)?;
        }
    }
    Ok(())
}

/// Who has an address: several runtimes share the bridge, so the sandbox's name alone does not say it.
fn holder(root: &Path, id: &SandboxId) -> String {
    format!("{}\n{id}\n", root.display())
}

/// Does something in a copy of this process, whose namespaces can change without changing this one's.
fn in_child(work: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    match sys::fork()? {
        ForkResult::Child => {
            let code = match work() {
                Ok(()) => 0,
                Err(error) => {
                    let _ = nix::unistd::write(&writer, error.to_string().as_bytes());
                    1
                }
            };
            sys::exit_now(code)
        }
        ForkResult::Parent { child } => {
            drop(writer);
            let message = io::read_to_string(File::from(reader))?;
            match waitpid(child, None)? {
                WaitStatus::Exited(_, 0) => Ok(()),
                _ => Err(io::Error::other(message)),
            }
        }
    }
}
