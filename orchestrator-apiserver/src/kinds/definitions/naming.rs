//! What a kind is called.

use crate::{
    field::{Errors, Field},
    names,
};

/// Names that a definition must say.
pub(super) fn required(kinds: &Field<'_>, errors: &mut Errors) {
    for name in ["plural", "singular", "kind", "listKind"] {
        if kinds.get(name).text().is_empty() {
            kinds.get(name).required(errors, "");
        }
    }
}

/// The rules of names that are given.
pub(super) fn validate(kinds: &Field<'_>, errors: &mut Errors) {
    for name in ["plural", "singular", "kind", "listKind"] {
        let (field, is_kind) = (kinds.get(name), matches!(name, "kind" | "listKind"));
        let text = if is_kind { field.text().to_lowercase() } else { field.text().to_owned() };
        let mixed = if is_kind { "may have mixed case, but should otherwise match: " } else { "" };
        let problems = names::label_1035(&text);
        if !text.is_empty() && !problems.is_empty() {
            field.invalid(errors, &format!("{mixed}{}", problems.join(",")));
        }
    }
    labels(&kinds.get("shortNames"), errors);
    let (kind, list) = (kinds.get("kind"), kinds.get("listKind"));
    if !kind.text().is_empty() && kind.text() == list.text() {
        list.invalid(errors, "kind and listKind may not be the same");
    }
    labels(&kinds.get("categories"), errors);
}

fn labels(list: &Field<'_>, errors: &mut Errors) {
    for name in list.items() {
        let problems = names::label_1035(name.text());
        if !problems.is_empty() {
            name.invalid(errors, &problems.join(","));
        }
    }
}
