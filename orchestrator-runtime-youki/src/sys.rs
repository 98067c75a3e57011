//! The few calls into the system that have no safe wrapper, each with the reason why it is sound.
#![expect(unsafe_code, reason = "fork, exit without cleanup, raw signals and filters have no safe wrapper")]

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

use nix::{
    libc,
    unistd::{ForkResult, Pid},
};
use tokio::io::{Interest, unix::AsyncFd};

/// Splits this process in two. Refused in a process with threads.
pub(crate) fn fork() -> io::Result<ForkResult> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("a process with several threads cannot fork"));
    }
    // SAFETY: the process has exactly one thread (checked above, and nothing between the check and the call starts
    // one), so the copy holds no lock of a thread that is missing in it.
    Ok(unsafe { nix::unistd::fork() }?)
}

/// Ends this process at once, without running destructors or exit handlers.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` takes any number, touches no memory of the program and does not return.
    unsafe { libc::_exit(code) }
}

/// Closes every file descriptor from 3 on, except those to keep. For forked copies only, see below.
pub(crate) fn close_others(keep: &[RawFd]) -> io::Result<()> {
    let mut keep: Vec<RawFd> = keep.to_vec();
    keep.sort_unstable();
    let mut first: libc::c_uint = 3;
    for fd in keep.into_iter().filter(|fd| *fd >= 3) {
        let fd = fd as libc::c_uint;
        if fd > first {
            close_range(first, fd - 1)?;
        }
        first = first.max(fd + 1);
    }
    close_range(first, libc::c_uint::MAX)
}

fn close_range(first: libc::c_uint, last: libc::c_uint) -> io::Result<()> {
    // SAFETY: the call takes three numbers. It runs only in forked copies of the helper, which end with `exit_now`:
    // no owner of one of the closed descriptors is used or dropped after it.
    match unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Adds a filter of system calls to this process, which keeps it for ever. It takes `CAP_SYS_ADMIN`, or to have renounced new
/// privileges.
pub(crate) fn install_filter(program: &[seccompiler::sock_filter]) -> io::Result<()> {
    let length = libc::c_ushort::try_from(program.len()).map_err(|_| io::Error::other("the filter is too long"))?;
    // The same fields in the same order, as the kernel has them.
    let mut instructions: Vec<libc::sock_filter> =
        program.iter().map(|one| libc::sock_filter { code: one.code, jt: one.jt, jf: one.jf, k: one.k }).collect();
    let program = libc::sock_fprog { len: length, filter: instructions.as_mut_ptr() };
    // SAFETY: the kernel copies the program, whose length is that of the vector, which lives until after the call. It changes
    // nothing in this process's memory.
    match unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Gives every signal its default action. What a process ignores stays ignored in the programs that it executes: Rust
/// programs start with SIGPIPE ignored, and whoever started the agent may have ignored others.
pub(crate) fn restore_signal_actions() {
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: sets the default action; no handler function is involved. Signals that have none are refused.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// Sends a signal by its number, real-time signals included.
pub(crate) fn kill(pid: Pid, signal: i32) -> io::Result<()> {
    // SAFETY: takes two numbers and touches no memory.
    match unsafe { libc::kill(pid.as_raw(), signal) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A descriptor by its number, for writing the last words of a process that is about to become another program.
pub(crate) fn borrow<'a>(descriptor: RawFd) -> BorrowedFd<'a> {
    // SAFETY: the only user is the launcher in a container's first process, where the number was opened by the worker
    // before the fork and nothing closes it before the program is executed. It is only written to.
    unsafe { BorrowedFd::borrow_raw(descriptor) }
}

/// Makes a mount that is known only by its descriptor read-only.
pub(crate) fn make_mount_read_only(mount: &OwnedFd) -> io::Result<()> {
    set_mount_attributes(mount, libc::MOUNT_ATTR_RDONLY, None)
}

/// Lets files of mounts that are known only by their descriptor, and attached nowhere yet, belong to those users whom the
/// namespace makes of their owners.
pub(crate) fn map_mount(mount: &OwnedFd, users: BorrowedFd<'_>) -> io::Result<()> {
    set_mount_attributes(mount, libc::MOUNT_ATTR_IDMAP, Some(users))
}

fn set_mount_attributes(mount: &OwnedFd, attributes: u64, users: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let userns_fd = users.map_or(0, |users| users.as_raw_fd().unsigned_abs().into());
    let attributes = libc::mount_attr { attr_set: attributes, attr_clr: 0, propagation: 0, userns_fd };
    // SAFETY: the path is an empty C string, and the structure is valid for the whole call and of the size given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Lets tokio tell when a descriptor is ready.
pub(crate) fn watch(descriptor: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` keeps its descriptor open and always the same for as long as it lives, and the `AsyncFd`
    // owns it.
    Ok(unsafe { AsyncFd::register_with_interest(descriptor, interest) }?)
}
