//! The published descriptions of the API's definitions and their fields.

use std::{collections::BTreeMap, sync::LazyLock};

const DESCRIPTIONS: &str = include_str!("../../data/descriptions.tsv");

static BY_FIELD: LazyLock<BTreeMap<(&'static str, &'static str), &'static str>> = LazyLock::new(|| {
    let rows = DESCRIPTIONS.lines().filter(|line| !line.starts_with('#'));
    rows.filter_map(|line| {
        let mut columns = line.splitn(3, '\t');
        Some(((columns.next()?, columns.next()?), columns.next()?))
    })
    .collect()
});

/// The description of a field of a definition, or of the definition itself for the empty field.
/// Definitions are named as in OpenAPI: `io.k8s.api.core.v1.Pod`.
pub(super) fn description(definition: &str, field: &str) -> Option<String> {
    BY_FIELD.get(&(definition, field)).map(|text| unescape(text))
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
    }

    #[test]
    fn escapes_are_undone() {
        assert_eq!(unescape(r"a\nb\tc\\n"), "a\nb\tc\\n");
    }
}
