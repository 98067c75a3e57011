//! Bodies in JSON.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| orchestrator_fuzz::create("application/json", data));
