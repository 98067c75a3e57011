//! Control groups of version 1, 2 and both at once: making, limiting, measuring, emptying and removing them.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{errno::Errno, libc, unistd::Pid};
use orchestrator_core::runtime::Resources;

use crate::{limits::CGROUP_JOIN_ATTEMPTS, sys};

/// The controllers without which limits would be ignored.
const NEEDED: [&str; 3] = ["cpu", "memory", "pids"];

/// The cgroup file systems of this machine.
#[derive(Clone, Debug)]
pub(crate) struct Cgroups {
    hierarchies: Vec<Hierarchy>,
    /// All controllers are in the one hierarchy of version 2.
    unified: bool,
}

#[derive(Clone, Debug)]
struct Hierarchy {
    mount: PathBuf,
    /// Names of its controllers. Empty for the hierarchies that only group: `systemd` and, beside version 1, `unified`.
    controllers: BTreeSet<String>,
}

/// What a cgroup uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) cpu_nanoseconds: u64,
    pub(crate) memory_working_set_bytes: u64,
    pub(crate) pids: u64,
}

impl Cgroups {
    /// Looks at what is mounted; the error says what is missing.
    pub(crate) fn find() -> Result<Self, String> {
        let mounts =
            fs::read_to_string("/proc/self/mountinfo").map_err(|error| format!("/proc/self/mountinfo: {error}"))?;
        let mut hierarchies: Vec<Hierarchy> = mounts.lines().filter_map(parse_mount).collect();
        let has = |hierarchies: &[Hierarchy], name: &str| {
            hierarchies.iter().any(|hierarchy| hierarchy.controllers.contains(name))
        };
        let unified = !hierarchies.iter().any(|hierarchy| hierarchy.is_version_1() && has_real_controller(hierarchy));
        if unified {
            hierarchies.retain(|hierarchy| !hierarchy.is_version_1());
        }
        // The same hierarchy may be mounted several times.
        let mut seen = BTreeSet::new();
        hierarchies.retain(|hierarchy| seen.insert(hierarchy.controllers.clone()));
        let missing: Vec<&str> = NEEDED.into_iter().filter(|name| !has(&hierarchies, name)).collect();
        if missing.is_empty() {
            Ok(Self { hierarchies, unified })
        } else {
            Err(format!("the cgroup controllers {}", missing.join(", ")))
        }
    }

    /// Whether all is in version 2.
    pub(crate) fn is_unified(&self) -> bool {
        self.unified
    }

    /// Makes a cgroup in every hierarchy that controls something, and sets its limits.
    pub(crate) fn make(&self, path: &str, limits: &Resources) -> io::Result<()> {
        for hierarchy in self.controlling() {
            hierarchy.make(path)?;
        }
        let settings = if self.unified { settings_2(limits) } else { settings_1(limits) };
        for (controller, file, value) in settings {
            let directory = self.directory(controller, path)?;
            write(&directory.join(file), &value)?;
        }
        Ok(())
    }

    /// Moves this process into a cgroup in every hierarchy there is, so that no one who ends the cgroup that it was
    /// started in ends it.
    pub(crate) fn join(&self, path: &str) -> io::Result<()> {
        self.hierarchies.iter().try_for_each(|hierarchy| hierarchy.join(path))
    }

    /// Moves this process into a cgroup in every hierarchy that controls something, as a container's processes are.
    pub(crate) fn join_controlling(&self, path: &str) -> io::Result<()> {
        self.controlling().try_for_each(|hierarchy| hierarchy.join(path))
    }

    /// Moves this process to the top and removes the cgroup that it was in, and its parent, if they are empty.
    pub(crate) fn leave(&self, path: &str) {
        for hierarchy in &self.hierarchies {
            let _ = write(&hierarchy.mount.join("cgroup.procs"), "0");
        }
        self.prune(path);
    }

    /// Removes a cgroup and those above it for as long as they are empty.
    pub(crate) fn prune(&self, path: &str) {
        for hierarchy in &self.hierarchies {
            let mut directory = hierarchy.directory(path);
            // One that is gone already says nothing of those above it.
            let removed = |directory: &Path| fs::remove_dir(directory).map_or_else(|error| is_gone(&error), |()| true);
            while directory != hierarchy.mount && removed(&directory) {
                directory.pop();
            }
        }
    }

    /// Kills all processes of a cgroup and of those below it, until there are none. `false` when time is up.
    pub(crate) fn kill(&self, path: &str, time: Duration) -> io::Result<bool> {
        retry(time, || {
            let processes = self.processes(path)?;
            for process in &processes {
                let _ = sys::kill(*process, libc::SIGKILL);
            }
            Ok(processes.is_empty())
        })
    }

    /// Processes of a cgroup and of those below it.
    pub(crate) fn processes(&self, path: &str) -> io::Result<Vec<Pid>> {
        let directory = self.directory("pids", path)?;
        let mut processes = Vec::new();
        collect_processes(&directory, &mut processes)?;
        Ok(processes)
    }

    /// Removes a cgroup with those below it, once its last process is gone. A cgroup that is gone is a success.
    pub(crate) fn remove(&self, path: &str, time: Duration) -> io::Result<()> {
        let removed = retry(time, || {
            let mut all = true;
            for hierarchy in self.controlling() {
                match remove_directories(&hierarchy.directory(path)) {
                    Err(error) if error.raw_os_error() == Some(Errno::EBUSY as i32) => all = false,
                    other => other?,
                }
            }
            Ok(all)
        })?;
        if removed { Ok(()) } else { Err(io::Error::other(format!("the cgroup {path} is still in use"))) }
    }

    /// How often the kernel killed a process of this cgroup for want of memory.
    pub(crate) fn oom_kills(&self, path: &str) -> u64 {
        let file = if self.unified { "memory.events" } else { "memory.oom_control" };
        self.directory("memory", path)
            .and_then(|directory| fs::read_to_string(directory.join(file)))
            .ok()
            .and_then(|text| keyed(&text, "oom_kill"))
            .unwrap_or(0)
    }

    /// What the cgroup uses now; `None` when it is gone.
    pub(crate) fn usage(&self, path: &str) -> Option<Usage> {
        let read =
            |controller: &str, file: &str| fs::read_to_string(self.directory(controller, path).ok()?.join(file)).ok();
        let number = |controller: &str, file: &str| read(controller, file)?.trim().parse::<u64>().ok();
        let pids = number("pids", "pids.current")?;
        let (cpu_nanoseconds, memory, inactive) = if self.unified {
            let cpu = keyed(&read("cpu", "cpu.stat")?, "usage_usec")?.saturating_mul(1000);
            (cpu, number("memory", "memory.current")?, keyed(&read("memory", "memory.stat")?, "inactive_file")?)
        } else {
            let cpu = number("cpuacct", "cpuacct.usage").unwrap_or(0);
            let inactive = keyed(&read("memory", "memory.stat")?, "total_inactive_file")?;
            (cpu, number("memory", "memory.usage_in_bytes")?, inactive)
        };
        Some(Usage { cpu_nanoseconds, memory_working_set_bytes: memory.saturating_sub(inactive), pids })
    }

    /// Pairs of the cgroup's directories and the names under `/sys/fs/cgroup` at which a container sees them; one
    /// without a name for version 2.
    pub(crate) fn views(&self, path: &str) -> Vec<(PathBuf, Option<String>)> {
        self.controlling()
            .map(|hierarchy| {
                let name = hierarchy.mount.file_name().map(|name| name.to_string_lossy().into_owned());
                (hierarchy.directory(path), name.filter(|_| !self.unified))
            })
            .collect()
    }

    fn controlling(&self) -> impl Iterator<Item = &Hierarchy> {
        self.hierarchies.iter().filter(|hierarchy| has_real_controller(hierarchy))
    }

    fn directory(&self, controller: &str, path: &str) -> io::Result<PathBuf> {
        self.hierarchies
            .iter()
            .find(|hierarchy| hierarchy.controllers.contains(controller))
            .map(|hierarchy| hierarchy.directory(path))
            .ok_or_else(|| io::Error::other(format!("there is no cgroup controller {controller}")))
    }
}

impl Hierarchy {
    fn is_version_1(&self) -> bool {
        !self.mount.join("cgroup.controllers").exists()
    }

    fn directory(&self, path: &str) -> PathBuf {
        self.mount.join(path.trim_start_matches('/'))
    }

    /// Moves this process into the cgroup, made if there is none.
    fn join(&self, path: &str) -> io::Result<()> {
        for _ in 1..CGROUP_JOIN_ATTEMPTS {
            // Another helper that leaves may take the empty directory away in between.
            match self.make(path).and_then(|()| write(&self.directory(path).join("cgroup.procs"), "0")) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => return other,
            }
        }
        Err(io::Error::other(format!("the cgroup {path} comes and goes")))
    }

    /// Makes the directory with its parents. In version 2, controllers are passed down on the way; in `cpuset` of
    /// version 1, a group takes processes only once it has processors and memory nodes.
    fn make(&self, path: &str) -> io::Result<()> {
        let version_1 = self.is_version_1();
        let mut directory = self.mount.clone();
        for part in path.split('/').filter(|part| !part.is_empty()) {
            let parent = directory.clone();
            directory.push(part);
            if !version_1 {
                for controller in &self.controllers {
                    // What the machine does not offer to children is found out when a limit is written.
                    let _ = write(&parent.join("cgroup.subtree_control"), &format!("+{controller}"));
                }
            }
            match fs::create_dir(&directory) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
            if version_1 && self.controllers.contains("cpuset") {
                for file in ["cpuset.cpus", "cpuset.mems"] {
                    if fs::read_to_string(directory.join(file))?.trim().is_empty() {
                        write(&directory.join(file), fs::read_to_string(parent.join(file))?.trim())?;
                    }
                }
            }
        }
        Ok(())
    }
}

fn has_real_controller(hierarchy: &Hierarchy) -> bool {
    hierarchy.controllers.iter().any(|name| !name.starts_with("name="))
}

/// Reads a line of `mountinfo` if it is about a cgroup file system.
fn parse_mount(line: &str) -> Option<Hierarchy> {
    let (left, right) = line.split_once(" - ")?;
    let mount = PathBuf::from(left.split(' ').nth(4)?);
    let mut right = right.split(' ');
    let controllers = match right.next()? {
        "cgroup2" => {
            let controllers = fs::read_to_string(mount.join("cgroup.controllers")).ok()?;
            let known = ["cpu", "cpuset", "io", "memory", "pids"];
            controllers.split_whitespace().filter(|name| known.contains(name)).map(str::to_owned).collect()
        }
        "cgroup" => {
            let flags = ["rw", "ro", "xattr", "clone_children", "noprefix"];
            let options = right.nth(1)?;
            options
                .split(',')
                .filter(|option| !flags.contains(option) && !option.starts_with("release_agent="))
                .map(str::to_owned)
                .collect()
        }
        _ => return None,
    };
    Some(Hierarchy { mount, controllers })
}

fn settings_1(limits: &Resources) -> Vec<(&'static str, &'static str, String)> {
    let mut settings = Vec::new();
    let mut set = |controller, file, value: Option<String>| {
        if let Some(value) = value {
            settings.push((controller, file, value));
        }
    };
    set("cpu", "cpu.shares", limits.cpu_shares.map(|shares| shares.to_string()));
    set("cpu", "cpu.cfs_period_us", limits.cpu_period_microseconds.map(|period| period.to_string()));
    set("cpu", "cpu.cfs_quota_us", limits.cpu_quota_microseconds.map(|quota| quota.to_string()));
    set("memory", "memory.limit_in_bytes", limits.memory_limit_bytes.map(|bytes| bytes.to_string()));
    set("pids", "pids.max", limits.pids_limit.map(or_max));
    settings
}

fn settings_2(limits: &Resources) -> Vec<(&'static str, &'static str, String)> {
    let mut settings = Vec::new();
    if let Some(shares) = limits.cpu_shares {
        // The mapping that upstream uses: 2..=262144 shares to a weight of 1..=10000.
        let weight = 1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142;
        settings.push(("cpu", "cpu.weight", weight.to_string()));
    }
    if limits.cpu_quota_microseconds.is_some() || limits.cpu_period_microseconds.is_some() {
        let quota = limits.cpu_quota_microseconds.map_or_else(|| "max".to_owned(), or_max);
        let period = limits.cpu_period_microseconds.unwrap_or(100_000);
        settings.push(("cpu", "cpu.max", format!("{quota} {period}")));
    }
    if let Some(bytes) = limits.memory_limit_bytes {
        settings.push(("memory", "memory.max", or_max(bytes)));
    }
    if let Some(pids) = limits.pids_limit {
        settings.push(("pids", "pids.max", or_max(pids)));
    }
    settings
}

fn or_max(value: i64) -> String {
    if value > 0 { value.to_string() } else { "max".to_owned() }
}

fn write(path: &Path, value: &str) -> io::Result<()> {
    fs::OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes()))
        .map_err(|error| io::Error::new(error.kind(), format!("{value:?} to {}: {error}", path.display())))
}

fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

fn collect_processes(directory: &Path, into: &mut Vec<Pid>) -> io::Result<()> {
    let text = match fs::read_to_string(directory.join("cgroup.procs")) {
        Err(error) if is_gone(&error) => return Ok(()),
        other => other?,
    };
    into.extend(text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0).map(Pid::from_raw));
    for child in child_directories(directory)? {
        collect_processes(&child, into)?;
    }
    Ok(())
}

fn remove_directories(directory: &Path) -> io::Result<()> {
    for child in child_directories(directory)? {
        remove_directories(&child)?;
    }
    match fs::remove_dir(directory) {
        Err(error) if !is_gone(&error) => Err(error),
        _ => Ok(()),
    }
}

fn child_directories(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if is_gone(&error) => return Ok(Vec::new()),
        other => other?,
    };
    let mut children = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            children.push(entry.path());
        }
    }
    Ok(children)
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(Errno::ENODEV as i32)
}

/// Tries until it works or time is up. For helpers only: the kernel tells nobody when a cgroup's last task is gone.
#[expect(clippy::disallowed_methods, reason = "runs in helper processes, which have the real clock only")]
fn retry(time: Duration, mut attempt: impl FnMut() -> io::Result<bool>) -> io::Result<bool> {
    let start = std::time::Instant::now();
    let mut pause = Duration::from_micros(200);
    loop {
        if attempt()? {
            return Ok(true);
        }
        if start.elapsed() > time {
            return Ok(false);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_mounts_of_version_1() {
        let line = "34 31 0:31 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct";
        let hierarchy = parse_mount(line).unwrap();
        assert_eq!(hierarchy.controllers.iter().map(String::as_str).collect::<Vec<_>>(), ["cpu", "cpuacct"]);
        let line = "40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd";
        assert!(!has_real_controller(&parse_mount(line).unwrap()));
        assert!(parse_mount("27 1 254:0 / / rw,relatime - ext4 /dev/vda rw").is_none());
    }

    #[test]
    fn version_2_has_its_own_units() {
        let limits = Resources {
            cpu_shares: Some(1024),
            cpu_quota_microseconds: Some(50_000),
            memory_limit_bytes: Some(-1),
            ..Resources::default()
        };
        let settings = settings_2(&limits);
        assert_eq!(settings[0].2, "39");
        assert_eq!(settings[1].2, "50000 100000");
        assert_eq!(settings[2].2, "max");
    }
}
