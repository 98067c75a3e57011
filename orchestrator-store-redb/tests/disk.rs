//! Disks that are full or cannot be written to.

use orchestrator_store_disk::suites::disk;
use orchestrator_store_redb::RedbEngine;

fn main() {
    disk::main::<RedbEngine>(true)
}
