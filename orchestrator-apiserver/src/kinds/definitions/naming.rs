//! What a kind is called.

use crate::{
    field::{Errors, Field},
    kinds::check,
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
    for name in ["plural", "singular"].map(|name| kinds.get(name)) {
        if !name.text().is_empty() {
            check::at_once(&name, &names::label_1035(name.text()), errors);
        }
    }
    check::mixed_case(&kinds.get("kind"), errors);
    check::mixed_case(&kinds.get("listKind"), errors);
    labels(&kinds.get("shortNames"), errors);
    let (kind, list) = (kinds.get("kind"), kinds.get("listKind"));
    if !kind.text().is_empty() && kind.text() == list.text() {
        list.invalid(errors, "kind and listKind may not be the same");
    }
    labels(&kinds.get("categories"), errors);
}

fn labels(list: &Field<'_>, errors: &mut Errors) {
    for name in list.items() {
        check::at_once(&name, &names::label_1035(name.text()), errors);
    }
}
