//! What was asked for, in the engine's words: pure, and with upstream's arithmetic.

use std::path::Path;

use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigLogConfig, Mount as EngineMount, MountBindOptions,
    MountBindOptionsPropagationEnum, MountType, RestartPolicy, RestartPolicyNameEnum,
};
use orchestrator_core::runtime::{
    AppArmorProfile, ContainerConfig, Mount, MountPropagation, NamespaceOptions, Resources, RuntimeError,
    SandboxConfig, SecurityContext,
};

use crate::{
    features::Features,
    images::HeldImage,
    limits::LOG_FILE_BYTES,
    names::{ContainerRecord, Owner, Record, START_FAILURE, SandboxRecord},
    status::ObservedContainer,
};

/// What a sandbox is made of.
pub(crate) struct SandboxInput<'a> {
    pub(crate) owner: &'a Owner,
    pub(crate) id: &'a orchestrator_core::runtime::SandboxId,
    pub(crate) config: &'a SandboxConfig,
    pub(crate) record: SandboxRecord,
    /// Name of the engine's network.
    pub(crate) network: &'a str,
    pub(crate) image: &'a str,
    pub(crate) cgroup_parent: Option<&'a str>,
}

/// The container that holds a pod's namespaces. It has next to no memory, so nothing is won by killing it, whatever its score.
pub(crate) fn sandbox(input: SandboxInput<'_>) -> ContainerCreateBody {
    let NamespaceOptions { host_network, host_pid, host_ipc, .. } = input.config.namespaces;
    let host = |wanted: bool, other: &str| Some(if wanted { "host" } else { other }.to_owned());
    ContainerCreateBody {
        // The machine's network comes with the machine's name, as upstream has it.
        hostname: (!host_network).then(|| input.config.hostname.clone()),
        image: Some(input.image.to_owned()),
        labels: Some(input.owner.labels(input.id, &Record::Sandbox(input.record)).into_iter().collect()),
        host_config: Some(HostConfig {
            network_mode: host(host_network, input.network),
            uts_mode: host_network.then(|| "host".to_owned()),
            ipc_mode: host(host_ipc, "shareable"),
            pid_mode: host_pid.then(|| "host".to_owned()),
            sysctls: Some(input.config.sysctls.clone().into_iter().collect()),
            cgroup_parent: input.cgroup_parent.map(str::to_owned),
            readonly_rootfs: Some(true),
            cap_drop: Some(vec!["ALL".to_owned()]),
            security_opt: Some(vec!["no-new-privileges".to_owned()]),
            log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
            restart_policy: Some(never()),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    }
}

/// What a container is made of.
pub(crate) struct ContainerInput<'a> {
    pub(crate) owner: &'a Owner,
    pub(crate) sandbox: &'a orchestrator_core::runtime::SandboxId,
    /// The engine's own name for the sandbox's container.
    pub(crate) sandbox_engine_id: &'a str,
    pub(crate) sandbox_record: &'a SandboxRecord,
    pub(crate) config: &'a ContainerConfig,
    pub(crate) image: &'a HeldImage,
    /// The pod's own `resolv.conf` on the machine.
    pub(crate) resolver: Option<&'a Path>,
    /// The text of the seccomp profile.
    pub(crate) seccomp: Option<&'a str>,
    pub(crate) features: &'a Features,
    /// The score of the out-of-memory killer that the engine can give.
    pub(crate) oom_score: Option<i32>,
    pub(crate) cgroup_parent: Option<&'a str>,
}

/// A container of a pod.
pub(crate) fn container(input: &ContainerInput<'_>) -> Result<ContainerCreateBody, RuntimeError> {
    let config = input.config;
    let record = ContainerRecord {
        sandbox: input.sandbox_record.key.clone(),
        key: config.key.clone(),
        image: config.image.clone(),
        labels: config.labels.clone(),
        annotations: config.annotations.clone(),
    };
    let words = |words: &[String]| (!words.is_empty()).then(|| words.to_vec());
    let variables = config.environment.iter().map(|(name, value)| format!("{name}={value}"));
    Ok(ContainerCreateBody {
        user: user(&config.security, input.image.user.as_deref()),
        tty: Some(config.tty),
        open_stdin: Some(config.stdin),
        stdin_once: Some(config.stdin_once),
        env: Some(variables.collect()),
        entrypoint: words(&config.command),
        cmd: words(&config.args),
        // Probes are the agent's business, whatever the image says.
        healthcheck: Some(HealthConfig { test: Some(vec!["NONE".to_owned()]), ..HealthConfig::default() }),
        image: Some(input.image.id.clone()),
        working_dir: config.working_directory.clone(),
        labels: Some(input.owner.labels(input.sandbox, &Record::Container(record)).into_iter().collect()),
        stop_signal: config.stop_signal.clone(),
        host_config: Some(host_config(input)?),
        ..ContainerCreateBody::default()
    })
}

/// What stands for a container that could not be started, on an engine that does not remember it.
pub(crate) fn failed(owner: &Owner, container: &ObservedContainer, message: &str) -> ContainerCreateBody {
    let mut labels = owner.labels(&container.status.sandbox, &Record::Container(container.record.clone()));
    labels.insert(START_FAILURE.to_owned(), message.to_owned());
    ContainerCreateBody {
        image: Some(container.status.image_id.clone()),
        labels: Some(labels.into_iter().collect()),
        host_config: Some(HostConfig {
            network_mode: Some("none".to_owned()),
            restart_policy: Some(never()),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    }
}

fn host_config(input: &ContainerInput<'_>) -> Result<HostConfig, RuntimeError> {
    let (config, security) = (input.config, &input.config.security);
    let NamespaceOptions { host_network, host_pid, host_ipc, share_process_namespace, user_namespace: _ } =
        input.sandbox_record.namespaces;
    let of_sandbox = || Some(format!("container:{}", input.sandbox_engine_id));
    let host = || Some("host".to_owned());
    let mut mounts: Vec<EngineMount> = config.mounts.iter().map(mount).collect();
    let resolver = Path::new("/etc/resolv.conf");
    if let Some(path) = input.resolver
        && !config.mounts.iter().any(|mount| mount.container_path == resolver)
    {
        mounts.push(mount(&Mount {
            host_path: path.to_owned(),
            container_path: resolver.to_owned(),
            read_only: security.read_only_root,
            propagation: MountPropagation::Private,
        }));
    }
    let limits = HostConfig {
        network_mode: if host_network { host() } else { of_sandbox() },
        uts_mode: match (host_network, input.features.joins_uts) {
            (true, _) => host(),
            (_, true) => of_sandbox(),
            _ => None,
        },
        ipc_mode: if host_ipc { host() } else { of_sandbox() },
        pid_mode: match (host_pid, share_process_namespace) {
            (true, _) => host(),
            (_, true) => of_sandbox(),
            _ => None,
        },
        mounts: Some(mounts),
        cgroup_parent: input.cgroup_parent.map(str::to_owned),
        privileged: Some(security.privileged),
        cap_add: Some(security.add_capabilities.clone()),
        cap_drop: Some(security.drop_capabilities.clone()),
        group_add: Some(security.supplemental_groups.iter().map(ToString::to_string).collect()),
        readonly_rootfs: Some(security.read_only_root),
        security_opt: Some(security_options(security, input.seccomp, input.features)?),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(
                [("max-size", LOG_FILE_BYTES.to_string()), ("max-file", "2".to_owned())]
                    .map(|(name, value)| (name.to_owned(), value))
                    .into(),
            ),
        }),
        restart_policy: Some(never()),
        oom_score_adj: input.oom_score.map(i64::from),
        ..HostConfig::default()
    };
    resources(&config.resources, input.features, limits)
}

/// The agent decides what is started, never the engine.
fn never() -> RestartPolicy {
    RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None }
}

/// `user`, or `user:group`. A group alone goes with the image's user.
fn user(security: &SecurityContext, of_image: Option<&str>) -> Option<String> {
    let user = security.run_as_user.map(|user| user.to_string());
    let Some(group) = security.run_as_group else { return user };
    let of_image = of_image.and_then(|user| user.split(':').next()).filter(|user| !user.is_empty());
    Some(format!("{}:{group}", user.as_deref().or(of_image).unwrap_or("0")))
}

fn security_options(
    security: &SecurityContext,
    seccomp: Option<&str>,
    features: &Features,
) -> Result<Vec<String>, RuntimeError> {
    let mut options = Vec::new();
    if security.no_new_privileges {
        options.push("no-new-privileges".to_owned());
    }
    if let Some(profile) = seccomp {
        if !features.seccomp && profile != "unconfined" {
            return Err(RuntimeError::Unsupported("a seccomp profile: the engine was built without them".to_owned()));
        }
        if !features.seccomp_texts && profile != "unconfined" {
            return Err(RuntimeError::Unsupported("a seccomp profile of one's own: the engine takes none".to_owned()));
        }
        options.push(format!("seccomp={profile}"));
    }
    let apparmor = match &security.apparmor_profile {
        None => return Ok(options),
        Some(AppArmorProfile::Unconfined) => features.apparmor.then_some("unconfined"),
        Some(_) if !features.apparmor => {
            let message = "an AppArmor profile: the engine's machine has no AppArmor";
            return Err(RuntimeError::Unsupported(message.to_owned()));
        }
        // What the engine does when nothing is said.
        Some(AppArmorProfile::RuntimeDefault) => None,
        Some(AppArmorProfile::Localhost(name)) => Some(name.as_str()),
    };
    options.extend(apparmor.map(|name| format!("apparmor={name}")));
    Ok(options)
}

/// Limits, each refused where the engine's kernel would let it pass without effect.
fn resources(resources: &Resources, features: &Features, base: HostConfig) -> Result<HostConfig, RuntimeError> {
    let refuse =
        |what: &str| Err(RuntimeError::Unsupported(format!("{what}: the engine's kernel has no means for it")));
    if resources.cpu_shares.is_some() && !features.cpu_shares {
        return refuse("a CPU weight");
    }
    let quota = resources.cpu_quota_microseconds.is_some() || resources.cpu_period_microseconds.is_some();
    if quota && !features.cpu_quota {
        return refuse("a limit of CPU time");
    }
    if resources.memory_limit_bytes.is_some() && !features.memory {
        return refuse("a limit of memory");
    }
    if resources.pids_limit.is_some() && !features.pids {
        return refuse("a limit of processes");
    }
    let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    Ok(HostConfig {
        cpu_shares: resources.cpu_shares.map(whole),
        cpu_quota: resources.cpu_quota_microseconds,
        cpu_period: resources.cpu_period_microseconds.map(whole),
        memory: resources.memory_limit_bytes,
        // No swap beside the memory, as upstream; where the kernel does not count swap there is nothing to say.
        memory_swap: resources.memory_limit_bytes.filter(|_| features.swap),
        pids_limit: resources.pids_limit,
        ..base
    })
}

fn mount(mount: &Mount) -> EngineMount {
    let propagation = match mount.propagation {
        MountPropagation::Private => MountBindOptionsPropagationEnum::RPRIVATE,
        MountPropagation::HostToContainer => MountBindOptionsPropagationEnum::RSLAVE,
        MountPropagation::Bidirectional => MountBindOptionsPropagationEnum::RSHARED,
    };
    EngineMount {
        typ: Some(MountType::BIND),
        source: Some(mount.host_path.to_string_lossy().into_owned()),
        target: Some(mount.container_path.to_string_lossy().into_owned()),
        read_only: Some(mount.read_only),
        bind_options: Some(MountBindOptions { propagation: Some(propagation), ..MountBindOptions::default() }),
        ..EngineMount::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Features = Features {
        joins_uts: false,
        keeps_start_failures: true,
        tells_beginnings: true,
        fine_log_times: true,
        cuts_log_lines: true,
        unique_network_names: false,
        checks_mounts: true,
        seccomp_texts: true,
        cpu_shares: true,
        cpu_quota: true,
        memory: true,
        swap: true,
        pids: true,
        seccomp: true,
        apparmor: true,
    };

    #[test]
    fn a_group_goes_with_a_user() {
        let with =
            |user, group| SecurityContext { run_as_user: user, run_as_group: group, ..SecurityContext::default() };
        assert_eq!(user(&with(None, None), Some("app")), None);
        assert_eq!(user(&with(Some(5), None), Some("app")).as_deref(), Some("5"));
        assert_eq!(user(&with(Some(5), Some(6)), Some("app")).as_deref(), Some("5:6"));
        assert_eq!(user(&with(None, Some(6)), Some("app:staff")).as_deref(), Some("app:6"));
        assert_eq!(user(&with(None, Some(6)), Some("")).as_deref(), Some("0:6"));
    }

    #[test]
    fn limits_are_the_cgroups_numbers() {
        let wanted = Resources {
            cpu_shares: Some(512),
            cpu_quota_microseconds: Some(50_000),
            cpu_period_microseconds: Some(100_000),
            memory_limit_bytes: Some(64 << 20),
            pids_limit: Some(50),
            oom_score_adjust: Some(900),
        };
        let made = resources(&wanted, &ALL, HostConfig::default()).unwrap();
        assert_eq!((made.cpu_shares, made.cpu_quota, made.cpu_period), (Some(512), Some(50_000), Some(100_000)));
        assert_eq!((made.memory, made.memory_swap), (Some(64 << 20), Some(64 << 20)));
        assert_eq!(made.pids_limit, Some(50));
        let no_swap = resources(&wanted, &Features { swap: false, ..ALL }, HostConfig::default()).unwrap();
        assert_eq!((no_swap.memory, no_swap.memory_swap), (Some(64 << 20), None));
        for lacking in [
            Features { cpu_shares: false, ..ALL },
            Features { cpu_quota: false, ..ALL },
            Features { memory: false, ..ALL },
            Features { pids: false, ..ALL },
        ] {
            let refused = resources(&wanted, &lacking, HostConfig::default());
            assert!(matches!(refused, Err(RuntimeError::Unsupported(_))), "{lacking:?}");
            assert!(resources(&Resources::default(), &lacking, HostConfig::default()).is_ok());
        }
    }

    #[test]
    fn profiles_are_set_or_refused() {
        let apparmor = |profile: AppArmorProfile| SecurityContext {
            apparmor_profile: Some(profile),
            ..SecurityContext::default()
        };
        let named = apparmor(AppArmorProfile::Localhost("x".to_owned()));
        let default = apparmor(AppArmorProfile::RuntimeDefault);
        let unconfined = apparmor(AppArmorProfile::Unconfined);
        assert_eq!(security_options(&named, None, &ALL).unwrap(), ["apparmor=x"]);
        assert_eq!(security_options(&default, None, &ALL).unwrap(), [""; 0]);
        assert_eq!(security_options(&unconfined, None, &ALL).unwrap(), ["apparmor=unconfined"]);
        let no_texts = Features { seccomp_texts: false, ..ALL };
        let without = Features { apparmor: false, seccomp: false, ..ALL };
        for refused in [&named, &default] {
            assert!(matches!(security_options(refused, None, &without), Err(RuntimeError::Unsupported(_))));
        }
        assert_eq!(security_options(&unconfined, None, &without).unwrap(), [""; 0]);
        let plain = SecurityContext::default();
        assert_eq!(security_options(&plain, Some("{}"), &ALL).unwrap(), ["seccomp={}"]);
        for refused in [&without, &no_texts] {
            assert!(matches!(security_options(&plain, Some("{}"), refused), Err(RuntimeError::Unsupported(_))));
        }
        assert_eq!(security_options(&plain, Some("unconfined"), &no_texts).unwrap(), ["seccomp=unconfined"]);
    }
}
