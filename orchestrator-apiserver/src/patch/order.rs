//! In which order the items of a merged list come: a pure decision.
//!
//! Upstream: `normalizeElementOrder` of `k8s.io/apimachinery/pkg/util/strategicpatch`.

use std::collections::BTreeMap;

use serde_json::Value;

/// Puts merged items in order. Those that the patch names follow each other as it names them, the others as they were served;
/// one of the others comes before a named one only where it was served before it.
pub(super) fn in_order(merged: Vec<Value>, named: &[Value], served: &[Value], key: &str) -> Vec<Value> {
    let (named, served) = (Places::of(named, key), Places::of(served, key));
    let (mut patched, mut others) = (Vec::new(), Vec::new());
    for item in merged {
        match named.find(&item) {
            Some(place) => patched.push((place, item)),
            None => others.push((served.find(&item), item)),
        }
    }
    patched.sort_by_key(|(place, _)| *place);
    others.sort_by_key(|(place, _)| *place);
    let mut ordered = Vec::with_capacity(patched.len() + others.len());
    let mut others = others.into_iter().peekable();
    for (_, item) in patched {
        let limit = served.find(&item);
        while let Some((_, other)) = others.next_if(|(place, _)| limit.is_some() && *place < limit) {
            ordered.push(other);
        }
        ordered.push(item);
    }
    ordered.extend(others.map(|(_, item)| item));
    ordered
}

/// Where in a list an item stands first, by what makes it the same as another: the value of its key, or all of it where items
/// are plain.
struct Places<'a> {
    places: BTreeMap<String, usize>,
    key: &'a str,
}

impl<'a> Places<'a> {
    fn of(list: &[Value], key: &'a str) -> Self {
        let mut found = Self { places: BTreeMap::new(), key };
        for (place, item) in list.iter().enumerate() {
            let identity = found.identity(item);
            found.places.entry(identity).or_insert(place);
        }
        found
    }

    fn find(&self, item: &Value) -> Option<usize> {
        self.places.get(&self.identity(item)).copied()
    }

    fn identity(&self, item: &Value) -> String {
        if self.key.is_empty() { item.to_string() } else { item.get(self.key).unwrap_or(&Value::Null).to_string() }
    }
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
