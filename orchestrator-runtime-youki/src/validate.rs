//! Refuses configurations that make no sense, or ask for what this runtime does not do.

use std::path::{Component, Path};

use orchestrator_core::runtime::{
    ContainerConfig, MountPropagation, NamespaceOptions, RuntimeError, SandboxConfig, SecurityContext,
};

use crate::{helper::is_known_capability, limits::USER_RANGE_IDS, signals};

fn unsupported(what: impl Into<String>) -> Result<(), RuntimeError> {
    Err(RuntimeError::Unsupported(what.into()))
}

fn invalid(what: impl Into<String>) -> Result<(), RuntimeError> {
    Err(RuntimeError::Invalid(what.into()))
}

/// Checks a sandbox before anything is made.
pub(crate) fn sandbox(config: &SandboxConfig) -> Result<(), RuntimeError> {
    let options = &config.namespaces;
    if options.share_process_namespace && options.host_pid {
        return invalid("a process namespace that is both the pod's and the machine's");
    }
    if options.user_namespace && (options.host_network || options.host_pid || options.host_ipc) {
        return invalid("a user namespace for a pod that has another namespace of the machine");
    }
    if config.hostname.is_empty() || config.hostname.len() > 64 {
        return invalid(format!("the host name {:?} is not 1 to 64 characters long", config.hostname));
    }
    config.sysctls.keys().try_for_each(|name| sysctl(name, options))
}

/// Only what the pod has for itself can be set; the rest would change the machine.
fn sysctl(name: &str, options: &NamespaceOptions) -> Result<(), RuntimeError> {
    if name.split('.').any(|part| part.is_empty() || part.contains('/')) {
        return invalid(format!("{name:?} is not the name of a kernel parameter"));
    }
    let of_network = name.starts_with("net.");
    let of_ipc = ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|prefix| name.starts_with(prefix))
        || name == "kernel.sem";
    match (of_network, of_ipc) {
        (true, _) if !options.host_network => Ok(()),
        (_, true) if !options.host_ipc => Ok(()),
        (false, false) => unsupported(format!("the kernel parameter {name}, which is the machine's")),
        _ => invalid(format!("the kernel parameter {name} of a pod that shares the machine's namespace")),
    }
}

/// Checks a container before it is written down.
pub(crate) fn container(config: &ContainerConfig) -> Result<(), RuntimeError> {
    security(&config.security)?;
    for mount in &config.mounts {
        let (host, inside) = (&mount.host_path, &mount.container_path);
        if mount.propagation == MountPropagation::Bidirectional {
            return unsupported(format!(
                "mounts of {} that travel from the container to the machine",
                inside.display()
            ));
        }
        if !host.is_absolute() || !inside.is_absolute() || inside.components().any(|part| part == Component::ParentDir)
        {
            return invalid(format!("a mount of {} at {}", host.display(), inside.display()));
        }
        if inside.parent().is_none() || ["/proc", "/sys"].iter().any(|path| inside.starts_with(path)) {
            return unsupported(format!("a mount at {}", inside.display()));
        }
    }
    if let Some(path) = &config.working_directory
        && !Path::new(path).is_absolute()
    {
        return invalid(format!("the working directory {path:?} is not absolute"));
    }
    if let Some(name) = &config.stop_signal
        && signals::number(name).is_none()
    {
        return invalid(format!("{name:?} is not a signal"));
    }
    for (name, value) in &config.environment {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return invalid(format!("a variable of the environment with the name {name:?}"));
        }
    }
    if config.command.iter().chain(&config.args).any(|word| word.contains('\0')) {
        return invalid("a command with a zero byte");
    }
    Ok(())
}

/// Checks that the users and groups of a container are there in its pod.
pub(crate) fn users(config: &ContainerConfig, own: bool) -> Result<(), RuntimeError> {
    let security = &config.security;
    let mut ids = security.run_as_user.iter().chain(&security.run_as_group).chain(&security.supplemental_groups);
    match ids.find(|id| own && **id >= i64::from(USER_RANGE_IDS)) {
        Some(id) => invalid(format!("the user or group {id} in a pod with {USER_RANGE_IDS} of them")),
        None => Ok(()),
    }
}

fn security(security: &SecurityContext) -> Result<(), RuntimeError> {
    if security.privileged && security.no_new_privileges {
        return invalid("a privileged container that must not gain privileges");
    }
    for name in security.add_capabilities.iter().chain(&security.drop_capabilities) {
        if !is_known_capability(name) {
            return invalid(format!("{name:?} is not a capability"));
        }
    }
    let ids = security.run_as_user.iter().chain(&security.run_as_group).chain(&security.supplemental_groups);
    for id in ids {
        if !(0..i64::from(i32::MAX)).contains(id) {
            return invalid(format!("{id} is not the number of a user or group"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_parameters_of_the_pod_only() {
        let own = NamespaceOptions::default();
        let host = NamespaceOptions { host_network: true, ..own };
        assert!(sysctl("net.ipv4.ip_unprivileged_port_start", &own).is_ok());
        assert!(sysctl("net.ipv4.ip_forward", &host).is_err());
        assert!(sysctl("kernel.shm_rmid_forced", &host).is_ok());
        assert!(matches!(sysctl("kernel.panic", &own), Err(RuntimeError::Unsupported(_))));
        assert!(matches!(sysctl("net.../x", &own), Err(RuntimeError::Invalid(_))));
    }

    #[test]
    fn privileges_are_gained_or_not() {
        let both = SecurityContext { privileged: true, no_new_privileges: true, ..SecurityContext::default() };
        assert!(matches!(security(&both), Err(RuntimeError::Invalid(_))));
        assert!(security(&SecurityContext { no_new_privileges: false, ..both }).is_ok());
    }
}
