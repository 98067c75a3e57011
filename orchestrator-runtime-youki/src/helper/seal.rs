//! Runs the helper from a read-only view of its own file.
//!
//! A container that gets hold of `/proc/<helper>/exe` reaches past its root file system to the program on the machine
//! (the attack of CVE-2019-5736). Through a read-only mount, not even root can write to what it finds there.

use std::{
    ffi::{CString, OsStr},
    io,
    os::fd::AsRawFd,
};

use nix::unistd::execve;
use rustix::{
    fs::CWD,
    mount::{OpenTreeFlags, open_tree},
};

use super::MARKER;
use crate::sys;

/// The second argument of a helper that is sealed.
const SEALED: &str = "sealed";

/// Executes this program once more, sealed; returns in the second run.
pub(super) fn seal() -> io::Result<()> {
    if std::env::args_os().nth(1).as_deref() == Some(OsStr::new(SEALED)) {
        return Ok(());
    }
    let program = open_tree(CWD, "/proc/self/exe", OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
    sys::make_mount_read_only(&program)?;
    let words = [MARKER, SEALED].map(|word| CString::new(word).unwrap_or_default());
    let path = CString::new(format!("/proc/self/fd/{}", program.as_raw_fd()))?;
    match execve::<_, CString>(&path, &words, &[]) {
        Err(error) => Err(error.into()),
        Ok(never) => match never {},
    }
}
