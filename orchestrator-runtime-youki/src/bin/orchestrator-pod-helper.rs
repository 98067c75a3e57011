//! The pod helper as a program of its own, for embedders that do not want to be re-executed.

fn main() -> std::process::ExitCode {
    orchestrator_runtime_youki::helper_main()
}
