//! The suites that every engine has to pass: what a disk, a crash and a second process do to a store, and what must hold then.
//!
//! A crate with an engine runs them from tests of its own, for they want programs of their own: [`engine`] and, as root,
//! [`disk`] and [`kill`] are whole programs for a test without a harness. [`damage`] is for a test that knows what its engine
//! does about it. `store_contract!` of the test kit takes what [`temporary`] makes.

pub mod damage;
mod directory;
pub mod disk;
mod equivalence;
mod flush;
pub mod kill;
mod space;

use std::{path::Path, sync::Arc};

use futures::executor::block_on;
use libtest_mimic::{Arguments, Trial};
use orchestrator_core::{
    env::{Env, Simulation},
    store::Store,
};
use tempfile::TempDir;

use crate::{DiskStore, Engine, Limits};

/// A store that keeps nothing, to compare with, with the history of these limits.
pub type Reference = fn(&Env, &Limits) -> Arc<dyn Store>;

/// The program of a test: directories, flushes, space, and that the store does what another one does. An engine whose files stay
/// large says so.
pub fn engine<E: Engine>(reference: Reference, stays_small: bool) {
    libtest_mimic::run(&Arguments::from_args(), trials::<E>(reference, stays_small)).exit()
}

/// What [`engine`] runs.
pub fn trials<E: Engine>(reference: Reference, stays_small: bool) -> Vec<Trial> {
    let mut trials = directory::trials::<E>();
    trials.extend(flush::trials::<E>());
    trials.push(Trial::test("memory_and_disk_agree", move || equivalence::agrees::<E>(reference)));
    if stays_small {
        trials.push(Trial::test("a_store_that_churns_ends_within_twice_its_live_data", space::churn::<E>));
        trials.push(Trial::test("space_of_what_was_removed_goes_back_to_the_disk", space::removed::<E>));
    }
    trials
}

/// An empty store in a directory of its own, which goes away with the second of the two.
pub fn temporary<E: Engine>(env: &Env, limits: Limits) -> (DiskStore<E>, TempDir) {
    let directory = memory();
    (block_on(DiskStore::open(env, directory.path(), limits)).unwrap(), directory)
}

/// A test of a case that panics when it fails.
fn trial(name: &str, case: fn()) -> Trial {
    Trial::test(name, move || {
        case();
        Ok(())
    })
}

/// A directory in memory where that can be had: how fast a disk is has no part in what a store does.
fn memory() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() }.unwrap()
}

/// Runs a case in virtual time with a directory.
fn simulated<F: Future<Output = ()>>(case: impl FnOnce(Env, std::path::PathBuf) -> F) {
    let (simulation, directory) = (Simulation::new(1), memory());
    simulation.run(case(simulation.env(), directory.path().to_owned())).unwrap();
}

/// Runs a case on threads, with a directory.
fn on_threads<F: Future<Output = ()>>(case: impl FnOnce(Env, TempDir) -> F) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async { case(Env::real(), TempDir::new().unwrap()).await });
}
