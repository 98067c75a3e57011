//! Disks that are full or cannot be written to.

use orchestrator_store_disk::suites::disk;
use orchestrator_store_sled::SledEngine;

fn main() {
    // sled also writes when it reads, and after an error it may refuse to.
    disk::main::<SledEngine>(false)
}
