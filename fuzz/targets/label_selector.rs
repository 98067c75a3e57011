//! Label selectors; and what was read is the same when it is written and read again.
#![no_main]

use orchestrator_core::selector::LabelSelector;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(selector) = LabelSelector::parse(text) {
        let written = selector.to_string();
        assert_eq!(LabelSelector::parse(&written).ok(), Some(selector), "{written}");
    }
});
