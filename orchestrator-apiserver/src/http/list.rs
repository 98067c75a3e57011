//! A list in JSON, spliced of the encodings at hand, piece by piece as the connection takes it.

use bytes::{BufMut, Bytes, BytesMut};
use futures::stream;
use orchestrator_core::{
    object::{DecodeError, Object},
    status::{ApiError, ApiResult},
};
use serde_json::Value;

use super::body::{Body, BodyError};
use crate::{limits, registry::Kind};

/// A list as the body of an answer. However long it is, a piece of it is in memory at a time.
pub(super) fn body(kind: &Kind, items: Vec<Object>, metadata: &Value) -> ApiResult<Body> {
    let mut pieces = Pieces::new(kind, items, metadata);
    let first = pieces.piece()?;
    if pieces.ended {
        return Ok(Body::full(first));
    }
    Ok(Body::stream(stream::iter(std::iter::once(Ok(first)).chain(pieces).map(|piece| piece.map_err(BodyError::from)))))
}

/// A list as a tree.
pub(super) fn tree(kind: &Kind, items: Vec<Object>, metadata: &Value) -> ApiResult<Value> {
    let pieces = Pieces::new(kind, items, metadata).collect::<Result<Vec<Bytes>, _>>()?;
    serde_json::from_slice(&pieces.concat()).map_err(ApiError::internal)
}

struct Pieces {
    /// What the next piece begins with.
    begin: String,
    /// How items begin that say of what kind they are. In lists of built-in kinds they do not, as upstream.
    type_prefix: Option<String>,
    items: std::vec::IntoIter<Object>,
    ended: bool,
}

impl Pieces {
    fn new(kind: &Kind, items: Vec<Object>, metadata: &Value) -> Self {
        let (name, version) = (&kind.kind, kind.api_version());
        Self {
            begin: format!(
                "{{\"kind\":\"{name}List\",\"apiVersion\":\"{version}\",\"metadata\":{metadata},\"items\":["
            ),
            type_prefix: (!kind.is_custom()).then(|| format!("{{\"kind\":\"{name}\",\"apiVersion\":\"{version}\",")),
            items: items.into_iter(),
            ended: false,
        }
    }

    fn piece(&mut self) -> Result<Bytes, DecodeError> {
        let mut out = BytesMut::with_capacity(limits::LIST_PIECE_BYTES);
        out.put_slice(std::mem::replace(&mut self.begin, ",".to_owned()).as_bytes());
        while let Some(item) = self.items.next() {
            self.item(&item, &mut out)?;
            if self.items.as_slice().is_empty() {
                break;
            }
            if out.len() >= limits::LIST_PIECE_BYTES {
                return Ok(out.freeze());
            }
            out.put_u8(b',');
        }
        out.put_slice(b"]}");
        self.ended = true;
        Ok(out.freeze())
    }

    fn item(&self, item: &Object, out: &mut BytesMut) -> Result<(), DecodeError> {
        let start = out.len();
        item.write_json(out)?;
        if let Some(prefix) = &self.type_prefix
            && out[start..].starts_with(prefix.as_bytes())
        {
            out[start] = b'{';
            out.copy_within(start + prefix.len().., start + 1);
            out.truncate(out.len() + 1 - prefix.len());
        }
        Ok(())
    }
}

impl Iterator for Pieces {
    type Item = Result<Bytes, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let piece = self.piece();
        // What breaks off cannot be mended: the client sees that the end is missing.
        self.ended |= piece.is_err();
        Some(piece)
    }
}

#[cfg(test)]
mod tests {
    use orchestrator_core::client::Resource;
    use serde_json::json;

    use super::*;
    use crate::registry::Registry;

    #[test]
    fn lists_of_any_length_are_whole() {
        let registry = Registry::new();
        let kind = registry.find(&Resource::new("", "v1", "configmaps")).unwrap();
        let text = "x".repeat(limits::LIST_PIECE_BYTES / 3);
        for count in [0_usize, 1, 2, 3, 4, 10] {
            let item = |index: usize| {
                Object::from_bytes(
                    format!("{{\"kind\":\"ConfigMap\",\"apiVersion\":\"v1\",\"data\":{{\"{index}\":\"{text}\"}}}}")
                        .into(),
                )
            };
            let items: Vec<Object> = (0..count).map(item).collect();
            let list = tree(&kind, items.clone(), &json!({"resourceVersion": "7"})).unwrap();
            assert_eq!(list["kind"], "ConfigMapList");
            assert_eq!(list["metadata"]["resourceVersion"], "7");
            let expected: Vec<Value> = (0..count).map(|index| json!({"data": {index.to_string(): text}})).collect();
            assert_eq!(list["items"], Value::from(expected));
            let is_streamed = matches!(body(&kind, items, &json!({})).unwrap(), Body::Stream(_));
            assert_eq!(is_streamed, count > 3, "{count} items");
        }
    }
}
