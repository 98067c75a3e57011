//! JSON patches.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| orchestrator_fuzz::patch("application/json-patch+json", data));
