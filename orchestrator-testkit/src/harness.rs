//! Runs the cases of a contract, in virtual time or in real time.

use std::{future::Future, pin::Pin};

use orchestrator_core::env::Simulation;

pub use orchestrator_core::env::Env;

/// How a case ended that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The promise was kept.
    Held,
    /// The implementation declares that it does not make this promise.
    Skipped(&'static str),
}

/// What a case runs as.
pub type CaseFuture<'a> = Pin<Box<dyn Future<Output = Outcome> + 'a>>;

/// Runs a case in virtual time, once for each of a few seeds: the order of tasks differs, the outcome may not. Gives the
/// outcome.
///
/// # Panics
/// When the case does, or when all of its tasks wait for each other for ever.
pub fn simulated<S>(
    name: &str,
    make: impl AsyncFn(&Env) -> S,
    case: impl for<'a> Fn(&'a S, &'a Env) -> CaseFuture<'a>,
) -> Outcome {
    let mut last = Outcome::Held;
    for seed in 0..SEEDS {
        let simulation = Simulation::new(seed);
        let env = simulation.env();
        let outcome = simulation.run(async {
            let subject = make(&env).await;
            case(&subject, &env).await
        });
        last = outcome.unwrap_or_else(|stuck| panic!("{name} with seed {seed}: {stuck}"));
    }
    report(name, last);
    last
}

/// Runs a case in real time, on the machine's threads.
///
/// # Panics
/// When the case does.
pub fn real<S>(name: &str, make: impl AsyncFn(&Env) -> S, case: impl for<'a> Fn(&'a S, &'a Env) -> CaseFuture<'a>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let outcome = runtime.block_on(async {
        let env = Env::real();
        let subject = make(&env).await;
        case(&subject, &env).await
    });
    report(name, outcome);
}

/// Orders of tasks that are tried.
const SEEDS: u64 = 8;

#[expect(clippy::print_stderr, reason = "a case that did not run must not look like one that did")]
fn report(name: &str, outcome: Outcome) {
    if let Outcome::Skipped(missing) = outcome {
        eprintln!("skipped {name}: {missing} is declared as missing");
    }
}
