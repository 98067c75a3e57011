//! How a container starts: a worker makes it with libcontainer, the helper writes it down, the program runs.

use std::{
    fs::File,
    io::{self, Read},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::net::UnixListener,
    },
    path::{Path, PathBuf},
    rc::Rc,
};

use libcontainer::{container::builder::ContainerBuilder, syscall::syscall::SyscallType};
use nix::{fcntl::OFlag, unistd::pipe2};
use orchestrator_core::runtime::{ContainerId, LogStream};

use super::{
    container::{Container, Phase},
    devices,
    executor::Launcher,
    exposure, identity,
    log_writer::LogWriter,
    mounts,
    output::{Input, Output},
    seccomp::Filters,
    server::{Job, Server},
    shared_memory, specification,
    users::Users,
    worker::{Worker, WorkerChannel, WorkerMessage},
};
use crate::{
    cgroups::Cgroups,
    descriptors,
    files::write_passing_json,
    layout::{ContainerDirectory, SandboxDirectory, short_name},
    limits::USER_RANGE_IDS,
    protocol::{Failure, FailureKind},
    records::{ContainerRecord, SandboxRecord},
};

impl Server {
    /// Sets a worker to starting a container.
    pub(super) fn begin_start(&mut self, id: &ContainerId) -> Result<(), Failure> {
        let failed = |error: io::Error| Failure::internal("starting a container", error);
        let cgroup = self.container_cgroup(id);
        let directory = self.directory.container(id);
        let Some(container) = self.containers.get_mut(id) else { return Err(Failure::no_container(id)) };
        let mut output = Output::new(LogWriter::open(directory.clone()).map_err(failed)?);
        let config = &container.record.config;

        let mut streams = Streams::default();
        if !config.tty {
            for (stream, slot) in [(LogStream::Stdout, &mut streams.stdout), (LogStream::Stderr, &mut streams.stderr)] {
                let (reader, writer) = pipe().map_err(failed)?;
                set_nonblocking(&reader).map_err(failed)?;
                output.add(reader, stream);
                *slot = Some(writer);
            }
            if config.stdin {
                let (reader, writer) = pipe().map_err(failed)?;
                set_nonblocking(&writer).map_err(failed)?;
                output.input = Input::Pipe(writer);
                streams.stdin = Some(reader);
            }
        }
        let shared_memory = self.shared_memory.as_ref().map(File::try_clone).transpose().map_err(failed)?;
        let keep: Vec<i32> = streams
            .all()
            .map(AsRawFd::as_raw_fd)
            .chain(shared_memory.iter().map(AsRawFd::as_raw_fd))
            .chain(self.users.iter().map(|users| users.namespace()))
            .collect();
        let making = Making {
            sandbox: self.record.clone(),
            sandbox_directory: self.directory.clone(),
            record: container.record.clone(),
            directory,
            cgroups: self.cgroups.clone(),
            cgroup,
            holder: nix::unistd::getpid().as_raw(),
            pause: self.pause.map(|pause| pause.as_raw()),
            shared_memory,
            users: self.users.clone(),
        };
        let worker = Worker::spawn(&keep, move |channel| making.run(streams, channel)).map_err(failed)?;
        container.output = Some(output);
        container.phase = Phase::Alive;
        container.starting = true;
        self.workers.insert(worker.pid.as_raw(), (worker, Job::Start(id.clone())));
        Ok(())
    }
}

/// The container's ends of its streams; none with a terminal.
#[derive(Default)]
pub(super) struct Streams {
    pub(super) stdin: Option<OwnedFd>,
    pub(super) stdout: Option<OwnedFd>,
    pub(super) stderr: Option<OwnedFd>,
}

impl Streams {
    pub(super) fn all(&self) -> impl Iterator<Item = &OwnedFd> {
        [&self.stdin, &self.stdout, &self.stderr].into_iter().flatten()
    }

    /// Lets the user of a process of a pod open the streams once more, as `/dev/stdout`.
    pub(super) fn belong_to(&self, users: &Users, user: u32, group: u32) -> io::Result<()> {
        let (user, group) = (users.on_machine(user), users.on_machine(group));
        self.all().try_for_each(|stream| {
            Ok(rustix::fs::fchown(
                stream,
                Some(rustix::fs::Uid::from_raw(user)),
                Some(rustix::fs::Gid::from_raw(group)),
            )?)
        })
    }

    /// Hands the streams to libcontainer.
    pub(super) fn give(self, mut builder: ContainerBuilder) -> ContainerBuilder {
        builder.stdin = self.stdin;
        builder.stdout = self.stdout;
        builder.stderr = self.stderr;
        builder
    }
}

/// What a worker needs to make a container.
struct Making {
    sandbox: SandboxRecord,
    sandbox_directory: SandboxDirectory,
    record: ContainerRecord,
    directory: ContainerDirectory,
    cgroups: Cgroups,
    cgroup: String,
    holder: i32,
    pause: Option<i32>,
    shared_memory: Option<File>,
    users: Option<Rc<Users>>,
}

impl Making {
    fn run(self, streams: Streams, channel: &mut WorkerChannel) -> Result<WorkerMessage, Failure> {
        let failed = |error: io::Error| Failure::internal("starting a container", error);
        // Made before it is used, so that the container can see it.
        self.cgroups.make(&self.cgroup, &Default::default()).map_err(failed)?;
        let shared_memory = self.shared_memory.as_ref().map(shared_memory::view).transpose().map_err(failed)?;
        let volumes = mounts::prepare(&self.sandbox, &self.record, &self.directory, self.users.as_deref())?;
        let shared_place = match shared_memory {
            Some(view) => {
                let place = self.directory.stage().join("shm");
                shared_memory::place(view, &place).map_err(failed)?;
                place
            }
            None => "/dev/shm".into(),
        };
        let devices = if self.record.config.security.privileged {
            devices::of_machine().map_err(|error| Failure::internal("looking for devices", error))?
        } else {
            Vec::new()
        };
        let filters = Filters::of(&self.record, &specification::capabilities(&self.record, &self.cgroups)?)?;
        let identity = identity::of(&self.record, &self.directory.root_file_system())?;
        if let Some(users) = &self.users {
            identity.check(USER_RANGE_IDS)?;
            streams.belong_to(users, identity.user, identity.group).map_err(failed)?;
        }
        let namespaces = self.namespaces().map_err(failed)?;
        let specification = specification::make(&specification::Input {
            sandbox: &self.sandbox,
            sandbox_directory: &self.sandbox_directory,
            record: &self.record,
            directory: &self.directory,
            identity: &identity,
            cgroups: &self.cgroups,
            cgroup: &self.cgroup,
            volumes: &volumes,
            devices: &devices,
            namespaces: &namespaces,
            shared_memory: &shared_place,
        })?;
        write_passing_json(&self.directory.specification(), &specification).map_err(failed)?;
        if self.users.is_some() {
            exposure::expose(&self.sandbox_directory, &self.directory).map_err(failed)?;
        }

        let (report, reporter) = pipe().map_err(failed)?;
        let id = short_name(&self.record.id);
        let console =
            self.record.config.tty.then(|| Console::listen(&self.sandbox_directory)).transpose().map_err(failed)?;
        let mut builder = ContainerBuilder::new(id, SyscallType::default())
            .with_executor(Launcher { report: reporter.as_raw_fd(), filters })
            .with_root_path(self.sandbox_directory.libcontainer())
            .map_err(|error| Failure::internal("starting a container", error))?;
        if let Some(console) = &console {
            builder = builder.with_console_socket(Some(console.path.clone()));
        }
        let built = streams
            .give(builder)
            .as_init(self.directory.path())
            .with_systemd(false)
            // The container is to be the helper's child, not this worker's.
            .as_sibling(true)
            .with_detach(true)
            .build();
        drop(reporter);
        let mut container = match built {
            Ok(container) => container,
            Err(error) => return Err(explain(report, &error)),
        };
        let pid = container.pid().map_or(0, |pid| pid.as_raw());
        let terminal = console.map(Console::receive).transpose().map_err(failed)?;
        let terminal: Vec<_> = terminal.iter().map(AsFd::as_fd).collect();
        channel.send(&WorkerMessage::Running { pid }, &terminal).map_err(failed)?;
        channel.wait().map_err(failed)?;
        container.start().map_err(|error| Failure::internal("starting a container", error))?;
        // The pipe ends when the program is executed.
        match said(report).map_err(failed)? {
            message if message.is_empty() => Ok(WorkerMessage::Started),
            message => Err(start_failed(&message)),
        }
    }
}

impl Making {
    /// The namespaces that the container shares with others, by the kind that an OCI specification names.
    fn namespaces(&self) -> io::Result<Vec<(&'static str, OwnedFd)>> {
        let options = &self.sandbox.config.namespaces;
        let open = |process: i32, name: &str| File::open(format!("/proc/{process}/ns/{name}")).map(OwnedFd::from);
        let mut namespaces = vec![("uts", open(self.holder, "uts")?)];
        if !options.host_network {
            namespaces.push(("network", open(self.holder, "net")?));
        }
        if !options.host_ipc {
            namespaces.push(("ipc", open(self.holder, "ipc")?));
        }
        if let Some(pause) = self.pause {
            namespaces.push(("pid", open(pause, "pid")?));
        }
        if let Some(users) = &self.users {
            namespaces.push(("user", users.as_fd().try_clone_to_owned()?));
        }
        Ok(namespaces)
    }
}

/// Why libcontainer failed: what the launcher said, or else what libcontainer says.
fn explain(report: OwnedFd, error: &dyn std::error::Error) -> Failure {
    match said(report) {
        Ok(message) if !message.is_empty() => start_failed(&message),
        _ => {
            let mut message = error.to_string();
            let mut source = error.source();
            while let Some(error) = source {
                let more = error.to_string();
                if !message.contains(&more) {
                    message = format!("{message}: {more}");
                }
                source = error.source();
            }
            start_failed(&message)
        }
    }
}

/// All that comes out of a pipe.
pub(super) fn said(report: OwnedFd) -> io::Result<String> {
    let mut message = Vec::new();
    File::from(report).read_to_end(&mut message)?;
    Ok(String::from_utf8_lossy(&message).into_owned())
}

fn start_failed(message: &str) -> Failure {
    Failure::new(FailureKind::StartFailed, format!("unable to start container process: {message}"))
}

/// Where a new terminal is handed over.
pub(super) struct Console {
    listener: UnixListener,
    path: PathBuf,
}

impl Console {
    pub(super) fn listen(directory: &SandboxDirectory) -> io::Result<Self> {
        let path = directory.path().join(format!("console-{}.sock", nix::unistd::getpid()));
        crate::files::remove_file(&path)?;
        let handle = File::open(directory.path())?;
        let short = Path::new("/proc/self/fd").join(handle.as_raw_fd().to_string());
        let name = path.file_name().unwrap_or_default();
        Ok(Self { listener: UnixListener::bind(short.join(name))?, path })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn receive(self) -> io::Result<OwnedFd> {
        let (stream, _) = self.listener.accept()?;
        let mut received = Vec::new();
        descriptors::receive(&stream, &mut [0; 64], &mut received)?;
        crate::files::remove_file(&self.path)?;
        received.pop().ok_or_else(|| io::Error::other("the container sent no terminal"))
    }
}

/// Makes a container's terminal its output and its input.
pub(super) fn connect_terminal(container: &mut Container, terminal: OwnedFd) {
    let Some(output) = &mut container.output else { return };
    if set_nonblocking(&terminal).is_ok()
        && let Ok(copy) = terminal.try_clone()
    {
        output.add(copy, LogStream::Stdout);
        output.input = Input::Terminal(terminal);
    }
}

pub(super) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(pipe2(OFlag::O_CLOEXEC)?)
}

pub(super) fn set_nonblocking(descriptor: &OwnedFd) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(descriptor)?;
    Ok(rustix::fs::fcntl_setfl(descriptor, flags | rustix::fs::OFlags::NONBLOCK)?)
}
