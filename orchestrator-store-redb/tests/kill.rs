//! A process that writes is killed again and again, also while it recovers: nothing that it was told is written gets lost.

use orchestrator_store_disk::suites::kill;
use orchestrator_store_redb::RedbEngine;

fn main() {
    kill::main::<RedbEngine>()
}
