//! Real containers on the machine's Docker Engine, as root. It fails, and does not skip, where there is none.
#![expect(clippy::disallowed_methods, reason = "these tests run in real time, and bring their own threads")]

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
    let mut arguments = Arguments::from_args();
    // They count what is left on the engine, so one at a time.
    arguments.test_threads.get_or_insert(1);
    libtest_mimic::run(&arguments, all.into_iter().map(trial).collect()).exit_code()
}

/// Runs a test, for a limited time.
fn run(test: fn() -> Pin<Box<dyn Future<Output = ()>>>) -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let limited = async { tokio::time::timeout(PATIENCE, test()).await };
    runtime.block_on(limited).map_err(|_| format!("not within {PATIENCE:?}").into())
}
