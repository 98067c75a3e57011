//! `$(NAME)` in commands, arguments and values: upstream's `third_party/forked/golang/expansion`.

use crate::limits::ENVIRONMENT_VALUE_BYTES;

/// Replaces each `$(NAME)` that `lookup` knows. `$$` is a dollar sign; what is not known stays as it is.
pub(crate) fn expand(text: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        if result.len() > ENVIRONMENT_VALUE_BYTES {
            break;
        }
        result.push_str(&rest[..dollar]);
        rest = &rest[dollar + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            result.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
            match lookup(name) {
                Some(value) => result.push_str(&value),
                None => result.push_str(&format!("$({name})")),
            }
            rest = after;
        } else {
            result.push('$');
        }
    }
    result.push_str(rest);
    result
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn references() {
        let lookup = |name: &str| (name == "A").then(|| "1".to_owned());
        let cases = [
            ("$(A)", "1"),
            ("x$(A)$(A)y", "x11y"),
            ("$(B)", "$(B)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$A", "$A"),
            ("$(A", "$(A"),
            ("$", "$"),
            ("", ""),
        ];
        for (text, expected) in cases {
            assert_eq!(expand(text, lookup), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn text_without_dollars_stays(text in "[^$]{0,40}") {
            prop_assert_eq!(expand(&text, |_| Some("x".into())), text);
        }

        #[test]
        fn doubled_dollars_are_never_references(text in "[$()A-C]{0,20}") {
            let doubled = text.replace('$', "$$");
            prop_assert_eq!(expand(&doubled, |_| Some("x".into())), text);
        }
    }
}
