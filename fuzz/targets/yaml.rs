//! Bodies in YAML; and what was read is the same when it is written and read again.
#![no_main]

use orchestrator_core::yaml;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(value) = yaml::parse(text)
        && let Ok(written) = yaml::to_string(&value)
    {
        assert_eq!(yaml::parse(&written).ok(), Some(value), "{written}");
    }
    orchestrator_fuzz::create("application/yaml", data);
});
