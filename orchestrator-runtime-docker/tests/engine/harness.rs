//! How a program of tests runs: each test for a limited time, and nothing is left on the engine.

use std::{future::Future, pin::Pin, process::ExitCode, time::Duration};

use libtest_mimic::{Arguments, Failed, Trial};

use crate::support;

/// How long a test may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// A test: its name and what it does.
pub(crate) type Test = (&'static str, fn() -> Pin<Box<dyn Future<Output = ()>>>);

/// Names test functions.
#[macro_export]
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        /// The tests of this file.
        pub(crate) fn all() -> Vec<$crate::harness::Test> {
            vec![$((concat!(module_path!(), "::", stringify!($name)), || Box::pin($name()))),*]
        }
    };
}

/// Runs tests, and those on demand with `--include-ignored`. Each of them counts what is left of its own cluster; what has no
/// owner's name is counted here.
pub(crate) fn conclude(arguments: &Arguments, tests: Vec<Test>, on_demand: Vec<Test>) -> ExitCode {
    let before = holdings();
    let on_demand = on_demand.into_iter().map(|test| trial(test).with_ignored_flag(true));
    let trials = tests.into_iter().map(trial).chain(on_demand).collect();
    let conclusion = libtest_mimic::run(arguments, trials);
    let after = holdings();
    if before != after {
        eprintln!("the engine is not as it was: {before:#?} is now {after:#?}");
        return ExitCode::FAILURE;
    }
    conclusion.exit_code()
}

/// A test under its name, which is that of its file and its own.
fn trial((name, test): Test) -> Trial {
    let name = name.split_once("::").map_or(name, |(_program, name)| name);
    Trial::test(name, move || run(test))
}

/// All that is on the engine.
fn holdings() -> support::Holdings {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(support::holdings(None))
}

/// Runs a test, for a limited time.
fn run(test: fn() -> Pin<Box<dyn Future<Output = ()>>>) -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let limited = async { tokio::time::timeout(PATIENCE, test()).await };
    runtime.block_on(limited).map_err(|_| format!("not within {PATIENCE:?}").into())
}
