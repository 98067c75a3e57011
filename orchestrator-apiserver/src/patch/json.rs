//! JSON patches (RFC 6902), one operation after another, within bounds.

use json_patch::{
    Patch, PatchOperation, TestOperation,
    jsonptr::{Pointer, PointerBuf},
};
use orchestrator_core::status::{ApiError, ApiResult, Reason};
use serde::Deserialize;
use serde_json::Value;

use crate::limits;

/// The tree after the operations.
pub(super) fn apply(mut tree: Value, operations: &Value) -> ApiResult<Value> {
    let operations = parse(operations)?;
    let mut growth = Growth { copied_bytes: 0, levels: levels(&tree) };
    for mut operation in operations.0 {
        count_from_front(&mut operation, &tree)?;
        let operation = &operation;
        growth.check(operation, &tree)?;
        if !at_root(operation, &mut tree)? && !is_test_for_absence(operation, &tree) {
            json_patch::patch(&mut tree, std::slice::from_ref(operation)).map_err(|_| refused())?;
        }
    }
    if serialized_bytes(&tree) > limits::BODY_BYTES {
        return Err(ApiError::new(Reason::RequestEntityTooLarge, "the patched object is too large"));
    }
    Ok(tree)
}

/// What is a list of objects and makes no sense cannot be done, as upstream sees it.
fn parse(operations: &Value) -> ApiResult<Patch> {
    Patch::deserialize(operations).map_err(|_| refused())
}

/// Upstream does not say which operation failed, and why.
fn refused() -> ApiError {
    let message = "the server rejected our request due to an error in our request";
    ApiError::with_details(Reason::Invalid, message, Some(Default::default()))
}

/// Whether an operation was about the tree as a whole. Upstream can replace that by a list or an object, passes over other
/// replacements, and can do nothing else with it but test it.
fn at_root(operation: &PatchOperation, tree: &mut Value) -> ApiResult<bool> {
    match operation {
        PatchOperation::Replace(replace) if replace.path.is_root() => {
            if replace.value.is_object() || replace.value.is_array() {
                tree.clone_from(&replace.value);
            }
            Ok(true)
        }
        PatchOperation::Add(add) if add.path.is_root() => Err(refused()),
        PatchOperation::Remove(remove) if remove.path.is_root() => Err(refused()),
        PatchOperation::Move(moved) if moved.path.is_root() || moved.from.is_root() => Err(refused()),
        PatchOperation::Copy(copied) if copied.path.is_root() || copied.from.is_root() => Err(refused()),
        _ => Ok(false),
    }
}

/// Indices may count from the end of a list: `-1` is its last item or, where one is added, the place behind it.
fn count_from_front(operation: &mut PatchOperation, tree: &Value) -> ApiResult<()> {
    let (path, from, adds) = match operation {
        PatchOperation::Add(add) => (&mut add.path, None, true),
        PatchOperation::Copy(copied) => (&mut copied.path, Some(&mut copied.from), true),
        PatchOperation::Move(moved) => (&mut moved.path, Some(&mut moved.from), true),
        PatchOperation::Replace(replace) => (&mut replace.path, None, false),
        PatchOperation::Remove(remove) => (&mut remove.path, None, false),
        PatchOperation::Test(test) => (&mut test.path, None, false),
    };
    for (pointer, adds) in [(Some(path), adds), (from, false)] {
        let Some(pointer) = pointer.filter(|pointer| pointer.as_str().contains("/-")) else { continue };
        *pointer = positive(tree, pointer, adds).ok_or_else(refused)?;
    }
    Ok(())
}

fn positive(tree: &Value, pointer: &Pointer, adds: bool) -> Option<PointerBuf> {
    let last = pointer.count().checked_sub(1)?;
    let mut place = Some(tree);
    let mut tokens = Vec::new();
    for (at, token) in pointer.tokens().enumerate() {
        let name = token.decoded();
        let from_end = name.strip_prefix('-').and_then(|digits| digits.parse::<usize>().ok());
        let name = match (place, from_end) {
            (Some(Value::Array(items)), Some(from_end)) => {
                let room = items.len() + usize::from(adds && at == last);
                room.checked_sub(from_end)?.to_string()
            }
            _ => name.into_owned(),
        };
        place = match place {
            Some(Value::Array(items)) => name.parse::<usize>().ok().and_then(|index| items.get(index)),
            Some(Value::Object(members)) => members.get(&name),
            _ => None,
        };
        tokens.push(name);
    }
    Some(PointerBuf::from_tokens(tokens))
}

/// What the operations so far have done to the size of the tree.
struct Growth {
    copied_bytes: usize,
    /// The tree is nested in no more than this many levels.
    levels: usize,
}

impl Growth {
    /// Refuses an operation that would grow the tree out of bounds: upstream bounds what is copied, and a tree that is nested
    /// too deeply could not be read again.
    fn check(&mut self, operation: &PatchOperation, tree: &Value) -> ApiResult<()> {
        match operation {
            PatchOperation::Add(add) => self.nest(&add.path, levels(&add.value)),
            PatchOperation::Replace(replace) => self.nest(&replace.path, levels(&replace.value)),
            PatchOperation::Move(moved) => self.nest_again(&moved.path, &moved.from, tree),
            PatchOperation::Copy(copied) => {
                self.copied_bytes += find(tree, &copied.from).map_or(0, serialized_bytes);
                if self.copied_bytes > limits::BODY_BYTES {
                    let message = format!(
                        "Unable to complete the copy, the accumulated size increase of copy is {}, exceeding the limit {}",
                        self.copied_bytes,
                        limits::BODY_BYTES
                    );
                    return Err(ApiError::new(Reason::RequestEntityTooLarge, message));
                }
                self.nest_again(&copied.path, &copied.from, tree)
            }
            PatchOperation::Remove(_) | PatchOperation::Test(_) => Ok(()),
        }
    }

    /// Puts a part of the tree at another place in it. How deep the tree is, is looked up only when it may be too deep: to look at
    /// all that is moved, each time, would cost more than the moves.
    fn nest_again(&mut self, path: &Pointer, from: &Pointer, tree: &Value) -> ApiResult<()> {
        if path.count() + self.levels > limits::OBJECT_DEPTH {
            self.levels = levels(tree);
            return self.nest(path, find(tree, from).map_or(0, levels));
        }
        self.nest(path, self.levels.saturating_sub(1))
    }

    fn nest(&mut self, path: &Pointer, levels: usize) -> ApiResult<()> {
        self.levels = self.levels.max(path.count() + levels);
        match self.levels <= limits::OBJECT_DEPTH {
            true => Ok(()),
            false => Err(ApiError::bad_request("the patched object would be nested too deeply")),
        }
    }
}

/// In how many levels a value is nested.
fn levels(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(levels).max().unwrap_or_default(),
        Value::Object(members) => 1 + members.values().map(levels).max().unwrap_or_default(),
        _ => 0,
    }
}

/// Clients test for `null` what has to be absent; upstream takes that as it is meant.
fn is_test_for_absence(operation: &PatchOperation, tree: &Value) -> bool {
    let PatchOperation::Test(TestOperation { path, value: Value::Null }) = operation else { return false };
    find(tree, path).is_none()
}

fn find<'a>(tree: &'a Value, path: &Pointer) -> Option<&'a Value> {
    tree.pointer(path.as_str())
}

/// Size of a tree when it is encoded, without encoding it.
fn serialized_bytes(tree: &Value) -> usize {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    serde_json::to_writer(&mut count, tree).map_or(usize::MAX, |()| count.0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn reason(tree: Value, operations: Vec<Value>) -> Reason {
        apply(tree, &Value::from(operations)).unwrap_err().reason()
    }

    #[test]
    fn indices_count_from_the_end() {
        let tree = json!({"a": [1, 2, 3]});
        let changed = |operation: Value| apply(tree.clone(), &json!([operation])).ok();
        assert_eq!(changed(json!({"op": "remove", "path": "/a/-1"})), Some(json!({"a": [1, 2]})));
        assert_eq!(changed(json!({"op": "add", "path": "/a/-1", "value": 4})), Some(json!({"a": [1, 2, 3, 4]})));
        assert_eq!(changed(json!({"op": "add", "path": "/a/-", "value": 4})), Some(json!({"a": [1, 2, 3, 4]})));
        assert_eq!(changed(json!({"op": "replace", "path": "/a/-3", "value": 4})), Some(json!({"a": [4, 2, 3]})));
        assert_eq!(changed(json!({"op": "replace", "path": "/a/-4", "value": 4})), None);
    }

    #[test]
    fn what_is_absent_is_null_to_a_test() {
        let absent = json!([{"op": "test", "path": "/a/b", "value": null}, {"op": "add", "path": "/a", "value": 1}]);
        assert_eq!(apply(json!({}), &absent).unwrap(), json!({"a": 1}));
        assert_eq!(reason(json!({"a": {"b": 1}}), vec![absent[0].clone()]), Reason::Invalid);
    }

    #[test]
    fn what_is_no_operation_is_refused() {
        assert_eq!(reason(json!({}), vec![json!({"op": "frob", "path": "/a"})]), Reason::Invalid);
        assert_eq!(reason(json!({}), vec![json!({"op": "remove", "path": "/a"})]), Reason::Invalid);
    }

    #[test]
    fn the_whole_is_replaced_or_tested_and_nothing_else() {
        let at_root = |operation: Value| apply(json!({"a": 1}), &json!([operation])).map_err(|error| error.reason());
        assert_eq!(at_root(json!({"op": "replace", "path": "", "value": {"b": 2}})), Ok(json!({"b": 2})));
        assert_eq!(at_root(json!({"op": "replace", "path": "", "value": [1]})), Ok(json!([1])));
        assert_eq!(at_root(json!({"op": "replace", "path": "", "value": 1})), Ok(json!({"a": 1})));
        assert_eq!(at_root(json!({"op": "test", "path": "", "value": {"a": 1}})), Ok(json!({"a": 1})));
        for operation in [
            json!({"op": "add", "path": "", "value": {}}),
            json!({"op": "remove", "path": ""}),
            json!({"op": "copy", "from": "", "path": "/b"}),
            json!({"op": "move", "from": "/a", "path": ""}),
        ] {
            assert_eq!(at_root(operation), Err(Reason::Invalid));
        }
    }

    #[test]
    fn copies_do_not_multiply_without_bound() {
        let copy = |step: usize| json!({"op": "copy", "from": "/a", "path": format!("/a/{step}")});
        assert_eq!(reason(json!({"a": {"b": 1}}), (0..60).map(copy).collect()), Reason::RequestEntityTooLarge);
    }

    #[test]
    fn no_chain_of_moves_nests_too_deeply() {
        // Each round puts what is there 100 levels deeper.
        let shell = (0..100).fold(json!({}), |inner, _| json!({"a": inner}));
        let (add, bottom) =
            (json!({"op": "add", "path": "/next", "value": shell}), format!("/next{}", "/a".repeat(101)));
        let step = [
            add,
            json!({"op": "move", "from": "/top", "path": bottom}),
            json!({"op": "move", "from": "/next", "path": "/top"}),
        ];
        let once = apply(json!({"top": 1}), &Value::from(step.to_vec())).unwrap();
        assert!(once.pointer(&format!("/top{}", "/a".repeat(101))).is_some());
        assert_eq!(reason(json!({"top": 1}), vec![step; 1_000].concat()), Reason::BadRequest);
    }
}
