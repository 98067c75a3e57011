//! Bugs planted into the memory store, one at a time: the contract catches every one of them.
//!
//! `docs/store-mutants.md` has which case catches which; it is made by this test with `-- --ignored`, and held against
//! it without.

mod catalogue;
mod mutant;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use orchestrator_core::{env::Simulation, store::Store};
use orchestrator_store_mem::MemStore;
use orchestrator_testkit::store::{CASES, Case};

use catalogue::{BUGS, Bug};
use mutant::Mutant;

const SEED: u64 = 7;
const BUGS_MIN: usize = 30;

/// Whether a case holds on a store with a bug.
fn holds(bug: Option<&'static Bug>, case: Case) -> bool {
    let run = || {
        let simulation = Simulation::new(SEED);
        let env = simulation.env();
        let store: Arc<dyn Store> = Arc::new(Mutant::new(MemStore::new(&env), bug));
        simulation.run(case(&store, &env)).is_ok()
    };
    catch_unwind(AssertUnwindSafe(run)).unwrap_or(false)
}

fn caught_by(bug: Option<&'static Bug>) -> Vec<&'static str> {
    CASES.iter().filter(|(_, case)| !holds(bug, *case)).map(|(name, _)| *name).collect()
}

/// What catches each bug, in their order. A panic is what is expected here, and not told.
fn catches() -> Vec<Vec<&'static str>> {
    std::panic::set_hook(Box::new(|_| {}));
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        while let Some(bug) = BUGS.get(next.fetch_add(1, Ordering::Relaxed)) {
            done.push((bug.name, caught_by(Some(bug))));
        }
        done
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut done: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    drop(std::panic::take_hook());
    done.sort_by_key(|(name, _)| BUGS.iter().position(|bug| bug.name == *name));
    done.into_iter().map(|(_, cases)| cases).collect()
}

fn table(catches: &[Vec<&'static str>]) -> String {
    let mut text = String::from(
        "# Planted bugs\n\n\
         Each bug is planted into the memory store, alone, and the contract of a store is run against it in virtual time.\n\
         This table is made by `cargo test -p orchestrator-store-mem --test mutants -- --ignored`.\n\n\
         | the store … | caught by |\n|---|---|\n",
    );
    for (bug, cases) in BUGS.iter().zip(catches) {
        let cases: Vec<_> = cases.iter().map(|case| format!("`{case}`")).collect();
        text.push_str(&format!("| {} | {} |\n", bug.name, cases.join(", ")));
    }
    text
}

fn document() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/store-mutants.md")
}

#[test]
fn every_bug_is_caught() {
    assert!(BUGS.len() >= BUGS_MIN);
    assert_eq!(caught_by(None), [""; 0], "without a bug nothing is caught");
    let catches = catches();
    let missed: Vec<_> =
        BUGS.iter().zip(&catches).filter(|(_, cases)| cases.is_empty()).map(|(bug, _)| bug.name).collect();
    assert_eq!(missed, [""; 0]);
    let written = std::fs::read_to_string(document()).unwrap();
    assert_eq!(written, table(&catches), "docs/store-mutants.md is not what was found");
}

#[test]
#[ignore = "it writes docs/store-mutants.md"]
fn write_the_table() {
    std::fs::write(document(), table(&catches())).unwrap();
}
