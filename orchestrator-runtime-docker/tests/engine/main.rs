//! Real containers on the machine's Docker Engine, as root. It fails, and does not skip, where there is none.
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
mod restarts;
mod sessions;
mod subject;
mod support;

use std::{path::Path, process::ExitCode};

use libtest_mimic::Arguments;

fn main() -> ExitCode {
    subject::choose(Path::new("/var/run/docker.sock"), false);
    let tests = [
        basics::all(),
        contract::all(),
        faults::all(),
        images::all(),
        isolation::all(),
        logs::all(),
        restarts::all(),
        sessions::all(),
    ];
    harness::conclude(&Arguments::from_args(), tests.concat(), Vec::new())
}
