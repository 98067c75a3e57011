//! Real containers on this machine, as root. It fails, and does not skip, where the machine cannot run them.
//!
//! `harness = false`: the helper of these tests is this program itself, so `init` comes before everything else.
//! Arguments are parts of the names of the tests to run.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test program reports to people, in real time"
)]

mod basics;
mod contract;
mod crashes;
mod isolation;
mod logs;
mod networks;
mod sessions;
mod support;

use std::{future::Future, panic::AssertUnwindSafe, pin::Pin, process::ExitCode, time::Duration};

use futures::FutureExt;

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
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("tokio");
    let all = [
        basics::all(),
        contract::all(),
        crashes::all(),
        isolation::all(),
        logs::all(),
        networks::all(),
        sessions::all(),
    ]
    .concat();
    let mut failed = Vec::new();
    let mut count = 0;
    for (name, test) in all {
        let name = name.trim_start_matches("containers::");
        if !wanted.is_empty() && !wanted.iter().any(|part| name.contains(part.as_str())) {
            continue;
        }
        count += 1;
        let before = std::time::Instant::now();
        let outcome = runtime.block_on(async {
            let limited = tokio::time::timeout(Duration::from_secs(120), test());
            AssertUnwindSafe(limited).catch_unwind().await
        });
        let time = before.elapsed();
        match outcome {
            Ok(Ok(())) => println!("test {name} ... ok ({time:.2?})"),
            Ok(Err(_)) => {
                println!("test {name} ... TOO LATE");
                failed.push(name);
            }
            Err(_) => {
                println!("test {name} ... FAILED ({time:.2?})");
                failed.push(name);
            }
        }
    }
    println!("\n{count} tests, {} failed {failed:?}", failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
