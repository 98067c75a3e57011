//! The same tests on a Podman service of their own, as root. It fails, and does not skip, where there is no Podman.
//!
//! Podman starts several programs for each container, so these tests take long: the contract alone takes minutes. What is of Podman
//! alone is in every run; the contract and the others are run with `--include-ignored`.
#![expect(clippy::disallowed_methods, reason = "these tests run in real time, and bring their own threads")]
#![expect(clippy::print_stderr, reason = "this is a program of tests")]

mod basics;
mod contract;
mod faults;
mod harness;
mod images;
mod isolation;
mod logs;
mod proxy;
mod registry;
mod service;
mod service_restarts;
mod sessions;
mod subject;
mod support;

use std::process::ExitCode;

use libtest_mimic::Arguments;

/// The one test that fails on Podman, whatever is done about it: between the parts of a terminal's line its logs have times.
const NOT_KEPT: &str = "logs::long_lines_of_a_terminal";

fn main() -> ExitCode {
    let Some(arguments) = service::inside(std::env::args()) else { return service::enter() };
    let service = service::Service::start("shared");
    subject::choose(&service.socket(), true);
    let tests = service_restarts::all();
    let others =
        [contract::all(), basics::all(), faults::all(), images::all(), isolation::all(), logs::all(), sessions::all()]
            .concat();
    let others = others.into_iter().filter(|(name, _)| !name.ends_with(NOT_KEPT)).collect();
    let conclusion = harness::conclude(&Arguments::from_iter(arguments), tests, others);
    drop(service);
    conclusion
}
