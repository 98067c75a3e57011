//! Refuses configurations that make no sense, or ask for what the engine does not do.

use std::path::Component;

use orchestrator_core::runtime::{
    ContainerConfig, MountPropagation, NamespaceOptions, Resources, RuntimeError, SandboxConfig, SecurityContext,
    SupplementalGroupsPolicy,
};

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
    if options.user_namespace {
        return unsupported("a user namespace for a pod: the engine has one for all containers, or none");
    }
    if config.hostname.is_empty() || config.hostname.len() > 64 {
        return invalid(format!("the host name {:?} is not 1 to 64 characters long", config.hostname));
    }
    let Resources {
        cpu_shares,
        cpu_quota_microseconds,
        cpu_period_microseconds,
        memory_limit_bytes,
        pids_limit,
        oom_score_adjust,
    } = &config.resources;
    let limited = cpu_shares.is_some()
        || cpu_quota_microseconds.is_some()
        || cpu_period_microseconds.is_some()
        || memory_limit_bytes.is_some()
        || pids_limit.is_some()
        || oom_score_adjust.is_some();
    if limited {
        return unsupported("limits of a whole pod: the engine knows those of containers alone");
    }
    let parts = config.dns.servers.iter().chain(&config.dns.searches).chain(&config.dns.options);
    for part in parts {
        if part.is_empty() || part.contains(char::is_whitespace) {
            return invalid(format!("{part:?} in the pod's name resolution"));
        }
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

/// Checks a container before the engine sees it.
pub(crate) fn container(config: &ContainerConfig) -> Result<(), RuntimeError> {
    security(&config.security)?;
    for mount in &config.mounts {
        let (host, inside) = (&mount.host_path, &mount.container_path);
        let is_plain = inside.is_absolute() && inside.components().all(|part| part != Component::ParentDir);
        if !host.is_absolute() || !is_plain || inside.parent().is_none() {
            return invalid(format!("a mount of {} at {}", host.display(), inside.display()));
        }
        if host.to_str().is_none() || inside.to_str().is_none() {
            return unsupported(format!(
                "a mount of {} at {}: a path that is no text",
                host.display(),
                inside.display()
            ));
        }
        if mount.propagation == MountPropagation::Bidirectional && !config.security.privileged {
            return invalid(format!(
                "mounts of {} that travel from the container to the machine, of a container that is not privileged",
                inside.display()
            ));
        }
    }
    if let Some(path) = &config.working_directory
        && !path.starts_with('/')
    {
        return invalid(format!("the working directory {path:?} is not absolute"));
    }
    for (name, value) in &config.environment {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return invalid(format!("a variable of the environment with the name {name:?}"));
        }
    }
    if config.command.iter().chain(&config.args).any(|word| word.contains('\0')) {
        return invalid("a command with a zero byte");
    }
    if config.stdin_once && !config.stdin {
        return invalid("standard input that ends with the first attach, and is not open");
    }
    Ok(())
}

fn security(security: &SecurityContext) -> Result<(), RuntimeError> {
    let ids = security.run_as_user.iter().chain(&security.run_as_group).chain(&security.supplemental_groups);
    for id in ids {
        if !(0..=i64::from(i32::MAX)).contains(id) {
            return invalid(format!("{id} is not the number of a user or group"));
        }
    }
    if security.supplemental_groups_policy == SupplementalGroupsPolicy::Strict {
        return unsupported("groups of the pod alone: the engine adds those of the image's own files");
    }
    if security.privileged && security.no_new_privileges {
        return invalid("a privileged container that must not gain privileges");
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
        assert!(matches!(sysctl("net.ipv4.ip_forward", &host), Err(RuntimeError::Invalid(_))));
        assert!(sysctl("kernel.shm_rmid_forced", &host).is_ok());
        assert!(matches!(sysctl("kernel.panic", &own), Err(RuntimeError::Unsupported(_))));
        assert!(matches!(sysctl("net.../x", &own), Err(RuntimeError::Invalid(_))));
    }
}
