//! What a helper does when it is asked.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::OwnedFd,
    time::Duration,
};

use nix::sys::socket::{getsockopt, sockopt};
use orchestrator_core::runtime::{AttachOptions, ContainerId, LogStream};
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};

use super::{
    container::{ConnectionId, Container, Phase},
    exec::Exec,
    output::Input,
    server::{Dial, Job, Server},
};
use crate::{
    files::{make_private_directory, write_json},
    limits::CONNECT_TIME,
    protocol::{Failure, FailureKind, Reply, Request},
    records::ContainerRecord,
};

impl Server {
    /// Begins to do what a connection asks for.
    pub(super) fn request(&mut self, from: ConnectionId, request: Request) {
        let result = match request {
            Request::Create(record) => self.create(*record).map(|()| self.finish(from, &Reply::Done, Vec::new())),
            Request::Start { id } => self.start(from, &id),
            Request::Stop { id, grace_milliseconds } => self.stop(from, &id, Duration::from_millis(grace_milliseconds)),
            Request::Remove { id } => self.remove(from, &id),
            Request::StopSandbox => self.stop_sandbox().map(|()| self.stop_waiters.push(from)),
            Request::RemoveSandbox => self.stop_sandbox().map(|()| self.remove_waiters.push(from)),
            Request::Exec { id, options } => self.exec(from, &id, options),
            Request::Attach { id, options } => self.attach(from, &id, options),
            Request::Connect { port } => self.dial(from, port, None),
            Request::Subscribe => {
                if let Some(connection) = self.connections.get_mut(&from) {
                    connection.subscribed = true;
                }
                self.reply(from, &Reply::Done, Vec::new());
                Ok(())
            }
        };
        if let Err(failure) = result {
            self.finish(from, &failure.into(), Vec::new());
        }
    }

    fn container(&mut self, id: &ContainerId) -> Result<&mut Container, Failure> {
        self.containers.get_mut(id).ok_or_else(|| Failure::no_container(id))
    }

    fn refuse_if_stopped(&self) -> Result<(), Failure> {
        if self.stopped {
            let message = format!("the sandbox {} is not ready", self.record.id);
            return Err(Failure::new(FailureKind::WrongState, message));
        }
        Ok(())
    }

    fn create(&mut self, record: ContainerRecord) -> Result<(), Failure> {
        if self.containers.contains_key(&record.id) {
            return Ok(());
        }
        self.refuse_if_stopped()?;
        let directory = self.directory.container(&record.id);
        make_private_directory(directory.path())
            .and_then(|()| make_private_directory(&directory.root_file_system()))
            .and_then(|()| make_private_directory(&directory.stage()))
            .and_then(|()| write_json(&directory.record(), &record))
            .map_err(|error| Failure::internal("writing a container down", error))?;
        let id = record.id.clone();
        self.containers.insert(id.clone(), Container::new(record));
        self.announce(Some(&id));
        Ok(())
    }

    fn start(&mut self, from: ConnectionId, id: &ContainerId) -> Result<(), Failure> {
        let stopped = self.refuse_if_stopped();
        let container = self.container(id)?;
        match &container.phase {
            Phase::Created if container.removing => {
                let message = format!("the container {id} is being removed");
                return Err(Failure::new(FailureKind::WrongState, message));
            }
            Phase::Created => {
                stopped?;
                self.begin_start(id)?;
                self.container(id)?.start_waiters.push(from);
            }
            Phase::Alive if container.starting => container.start_waiters.push(from),
            Phase::Alive | Phase::Exited => self.finish(from, &Reply::Done, Vec::new()),
        }
        Ok(())
    }

    fn stop(&mut self, from: ConnectionId, id: &ContainerId, grace: Duration) -> Result<(), Failure> {
        let container = self.container(id)?;
        if container.is_settled() {
            self.finish(from, &Reply::Done, Vec::new());
        } else {
            container.ask_to_stop(grace);
            container.stop_waiters.push(from);
        }
        Ok(())
    }

    fn remove(&mut self, from: ConnectionId, id: &ContainerId) -> Result<(), Failure> {
        let Some(container) = self.containers.get_mut(id) else {
            self.finish(from, &Reply::Done, Vec::new());
            return Ok(());
        };
        if !container.is_settled() {
            container.ask_to_stop(Duration::ZERO);
        }
        container.removing = true;
        container.remove_waiters.push(from);
        Ok(())
    }

    /// No new containers from now on, and the end of those that run.
    pub(super) fn stop_sandbox(&mut self) -> Result<(), Failure> {
        self.mark_stopped().map_err(|error| Failure::internal("stopping the sandbox", error))?;
        for container in self.containers.values_mut().filter(|container| !container.is_settled()) {
            container.ask_to_stop(Duration::ZERO);
        }
        Ok(())
    }

    fn running(&mut self, id: &ContainerId) -> Result<&mut Container, Failure> {
        let container = self.container(id)?;
        if container.pid.is_none() || container.starting {
            return Err(Failure::new(FailureKind::WrongState, format!("the container {id} is not running")));
        }
        Ok(container)
    }

    fn exec(
        &mut self,
        from: ConnectionId,
        id: &ContainerId,
        options: orchestrator_core::runtime::ExecOptions,
    ) -> Result<(), Failure> {
        self.running(id)?;
        let (worker, exec) = Exec::begin(from, &self.directory, self.users.clone(), id, options)?;
        self.workers.insert(worker.pid.as_raw(), (worker, Job::Exec(exec)));
        Ok(())
    }

    fn attach(&mut self, from: ConnectionId, id: &ContainerId, options: AttachOptions) -> Result<(), Failure> {
        let container = self.running(id)?;
        let once = container.record.config.stdin_once;
        let terminal = container.record.config.tty;
        if options.stdin && !container.record.config.stdin {
            return Err(Failure::new(FailureKind::WrongState, format!("the container {id} has no standard input")));
        }
        let output = container.output.as_mut().ok_or_else(|| Failure::no_container(id))?;
        let mut descriptors: Vec<OwnedFd> = Vec::new();
        let failed = |error: io::Error| Failure::internal("attaching", error);
        let mut streams = (false, false, false);
        if options.stdin {
            match &output.input {
                Input::Pipe(pipe) => {
                    descriptors.push(pipe.try_clone().map_err(failed)?);
                    streams.0 = true;
                }
                Input::Terminal(terminal) => {
                    descriptors.push(terminal.try_clone().map_err(failed)?);
                    streams.0 = true;
                }
                Input::None => {}
            }
            if once && matches!(output.input, Input::Pipe(_)) {
                output.input = Input::None;
            }
        }
        if options.stdout {
            descriptors.push(output.listen(LogStream::Stdout).map_err(failed)?);
            streams.1 = true;
        }
        if options.stderr && !terminal {
            descriptors.push(output.listen(LogStream::Stderr).map_err(failed)?);
            streams.2 = true;
        }
        container.attached.push(from);
        let (stdin, stdout, stderr) = streams;
        self.reply(from, &Reply::Streams { stdin, stdout, stderr, terminal }, descriptors);
        Ok(())
    }

    /// Begins to connect to a port in the pod, over IPv4 and then over IPv6.
    fn dial(&mut self, from: ConnectionId, port: u16, over_version_4: Option<io::Error>) -> Result<(), Failure> {
        let (family, address) = if over_version_4.is_some() {
            (AddressFamily::INET6, SocketAddr::from((Ipv6Addr::LOCALHOST, port)))
        } else {
            (AddressFamily::INET, SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let connected =
            socket_with(family, SocketType::STREAM, flags, None).map(|socket| (connect(&socket, &address), socket));
        match connected {
            Ok((Ok(()), socket)) => self.finish(from, &Reply::Connected, vec![socket]),
            Ok((Err(rustix::io::Errno::INPROGRESS), socket)) => {
                let until = super::instant() + CONNECT_TIME;
                self.dials.push(Dial { connection: from, port, socket, until, over_version_4 });
            }
            Ok((Err(error), _)) | Err(error) => return self.dial_failed(from, port, over_version_4, error.into()),
        }
        Ok(())
    }

    /// Tries the other version of IP, if it was not tried before.
    fn dial_failed(
        &mut self,
        from: ConnectionId,
        port: u16,
        over_version_4: Option<io::Error>,
        error: io::Error,
    ) -> Result<(), Failure> {
        let Some(first) = over_version_4 else { return self.dial(from, port, Some(error)) };
        // In containerd's words, down to the space at their end.
        let message = format!(
            "failed to connect to localhost:{port} inside namespace \"{}\", IPv4: dial tcp4 127.0.0.1:{port}: {} IPv6 dial tcp6 \
             [::1]:{port}: {} ",
            self.record.id,
            go_words(&first),
            go_words(&error),
        );
        Err(Failure::new(FailureKind::WrongState, message))
    }

    /// Goes on with a connection that is being made.
    pub(super) fn continue_dial(&mut self, number: usize) {
        if number >= self.dials.len() {
            return;
        }
        let dial = self.dials.remove(number);
        let error = match getsockopt(&dial.socket, sockopt::SocketError) {
            Ok(0) => return self.finish(dial.connection, &Reply::Connected, vec![dial.socket]),
            Ok(error) => io::Error::from_raw_os_error(error),
            Err(error) => error.into(),
        };
        let result = self.dial_failed(dial.connection, dial.port, dial.over_version_4, error);
        if let Err(failure) = result {
            self.finish(dial.connection, &failure.into(), Vec::new());
        }
    }

    pub(super) fn expire_dials(&mut self) {
        let now = super::instant();
        let (late, waiting) = std::mem::take(&mut self.dials).into_iter().partition(|dial| dial.until <= now);
        self.dials = waiting;
        let late: Vec<Dial> = late;
        for dial in late {
            let late = rustix::io::Errno::TIMEDOUT.into();
            if let Err(failure) = self.dial_failed(dial.connection, dial.port, dial.over_version_4, late) {
                self.finish(dial.connection, &failure.into(), Vec::new());
            }
        }
    }
}

/// An error of the system as Go prints it.
fn go_words(error: &io::Error) -> String {
    let text = error.to_string().to_lowercase();
    format!("connect: {}", text.split(" (os error").next().unwrap_or_default())
}
