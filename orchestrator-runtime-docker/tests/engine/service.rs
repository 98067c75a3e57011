//! A Podman service in namespaces of its own, with all that it keeps in memory: it is gone with the program, however that ends.

use std::{
    fs::{self, File},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Resource, Signal, getrlimit, kill_process};

/// The word that comes before the other arguments of a program that is in its namespaces.
const INSIDE: &str = "--in-namespaces-of-its-own";
/// Where services are: in the memory of the mount namespace.
const DIRECTORY: &str = "/run/podman-under-test";
/// What the first process there does: it makes the place, runs the tests, and buries the orphans of containers meanwhile.
const FIRST: &str = "mount -t tmpfs tmpfs /run && ip link set lo up && \"$0\" \"$@\"; exit $?";
/// How long the service may take to listen.
const PATIENCE: Duration = Duration::from_secs(20);
/// The cgroup in which Podman makes its own.
const CGROUP: &str = "libpod_parent";

/// The arguments of a program that is in its namespaces; `None` outside of them.
pub(crate) fn inside(arguments: impl IntoIterator<Item = String>) -> Option<Vec<String>> {
    let mut arguments: Vec<String> = arguments.into_iter().collect();
    (arguments.get(1)? == INSIDE).then(|| {
        arguments.remove(1);
        arguments
    })
}

/// Runs this program again, in namespaces of its own: for mounts, the network and processes. With the first process there all
/// others end, and with this one that.
pub(crate) fn enter() -> ExitCode {
    let program = std::env::current_exe().expect("a program knows where it is");
    let status = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .args(["sh", "-c", FIRST])
        .arg(program)
        .arg(INSIDE)
        .args(std::env::args_os().skip(1))
        .status()
        .expect("these tests need the programs setpriv and unshare");
    remove_cgroups();
    if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A service. It is stopped when it is dropped; its containers end with the program.
pub(crate) struct Service {
    directory: PathBuf,
    process: Option<Child>,
}

impl Service {
    /// Starts a service of this name, with nothing on it.
    pub(crate) fn start(name: &str) -> Self {
        let mut service = Self { directory: Path::new(DIRECTORY).join(name), process: None };
        fs::create_dir_all(&service.directory).unwrap();
        fs::write(service.path("containers.conf"), configuration(&service.path("networks"))).unwrap();
        fs::write(service.path("registries.conf"), "[[registry]]\nlocation = \"127.0.0.1\"\ninsecure = true\n")
            .unwrap();
        service.run();
        service
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path("podman.sock")
    }

    /// A place in the service's directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Runs the service until it listens.
    pub(crate) fn run(&mut self) {
        let (socket, log) = (self.socket(), self.path("log"));
        let output = File::options().create(true).append(true).open(&log).unwrap();
        let process = self
            .podman()
            .args(["system", "service", "--time", "0"])
            .arg(format!("unix://{}", socket.display()))
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .expect("these tests need the program podman");
        let process = self.process.insert(process);
        let begun = Instant::now();
        while UnixStream::connect(&socket).is_err() {
            let has_ended = process.try_wait().unwrap().is_some();
            let said = || fs::read_to_string(&log).unwrap_or_default();
            assert!(!has_ended && begun.elapsed() < PATIENCE, "podman does not listen: {}", said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends the service alone.
    pub(crate) fn end(&mut self, signal: Signal) {
        let Some(mut process) = self.process.take() else { return };
        // It may have ended by itself.
        let _ = kill_process(Pid::from_child(&process), signal);
        let _ = process.wait();
    }

    fn podman(&self) -> Command {
        let mut command = Command::new("podman");
        // Where it leaves files that nobody removes: archives of images, and marks of conmon's.
        command.current_dir(&self.directory).env("TMPDIR", &self.directory);
        command.env("CONTAINERS_CONF", self.path("containers.conf"));
        command.env("CONTAINERS_REGISTRIES_CONF", self.path("registries.conf"));
        for (option, directory) in [("--root", "root"), ("--runroot", "run"), ("--tmpdir", "tmp")] {
            command.arg(option).arg(self.path(directory));
        }
        command
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.end(Signal::TERM);
        // The service keeps this mount for the next one.
        let _ = Command::new("umount").arg(self.path("root/overlay")).output();
    }
}

/// Removes what is in no namespace, and would be left of a service: the cgroups that its containers were in. One with a process
/// in it is not these tests', and stays.
fn remove_cgroups() {
    let directories = |path: &Path| {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect::<Vec<_>>()
    };
    let root = Path::new("/sys/fs/cgroup");
    for hierarchy in directories(root).into_iter().chain([root.to_owned()]) {
        let cgroup = hierarchy.join(CGROUP);
        for path in directories(&cgroup).into_iter().chain([cgroup]) {
            let _ = fs::remove_dir(path);
        }
    }
}

/// What the service is told. Limits of processes are this one's: more it may not give without a right that it may lack.
fn configuration(networks: &Path) -> String {
    let limit = |name: &str, resource: Resource| {
        let most = getrlimit(resource).maximum.unwrap_or(1 << 20);
        format!("\"{name}={most}:{most}\"")
    };
    let limits = [limit("nofile", Resource::Nofile), limit("nproc", Resource::Nproc)].join(", ");
    format!(
        "[containers]\ndefault_ulimits = [{limits}]\n\
         [engine]\nruntime = \"runc\"\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\nlock_type = \"file\"\n\
         [network]\nnetwork_backend = \"netavark\"\nnetwork_config_dir = \"{}\"\n",
        networks.display()
    )
}
