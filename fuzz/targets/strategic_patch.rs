//! Strategic merge patches.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| orchestrator_fuzz::patch("application/strategic-merge-patch+json", data));
