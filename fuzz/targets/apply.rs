//! Applied configurations.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| orchestrator_fuzz::patch("application/apply-patch+yaml", data));
