//! Repeats one run of a simulated cluster: `cargo run -p orchestrator-sim --example replay -- large 42`.
//! With a file name behind it, the whole history is written there, one change a line.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for people")]

use std::process::ExitCode;

use orchestrator_sim::{History, scenario::Scenario};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (scenario, seed, file) = match words.as_slice() {
        [scenario, seed, file @ ..] => (*scenario, seed.parse().ok(), file.first().copied()),
        _ => ("", None, None),
    };
    let result = match (scenario, seed) {
        ("small", Some(seed)) => Scenario::small().run_from_nothing(seed),
        ("leaders", Some(seed)) => Scenario::leaders().run_from_nothing(seed),
        ("large", Some(seed)) => Scenario::large().boot().and_then(|image| Scenario::large().run_from(&image, seed)),
        _ => {
            eprintln!("usage: replay small|leaders|large SEED [FILE]");
            return ExitCode::FAILURE;
        }
    };
    let (history, success) = match &result {
        Ok((cluster, report)) => {
            cluster.diary().iter().for_each(|line| println!("{line}"));
            println!("{report:?}");
            (cluster.history(History::clone), true)
        }
        Err(failure) => {
            eprintln!("{failure}");
            (failure.history.clone(), false)
        }
    };
    if let Some(file) = file
        && let Err(error) = std::fs::write(file, history.to_string())
    {
        eprintln!("{file}: {error}");
        return ExitCode::FAILURE;
    }
    if success { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
