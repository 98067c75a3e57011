//! Whether containers can run on this machine at all, and what is missing if not.

use std::{fs, path::Path};

use crate::{cgroups::Cgroups, helper::have_capability};

/// Looks at what the kernel offers; makes nothing.
pub(crate) fn check() -> Result<(), String> {
    let mut missing = Vec::new();
    if !cfg!(target_os = "linux") {
        return Err("Linux".to_owned());
    }
    if !nix::unistd::geteuid().is_root() {
        missing.push("root privileges".to_owned());
    } else {
        for name in ["SYS_ADMIN", "NET_ADMIN", "SYS_CHROOT", "MKNOD", "KILL"] {
            if !have_capability(name) {
                missing.push(format!("the capability CAP_{name}"));
            }
        }
    }
    for name in ["cgroup", "ipc", "mnt", "net", "pid", "uts"] {
        if !Path::new("/proc/self/ns").join(name).exists() {
            missing.push(format!("{name} namespaces"));
        }
    }
    if let Err(what) = Cgroups::find() {
        missing.push(what);
    }
    if !has_overlay() {
        missing.push("the overlay file system".to_owned());
    }
    if missing.is_empty() { Ok(()) } else { Err(missing.join(", ")) }
}

/// Built in, loaded, or there to be loaded when it is first used.
fn has_overlay() -> bool {
    let loaded = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if loaded.lines().any(|line| line.split_whitespace().last() == Some("overlay")) {
        return true;
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let modules = fs::read_to_string(Path::new("/lib/modules").join(release.trim()).join("modules.dep"));
    modules
        .unwrap_or_default()
        .lines()
        .any(|line| line.split(':').next().is_some_and(|path| path.contains("/overlay.ko")))
}
