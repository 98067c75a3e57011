//! Real containers on this machine, as root. It fails, and does not skip, where the machine cannot run them.
//!
//! `harness = false`: the helper of these tests is this program itself, so `init` comes before everything else.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "these tests run in real time, and talk to each other and to people"
)]

mod basics;
mod contract;
mod crashes;
mod filters;
mod images;
mod isolation;
mod logs;
mod networks;
mod privileges;
mod sessions;
mod support;
mod users;

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
    orchestrator_runtime_youki::init();

    let arguments: Vec<String> = std::env::args().collect();
    if let [_, "--agent", directory, name] = arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        return crashes::agent(directory, name);
    }
    let all = [
        basics::all(),
        contract::all(),
        crashes::all(),
        filters::all(),
        images::all(),
        isolation::all(),
        logs::all(),
        networks::all(),
        privileges::all(),
        sessions::all(),
        users::all(),
    ]
    .concat();
    let trial = |(name, test): Test| Trial::test(name.trim_start_matches("containers::"), move || run(test));
    let mut arguments = Arguments::from_args();
    // Some count what is left on the machine, so one at a time.
    arguments.test_threads.get_or_insert(1);
    libtest_mimic::run(&arguments, all.into_iter().map(trial).collect()).exit_code()
}

/// Runs a test, for a limited time.
fn run(test: fn() -> Pin<Box<dyn Future<Output = ()>>>) -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let limited = async { tokio::time::timeout(PATIENCE, test()).await };
    runtime.block_on(limited).map_err(|_| format!("not within {PATIENCE:?}").into())
}
