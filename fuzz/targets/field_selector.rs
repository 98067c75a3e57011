//! Field selectors.
#![no_main]

use orchestrator_core::selector::FieldSelector;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(selector) = text.parse::<FieldSelector>() {
        assert_eq!(selector.is_empty(), selector.requirements().is_empty());
        selector.matches(|field| Some(field.to_owned().into()));
    }
});
