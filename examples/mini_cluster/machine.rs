//! What a cluster could leave on a machine, looked for by name.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use orchestrator::env::Env;

/// How often, and how long apart, one looks for processes that have been told to end and are about to.
const LOOKS: u32 = 50;
const PAUSE: Duration = Duration::from_millis(20);

/// Everything on this machine that carries the cluster's name: mounts, cgroups and the processes in them, and files in
/// the directory for temporary ones.
pub(crate) async fn left_behind(env: &Env, name: &str) -> io::Result<Vec<String>> {
    let mut left = processes(name)?;
    for _ in 1..LOOKS {
        if left.is_empty() {
            break;
        }
        env.sleep(PAUSE).await;
        left = processes(name)?;
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    left.extend(mounts.lines().filter(|line| line.contains(name)).map(|line| format!("mount {line}")));
    left.extend(cgroups(name).iter().map(|path| format!("cgroup {}", path.display())));
    for entry in fs::read_dir(std::env::temp_dir())? {
        let path = entry?.path();
        if path.to_string_lossy().contains(name) {
            left.push(format!("file {}", path.display()));
        }
    }
    Ok(left)
}

/// Processes in the cluster's cgroups, whatever the hierarchy. Those that are dead and wait for the machine's first
/// process to notice do not count.
fn processes(name: &str) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        let read = |file: &str| fs::read_to_string(path.join(file)).unwrap_or_default();
        if read("cgroup").contains(name) && !read("stat").contains(") Z ") {
            found.push(format!("process {} {}", path.display(), read("cmdline").replace('\0', " ")));
        }
    }
    Ok(found)
}

/// The cluster's cgroups, in the root of any hierarchy.
fn cgroups(name: &str) -> Vec<PathBuf> {
    let children = |path: &Path| -> Vec<PathBuf> {
        fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path()).filter(|it| it.is_dir()).collect()
    };
    let mut found = children(Path::new("/sys/fs/cgroup"));
    found.extend(found.iter().flat_map(|hierarchy| children(hierarchy)).collect::<Vec<_>>());
    found.retain(|path| path.to_string_lossy().contains(name));
    found
}
