//! Answers: one object, or a list of them, cut out of the bytes that came.

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body_util::{BodyExt, Limited};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta;
use kube::client::Body;
use orchestrator_core::{
    client::Reply,
    object::Object,
    status::{ApiError, ApiResult},
};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;

use super::failure::chain;
use crate::limits;

/// All of an answer.
pub(super) async fn body(body: Body) -> ApiResult<Bytes> {
    let read = Limited::new(body, limits::REPLY_BYTES).collect().await;
    let read = read.map_err(|error| ApiError::unavailable(format!("the answer broke off: {}", chain(&*error))))?;
    Ok(read.to_bytes())
}

/// What an answer holds. Only the outline of a list is read.
pub(super) fn parse(bytes: Bytes, wants_list: bool, created: bool, warnings: Vec<String>) -> ApiResult<Reply> {
    if !wants_list {
        return Ok(Reply::Object { object: Object::from_bytes(bytes), created, warnings });
    }
    let list: List<'_> = serde_json::from_slice(&bytes).map_err(unreadable)?;
    let items = list.items.as_deref().unwrap_or_default();
    let head = items.first().map(|first| head(first.get(), &list)).transpose()?.flatten();
    // Each item gets bytes of its own: a slice would keep the whole list in memory for as long as one item is used.
    let items = items.iter().map(|item| Object::from_bytes(with_head(item.get(), head.as_deref()))).collect();
    Ok(Reply::List {
        items,
        resource_version: list.metadata.resource_version.unwrap_or_default(),
        continue_token: list.metadata.continue_.filter(|token| !token.is_empty()),
        remaining: list.metadata.remaining_item_count.and_then(|count| u64::try_from(count).ok()),
    })
}

/// The outline of a list.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct List<'a> {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    api_version: String,
    metadata: ListMeta,
    #[serde(borrow)]
    items: Option<Vec<&'a RawValue>>,
}

/// What the items of a list have to begin with. Those of built-in kinds do not repeat what they are; the list says it.
fn head(first: &str, list: &List<'_>) -> ApiResult<Option<String>> {
    #[derive(Deserialize)]
    struct Kind {
        kind: Option<IgnoredAny>,
    }
    let says_it = serde_json::from_str::<Kind>(first).map_err(unreadable)?.kind.is_some();
    let Some(kind) = list.kind.strip_suffix("List").filter(|kind| !says_it && !kind.is_empty()) else {
        return Ok(None);
    };
    let (kind, api_version) = (serde_json::Value::from(kind), serde_json::Value::from(list.api_version.as_str()));
    Ok(Some(format!("{{\"kind\":{kind},\"apiVersion\":{api_version}")))
}

fn with_head(item: &str, head: Option<&str>) -> Bytes {
    let inner = item.strip_prefix('{').map(str::trim_start);
    let (Some(head), Some(inner)) = (head, inner) else { return Bytes::copy_from_slice(item.as_bytes()) };
    let mut out = BytesMut::with_capacity(head.len() + inner.len() + 1);
    out.put_slice(head.as_bytes());
    if !inner.starts_with('}') {
        out.put_u8(b',');
    }
    out.put_slice(inner.as_bytes());
    out.freeze()
}

pub(super) fn unreadable(error: serde_json::Error) -> ApiError {
    ApiError::internal(format!("the server's answer cannot be read: {error}"))
}

/// The texts of `Warning` headers with the code 299, which is the one that API servers use.
pub(super) fn warnings(headers: &HeaderMap) -> Vec<String> {
    let texts = headers.get_all(header::WARNING).iter().filter_map(|value| value.to_str().ok());
    texts.filter_map(warning).collect()
}

/// `299 agent "text"`, in which quotes and backslashes are escaped.
fn warning(header: &str) -> Option<String> {
    let rest = header.trim_start().strip_prefix("299 ")?;
    let (_, quoted) = rest.split_once('"')?;
    let mut text = String::new();
    let mut characters = quoted.chars();
    loop {
        match characters.next()? {
            '"' => return Some(text),
            '\\' => text.push(characters.next()?),
            other => text.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn list(text: &str) -> (Vec<Object>, Reply) {
        let reply = parse(Bytes::copy_from_slice(text.as_bytes()), true, false, Vec::new()).unwrap();
        let Reply::List { items, .. } = &reply else { panic!("a list") };
        (items.clone(), reply)
    }

    #[test]
    fn items_say_what_they_are() {
        let text = r#"{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"5","continue":"c",
            "remainingItemCount":2},"items":[ { "metadata":{"name":"a"}},{}]}"#;
        let (items, reply) = list(text);
        let expected = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "a"}});
        assert_eq!(items[0].tree().unwrap(), &expected);
        assert_eq!(items[1].tree().unwrap(), &json!({"kind": "Pod", "apiVersion": "v1"}));
        let Reply::List { resource_version, continue_token, remaining, .. } = reply else { panic!("a list") };
        assert_eq!((resource_version.as_str(), continue_token.as_deref(), remaining), ("5", Some("c"), Some(2)));
    }

    #[test]
    fn items_that_say_it_are_left_alone() {
        let text = r#"{"kind":"TList","apiVersion":"g/v1","metadata":{},"items":[{"kind":"T","apiVersion":"g/v1"}]}"#;
        assert_eq!(list(text).0[0].bytes().unwrap(), r#"{"kind":"T","apiVersion":"g/v1"}"#);
        assert!(list(r#"{"kind":"TList","apiVersion":"g/v1","metadata":{},"items":null}"#).0.is_empty());
    }

    #[test]
    fn warnings_lose_their_quotes() {
        let mut headers = HeaderMap::new();
        for text in ["299 - \"say \\\"a\\\\b\\\"\"", "199 - \"other\"", "299 - none", "299 agent \"two\""] {
            headers.append(header::WARNING, text.parse().unwrap());
        }
        assert_eq!(warnings(&headers), ["say \"a\\b\"", "two"]);
    }
}
