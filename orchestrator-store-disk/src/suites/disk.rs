//! Disks that are full or cannot be written to, in a mount namespace of this process: nothing of it is left behind.

use std::{fs, future::Future, path::Path, time::Duration};

use bytes::Bytes;
use libtest_mimic::{Arguments, Failed, Trial};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use orchestrator_core::{
    env::Env,
    store::{Batch, Key, KeyRange, ListOptions, Operation, Revision, Store, StoreError},
};
use tempfile::TempDir;

use crate::{DiskError, DiskStore, Engine, Limits};

/// The program of a test, which has to be root. An engine that cannot read after a write that failed says so.
pub fn main<E: Engine>(reads_after_a_failure: bool) {
    // Before there are threads: a namespace belongs to each of them.
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
    let trials = vec![
        Trial::test("a_disk_that_is_nearly_full_takes_deletions_only", || run(nearly_full::<E>)),
        Trial::test("a_disk_that_is_full_ends_writing", move || {
            run(|env, disk| full::<E>(env, disk, reads_after_a_failure))
        }),
        Trial::test("a_directory_that_is_read_only_is_not_opened", || run(read_only::<E>)),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit()
}

/// Runs a case on a disk of its own.
fn run<F: Future<Output = ()>>(case: impl FnOnce(Env, Disk) -> F) -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async { case(Env::real(), Disk::new()).await });
    Ok(())
}

/// A small disk in memory.
struct Disk(TempDir);

impl Disk {
    fn new() -> Self {
        let disk = Self(TempDir::new().unwrap());
        disk.mount(MsFlags::empty(), "size=16m");
        disk
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn mount(&self, flags: MsFlags, options: &str) {
        mount(Some("disk"), self.path(), Some("tmpfs"), flags, Some(options)).unwrap();
    }

    /// Leaves nothing free.
    fn fill(&self) {
        let error = fs::write(self.path().join("ballast"), vec![1; 16 << 20]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    }

    fn empty(&self) {
        fs::remove_file(self.path().join("ballast")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(self.path(), nix::mount::MntFlags::MNT_DETACH);
    }
}

fn put(number: u64) -> Batch {
    let value = Bytes::from(vec![number as u8; 64 << 10]);
    let operation = Operation::Put { key: Key::new(format!("/{number:04}")), value, time_to_live: None };
    Batch { preconditions: Vec::new(), operations: vec![operation] }
}

/// The error of the store that a call failed with.
fn cause<T: std::fmt::Debug>(result: Result<T, StoreError>) -> DiskError {
    match result {
        Err(StoreError::Unavailable { source, .. }) => source.downcast_ref::<DiskError>().expect("ours").clone(),
        other => panic!("{other:?}"),
    }
}

async fn numbers<E: Engine>(store: &DiskStore<E>) -> Vec<u64> {
    let listing = store.list(&KeyRange::prefix("/"), ListOptions::default()).await.unwrap();
    let number = |text: &str| text[1..].parse().unwrap();
    for entry in &listing.entries {
        let number: u64 = number(entry.key.as_str());
        assert!(entry.value.len() == 64 << 10 && entry.value.iter().all(|byte| *byte == number as u8));
    }
    listing.entries.iter().map(|entry| number(entry.key.as_str())).collect()
}

async fn nearly_full<E: Engine>(env: Env, disk: Disk) {
    let limits = Limits { reserve_bytes: 4 << 20, ..Limits::default() };
    let store = DiskStore::<E>::open(&env, disk.path(), limits).await.unwrap();
    let mut written = 0;
    let told = loop {
        match store.commit(put(written)).await {
            Ok(_) => written += 1,
            Err(error) => break cause::<()>(Err(error)),
        }
    };
    assert!(written > 50, "{written}");
    assert!(
        matches!(told, DiskError::DiskFull { free_bytes, reserve_bytes } if free_bytes < reserve_bytes),
        "{told:?}"
    );
    assert_eq!(numbers(&store).await, (0..written).collect::<Vec<_>>());

    let deleted = store.get(&Key::new("/0000")).await.unwrap().expect("it is there");
    let revision = store.commit(Batch::delete(deleted.key, deleted.modified)).await.unwrap();
    store.compact(revision).await.unwrap();
    assert!(matches!(cause(store.commit(put(0)).await), DiskError::DiskFull { .. }));
    store.close().await;

    let store = DiskStore::<E>::open(&env, disk.path(), limits).await.unwrap();
    assert_eq!(numbers(&store).await, (1..written).collect::<Vec<_>>());
    disk.mount(MsFlags::MS_REMOUNT, "size=64m");
    assert_eq!(store.commit(put(0)).await.unwrap(), Revision(revision.0 + 1), "there is room again");
    store.close().await;
}

async fn full<E: Engine>(env: Env, disk: Disk, reads_after_a_failure: bool) {
    let limits = Limits { reserve_bytes: 0, ..Limits::default() };
    let store = DiskStore::<E>::open(&env, disk.path(), limits).await.unwrap();
    for number in 0..20 {
        store.commit(put(number)).await.unwrap();
    }
    disk.fill();
    // There may still be room in the last page of a file.
    let mut written = 20;
    let told = loop {
        match store.commit(put(written)).await {
            Ok(_) => written += 1,
            Err(error) => break cause::<()>(Err(error)),
        }
    };
    assert!(written < 60, "{written}");
    assert!(
        matches!(&told, DiskError::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull),
        "{told:?}"
    );
    if reads_after_a_failure {
        assert_eq!(numbers(&store).await, (0..written).collect::<Vec<_>>(), "what was acknowledged can be read");
    } else if let Err(refused) = store.get(&Key::new("/0000")).await {
        cause::<()>(Err(refused));
    }
    disk.empty();
    let later = cause(store.commit(put(written)).await);
    assert!(matches!(later, DiskError::Ended(_)), "room alone does not make it write again: {later:?}");
    let closed = env.timeout(Duration::from_secs(60), store.close()).await;
    assert!(closed.is_ok(), "it can be closed");

    let store = DiskStore::<E>::open(&env, disk.path(), limits).await.unwrap();
    let found = numbers(&store).await;
    // The one that failed may be there, or not.
    assert!(found.starts_with(&(0..written).collect::<Vec<_>>()) && found.len() as u64 <= written + 1, "{found:?}");
    store.commit(put(written + 1)).await.unwrap();
    store.close().await;
}

async fn read_only<E: Engine>(env: Env, disk: Disk) {
    let store = DiskStore::<E>::open(&env, disk.path(), Limits::default()).await.unwrap();
    store.close().await;
    disk.mount(MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, "");
    for path in [disk.path().to_owned(), disk.path().join("other")] {
        let told = DiskStore::<E>::open(&env, path, Limits::default()).await.unwrap_err();
        let is_read_only = |error: &std::io::Error| error.kind() == std::io::ErrorKind::ReadOnlyFilesystem;
        assert!(matches!(&told, DiskError::Io { source, .. } if is_read_only(source)), "{told:?}");
    }
}
