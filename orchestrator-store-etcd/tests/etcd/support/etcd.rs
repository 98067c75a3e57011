//! Real etcd processes, each on a loopback address of its own and with a directory in memory, which end with the test.

use std::{
    collections::VecDeque,
    hash::{BuildHasher, RandomState},
    io::{BufRead, BufReader},
    net::{Ipv4Addr, TcpListener},
    path::PathBuf,
    process::{Child, ChildStderr, Command, Stdio},
    sync::mpsc,
    thread::JoinHandle,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

/// What a member says when it answers.
const READY: &str = "serving client traffic";
/// How long that may take.
const START_TIME: Duration = Duration::from_secs(60);
/// Lines that are shown of a member that did not start.
const SHOWN_LINES: usize = 20;

/// How members are started.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    /// Arguments of all members.
    pub(crate) arguments: Vec<String>,
    /// Whether clients speak TLS; the arguments say with which certificates.
    pub(crate) tls: bool,
}

/// Members of one cluster. Dropping it kills them and waits for their ends.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) members: Vec<Member>,
    _directory: TempDir,
}

/// One process, or the place of one.
#[derive(Debug)]
pub(crate) struct Member {
    address: Ipv4Addr,
    client_port: u16,
    arguments: Vec<String>,
    tls: bool,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    reader: JoinHandle<()>,
}

impl Cluster {
    /// Starts a cluster and waits until all of its members answer.
    pub(crate) fn start(size: usize, options: &Options) -> Self {
        Self::start_in(directory(), size, options)
    }

    /// The same in this directory.
    pub(crate) fn start_in(directory: TempDir, size: usize, options: &Options) -> Self {
        let places: Vec<_> = (0..size).map(|_| Place::free()).collect();
        let peers: Vec<String> =
            places.iter().enumerate().map(|(index, place)| format!("m{index}={}", place.peer())).collect();
        let peers = peers.join(",");
        let members = places.iter().enumerate().map(|(index, place)| {
            let data = directory.path().join(index.to_string());
            Member::new(index, place, &data, &peers, size, options)
        });
        let mut cluster = Self { members: members.collect(), _directory: directory };
        let answers: Vec<_> = cluster.members.iter_mut().map(Member::spawn).collect();
        answers.into_iter().for_each(wait_until_ready);
        cluster
    }

    /// One member with the usual options.
    pub(crate) fn single() -> Self {
        Self::start(1, &Options::default())
    }

    /// The URLs of all members.
    pub(crate) fn urls(&self) -> Vec<String> {
        self.members.iter().map(Member::url).collect()
    }
}

impl Member {
    fn new(index: usize, place: &Place, data: &std::path::Path, peers: &str, size: usize, options: &Options) -> Self {
        let scheme = if options.tls { "https" } else { "http" };
        let client = format!("{scheme}://{}:{}", place.address, place.client_port);
        // A member that is alone elects itself, the sooner the better.
        let (heartbeat, election) = if size == 1 { ("10", "100") } else { ("50", "500") };
        let arguments = [
            ("--name", &*format!("m{index}")),
            ("--data-dir", &*data.display().to_string()),
            ("--listen-client-urls", &client),
            ("--advertise-client-urls", &client),
            ("--listen-peer-urls", &place.peer()),
            ("--initial-advertise-peer-urls", &place.peer()),
            ("--initial-cluster", peers),
            ("--initial-cluster-token", &place.peer()),
            ("--initial-cluster-state", "new"),
            ("--heartbeat-interval", heartbeat),
            ("--election-timeout", election),
            ("--logger", "zap"),
        ];
        let mut arguments: Vec<String> =
            arguments.into_iter().flat_map(|(name, value)| [name.to_owned(), value.to_owned()]).collect();
        if size > 1 {
            // The token names the cluster, not the member.
            let token = arguments.iter().position(|argument| argument == "--initial-cluster-token").unwrap();
            arguments[token + 1] = peers.to_owned();
        }
        arguments.extend(options.arguments.iter().cloned());
        Self { address: place.address, client_port: place.client_port, arguments, tls: options.tls, running: None }
    }

    /// Where clients find it.
    pub(crate) fn url(&self) -> String {
        format!("{}://{}:{}", if self.tls { "https" } else { "http" }, self.address, self.client_port)
    }

    /// Starts the process; the receiver is told when it answers, or what it said last.
    fn spawn(&mut self) -> mpsc::Receiver<Result<(), String>> {
        let version = Command::new("etcd").arg("--version").output();
        assert!(version.is_ok(), "these tests need `etcd` in the path (Debian's package etcd-server)");
        // Killed with the thread that started it, should the test not come to drop it.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "etcd"]).args(&self.arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("setpriv is in the path (Debian's package util-linux)");
        let errors = child.stderr.take().expect("it was piped");
        let (answer, answered) = mpsc::channel();
        #[expect(clippy::disallowed_methods, reason = "what a process says is read on a thread that ends with it")]
        let reader = std::thread::spawn(move || read(errors, &answer));
        self.running = Some(Running { child, reader });
        answered
    }

    /// Starts a member that was killed, and waits until it answers.
    pub(crate) fn restart(&mut self) {
        self.kill();
        wait_until_ready(self.spawn());
    }

    /// Starts a member that was killed. It may not answer before others do.
    pub(crate) fn begin_restart(&mut self) {
        self.kill();
        drop(self.spawn());
    }

    /// Ends it at once, as a loss of power to the process does.
    pub(crate) fn kill(&mut self) {
        if let Some(Running { mut child, reader }) = self.running.take() {
            let _ = child.kill();
            child.wait().unwrap();
            reader.join().unwrap();
        }
    }

    /// Stops it: it keeps its connections and says nothing.
    pub(crate) fn pause(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets it go on.
    pub(crate) fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        let running = self.running.as_ref().expect("it runs");
        let process = i32::try_from(running.child.id()).unwrap();
        kill(Pid::from_raw(process), signal).unwrap();
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A free address, of which there are sixteen million, with two free ports.
struct Place {
    address: Ipv4Addr,
    client_port: u16,
    peer_port: u16,
}

impl Place {
    fn free() -> Self {
        let [_, _, _, _, _, a, b, c] = RandomState::new().hash_one("address").to_le_bytes();
        let address = Ipv4Addr::new(127, a, b, c.clamp(1, 254));
        let listeners = [(); 2].map(|()| TcpListener::bind((address, 0)).unwrap());
        let [client_port, peer_port] = listeners.map(|listener| listener.local_addr().unwrap().port());
        Self { address, client_port, peer_port }
    }

    fn peer(&self) -> String {
        format!("http://{}:{}", self.address, self.peer_port)
    }
}

/// Reads what a member says to its end. Tells when it answers.
fn read(errors: ChildStderr, answer: &mpsc::Sender<Result<(), String>>) {
    let mut last = VecDeque::new();
    for line in BufReader::new(errors).lines().map_while(Result::ok) {
        if line.contains(READY) {
            // Nobody may wait for it any more.
            let _ = answer.send(Ok(()));
        }
        last.push_back(line);
        if last.len() > SHOWN_LINES {
            last.pop_front();
        }
    }
    let _ = answer.send(Err(Vec::from(last).join("\n")));
}

fn wait_until_ready(answered: mpsc::Receiver<Result<(), String>>) {
    if let Err(said) = answered.recv_timeout(START_TIME).expect("etcd starts in time") {
        panic!("etcd has ended:\n{said}");
    }
}

/// In memory where that can be had: what is tested is what etcd promises, not what a disk does.
fn directory() -> TempDir {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() }.unwrap()
}
