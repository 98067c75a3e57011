//! 50 nodes and 500 pods: nodes, containers, links, controllers, scheduler and API server fail, seed by seed.
#![expect(clippy::print_stdout, reason = "the progress of a long test, for whoever looks")]

use std::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering},
};

use orchestrator_sim::scenario::{Report, Scenario};

/// A simulated cluster allocates all the time; this allocator takes a fifth off a seed's time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SEEDS: u64 = 200;

#[test]
fn every_seed_converges_and_falls_silent() {
    let scenario = Scenario::large();
    assert_eq!((scenario.nodes, scenario.pods()), (50, 500));
    let image = scenario.boot().unwrap_or_else(|failure| panic!("{failure}"));
    let (next, failures) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= SEEDS {
                        return;
                    }
                    match scenario.run_from(&image, seed) {
                        Ok((_, report)) => println!("seed {seed}: {report:?}"),
                        Err(failure) => {
                            println!("{failure}");
                            failures.lock().unwrap().push(failure.to_string());
                        }
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{} of {SEEDS} seeds failed\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn the_same_seed_has_the_same_history() {
    let scenario = Scenario::large();
    let run = || -> (Report, Vec<String>) {
        // Booted anew each time: the boot has to repeat as well.
        let image = scenario.boot().unwrap_or_else(|failure| panic!("{failure}"));
        let (cluster, report) = scenario.run_from(&image, 7).unwrap_or_else(|failure| panic!("{failure}"));
        (report, cluster.diary())
    };
    assert_eq!(run(), run());
}
