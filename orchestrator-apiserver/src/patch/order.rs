//! In which order the items of a merged list come: a pure decision.
//!
//! Upstream: `normalizeElementOrder` of `k8s.io/apimachinery/pkg/util/strategicpatch`.

use serde_json::Value;

/// Puts merged items in order. Those that the patch names follow each other as it names them, the others as they were served;
/// one of the others comes before a named one only where it was served before it.
pub(super) fn in_order(merged: Vec<Value>, named: &[Value], served: &[Value], key: &str) -> Vec<Value> {
    let place =
        |list: &[Value], item: &Value| list.iter().position(|other| identity(other, key) == identity(item, key));
    let (mut patched, mut others): (Vec<_>, Vec<_>) = merged.into_iter().partition(|item| place(named, item).is_some());
    patched.sort_by_key(|item| place(named, item));
    others.sort_by_key(|item| place(served, item));
    let mut ordered = Vec::with_capacity(patched.len() + others.len());
    let mut others = others.into_iter().peekable();
    for item in patched {
        let limit = place(served, &item);
        while let Some(other) = others.next_if(|other| limit.is_some() && place(served, other) < limit) {
            ordered.push(other);
        }
        ordered.push(item);
    }
    ordered.extend(others);
    ordered
}

/// What makes an item the same as another: the value of its key, or all of it where items are plain.
fn identity<'a>(item: &'a Value, key: &str) -> &'a Value {
    if key.is_empty() { item } else { item.get(key).unwrap_or(&Value::Null) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn list(text: &str) -> Vec<Value> {
        text.chars().map(|letter| letter.to_string().into()).collect()
    }

    fn check(merged: &str, named: &str, served: &str, expected: &str) {
        assert_eq!(
            in_order(list(merged), &list(named), &list(served), ""),
            list(expected),
            "{merged} {named} {served}"
        );
    }

    #[test]
    fn what_is_new_comes_before_what_is_not_named() {
        check("abn", "n", "ab", "nab");
        check("abcn", "bn", "abc", "abnc");
        check("abcn", "nb", "abc", "nabc");
    }

    #[test]
    fn a_named_order_is_kept_and_the_others_stay_where_they_were() {
        check("abcd", "db", "abcd", "acdb");
        check("abcd", "", "abcd", "abcd");
        check("abcd", "dcba", "abcd", "dcba");
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_both_orders_hold(
            served in Just(list("abcdef")).prop_shuffle(),
            named in Just(list("defghi")).prop_shuffle(),
        ) {
            let merged: Vec<Value> = list("abcdefghi");
            let ordered = in_order(merged.clone(), &named, &served, "");
            let mut sorted = ordered.clone();
            sorted.sort_by_key(Value::to_string);
            prop_assert_eq!(sorted, merged);
            let (of_patch, others): (Vec<Value>, Vec<Value>) = ordered.into_iter().partition(|item| named.contains(item));
            prop_assert_eq!(&of_patch, &named);
            let expected: Vec<Value> = served.into_iter().filter(|item| !named.contains(item)).collect();
            prop_assert_eq!(others, expected);
        }
    }
}
