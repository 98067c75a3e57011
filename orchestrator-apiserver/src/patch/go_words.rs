//! Trees in the words of Go's `%v`, which messages about patches quote.

use serde_json::Value;

/// A tree as Go prints it: maps with their keys in order, texts bare.
pub(crate) fn shown(tree: &Value) -> String {
    match tree {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(" ")),
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by_key(|(name, _)| *name);
            let members: Vec<_> = members.into_iter().map(|(name, value)| format!("{name}:{}", shown(value))).collect();
            format!("map[{}]", members.join(" "))
        }
        Value::Bool(_) | Value::Number(_) => tree.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn trees_are_shown_as_go_prints_them() {
        let tree = json!({"b": [1, "x", null], "a": {"c": true}});
        assert_eq!(shown(&tree), "map[a:map[c:true] b:[1 x <nil>]]");
    }
}
