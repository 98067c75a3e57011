//! The pod's helper process: everything in here runs in a program that was executed for it, on one thread.

mod boot;
mod capabilities;
mod connection;
mod container;
mod devices;
mod diagnosis;
mod exec;
mod executor;
mod exposure;
mod identity;
mod lifecycle;
mod log_writer;
mod mounts;
mod netlink;
mod network;
mod output;
mod pause;
mod pod_files;
mod requests;
mod seal;
mod seccomp;
mod server;
mod shared_memory;
mod specification;
mod start;
mod sweep;
mod users;
mod worker;

use std::{
    ffi::OsStr,
    io::{self, Write},
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
};

pub(crate) use capabilities::{have as have_capability, is_known as is_known_capability, wants_devices};
pub(crate) use seccomp::Profile;
pub(crate) use specification::command;
pub(crate) use users::missing as missing_for_users;

use crate::protocol::{Errand, Outcome};
pub(crate) use boot::pod_cgroup;

/// What the helper's first argument is, and by which it is recognized.
pub(crate) const MARKER: &str = "orchestrator-pod-helper";

/// Whether [`init`] was called: a fact about the program's `main`. A program that does not call it would, executed as
/// a helper, run its own `main` once more, and start helpers again.
static INITIALIZED: AtomicBool = AtomicBool::new(false);

/// Whether the running program can be executed as a helper.
pub(crate) fn is_initialized() -> bool {
    INITIALIZED.load(Ordering::Relaxed)
}

/// To be called first in `main` of a program that uses [`crate::Helper::CurrentExe`].
///
/// Without it, no sandbox is made. It returns at once, unless this process was started as a pod's helper; then it never returns. Nothing that starts
/// a thread may come before it.
pub fn init() {
    INITIALIZED.store(true, Ordering::Relaxed);
    if std::env::args_os().next().as_deref() == Some(OsStr::new(MARKER)) {
        // Only the exit code is left to tell: the outcome was reported where the agent reads it.
        std::process::exit(match run() {
            Ok(()) => 0,
            Err(_) => 1,
        });
    }
}

/// The `main` of a program that is nothing but the helper, see [`crate::Helper::Program`].
pub fn helper_main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Reads the errand from standard input and does it.
fn run() -> io::Result<()> {
    if let Err(error) = seal::seal() {
        return report(Err(io::Error::new(error.kind(), format!("sealing the helper's program: {error}"))));
    }
    diagnosis::begin();
    let errand: Errand = serde_json::from_reader(io::stdin().lock())?;
    let outcome = match errand {
        Errand::Sandbox(record) => return boot::run(*record),
        Errand::Settle { root, id } => sweep::settle(&root, &id),
        Errand::Sweep { root, id } => sweep::sweep(&root, &id),
        Errand::RemoveNetwork { directory } => network::NetworkDirectory::new(&directory).remove(),
    };
    report(outcome)
}

/// Tells the agent how it went, on standard output.
fn report(outcome: io::Result<()>) -> io::Result<()> {
    let outcome = match outcome {
        Ok(()) => Outcome::Done,
        Err(error) => Outcome::Failed(error.to_string()),
    };
    let mut stdout = io::stdout().lock();
    serde_json::to_writer(&mut stdout, &outcome)?;
    stdout.flush()
}

/// The time of day.
#[expect(clippy::disallowed_methods, reason = "helper processes have the real clock only")]
pub(crate) fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

/// A point in time that never goes back.
#[expect(clippy::disallowed_methods, reason = "helper processes have the real clock only")]
fn instant() -> std::time::Instant {
    std::time::Instant::now()
}
