//! The first process of a process namespace that all containers of a pod share: it reaps what nobody waits for.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::AsRawFd,
};

use nix::{
    errno::Errno,
    sched::{CloneFlags, unshare},
    sys::{
        prctl,
        signal::{SigSet, Signal},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{ForkResult, Pid, dup2, pipe2},
};

use super::users::Users;
use crate::{cgroups::Cgroups, sys};

/// Starts the process in a new process namespace and a cgroup of its own. It ends with the helper.
pub(super) fn start(cgroups: &Cgroups, cgroup: &str, users: Option<&Users>) -> io::Result<Pid> {
    let (reader, writer) = pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    let (go_reader, go_writer) = pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    // Only children of a process that unshares are in the new namespace, so it takes one in between.
    match sys::fork()? {
        ForkResult::Child => {
            let born = cgroups
                .make(cgroup, &Default::default())
                .and_then(|()| cgroups.join_controlling(cgroup))
                .and_then(|()| users.map_or(Ok(()), Users::become_root))
                .and_then(|()| Ok(unshare(CloneFlags::CLONE_NEWPID)?))
                .and_then(|()| sys::fork());
            match born {
                Ok(ForkResult::Child) => {
                    drop(writer);
                    drop(go_writer);
                    let _ = File::from(go_reader).read(&mut [0]);
                    live()
                }
                Ok(ForkResult::Parent { child }) => {
                    let _ = File::from(writer).write_all(child.to_string().as_bytes());
                }
                Err(error) => {
                    let _ = File::from(writer).write_all(error.to_string().as_bytes());
                }
            }
            sys::exit_now(0)
        }
        ForkResult::Parent { child } => {
            drop(writer);
            let answer = io::read_to_string(File::from(reader))?;
            // From here on, the new process is this one's child.
            waitpid(child, None)?;
            let pid = answer.parse().map_err(|_| io::Error::other(answer))?;
            File::from(go_writer).write_all(b"g")?;
            Ok(Pid::from_raw(pid))
        }
    }
}

/// Waits for children, for ever.
fn live() -> ! {
    let mut children = SigSet::empty();
    children.add(Signal::SIGCHLD);
    let ready = prctl::set_pdeathsig(Signal::SIGKILL)
        .and_then(|()| children.thread_block())
        .map_err(io::Error::from)
        // The agent waits for the end of what the helper's standard output says.
        .and_then(|()| Ok(dup2(File::options().write(true).open("/dev/null")?.as_raw_fd(), 1)?))
        .and_then(|_| sys::close_others(&[]));
    if ready.is_err() {
        sys::exit_now(1);
    }
    let _ = prctl::set_name(c"pause");
    loop {
        let _ = children.wait();
        loop {
            match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => break,
                _ => {}
            }
        }
    }
}
