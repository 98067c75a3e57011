//! What the engine and its kernel can do.

use bollard::models::{SystemInfo, SystemVersion};

/// By what name Podman's service goes among the parts of an engine.
const PODMAN: &str = "Podman Engine";

/// Whose engine it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Docker,
    Podman,
}

impl Kind {
    pub(crate) fn new(version: &SystemVersion) -> Self {
        let is_podman = version.components.iter().flatten().any(|part| part.name == PODMAN);
        if is_podman { Self::Podman } else { Self::Docker }
    }

    /// As the name of a runtime.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
        }
    }
}

/// What of a container's limits and confinement takes effect, and what the engine has a way for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Features {
    /// Containers can join the UTS namespace of another. Otherwise they get its host name with its network.
    pub(crate) joins_uts: bool,
    /// The engine remembers why a container could not be started.
    pub(crate) keeps_start_failures: bool,
    /// A command has an exit code when it has ended, and none before, and one that never began is not like one that has ended.
    pub(crate) tells_beginnings: bool,
    /// Lines of logs have their time to the nanosecond, and not to the second.
    pub(crate) fine_log_times: bool,
    /// A line of a log is cut where it is too long, and nowhere else. Otherwise it is cut after each piece that was written.
    pub(crate) cuts_log_lines: bool,
    /// No two networks have one name. Then a network is known to be in use only to whoever joined it by that.
    pub(crate) unique_network_names: bool,
    /// A directory to be mounted has to be there. Otherwise the engine makes it.
    pub(crate) checks_mounts: bool,
    pub(crate) cpu_shares: bool,
    pub(crate) cpu_quota: bool,
    pub(crate) memory: bool,
    pub(crate) swap: bool,
    pub(crate) pids: bool,
    pub(crate) seccomp: bool,
    /// A seccomp profile can be the text of one, and not only the name of a file on the engine's machine.
    pub(crate) seccomp_texts: bool,
    pub(crate) apparmor: bool,
}

impl Features {
    pub(crate) fn new(info: &SystemInfo, kind: Kind) -> Self {
        let is_docker = kind == Kind::Docker;
        let is = |flag: Option<bool>| flag == Some(true);
        // `name=seccomp,profile=default`
        let option = |wanted: &str| {
            let options = info.security_options.iter().flatten();
            options.flat_map(|option| option.split(',')).any(|part| part.strip_prefix("name=") == Some(wanted))
        };
        Self {
            joins_uts: !is_docker,
            keeps_start_failures: is_docker,
            tells_beginnings: is_docker,
            fine_log_times: is_docker,
            cuts_log_lines: is_docker,
            unique_network_names: !is_docker,
            checks_mounts: is_docker,
            seccomp_texts: is_docker,
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

#[cfg(test)]
mod tests {
    use bollard::models::SystemVersionComponents;

    use super::*;

    #[test]
    fn engines_say_what_they_are_made_of() {
        let made_of = |names: &[&str]| {
            let part = |name: &&str| SystemVersionComponents { name: (*name).to_owned(), ..Default::default() };
            Kind::new(&SystemVersion { components: Some(names.iter().map(part).collect()), ..Default::default() })
        };
        assert_eq!(made_of(&["Engine", "containerd", "runc"]), Kind::Docker);
        assert_eq!(made_of(&["Podman Engine", "Conmon", "OCI Runtime (runc)"]), Kind::Podman);
        assert_eq!(Kind::new(&SystemVersion::default()), Kind::Docker);
    }
}
