//! The last step of a container's process: finding the program and becoming it.

use std::{
    env,
    ffi::CString,
    os::{fd::RawFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
};

use libcontainer::{
    oci_spec::runtime::Spec,
    workload::{Executor, ExecutorError, ExecutorValidationError},
};
use nix::{
    errno::Errno,
    sys::{prctl, signal::Signal},
    unistd::execv,
};

use super::seccomp::Filters;

/// Executes the program, or says why not in the words of runc, which people know.
#[derive(Clone)]
pub(super) struct Launcher {
    /// Where to say it. The descriptor closes when the program is executed, and that means success.
    pub(super) report: RawFd,
    /// What the program may call; installed last of all.
    pub(super) filters: Filters,
}

impl Executor for Launcher {
    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        let (program, path) = program(spec);
        find(&program, &path).map(drop).map_err(|message| {
            self.tell(&message);
            ExecutorValidationError::ArgValidationError(message)
        })
    }

    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let (name, path) = program(spec);
        let message = match find(&name, &path) {
            Ok(program) => {
                // Should the helper be killed, its containers end with it. Set last: changes of user undo it.
                let _ = prctl::set_pdeathsig(Signal::SIGKILL);
                match self.filters.install() {
                    Ok(()) => format!("exec {}: {}", program.display(), describe(become_program(&program, spec))),
                    Err(error) => format!("seccomp: {}", describe_io(&error)),
                }
            }
            Err(message) => message,
        };
        self.tell(&message);
        Err(ExecutorError::Other(message))
    }
}

impl Launcher {
    fn tell(&self, message: &str) {
        let _ = nix::unistd::write(crate::sys::borrow(self.report), message.as_bytes());
    }
}

fn program(spec: &Spec) -> (String, String) {
    let process = spec.process().as_ref();
    let program = process.and_then(|process| process.args().as_ref()?.first().cloned()).unwrap_or_default();
    let path = process
        .and_then(|process| process.env().as_ref()?.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")))
        .unwrap_or_default()
        .to_owned();
    (program, path)
}

/// Does not return if it succeeds.
fn become_program(program: &Path, spec: &Spec) -> Errno {
    let arguments: Option<Vec<CString>> = spec
        .process()
        .as_ref()
        .and_then(|process| process.args().as_ref())
        .and_then(|arguments| arguments.iter().map(|argument| CString::new(argument.as_bytes()).ok()).collect());
    let path = CString::new(program.as_os_str().as_encoded_bytes());
    match (path, arguments) {
        (Ok(path), Some(arguments)) => match execv(&path, &arguments) {
            Err(error) => error,
            Ok(never) => match never {},
        },
        _ => Errno::EINVAL,
    }
}

/// Finds a program as a shell would.
fn find(name: &str, path: &str) -> Result<PathBuf, String> {
    if name.is_empty() {
        return Err("exec: \"\": executable file not found in $PATH".to_owned());
    }
    if name.contains('/') {
        let program = match Path::new(name) {
            absolute if absolute.is_absolute() => absolute.to_owned(),
            relative => env::current_dir().unwrap_or_default().join(relative),
        };
        return match program.metadata() {
            Err(error) => Err(format!("exec: {name:?}: stat {name}: {}", describe_io(&error))),
            Ok(metadata) if metadata.is_dir() => Err(format!("exec: {name:?}: is a directory")),
            Ok(metadata) if metadata.permissions().mode() & 0o111 == 0 => {
                Err(format!("exec: {name:?}: permission denied"))
            }
            Ok(_) => Ok(program),
        };
    }
    path.split(':')
        .map(|directory| Path::new(if directory.is_empty() { "." } else { directory }).join(name))
        .find(|program| {
            program.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
        })
        .ok_or_else(|| format!("exec: {name:?}: executable file not found in $PATH"))
}

fn describe_io(error: &std::io::Error) -> String {
    error.raw_os_error().map_or_else(|| error.to_string(), |number| describe(Errno::from_raw(number)))
}

fn describe(error: Errno) -> String {
    error.desc().to_lowercase()
}
