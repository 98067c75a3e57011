//! What a client is told beside its answer, in `Warning` headers (RFC 7234, section 5.5).
//!
//! Upstream: `k8s.io/apiserver/pkg/endpoints/filters/warning.go`.

use std::collections::BTreeSet;

use http::{HeaderValue, Response, header};
use serde_json::Value;

use crate::limits;

/// Adds warnings to an answer, each once. Where they are long in all, each is cut, and the last ones are left out.
pub(super) fn add<'a, B>(response: &mut Response<B>, warnings: impl IntoIterator<Item = &'a str>) {
    for warning in bounded(warnings) {
        if let Ok(value) = HeaderValue::from_str(&format!("299 - {}", Value::from(warning))) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
}

fn bounded<'a>(warnings: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let mut seen = BTreeSet::new();
    let mut told: Vec<&str> =
        warnings.into_iter().filter(|warning| !warning.is_empty() && seen.insert(*warning)).collect();
    let letters = |warning: &str| warning.chars().count();
    if told.iter().map(|warning| letters(warning)).sum::<usize>() > limits::WARNING_LETTERS {
        let mut left = limits::WARNING_LETTERS;
        told.iter_mut().for_each(|warning| *warning = cut(warning));
        told.retain(|warning| {
            let fits = left > 0;
            left = left.saturating_sub(letters(warning));
            fits
        });
    }
    told
}

/// The beginning of a warning.
fn cut(warning: &str) -> &str {
    warning.char_indices().nth(limits::CUT_WARNING_LETTERS).map_or(warning, |(end, _)| &warning[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_told_once() {
        assert_eq!(bounded(["a", "", "b", "a"]), ["a", "b"]);
        let mut response = Response::new(());
        add(&mut response, ["say \"a\""]);
        assert_eq!(response.headers()[header::WARNING], "299 - \"say \\\"a\\\"\"");
    }

    #[test]
    fn much_is_cut() {
        let long = "ä".repeat(limits::WARNING_LETTERS);
        assert_eq!(bounded([&*long]), [&*long], "as much as may be");
        let cut = "ä".repeat(limits::CUT_WARNING_LETTERS);
        assert_eq!(bounded([&*long, "b"]), [&*cut, "b"]);
        let many: Vec<String> = (0..1000).map(|number| format!("{number:03}{long}")).collect();
        assert_eq!(
            bounded(many.iter().map(String::as_str)).len(),
            limits::WARNING_LETTERS / limits::CUT_WARNING_LETTERS
        );
    }
}
