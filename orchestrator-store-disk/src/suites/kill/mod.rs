//! A process that writes is killed again and again, also while it recovers: nothing that it was told is written gets lost.

mod child;
mod verify;

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use libtest_mimic::{Arguments, Failed, Trial};
use orchestrator_core::env::Env;
use tempfile::TempDir;

use crate::{DiskError, DiskStore, Engine, Limits};
use verify::Acknowledged;

/// A short history, so that much is forgotten.
const LIMITS: Limits = Limits {
    history_commits: 200,
    history_bytes: 1 << 20,
    value_bytes: 1 << 20,
    key_bytes: 256,
    batch_operations: 100,
    batch_bytes: 1 << 21,
    bookmark_interval: Duration::from_secs(60),
    cache_bytes: 4 << 20,
    reserve_bytes: 1 << 20,
};

/// The program of a test, and of the processes that it kills.
pub fn main<E: Engine>() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, role, directory] = arguments.as_slice()
        && role == child::ROLE
    {
        return child::write::<E>(Path::new(directory));
    }
    let trials = vec![
        Trial::test("two_processes_do_not_share_a_directory", two_processes::<E>),
        Trial::test("fifty_kills_lose_nothing", || kills::<E>(50)),
        Trial::test("a_thousand_kills_lose_nothing", || kills::<E>(1000)).with_ignored_flag(true),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit()
}

/// Kills a writer this often and looks at what it leaves.
fn kills<E: Engine>(count: u32) -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let _entered = runtime.enter();
    let env = Env::real();
    let directory = TempDir::new()?;
    let mut acknowledged = Acknowledged::default();
    for round in 0..count {
        // Every third time it is killed while it starts, and looked at by nobody before the next one starts.
        let starting = round % 3 == 2;
        let delay = Duration::from_micros(env.random_below(if starting { 40_000 } else { 150_000 }));
        kill_one(directory.path(), starting, delay, &mut acknowledged)?;
        if !starting {
            runtime.block_on(verify::verify::<E>(&env, directory.path(), &mut acknowledged));
        }
    }
    runtime.block_on(verify::verify::<E>(&env, directory.path(), &mut acknowledged));
    assert!(acknowledged.commits() > u64::from(count), "it wrote: {acknowledged:?}");
    Ok(())
}

/// Starts a process that writes.
fn writer(path: &Path) -> std::io::Result<Child> {
    Command::new(std::env::current_exe()?).args([Path::new(child::ROLE), path]).stdout(Stdio::piped()).spawn()
}

/// Starts a writer and kills it after this time, counted from its start or from its first word.
#[expect(clippy::disallowed_methods, reason = "another process is to be met at any point of its work, in real time")]
fn kill_one(path: &Path, starting: bool, delay: Duration, acknowledged: &mut Acknowledged) -> Result<(), Failed> {
    let mut child = writer(path)?;
    let output = child.stdout.take().ok_or("no output")?;
    let mut lines = BufReader::new(output).lines();
    let mut told = Vec::new();
    if !starting {
        told.extend(lines.next().transpose()?);
    }
    std::thread::sleep(delay);
    child.kill()?;
    let status = child.wait()?;
    for line in lines {
        told.push(line?);
    }
    if status.code().is_some() {
        return Err(format!("the writer ended by itself: {status}, {told:?}").into());
    }
    told.iter().for_each(|line| acknowledged.note(line));
    Ok(())
}

/// While another process has the directory it cannot be opened; when that is gone, it can.
fn two_processes<E: Engine>() -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let directory = TempDir::new()?;
    let mut child = writer(directory.path())?;
    let mut first = String::new();
    BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut first)?;
    assert_eq!(first.trim(), "opened");
    let opened = runtime.block_on(async { DiskStore::<E>::open(&Env::real(), directory.path(), LIMITS).await });
    child.kill()?;
    child.wait()?;
    assert!(matches!(opened, Err(DiskError::InUse { .. })), "{opened:?}");
    runtime.block_on(async { DiskStore::<E>::open(&Env::real(), directory.path(), LIMITS).await.map(drop) })?;
    Ok(())
}
