//! The real `kubectl` against a cluster whose containers are real: every command of the course, and those of daily life.
//!
//! `harness = false`: the helpers of the containers are this program itself, so `init` comes before everything else.
//! It fails, and does not skip, where the machine cannot run containers or has no `kubectl`.
#![expect(clippy::disallowed_methods, reason = "these tests run in real time")]

mod copying;
mod course;
mod forwarding;
mod images;
mod reading;
mod restart;
mod rollouts;
mod sessions;
mod stage;
mod streams;
#[path = "../support/kubectl.rs"]
mod support;
mod views;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

/// A test: it is given a cluster that is taken down, and looked after, when it ends.
type Test = fn(&stage::Stage);

fn main() -> ExitCode {
    orchestrator::runtime_youki::init();

    if std::env::args().nth(1).as_deref() == Some(stage::WEB_SERVER) {
        return stage::web_server();
    }
    let all = [
        copying::TESTS,
        course::TESTS,
        forwarding::TESTS,
        images::TESTS,
        rollouts::TESTS,
        sessions::TESTS,
        streams::TESTS,
        views::TESTS,
    ]
    .concat();
    let trials = all.into_iter().map(|(name, test)| Trial::test(name, move || stage::with_cluster(name, test)));
    let trials = trials.chain(restart::trials());
    let mut arguments = Arguments::from_args();
    // Each test has processes enough of its own.
    arguments.test_threads.get_or_insert(2);
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}
