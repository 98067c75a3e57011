//! The helper's one loop: connections, children, workers, output and deadlines, each in its turn.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    rc::Rc,
    time::Instant,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use orchestrator_core::runtime::ContainerId;

use super::{
    boot::Made,
    connection::Connection,
    container::{ConnectionId, Container},
    exec::Exec,
    users::Users,
    worker::Worker,
};
use crate::{
    cgroups::Cgroups, layout::SandboxDirectory, limits::HELPER_CONNECTIONS, protocol::Reply, records::SandboxRecord,
};

/// A pod's helper at work.
pub(super) struct Server {
    pub(super) record: SandboxRecord,
    pub(super) directory: SandboxDirectory,
    pub(super) cgroups: Cgroups,
    pub(super) shared_memory: Option<File>,
    /// Shared with the workers that are forked.
    pub(super) users: Option<Rc<Users>>,
    pub(super) pause: Option<Pid>,
    listener: UnixListener,
    signals: SignalFd,
    pub(super) connections: BTreeMap<ConnectionId, Connection>,
    next_connection: ConnectionId,
    pub(super) containers: BTreeMap<ContainerId, Container>,
    pub(super) workers: BTreeMap<i32, (Worker, Job)>,
    /// Children that ended before their worker said what they are.
    pub(super) unclaimed: BTreeMap<i32, WaitStatus>,
    pub(super) dials: Vec<Dial>,
    /// No new containers: the sandbox was stopped.
    pub(super) stopped: bool,
    pub(super) stop_waiters: Vec<ConnectionId>,
    pub(super) remove_waiters: Vec<ConnectionId>,
    pub(super) leaving: bool,
}

/// What a worker does.
pub(super) enum Job {
    Start(ContainerId),
    Exec(Exec),
    Remove(ContainerId),
}

/// A connection into the pod that is being made.
pub(super) struct Dial {
    pub(super) connection: ConnectionId,
    pub(super) port: u16,
    pub(super) socket: OwnedFd,
    pub(super) until: Instant,
    /// How it went over IPv4, when it is tried over IPv6.
    pub(super) over_version_4: Option<io::Error>,
}

/// What a polled descriptor belongs to.
enum Token {
    Listener,
    Signals,
    Connection(ConnectionId),
    Worker(i32),
    Source(ContainerId, usize),
    Listeners(ContainerId),
    Dial(usize),
}

impl Server {
    pub(super) fn new(record: SandboxRecord, directory: SandboxDirectory, made: Made) -> io::Result<Self> {
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGCHLD);
        mask.thread_block()?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Self {
            record,
            directory,
            cgroups: made.cgroups,
            shared_memory: made.shared_memory,
            users: made.users.map(Rc::new),
            pause: made.pause,
            listener: made.listener,
            signals,
            connections: BTreeMap::new(),
            next_connection: 0,
            containers: BTreeMap::new(),
            workers: BTreeMap::new(),
            unclaimed: BTreeMap::new(),
            dials: Vec::new(),
            stopped: false,
            stop_waiters: Vec::new(),
            remove_waiters: Vec::new(),
            leaving: false,
        })
    }

    /// Works until the sandbox is removed.
    pub(super) fn run(mut self) -> io::Result<()> {
        loop {
            self.advance();
            if self.leaving && self.connections.values().all(|connection| !connection.wants_to_write()) {
                return Ok(());
            }
            for token in self.wait()? {
                self.handle(token);
            }
        }
    }

    /// Waits until something is to be done.
    fn wait(&self) -> io::Result<Vec<Token>> {
        let mut tokens = Vec::new();
        let mut polled = Vec::new();
        let mut add = |token: Token, descriptor, flags| {
            tokens.push(token);
            polled.push(PollFd::new(descriptor, flags));
        };
        add(Token::Signals, self.signals.as_fd(), PollFlags::POLLIN);
        if self.connections.len() < HELPER_CONNECTIONS {
            add(Token::Listener, self.listener.as_fd(), PollFlags::POLLIN);
        }
        for (id, connection) in &self.connections {
            let write = if connection.wants_to_write() { PollFlags::POLLOUT } else { PollFlags::empty() };
            add(Token::Connection(*id), connection.as_fd(), PollFlags::POLLIN | write);
        }
        for (pid, (worker, _)) in &self.workers {
            add(Token::Worker(*pid), worker.as_fd(), PollFlags::POLLIN);
        }
        for (id, container) in &self.containers {
            let Some(output) = &container.output else { continue };
            let mut sources: Vec<(usize, BorrowedFd<'_>)> = output.sources().collect();
            sources.reverse();
            for (number, source) in sources {
                add(Token::Source(id.clone(), number), source, PollFlags::POLLIN);
            }
            for listener in output.waiting_listeners() {
                add(Token::Listeners(id.clone()), listener, PollFlags::POLLOUT);
            }
        }
        for (number, dial) in self.dials.iter().enumerate().rev() {
            add(Token::Dial(number), dial.socket.as_fd(), PollFlags::POLLOUT);
        }
        let timeout = match self.next_deadline() {
            None => PollTimeout::NONE,
            // Rounded up, so that the deadline has passed when the wait is over.
            Some(deadline) => {
                let left = deadline.saturating_duration_since(super::instant()).as_millis() + 1;
                PollTimeout::try_from(i32::try_from(left).unwrap_or(i32::MAX)).unwrap_or(PollTimeout::MAX)
            }
        };
        match poll(&mut polled, timeout) {
            Err(Errno::EINTR) => return Ok(Vec::new()),
            other => other?,
        };
        let ready: Vec<bool> =
            polled.iter().map(|polled| polled.revents().is_none_or(|events| !events.is_empty())).collect();
        Ok(tokens.into_iter().zip(ready).filter_map(|(token, ready)| ready.then_some(token)).collect())
    }

    fn handle(&mut self, token: Token) {
        match token {
            Token::Listener => self.accept(),
            Token::Signals => self.reap(),
            Token::Connection(id) => self.serve(id),
            Token::Worker(pid) => self.hear_worker(pid),
            Token::Source(id, number) => {
                if let Some(output) = self.containers.get_mut(&id).and_then(|container| container.output.as_mut()) {
                    output.pump(number);
                }
            }
            Token::Listeners(id) => {
                if let Some(output) = self.containers.get_mut(&id).and_then(|container| container.output.as_mut()) {
                    output.feed();
                }
            }
            Token::Dial(number) => self.continue_dial(number),
        }
    }

    fn accept(&mut self) {
        while self.connections.len() < HELPER_CONNECTIONS {
            let Ok((stream, _)) = self.listener.accept() else { return };
            self.adopt(stream);
        }
    }

    fn adopt(&mut self, stream: UnixStream) {
        if let Ok(connection) = Connection::new(stream) {
            self.connections.insert(self.next_connection, connection);
            self.next_connection += 1;
        }
    }

    /// Reads from and writes to a connection.
    fn serve(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let request = connection.flush().and_then(|()| connection.read());
        let over = connection.is_over();
        match request {
            Ok(Some(request)) => self.request(id, request),
            Ok(None) if over => self.hang_up(id),
            Ok(None) => {}
            Err(_) => self.hang_up(id),
        }
    }

    /// Forgets a connection, and ends what was done only for it.
    pub(super) fn hang_up(&mut self, id: ConnectionId) {
        self.connections.remove(&id);
        self.dials.retain(|dial| dial.connection != id);
        for (_, job) in self.workers.values_mut() {
            if let Job::Exec(exec) = job {
                exec.hang_up(id);
            }
        }
    }

    /// Answers a connection for the last time.
    pub(super) fn finish(&mut self, id: ConnectionId, reply: &Reply, descriptors: Vec<OwnedFd>) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.finish(reply, descriptors).is_err() || connection.is_over() {
            self.hang_up(id);
        }
    }

    /// Answers a connection, with more to come.
    pub(super) fn reply(&mut self, id: ConnectionId, reply: &Reply, descriptors: Vec<OwnedFd>) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.reply(reply, descriptors).is_err() {
            self.hang_up(id);
        }
    }

    /// Answers all of these for the last time.
    pub(super) fn finish_all(&mut self, ids: Vec<ConnectionId>, reply: &Reply) {
        for id in ids {
            self.finish(id, reply, Vec::new());
        }
    }

    /// Tells all who want to hear that something changed. Who does not listen loses the connection, and lists again.
    pub(super) fn announce(&mut self, container: Option<&ContainerId>) {
        let reply = Reply::Changed { container: container.cloned() };
        let subscribers: Vec<ConnectionId> =
            self.connections.iter().filter(|(_, connection)| connection.subscribed).map(|(id, _)| *id).collect();
        for id in subscribers {
            self.reply(id, &reply, Vec::new());
        }
    }

    /// Takes note of all children that have ended.
    fn reap(&mut self) {
        while let Ok(Some(_)) = self.signals.read_signal() {}
        loop {
            match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return,
                Ok(status) => {
                    if let Some(pid) = status.pid() {
                        self.child_ended(pid, status);
                    }
                }
                Err(_) => {}
            }
        }
    }
}
