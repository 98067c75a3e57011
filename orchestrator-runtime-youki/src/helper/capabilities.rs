//! Which capabilities a container gets.

use std::{collections::BTreeSet, fs, io};

use orchestrator_core::runtime::SecurityContext;

/// What containers have unless told otherwise, as with containerd. `MKNOD` is among them only where the kernel
/// confines devices by cgroup, that is in version 1.
const DEFAULT: [&str; 13] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// All names, in order of their numbers in the kernel.
const ALL: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// Whether there is a capability with this name, which may be `ALL`.
pub(crate) fn is_known(name: &str) -> bool {
    let name = short(name);
    name == "ALL" || ALL.contains(&name.as_str())
}

/// The capabilities of a container, with `CAP_`. Nobody can pass on what this process does not have itself.
pub(super) fn of(security: &SecurityContext, devices_confined: bool) -> io::Result<Vec<String>> {
    let own = own()?;
    Ok(choose(security, devices_confined)
        .into_iter()
        .filter(|name| own.contains(name))
        .map(|name| format!("CAP_{name}"))
        .collect())
}

/// Whether a container could make devices: where no cgroup confines them, that is as good as owning the machine.
pub(crate) fn wants_devices(security: &SecurityContext) -> bool {
    choose(security, false).contains("MKNOD")
}

/// Whether this process itself has a capability.
pub(crate) fn have(name: &str) -> bool {
    own().is_ok_and(|own| own.contains(name))
}

fn choose(security: &SecurityContext, devices_confined: bool) -> BTreeSet<&'static str> {
    let added: BTreeSet<String> = security.add_capabilities.iter().map(|name| short(name)).collect();
    let dropped: BTreeSet<String> = security.drop_capabilities.iter().map(|name| short(name)).collect();
    if security.privileged {
        return ALL.into_iter().collect();
    }
    ALL.into_iter()
        .filter(|name| {
            // As upstream: what is named wins over ALL, and among names, dropping wins.
            if dropped.contains(*name) {
                return false;
            }
            if added.contains(*name) {
                return true;
            }
            if added.contains("ALL") {
                return true;
            }
            !dropped.contains("ALL") && (DEFAULT.contains(name) || (*name == "MKNOD" && devices_confined))
        })
        .collect()
}

fn short(name: &str) -> String {
    let name = name.to_ascii_uppercase();
    name.strip_prefix("CAP_").map(str::to_owned).unwrap_or(name)
}

fn own() -> io::Result<BTreeSet<&'static str>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let bits = status
        .lines()
        .find_map(|line| u64::from_str_radix(line.strip_prefix("CapPrm:")?.trim(), 16).ok())
        .ok_or_else(|| io::Error::other("/proc/self/status names no capabilities"))?;
    Ok(ALL.into_iter().enumerate().filter(|(number, _)| bits & (1 << number) != 0).map(|(_, name)| name).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(add: &[&str], drop: &[&str]) -> BTreeSet<&'static str> {
        let security = SecurityContext {
            add_capabilities: add.iter().map(|name| (*name).to_owned()).collect(),
            drop_capabilities: drop.iter().map(|name| (*name).to_owned()).collect(),
            ..SecurityContext::default()
        };
        choose(&security, true)
    }

    #[test]
    fn named_ones_win_over_all() {
        assert_eq!(names(&[], &[]).len(), 14);
        assert_eq!(names(&["NET_ADMIN"], &["ALL"]).into_iter().collect::<Vec<_>>(), ["NET_ADMIN"]);
        assert_eq!(names(&["ALL"], &["SYS_ADMIN"]).len(), 40);
        assert!(!names(&[], &["cap_kill"]).contains("KILL"));
        let unconfined = |name: &str| SecurityContext { add_capabilities: vec![name.to_owned()], ..Default::default() };
        assert!(wants_devices(&unconfined("ALL")) && wants_devices(&unconfined("MKNOD")));
        assert!(!wants_devices(&SecurityContext::default()));
        assert!(is_known("net_admin") && is_known("CAP_BPF") && !is_known("NET_ADMIM"));
    }
}
