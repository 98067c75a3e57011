//! Prints what the API server serves, and how deeply: `docs/support-matrix.md`.
#![expect(clippy::print_stdout, reason = "it is what the program is for")]

fn main() {
    print!("{}", orchestrator::apiserver::support_matrix());
}
