//! Lists in any form, spliced of what is at hand, piece by piece as the connection takes it.

use bytes::{BufMut, Bytes, BytesMut};
use futures::stream;
use orchestrator_core::{
    object::Object,
    status::{ApiError, ApiResult},
    yaml,
};
use serde_json::{Map, Value};

use super::body::{Body, BodyError};
use crate::{
    limits,
    protobuf::ListWriter,
    registry::Kind,
    views::{partial, table::Table},
};

/// A list of whole objects in JSON.
pub(super) fn json(kind: &Kind, items: Vec<Object>, metadata: &Value) -> ApiResult<Body> {
    Pieces::of_objects(kind, items, metadata).body()
}

/// A list in YAML: its head, with the items as what `show` makes of them under a name. Members come in order, so that
/// some of the head may come behind the items.
pub(super) fn yaml(
    head: &Value,
    name: &'static str,
    items: Vec<Object>,
    show: impl Fn(&Object) -> ApiResult<Value> + Send + 'static,
) -> ApiResult<Body> {
    let members = head.as_object().into_iter().flatten().map(|(name, value)| (name.clone(), value.clone()));
    let (before, behind): (Map<_, _>, Map<_, _>) = members.partition(|(member, _)| member.as_str() < name);
    let empty = if items.is_empty() { " []" } else { "" };
    let begin = format!("{}{name}:{empty}\n", document(before)?).into();
    let around = Around { between: b"", end: document(behind)?.into() };
    let write = move |item: &Object, out: &mut BytesMut| {
        // A list of one is written as each item of a longer one.
        out.put_slice(written(&Value::from(vec![show(item)?]))?.as_bytes());
        Ok(())
    };
    Pieces::new(begin, around, items, write).body()
}

/// Members as YAML; nothing where there are none.
fn document(members: Map<String, Value>) -> ApiResult<String> {
    if members.is_empty() { Ok(String::new()) } else { written(&members.into()) }
}

fn written(tree: &Value) -> ApiResult<String> {
    yaml::to_string(tree).map_err(ApiError::internal)
}

/// A list of metadata in JSON.
pub(super) fn partial(items: Vec<Object>, metadata: &Value, meta_version: &'static str) -> ApiResult<Body> {
    let begin = begin("PartialObjectMetadata", meta_version, metadata);
    let write = move |item: &Object, out: &mut BytesMut| {
        out.put_slice(&partial::json(item, meta_version)?);
        Ok(())
    };
    Pieces::new(begin, Around::json(), items, write).body()
}

/// A table in JSON.
pub(super) fn table(table: Table, items: Vec<Object>, metadata: &Value) -> ApiResult<Body> {
    let head = table.without_rows(metadata).to_string();
    let head = head.strip_suffix('}').unwrap_or(&head);
    let write = move |item: &Object, out: &mut BytesMut| {
        out.put_slice(table.row(&item.to_tree()?).to_string().as_bytes());
        Ok(())
    };
    Pieces::new(format!("{head},\"rows\":[").into(), Around::json(), items, write).body()
}

/// A list in protobuf.
pub(super) fn protobuf(mut writer: ListWriter, items: Vec<Object>) -> ApiResult<Body> {
    let begin = writer.begin();
    let around = Around { between: b"", end: Bytes::from_static(ListWriter::END) };
    let write = move |item: &Object, out: &mut BytesMut| writer.item(item, out).map_err(ApiError::internal);
    Pieces::new(begin, around, items, write).body()
}

/// How a list of a kind begins in JSON.
fn begin(kind: &str, api_version: &str, metadata: &Value) -> Bytes {
    format!("{{\"kind\":\"{kind}List\",\"apiVersion\":\"{api_version}\",\"metadata\":{metadata},\"items\":[").into()
}

/// What stands between the items of a list, and behind them.
struct Around {
    between: &'static [u8],
    end: Bytes,
}

impl Around {
    fn json() -> Self {
        Self { between: b",", end: Bytes::from_static(b"]}") }
    }
}

/// A list in the making. However long it is, a piece of it is in memory at a time.
struct Pieces<W> {
    /// What the next piece begins with.
    begin: Bytes,
    around: Around,
    items: std::vec::IntoIter<Object>,
    write: W,
    ended: bool,
}

impl Pieces<()> {
    fn of_objects(
        kind: &Kind,
        items: Vec<Object>,
        metadata: &Value,
    ) -> Pieces<impl FnMut(&Object, &mut BytesMut) -> ApiResult<()> + Send + use<>> {
        let (name, version) = (&kind.kind, kind.api_version());
        // Items begin with what they are. In lists of built-in kinds they do not say it, as upstream.
        let prefix = (!kind.is_custom()).then(|| format!("{{\"kind\":\"{name}\",\"apiVersion\":\"{version}\","));
        let write = move |item: &Object, out: &mut BytesMut| {
            let start = out.len();
            item.write_json(out)?;
            if let Some(prefix) = &prefix
                && out[start..].starts_with(prefix.as_bytes())
            {
                out[start] = b'{';
                out.copy_within(start + prefix.len().., start + 1);
                out.truncate(out.len() + 1 - prefix.len());
            }
            Ok(())
        };
        Pieces::new(begin(name, &version, metadata), Around::json(), items, write)
    }
}

impl<W: FnMut(&Object, &mut BytesMut) -> ApiResult<()> + Send + 'static> Pieces<W> {
    fn new(begin: Bytes, around: Around, items: Vec<Object>, write: W) -> Self {
        Self { begin, around, items: items.into_iter(), write, ended: false }
    }

    /// The body of an answer: all at once, if it fits into a piece.
    fn body(mut self) -> ApiResult<Body> {
        let first = self.piece()?;
        if self.ended {
            return Ok(Body::full(first));
        }
        let pieces = std::iter::once(Ok(first)).chain(self);
        Ok(Body::stream(stream::iter(pieces.map(|piece| piece.map_err(BodyError::from)))))
    }

    fn piece(&mut self) -> ApiResult<Bytes> {
        let mut out = BytesMut::with_capacity(limits::LIST_PIECE_BYTES);
        out.put_slice(&std::mem::replace(&mut self.begin, Bytes::from_static(self.around.between)));
        while let Some(item) = self.items.next() {
            (self.write)(&item, &mut out)?;
            if self.items.as_slice().is_empty() {
                break;
            }
            if out.len() >= limits::LIST_PIECE_BYTES {
                return Ok(out.freeze());
            }
            out.put_slice(self.around.between);
        }
        out.put_slice(&self.around.end);
        self.ended = true;
        Ok(out.freeze())
    }
}

impl<W: FnMut(&Object, &mut BytesMut) -> ApiResult<()> + Send + 'static> Iterator for Pieces<W> {
    type Item = ApiResult<Bytes>;

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
    use std::sync::Arc;

    use futures::executor::block_on;
    use http_body_util::BodyExt;
    use jiff::Timestamp;
    use orchestrator_core::client::Resource;
    use serde_json::json;

    use super::*;
    use crate::{
        protobuf,
        registry::Registry,
        views::table::{TableOptions, table as whole_table},
    };

    /// Both as a whole, and whether it came in pieces.
    fn collected(body: Body) -> (Bytes, bool) {
        let is_streamed = matches!(body, Body::Stream(_));
        (block_on(body.collect()).unwrap().to_bytes(), is_streamed)
    }

    fn maps(count: usize) -> Vec<Object> {
        let text = "x".repeat(limits::LIST_PIECE_BYTES / 3);
        let item = |index: usize| {
            let metadata = format!("{{\"name\":\"{index}\",\"annotations\":{{\"a\":\"{text}\"}}}}");
            let map = format!("{{\"kind\":\"ConfigMap\",\"apiVersion\":\"v1\",\"metadata\":{metadata}}}");
            Object::from_bytes(map.into())
        };
        (0..count).map(item).collect()
    }

    fn kind() -> Arc<Kind> {
        Registry::new().find(&Resource::new("", "v1", "configmaps")).unwrap()
    }

    /// Lists of no, some and many items. The last is longer than what is kept of a list in protobuf.
    fn each_length(check: impl Fn(Vec<Object>, &[Value], &Value)) {
        for count in [0, 1, 2, 3, 4, 10, 100] {
            let items = maps(count);
            let trees: Vec<Value> = items.iter().map(|item| item.to_tree().unwrap()).collect();
            check(items, &trees, &json!({"resourceVersion": "7"}));
        }
    }

    /// The list in JSON.
    fn whole(trees: &[Value], metadata: &Value) -> Value {
        let items: Vec<Value> = trees.iter().map(|tree| json!({"metadata": tree["metadata"]})).collect();
        json!({"kind": "ConfigMapList", "apiVersion": "v1", "metadata": metadata, "items": items})
    }

    #[test]
    fn lists_of_any_length_are_whole() {
        each_length(|items, trees, metadata| {
            let (list, is_streamed) = collected(json(&kind(), items.clone(), metadata).unwrap());
            assert_eq!(serde_json::from_slice::<Value>(&list).unwrap(), whole(trees, metadata));
            assert_eq!(is_streamed, trees.len() > 3, "{} items", trees.len());
        });
    }

    #[test]
    fn lists_in_yaml_are_written_as_if_at_once() {
        let text = |body: Body| String::from_utf8(collected(body).0.to_vec()).unwrap();
        each_length(|items, trees, metadata| {
            let is_long = trees.len() > 3;
            let mut head = whole(&[], metadata);
            head.as_object_mut().unwrap().remove("items");
            let expected = orchestrator_core::yaml::to_string(&whole(trees, metadata)).unwrap();
            let show = |item: &Object| Ok(json!({"metadata": item.to_tree()?["metadata"]}));
            let body = yaml(&head, "items", items.clone(), show).unwrap();
            assert_eq!(matches!(body, Body::Stream(_)), is_long);
            assert_eq!(text(body), expected);
            // Of a table all of the head comes first.
            let head = json!({"kind": "Table", "metadata": {}});
            let table = text(yaml(&head, "rows", items, show).unwrap());
            let rows = &whole(trees, metadata)["items"];
            let expected = json!({"kind": "Table", "metadata": {}, "rows": rows});
            assert_eq!(table, orchestrator_core::yaml::to_string(&expected).unwrap());
        });
    }

    #[test]
    fn lists_in_protobuf_are_whole() {
        each_length(|items, trees, metadata| {
            let writer = ListWriter::new(("v1", "ConfigMap"), metadata, &items).unwrap();
            let (list, is_streamed) = collected(protobuf(writer, items).unwrap());
            let mut decoded = protobuf::decode(&list).unwrap();
            // In protobuf an empty list is none.
            decoded.as_object_mut().unwrap().entry("items").or_insert(json!([]));
            assert_eq!(decoded, whole(trees, metadata));
            assert_eq!(is_streamed, trees.len() > 3, "{} items", trees.len());
        });
    }

    /// How many pieces a body comes in, and how long the longest is.
    fn pieces(mut body: Body) -> (usize, usize) {
        let (mut count, mut longest) = (0, 0);
        while let Some(frame) = block_on(body.frame()) {
            let length = frame.unwrap().into_data().map_or(0, |data| data.len());
            (count, longest) = (count + 1, longest.max(length));
        }
        (count, longest)
    }

    #[test]
    fn however_long_a_list_is_a_piece_is_not() {
        let (items, metadata) = (maps(500), json!({"resourceVersion": "7"}));
        let (name, meta_version) = (("v1", "ConfigMap"), "meta.k8s.io/v1");
        let of_objects = ListWriter::new(name, &metadata, &items).unwrap();
        let of_metadata = ListWriter::partial(meta_version, &metadata, &items).unwrap();
        for body in [
            json(&kind(), items.clone(), &metadata),
            partial(items.clone(), &metadata, meta_version),
            protobuf(of_objects, items.clone()),
            protobuf(of_metadata, items),
        ] {
            let (count, longest) = pieces(body.unwrap());
            assert!(count > 100, "{count} pieces");
            assert!(longest <= 2 * limits::LIST_PIECE_BYTES, "{longest} bytes");
        }
    }

    #[test]
    fn lists_of_metadata_and_tables_are_whole() {
        each_length(|items, trees, metadata| {
            let version = "meta.k8s.io/v1beta1";
            let (list, _) = collected(partial(items.clone(), metadata, version).unwrap());
            let parts: Vec<Value> = trees.iter().map(|tree| partial::object(tree, version)).collect();
            let kind_of_list = "PartialObjectMetadataList";
            let expected = json!({"kind": kind_of_list, "apiVersion": version, "metadata": metadata, "items": parts});
            assert_eq!(serde_json::from_slice::<Value>(&list).unwrap(), expected);

            let (now, options) = (Timestamp::UNIX_EPOCH, TableOptions::default());
            let (rows, _) = collected(table(Table::new(&kind(), now, options), items, metadata).unwrap());
            let expected = whole_table(&kind(), &trees.iter().collect::<Vec<_>>(), now, options, metadata);
            assert_eq!(serde_json::from_slice::<Value>(&rows).unwrap(), expected);
        });
    }
}
