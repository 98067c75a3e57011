//! Real containers on the machine's Docker Engine, as root. It fails, and does not skip, where there is none.
#![expect(clippy::disallowed_methods, reason = "these tests run in real time, and bring their own threads")]
#![expect(clippy::print_stderr, reason = "this is a program of tests")]

mod basics;
mod contract;
mod faults;
mod images;
mod isolation;
mod logs;
mod proxy;
mod registry;
mod restarts;
mod sessions;
mod support;

use std::{future::Future, pin::Pin, process::ExitCode, time::Duration};

use libtest_mimic::{Arguments, Failed, Trial};

/// How long a test may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// A test: its name and what it does.
pub(crate) type Test = (&'static str, fn() -> Pin<Box<dyn Future<Output = ()>>>);

/// Names test functions.
#[macro_export]
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        /// The tests of this file.
        pub(crate) fn all() -> Vec<$crate::Test> {
            vec![$((concat!(module_path!(), "::", stringify!($name)), || Box::pin($name()))),*]
        }
    };
}

fn main() -> ExitCode {
    let all = [
        basics::all(),
        contract::all(),
        faults::all(),
        images::all(),
        isolation::all(),
        logs::all(),
        restarts::all(),
        sessions::all(),
    ]
    .concat();
    let trial = |(name, test): Test| Trial::test(name.trim_start_matches("engine::"), move || run(test));
    let before = holdings();
    let conclusion = libtest_mimic::run(&Arguments::from_args(), all.into_iter().map(trial).collect());
    // Each test counts what is left of its own cluster; what has no owner's name is counted here.
    let after = holdings();
    if before != after {
        eprintln!("the engine is not as it was: {before:#?} is now {after:#?}");
        return ExitCode::FAILURE;
    }
    conclusion.exit_code()
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
