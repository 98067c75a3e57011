//! What the engine and its kernel can do.

use bollard::models::SystemInfo;

/// What of a container's limits and confinement takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Features {
    pub(crate) cpu_shares: bool,
    pub(crate) cpu_quota: bool,
    pub(crate) memory: bool,
    pub(crate) swap: bool,
    pub(crate) pids: bool,
    pub(crate) seccomp: bool,
    pub(crate) apparmor: bool,
}

impl Features {
    pub(crate) fn new(info: &SystemInfo) -> Self {
        let is = |flag: Option<bool>| flag == Some(true);
        // `name=seccomp,profile=default`
        let option = |wanted: &str| {
            let options = info.security_options.iter().flatten();
            options.flat_map(|option| option.split(',')).any(|part| part.strip_prefix("name=") == Some(wanted))
        };
        Self {
            cpu_shares: is(info.cpu_shares),
            cpu_quota: is(info.cpu_cfs_quota) && is(info.cpu_cfs_period),
            memory: is(info.memory_limit),
            swap: is(info.swap_limit),
            pids: is(info.pids_limit),
            seccomp: option("seccomp"),
            apparmor: option("apparmor"),
        }
    }
}

/// Why no pod can run on this engine, if none can.
pub(crate) fn ready(info: &SystemInfo) -> Result<(), String> {
    match info.os_type.as_deref() {
        Some("linux") => Ok(()),
        other => Err(format!("an engine that runs containers of Linux, not of {}", other.unwrap_or("nothing known"))),
    }
}
