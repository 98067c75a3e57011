//! Field sets against a plain set of paths.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::json;

use crate::apply::{
    fast,
    fields_v1::{parse, print},
    path::{PathElement, Scalar},
    set::FieldSet,
};

type Path = Vec<PathElement>;
type Model = BTreeSet<Path>;

fn elements() -> impl Strategy<Value = PathElement> {
    let scalar = prop_oneof![
        "[a-b\"]{0,2}".prop_map(Scalar::Text),
        any::<bool>().prop_map(Scalar::Flag),
        prop_oneof![
            any::<i64>().prop_map(|n| json!(n)),
            (0..4).prop_map(|n| json!(n)),
            any::<i32>().prop_map(|n| json!(f64::from(n) / 2.0))
        ]
        .prop_filter_map("a plain value", |value| Scalar::of(&value)),
    ];
    let key = prop::collection::btree_map("[a-b]", scalar.clone(), 1..3).prop_map(|key| key.into_iter().collect());
    prop_oneof![
        3 => "[a-c]".prop_map(PathElement::Field),
        1 => "[.:\"é ]{0,2}".prop_map(PathElement::Field),
        1 => key.prop_map(PathElement::Key),
        1 => scalar.prop_map(PathElement::Value),
        1 => (-2..3_i64).prop_map(PathElement::Index),
    ]
}

fn paths() -> impl Strategy<Value = Model> {
    prop::collection::btree_set(prop::collection::vec(elements(), 1..4), 0..12)
}

/// Paths that often begin alike.
fn close_paths() -> impl Strategy<Value = Model> {
    let path = prop::collection::vec("[a-b]".prop_map(PathElement::Field), 1..4);
    prop::collection::btree_set(path, 0..6)
}

fn set(model: &Model) -> FieldSet {
    FieldSet::of(model.iter().map(Vec::as_slice))
}

fn model(set: &FieldSet) -> Model {
    set.paths().into_iter().collect()
}

fn below(path: &Path, other: &Path) -> bool {
    path.len() > other.len() && path.starts_with(other)
}

proptest! {
    #[test]
    fn what_is_printed_is_read_again(paths in paths()) {
        prop_assert_eq!(parse(&print(&set(&paths))), Ok(set(&paths)));
        prop_assert_eq!(model(&set(&paths)), paths);
    }

    #[test]
    fn the_json_form_changes_as_the_set_does(before in close_paths(), gone in close_paths(), come in close_paths()) {
        let (before, gone, come) = (set(&before), set(&gone), set(&come));
        let mut fields = print(&before);
        prop_assume!(!fast::crosses(&fields, &gone) && !fast::crosses(&fields, &come));
        fast::take_away(&mut fields, &gone);
        let left = before.difference(&gone);
        prop_assert_eq!(&fields, &print(&left));
        fast::add(&mut fields, &come);
        prop_assert_eq!(&fields, &print(&left.union(&come)));
    }

    #[test]
    fn sets_are_sets_of_paths(left in paths(), right in paths()) {
        let (a, b) = (set(&left), set(&right));
        prop_assert_eq!(model(&a.union(&b)), left.union(&right).cloned().collect::<Model>());
        prop_assert_eq!(model(&a.intersection(&b)), left.intersection(&right).cloned().collect::<Model>());
        prop_assert_eq!(model(&a.difference(&b)), left.difference(&right).cloned().collect::<Model>());
        let mut with_all_below = a.clone();
        with_all_below.subtract_with_all_below(&b);
        let untouched = |path: &&Path| !right.contains(*path) && !right.iter().any(|other| below(path, other));
        prop_assert_eq!(
            model(&with_all_below),
            left.iter().filter(untouched).cloned().collect::<Model>()
        );
        let ends = |path: &&Path| !left.iter().any(|other| below(other, path));
        prop_assert_eq!(model(&a.leaves()), left.iter().filter(ends).cloned().collect::<Model>());
        prop_assert_eq!(a.contains_all(&b), right.is_subset(&left));
        prop_assert!(a.union(&b).contains_all(&a) && a.contains_all(&a.difference(&b)));
    }

    #[test]
    fn sets_obey_the_laws_of_sets(a in paths(), b in paths(), c in paths()) {
        let (a, b, c) = (set(&a), set(&b), set(&c));
        prop_assert_eq!(a.union(&b), b.union(&a));
        prop_assert_eq!(a.union(&b).union(&c), a.union(&b.union(&c)));
        prop_assert_eq!(a.intersection(&b), b.intersection(&a));
        prop_assert_eq!(a.union(&a), a.clone());
        prop_assert_eq!(a.intersection(&b.union(&c)), a.intersection(&b).union(&a.intersection(&c)));
        prop_assert_eq!(a.difference(&b).union(&a.intersection(&b)), a.clone());
        prop_assert!(a.difference(&a).is_empty() && a.intersection(&b.difference(&a)).is_empty());
    }

    #[test]
    fn anything_is_read_or_refused(fields in super::anything()) {
        if let Ok(set) = parse(&fields) {
            prop_assert_eq!(parse(&print(&set)), Ok(set));
        }
    }
}
