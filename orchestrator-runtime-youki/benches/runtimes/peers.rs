//! Other runtimes of OCI containers, as their command lines are: `create`, `start`, `delete`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::{BUSYBOX, Failure};

/// The programs, as far as the machine has them.
const PROGRAMS: [&str; 2] = ["crun", "runc"];

/// A runtime with a bundle of its own.
pub(crate) struct Peer {
    name: &'static str,
    bundle: PathBuf,
    state: PathBuf,
}

impl Peer {
    /// The runtimes that are here. Their containers join the namespaces of a process.
    pub(crate) fn all(directory: &Path, process: i64) -> Result<Vec<Self>, Failure> {
        let mut peers = Vec::new();
        for name in PROGRAMS {
            if Command::new(name).arg("--version").stdout(Stdio::null()).status().is_err() {
                println!("  {name}: not here");
                continue;
            }
            let bundle = directory.join(name);
            let root = bundle.join("rootfs/bin");
            fs::create_dir_all(&root)?;
            fs::copy(BUSYBOX, root.join("busybox"))?;
            fs::write(bundle.join("config.json"), serde_json::to_vec(&specification(process))?)?;
            peers.push(Self { name, state: bundle.join("state"), bundle });
        }
        Ok(peers)
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// A container that ends at once: made, started, ended and deleted.
    pub(crate) fn life(&self, id: &str) -> Result<Duration, Failure> {
        let begun = Instant::now();
        let pid_file = self.bundle.join("pid");
        self.run(
            Command::new(self.name).arg("create").arg("--bundle").arg(&self.bundle).arg("--pid-file").arg(&pid_file),
            id,
        )?;
        let pid: i32 = fs::read_to_string(&pid_file)?.trim().parse()?;
        let process = rustix::process::Pid::from_raw(pid).ok_or("no process")?;
        let handle = rustix::process::pidfd_open(process, rustix::process::PidfdFlags::empty())?;
        self.run(Command::new(self.name).arg("start"), id)?;
        // It is nobody's child here: its descriptor is readable when it has ended.
        let mut ended = [rustix::event::PollFd::new(&handle, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut ended, None)?;
        self.run(Command::new(self.name).arg("delete"), id)?;
        Ok(begun.elapsed())
    }

    fn run(&self, command: &mut Command, id: &str) -> Result<(), Failure> {
        // The options that say where the state is come before the verb.
        let mut words = command.get_args().map(ToOwned::to_owned).collect::<Vec<_>>();
        words.push(format!("bench-{}-{id}", std::process::id()).into());
        let mut whole = Command::new(self.name);
        whole.arg("--root").arg(&self.state).args(words).stdin(Stdio::null()).stdout(Stdio::null());
        let status = whole.status()?;
        if status.success() { Ok(()) } else { Err(format!("{whole:?}: {status}").into()) }
    }
}

/// The same kinds of mounts, capabilities and masked paths as a container of a pod has.
fn specification(process: i64) -> Value {
    let capabilities = [
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
    ]
    .map(|name| format!("CAP_{name}"));
    let mount = |kind: &str, place: &str, options: &[&str]| json!({ "type": kind, "source": kind, "destination": place, "options": options });
    let shared = |kind: &str, name: &str| json!({ "type": kind, "path": format!("/proc/{process}/ns/{name}") });
    json!({
        "ociVersion": "1.0.2",
        "root": { "path": "rootfs" },
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": ["/bin/busybox", "true"],
            "env": ["PATH=/bin"],
            "cwd": "/",
            "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities },
        },
        "mounts": [
            mount("proc", "/proc", &["nosuid", "noexec", "nodev"]),
            mount("tmpfs", "/dev", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("devpts", "/dev/pts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            mount("mqueue", "/dev/mqueue", &["nosuid", "noexec", "nodev"]),
            mount("sysfs", "/sys", &["nosuid", "noexec", "nodev", "ro"]),
        ],
        "linux": {
            "cgroupsPath": format!("/orchestrator-bench-{}-peers", std::process::id()),
            "namespaces": [
                { "type": "mount" }, { "type": "pid" },
                shared("uts", "uts"), shared("network", "net"), shared("ipc", "ipc"),
            ],
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}
