//! Which engine the tests of this program are about.

use std::{
    path::{Path, PathBuf},
    sync::OnceLock,
};

static SUBJECT: OnceLock<Subject> = OnceLock::new();

/// An engine under test.
#[derive(Debug)]
pub(crate) struct Subject {
    /// Where it listens.
    pub(crate) socket: PathBuf,
    is_podman: bool,
}

/// Says what this program is about, before its first test.
pub(crate) fn choose(socket: &Path, is_podman: bool) {
    SUBJECT.set(Subject { socket: socket.to_owned(), is_podman }).expect("there is one for each program");
}

/// What this program is about.
pub(crate) fn subject() -> &'static Subject {
    SUBJECT.get().expect("it is chosen before the first test")
}

/// Whether it is Podman, and not Docker.
pub(crate) fn is_podman() -> bool {
    subject().is_podman
}
