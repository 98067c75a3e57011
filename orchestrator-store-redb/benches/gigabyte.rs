//! A store of a gigabyte: how long it takes to open it after it was closed and after it was killed, and how much memory that takes.
//!
//! The directory is the one for temporary files; `TMPDIR` names another disk.
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a benchmark measures real time and is read by people"
)]

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use bytes::Bytes;
use orchestrator_core::{
    env::Env,
    store::{Batch, Key, KeyRange, ListOptions, Operation, Store},
};
use orchestrator_store_disk::{DiskStore, Engine, Limits};
use orchestrator_store_redb::RedbEngine;
use orchestrator_store_sled::SledEngine;
use tempfile::TempDir;

/// Size of a value, in bytes.
const VALUE_BYTES: usize = 2000;
const KEYS: usize = 500_000;

fn main() {
    measure::<RedbEngine>("redb");
    measure::<SledEngine>("sled");
}

fn measure<E: Engine>(name: &str) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let (directory, killed) = (TempDir::new().expect("a directory"), TempDir::new().expect("a directory"));
    forget_peak();
    let began = Instant::now();
    runtime.block_on(async {
        let store = open::<E>(directory.path()).await.1;
        let keys: Vec<usize> = (0..KEYS).collect();
        for some in keys.chunks(500) {
            let put = |key: &usize| Operation::Put {
                key: Key::new(format!("/registry/{key}")),
                value: Bytes::from(vec![*key as u8; VALUE_BYTES]),
                time_to_live: None,
            };
            let batch = Batch { preconditions: Vec::new(), operations: some.iter().map(put).collect() };
            store.commit(batch).await.expect("written");
        }
        let size = store.status().await.expect("a status").size_bytes >> 20;
        println!("{name}: filled in {:?}, {size} MiB on disk, {}", began.elapsed(), peak());
        // As a process leaves it that is killed now.
        copy(directory.path(), killed.path());
        store.close().await;
    });
    Command::new("sync").status().expect("flushed");
    for (what, path) in [("killed", killed.path()), ("closed", directory.path()), ("closed again", directory.path())] {
        forget_peak();
        runtime.block_on(async {
            let (took, store) = open::<E>(path).await;
            println!("{name}: opened after it was {what} in {took:?}, {}", peak());
            let options = ListOptions { limit: Some(500), ..ListOptions::default() };
            let began = Instant::now();
            store.list(&KeyRange::prefix("/registry/"), options).await.expect("listed");
            println!("{name}: a page of 500 in {:?}, {}", began.elapsed(), peak());
            store.close().await;
        });
    }
}

async fn open<E: Engine>(path: &Path) -> (Duration, DiskStore<E>) {
    let began = Instant::now();
    let store = DiskStore::open(&Env::real(), path, Limits::default()).await.expect("opened");
    (began.elapsed(), store)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for file in fs::read_dir(from).expect("listed") {
        let file = file.expect("listed");
        let target = to.join(file.file_name());
        match file.file_type().expect("a type").is_dir() {
            true => copy(&file.path(), &target),
            // sled removes files in between.
            false => drop(fs::copy(file.path(), target)),
        }
    }
}

fn forget_peak() {
    fs::write("/proc/self/clear_refs", "5").expect("forgotten");
}

/// The most memory that this process had since that was forgotten.
fn peak() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    format!("at most {} of memory", kilobytes.trim())
}
