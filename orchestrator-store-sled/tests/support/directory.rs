//! Directories that go away after a test.

use std::path::Path;

use tempfile::TempDir;

/// In memory where that can be had: how fast a disk is has no part in what a store does.
pub(crate) fn directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() }.unwrap()
}
