//! JSON patches (RFC 6902), one operation after another, within bounds.

use json_patch::{Patch, PatchOperation, TestOperation, jsonptr::Pointer};
use orchestrator_core::status::{ApiError, ApiResult, Reason};
use serde::Deserialize;
use serde_json::Value;

use crate::{decode, limits};

/// The tree after the operations.
pub(super) fn apply(mut tree: Value, operations: &Value) -> ApiResult<Value> {
    let operations = parse(operations)?;
    let mut copied_bytes = 0;
    for operation in &operations.0 {
        check(operation, &tree, &mut copied_bytes)?;
        if !is_test_for_absence(operation, &tree) {
            json_patch::patch(&mut tree, std::slice::from_ref(operation)).map_err(|_| refused())?;
        }
    }
    if serialized_bytes(&tree) > limits::BODY_BYTES {
        return Err(ApiError::new(Reason::RequestEntityTooLarge, "the patched object is too large"));
    }
    Ok(tree)
}

/// What is no list of objects is no patch. What is one and makes no sense cannot be done, as upstream sees it.
fn parse(operations: &Value) -> ApiResult<Patch> {
    let other = operations.as_array().into_iter().flatten().find(|item| !item.is_object() && !item.is_null());
    if let Some(other) = other {
        let kind = decode::go_kind(other);
        let message = format!("json: cannot unmarshal {kind} into Go value of type jsonpatch.Operation");
        return Err(ApiError::bad_request(message));
    }
    Patch::deserialize(operations).map_err(|_| refused())
}

/// Upstream does not say which operation failed, and why.
fn refused() -> ApiError {
    let message = "the server rejected our request due to an error in our request";
    ApiError::with_details(Reason::Invalid, message, Some(Default::default()))
}

/// Refuses an operation that would grow the tree out of bounds: upstream bounds what is copied, and a tree that is nested
/// too deeply could not be read again.
fn check(operation: &PatchOperation, tree: &Value, copied_bytes: &mut usize) -> ApiResult<()> {
    let (path, value) = match operation {
        PatchOperation::Add(add) => (&add.path, Some(&add.value)),
        PatchOperation::Replace(replace) => (&replace.path, Some(&replace.value)),
        PatchOperation::Move(moved) => (&moved.path, find(tree, &moved.from)),
        PatchOperation::Copy(copied) => {
            let value = find(tree, &copied.from);
            *copied_bytes += value.map_or(0, serialized_bytes);
            if *copied_bytes > limits::BODY_BYTES {
                let message = format!(
                    "Unable to complete the copy, the accumulated size increase of copy is {copied_bytes}, exceeding the \
                     limit {}",
                    limits::BODY_BYTES
                );
                return Err(ApiError::new(Reason::RequestEntityTooLarge, message));
            }
            (&copied.path, value)
        }
        PatchOperation::Remove(_) | PatchOperation::Test(_) => return Ok(()),
    };
    let room = limits::OBJECT_DEPTH.checked_sub(path.count());
    if value.is_some_and(|value| room.is_none_or(|room| !decode::fits(value, room))) {
        return Err(ApiError::bad_request("the patched object would be nested too deeply"));
    }
    Ok(())
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
    fn what_is_absent_is_null_to_a_test() {
        let absent = json!([{"op": "test", "path": "/a/b", "value": null}, {"op": "add", "path": "/a", "value": 1}]);
        assert_eq!(apply(json!({}), &absent).unwrap(), json!({"a": 1}));
        assert_eq!(reason(json!({"a": {"b": 1}}), vec![absent[0].clone()]), Reason::Invalid);
    }

    #[test]
    fn what_is_no_operation_is_refused() {
        assert_eq!(reason(json!({}), vec![json!({"op": "frob", "path": "/a"})]), Reason::Invalid);
        assert_eq!(reason(json!({}), vec![json!({"op": "remove", "path": "/a"})]), Reason::Invalid);
        assert_eq!(reason(json!({}), vec![json!("frob")]), Reason::BadRequest);
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
