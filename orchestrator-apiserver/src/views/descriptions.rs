//! The published descriptions of the API's definitions and their fields.

use std::{collections::BTreeMap, sync::LazyLock};

const DESCRIPTIONS: &str = include_str!("../../data/descriptions.tsv");

/// What is published about a field.
struct Published {
    required: bool,
    text: &'static str,
}

static BY_FIELD: LazyLock<BTreeMap<(&'static str, &'static str), Published>> = LazyLock::new(|| {
    let rows = DESCRIPTIONS.lines().filter(|line| !line.starts_with('#'));
    rows.filter_map(|line| {
        let mut columns = line.splitn(4, '\t');
        let place = (columns.next()?, columns.next()?);
        let required = columns.next()? == "required";
        Some((place, Published { required, text: columns.next()? }))
    })
    .collect()
});

/// The description of a field of a definition, or of the definition itself for the empty field.
/// Definitions are named as in OpenAPI: `io.k8s.api.core.v1.Pod`.
pub(super) fn description(definition: &str, field: &str) -> Option<String> {
    BY_FIELD.get(&(definition, field)).map(|published| unescape(published.text)).filter(|text| !text.is_empty())
}

/// Whether objects must have a field.
pub(crate) fn is_required(definition: &str, field: &str) -> bool {
    BY_FIELD.get(&(definition, field)).is_some_and(|published| published.required)
}

/// Undoes what the tables do to line feeds, tabs and backslashes.
pub(super) fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => match letters.next() {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some(other) => out.push(other),
                None => {}
            },
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_and_fields_are_described() {
        assert!(description("io.k8s.api.core.v1.Pod", "").unwrap().starts_with("Pod is a collection of containers"));
        assert!(description("io.k8s.api.core.v1.PodSpec", "nodeName").unwrap().starts_with("NodeName indicates"));
        assert_eq!(description("io.k8s.api.core.v1.PodSpec", "nosuch"), None);
        assert!(is_required("io.k8s.api.core.v1.PodSpec", "containers"));
        assert!(!is_required("io.k8s.api.core.v1.PodSpec", "nodeName"));
    }

    #[test]
    fn escapes_are_undone() {
        assert_eq!(unescape(r"a\nb\tc\\n"), "a\nb\tc\\n");
    }
}
