//! Commands that run inside a running container: a worker for each, whose connection is their lifeline.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    rc::Rc,
};

use libcontainer::{container::builder::ContainerBuilder, syscall::syscall::SyscallType};
use nix::{libc, sys::wait::waitpid};
use orchestrator_core::runtime::{ContainerId, ExecOptions};

use super::{
    container::{ConnectionId, exit_code},
    executor::Launcher,
    seccomp::Filters,
    specification,
    start::{Console, Streams, pipe, said},
    users::Users,
    worker::{Worker, WorkerChannel, WorkerMessage},
};
use crate::{
    cgroups::Cgroups,
    files::{read_json, remove_file, write_passing_json},
    layout::{SandboxDirectory, short_name},
    protocol::{Failure, FailureKind, Reply},
    records::ContainerRecord,
    sys,
};

/// A command that was begun.
pub(super) struct Exec {
    connection: ConnectionId,
    /// The agent's ends of the streams, until it has them.
    streams: Vec<OwnedFd>,
    reply: Reply,
    worker: nix::unistd::Pid,
    command: Option<nix::unistd::Pid>,
    answered: bool,
}

impl Exec {
    /// Sets a worker to running a command.
    pub(super) fn begin(
        connection: ConnectionId,
        sandbox: &SandboxDirectory,
        users: Option<Rc<Users>>,
        id: &ContainerId,
        options: ExecOptions,
    ) -> Result<(Worker, Self), Failure> {
        let failed = |error: io::Error| Failure::internal("running a command", error);
        let mut inner = Streams::default();
        let mut outer = Vec::new();
        let reply = Reply::Streams {
            stdin: options.stdin,
            stdout: options.stdout,
            stderr: options.stderr && !options.tty,
            terminal: options.tty,
        };
        if !options.tty {
            if options.stdin {
                let (reader, writer) = pipe().map_err(failed)?;
                inner.stdin = Some(reader);
                outer.push(writer);
            }
            for (wanted, slot) in [(options.stdout, &mut inner.stdout), (options.stderr, &mut inner.stderr)] {
                if wanted {
                    let (reader, writer) = pipe().map_err(failed)?;
                    outer.push(reader);
                    *slot = Some(writer);
                } else {
                    let null = std::fs::File::options().write(true).open("/dev/null").map_err(failed)?;
                    *slot = Some(null.into());
                }
            }
        }
        let keep: Vec<i32> = inner.all().map(AsRawFd::as_raw_fd).collect();
        let command = Command { sandbox: sandbox.clone(), users, id: id.clone(), options };
        let worker = Worker::spawn(&keep, move |channel| command.run(inner, channel)).map_err(failed)?;
        let pid = worker.pid;
        Ok((worker, Self { connection, streams: outer, reply, worker: pid, command: None, answered: false }))
    }

    /// What the agent is to hear of what a worker says, and whether it is the last of it.
    pub(super) fn progressed(
        &mut self,
        worker: &mut Worker,
        message: WorkerMessage,
    ) -> (ConnectionId, Reply, Vec<OwnedFd>, bool) {
        let (reply, descriptors, last) = match message {
            WorkerMessage::Running { pid } => {
                self.command = Some(nix::unistd::Pid::from_raw(pid));
                let mut descriptors = std::mem::take(&mut self.streams);
                descriptors.extend(worker.take_descriptor());
                (self.reply.clone(), descriptors, false)
            }
            WorkerMessage::Ended { exit_code } => (Reply::Ended { exit_code }, Vec::new(), true),
            WorkerMessage::Failed { kind, message } => (Reply::Failed { kind, message }, Vec::new(), true),
            WorkerMessage::Started | WorkerMessage::Done => {
                (Failure::internal("running a command", "a worker spoke out of turn").into(), Vec::new(), true)
            }
        };
        self.answered |= last;
        (self.connection, reply, descriptors, last)
    }

    /// The connection that has not heard the end.
    pub(super) fn unanswered(&self) -> Option<ConnectionId> {
        (!self.answered).then_some(self.connection)
    }

    /// Kills the command if this is the connection that wanted it.
    pub(super) fn hang_up(&mut self, connection: ConnectionId) {
        if connection == self.connection && !self.answered {
            self.answered = true;
            // The worker waits for the command, so its number is still its own; without a worker there is neither.
            let _ = sys::kill(self.command.unwrap_or(self.worker), libc::SIGKILL);
        }
    }
}

struct Command {
    sandbox: SandboxDirectory,
    users: Option<Rc<Users>>,
    id: ContainerId,
    options: ExecOptions,
}

impl Command {
    fn run(self, streams: Streams, channel: &mut WorkerChannel) -> Result<WorkerMessage, Failure> {
        let failed = |error: io::Error| Failure::internal("running a command", error);
        let filters = self.filters()?;
        let process = self.process().map_err(failed)?;
        if let Some(users) = &self.users {
            let id = |name: &str| process["user"][name].as_u64().and_then(|id| u32::try_from(id).ok()).unwrap_or(0);
            streams.belong_to(users, id("uid"), id("gid")).map_err(failed)?;
        }
        let process_file = self.sandbox.path().join(format!("exec-{}.json", nix::unistd::getpid()));
        write_passing_json(&process_file, &process).map_err(failed)?;
        let (report, reporter) = pipe().map_err(failed)?;
        let console = self.options.tty.then(|| Console::listen(&self.sandbox)).transpose().map_err(failed)?;
        let mut builder = ContainerBuilder::new(short_name(&self.id), SyscallType::default())
            .with_executor(Launcher { report: reporter.as_raw_fd(), filters })
            .with_root_path(self.sandbox.libcontainer())
            .map_err(|error| Failure::internal("running a command", error))?;
        if let Some(console) = &console {
            builder = builder.with_console_socket(Some(console.path()));
        }
        let built = streams.give(builder).as_tenant().with_process(Some(&process_file)).with_detach(true).build();
        drop(reporter);
        remove_file(&process_file).map_err(failed)?;
        let message = said(report).map_err(failed)?;
        let pid = match built {
            Ok(pid) if message.is_empty() => pid,
            _ if !message.is_empty() => return Err(not_executed(&message)),
            Ok(_) => return Err(not_executed("unknown")),
            Err(error) => return Err(not_executed(&error.to_string())),
        };
        let terminal = console.map(Console::receive).transpose().map_err(failed)?;
        let terminal: Vec<_> = terminal.iter().map(AsFd::as_fd).collect();
        channel.send(&WorkerMessage::Running { pid: pid.as_raw() }, &terminal).map_err(failed)?;
        loop {
            let status = waitpid(pid, None).map_err(|error| failed(error.into()))?;
            if let Some((exit_code, _)) = exit_code(status) {
                return Ok(WorkerMessage::Ended { exit_code });
            }
        }
    }

    /// What the container's own program may call, this one may call, too.
    fn filters(&self) -> Result<Filters, Failure> {
        let failed = |error: io::Error| Failure::internal("running a command", error);
        let record: Option<ContainerRecord> = read_json(&self.sandbox.container(&self.id).record()).map_err(failed)?;
        let record = record.ok_or_else(|| Failure::no_container(&self.id))?;
        let cgroups = Cgroups::find().map_err(|error| Failure::internal("running a command", error))?;
        Filters::of(&record, &specification::capabilities(&record, &cgroups)?)
    }

    /// The process: the container's own, with another command.
    fn process(&self) -> io::Result<serde_json::Value> {
        let specification: Option<serde_json::Value> = read_json(&self.sandbox.container(&self.id).specification())?;
        let mut specification = specification.ok_or_else(|| io::Error::other("the container has no specification"))?;
        let mut process = specification["process"].take();
        process["args"] = self.options.command.clone().into();
        process["terminal"] = self.options.tty.into();
        Ok(process)
    }
}

fn not_executed(message: &str) -> Failure {
    Failure::new(FailureKind::StartFailed, format!("exec failed: unable to start container process: {message}"))
}
