//! The OCI specification of a container, as libcontainer reads it from `config.json`.

use std::{
    os::fd::{AsRawFd, OwnedFd},
    path::Path,
};

use orchestrator_core::runtime::{Resources, SeccompProfile};
use serde_json::{Value, json};

use super::{capabilities, devices::Device, identity::Identity, mounts::Volume, pod_files};
use crate::{
    cgroups::Cgroups,
    layout::{ContainerDirectory, SandboxDirectory},
    limits::SCRATCH_BYTES,
    protocol::Failure,
    records::{ContainerRecord, RootFileSystem, SandboxRecord},
};

/// The search path of containers that bring none.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Directories of the machine that containers on its root have empty ones instead of.
const SCRATCH: [(&str, &str); 3] = [("/tmp", "1777"), ("/run", "755"), ("/var/tmp", "1777")];

/// All that a specification is made from.
pub(super) struct Input<'a> {
    pub(super) sandbox: &'a SandboxRecord,
    pub(super) sandbox_directory: &'a SandboxDirectory,
    pub(super) record: &'a ContainerRecord,
    pub(super) directory: &'a ContainerDirectory,
    /// Who its processes are.
    pub(super) identity: &'a Identity,
    pub(super) cgroups: &'a Cgroups,
    pub(super) cgroup: &'a str,
    pub(super) volumes: &'a [Volume],
    /// Devices of the machine, beside those that every container has.
    pub(super) devices: &'a [Device],
    /// Namespaces that the container shares with others, open in whoever makes it.
    pub(super) namespaces: &'a [(&'static str, OwnedFd)],
    /// What containers have as `/dev/shm`.
    pub(super) shared_memory: &'a Path,
}

/// Makes the specification.
pub(super) fn make(input: &Input<'_>) -> Result<Value, Failure> {
    let security = &input.record.config.security;
    let (masked, read_only): (&[&str], &[&str]) = if security.privileged { (&[], &[]) } else { (&MASKED, &READ_ONLY) };
    Ok(json!({
        "ociVersion": "1.0.2",
        "root": { "path": input.directory.root_file_system(), "readonly": security.read_only_root },
        "process": process(input)?,
        "mounts": mounts(input),
        "linux": {
            "cgroupsPath": input.cgroup,
            "namespaces": namespaces(input),
            "resources": resources(&input.record.config.resources, security.privileged),
            "devices": input.devices,
            "rootfsPropagation": "slave",
            "maskedPaths": masked,
            "readonlyPaths": read_only,
        },
    }))
}

const MASKED: [&str; 10] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];
const READ_ONLY: [&str; 6] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger", "/sys/fs/cgroup"];

/// The command of a container: what the image says, where the container says nothing else.
pub(crate) fn command(record: &ContainerRecord) -> Vec<String> {
    let (config, image) = (&record.config, &record.image);
    let mut command = if config.command.is_empty() { image.entrypoint.clone() } else { config.command.clone() };
    if !config.args.is_empty() {
        command.extend(config.args.iter().cloned());
    } else if config.command.is_empty() {
        command.extend(image.args.iter().cloned());
    }
    command
}

/// What a process needs to confine itself, unless it has renounced new privileges.
const FILTERING: &str = "CAP_SYS_ADMIN";

/// The capabilities of a container, with `CAP_`.
pub(super) fn capabilities(record: &ContainerRecord, cgroups: &Cgroups) -> Result<Vec<String>, Failure> {
    capabilities::of(&record.config.security, !cgroups.is_unified())
        .map_err(|error| Failure::internal("reading capabilities", error))
}

fn process(input: &Input<'_>) -> Result<Value, Failure> {
    let record = input.record;
    let (config, image, security) = (&record.config, &record.image, &record.config.security);
    let mut environment = vec![("PATH".to_owned(), PATH.to_owned())];
    for (name, value) in image.environment.iter().chain(&config.environment) {
        match environment.iter_mut().find(|(known, _)| known == name) {
            Some(known) => known.1.clone_from(value),
            None => environment.push((name.clone(), value.clone())),
        }
    }
    if config.tty && !environment.iter().any(|(name, _)| name == "TERM") {
        environment.push(("TERM".to_owned(), "xterm".to_owned()));
    }
    let environment: Vec<String> = environment.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    let names = capabilities(record, input.cgroups)?;
    // Installing a filter takes this one. It ends with the program's execution, as it is not in the bounding set.
    let mut until_execution = names.clone();
    let is_filtered = *security.seccomp() != SeccompProfile::Unconfined && !security.no_new_privileges;
    if is_filtered && !names.iter().any(|name| name == FILTERING) {
        until_execution.push(FILTERING.to_owned());
    }
    Ok(json!({
        "terminal": config.tty,
        "user": {
            "uid": input.identity.user,
            "gid": input.identity.group,
            "additionalGids": input.identity.further_groups,
        },
        "args": command(record),
        "env": environment,
        "cwd": config.working_directory.as_ref().or(image.working_directory.as_ref()).map_or("/", String::as_str),
        "capabilities": { "bounding": names, "effective": until_execution, "permitted": until_execution },
        "noNewPrivileges": security.no_new_privileges,
        "apparmorProfile": record.apparmor,
        "oomScoreAdj": oom_score(config.resources.oom_score_adjust),
    }))
}

/// Who may not lower the score leaves it where it is: asked for in vain, the container would not start at all.
fn oom_score(asked: Option<i32>) -> Option<i32> {
    let asked = asked?;
    let current: i32 =
        std::fs::read_to_string("/proc/self/oom_score_adj").ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    Some(if asked < current && !capabilities::have("SYS_RESOURCE") { current } else { asked })
}

/// The pod's are named by descriptors: by the paths of processes only the machine's root can reach them.
fn namespaces(input: &Input<'_>) -> Value {
    let shared = input
        .namespaces
        .iter()
        .map(|(kind, file)| json!({ "type": kind, "path": format!("/proc/self/fd/{}", file.as_raw_fd()) }));
    let mut namespaces: Vec<Value> = shared.collect();
    namespaces.extend([json!({ "type": "mount" }), json!({ "type": "cgroup" })]);
    let options = &input.sandbox.config.namespaces;
    if !options.host_pid && !options.share_process_namespace {
        namespaces.push(json!({ "type": "pid" }));
    }
    Value::Array(namespaces)
}

fn resources(limits: &Resources, all_devices: bool) -> Value {
    let mut resources = json!({ "devices": [{ "allow": all_devices, "access": "rwm" }] });
    let mut cpu = serde_json::Map::new();
    let mut set = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            cpu.insert(name.to_owned(), value);
        }
    };
    set("shares", limits.cpu_shares.map(Value::from));
    set("quota", limits.cpu_quota_microseconds.map(Value::from));
    set("period", limits.cpu_period_microseconds.map(Value::from));
    if !cpu.is_empty() {
        resources["cpu"] = Value::Object(cpu);
    }
    if let Some(bytes) = limits.memory_limit_bytes {
        resources["memory"] = json!({ "limit": bytes });
    }
    if let Some(pids) = limits.pids_limit {
        resources["pids"] = json!({ "limit": pids });
    }
    resources
}

fn mounts(input: &Input<'_>) -> Value {
    let privileged = input.record.config.security.privileged;
    let mut mounts = vec![
        file_system("proc", "/proc", &["nosuid", "noexec", "nodev"]),
        file_system("tmpfs", "/dev", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        file_system("devpts", "/dev/pts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        file_system("mqueue", "/dev/mqueue", &["nosuid", "noexec", "nodev"]),
        file_system("sysfs", "/sys", &["nosuid", "noexec", "nodev", if privileged { "rw" } else { "ro" }]),
    ];
    mounts.push(bind(input.shared_memory, Path::new("/dev/shm"), false));
    mounts.extend(cgroup_views(input));
    // An image has its own; of the machine's nothing is to be seen there.
    if matches!(input.record.root, RootFileSystem::Machine) {
        let size = format!("size={SCRATCH_BYTES}");
        for (path, mode) in SCRATCH {
            mounts.push(file_system("tmpfs", path, &["nosuid", "nodev", &format!("mode={mode}"), &size]));
        }
        let hide = |path: &String| file_system("tmpfs", path, &["ro", "mode=000", "size=4k"]);
        mounts.extend(hidden(input.sandbox).iter().map(hide));
    }

    let etc = Path::new("/etc");
    for name in pod_files::NAMES {
        let target = etc.join(name);
        // What the agent mounts there itself comes last and lies on top.
        let read_only = input.record.config.security.read_only_root;
        mounts.push(bind(&input.sandbox_directory.pod_file(name), &target, read_only));
    }
    mounts.extend(input.volumes.iter().map(|volume| bind(&volume.source, &volume.target, volume.read_only)));
    Value::Array(mounts)
}

/// The container's own cgroup, for programs that size themselves by it. Only privileged ones can change limits through it.
fn cgroup_views(input: &Input<'_>) -> Vec<Value> {
    let root = Path::new("/sys/fs/cgroup");
    let views = input.cgroups.views(input.cgroup);
    let mut mounts = Vec::new();
    if views.iter().any(|(_, name)| name.is_some()) {
        mounts.push(file_system("tmpfs", "/sys/fs/cgroup", &["nosuid", "noexec", "nodev", "mode=755", "size=64k"]));
    }
    mounts.extend(views.iter().map(|(source, name)| {
        let target = name.as_ref().map_or_else(|| root.to_owned(), |name| root.join(name));
        bind(source, &target, !input.record.config.security.privileged)
    }));
    mounts
}

/// Directories that no container sees: the runtime's own, with the files of other pods, and what the embedder named.
fn hidden(sandbox: &SandboxRecord) -> Vec<String> {
    let mut hidden: Vec<String> = std::iter::once(&sandbox.root)
        .chain(std::iter::once(&sandbox.network.directory))
        .chain(&sandbox.hidden_paths)
        .filter_map(|path| path.canonicalize().ok())
        .filter(|path| path.is_dir() && path.parent().is_some())
        .filter(|path| {
            let covered = SCRATCH.iter().map(|(path, _)| *path).chain(["/proc", "/dev", "/sys"]);
            !covered.into_iter().any(|covered| path.starts_with(covered))
        })
        .filter_map(|path| path.into_os_string().into_string().ok())
        .collect();
    hidden.sort();
    // What lies in a hidden directory needs no hiding of its own.
    let mut outer: Vec<String> = Vec::new();
    for path in hidden {
        if !outer.iter().any(|known| Path::new(&path).starts_with(known)) {
            outer.push(path);
        }
    }
    outer
}

fn file_system(kind: &str, target: &str, options: &[&str]) -> Value {
    json!({ "type": kind, "source": kind, "destination": target, "options": options })
}

fn bind(source: &Path, target: &Path, read_only: bool) -> Value {
    let options = if read_only { vec!["rbind", "rro"] } else { vec!["rbind"] };
    json!({ "type": "bind", "source": source, "destination": target, "options": options })
}
