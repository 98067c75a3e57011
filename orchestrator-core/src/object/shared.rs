//! The shared object: encoded bytes, a tree, a typed value; whoever asks first makes the form, everyone shares it.

use std::{
    any::Any,
    borrow::Cow,
    fmt::{self, Write},
    sync::{Arc, OnceLock, Weak},
};

use bytes::{BufMut, Bytes, BytesMut};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize, Serializer, de::DeserializeOwned};
use serde_json::Value;

use super::trim::{managed_fields, member, without, without_managed_fields};
use crate::store::Revision;

/// What stands before the members of `metadata` in an encoded object, and where its revision is spliced in.
const METADATA_OPEN: &[u8] = b"\"metadata\":{";

/// Room for an object of a usual size.
const USUAL_BYTES: usize = 8 << 10;

/// Room for the spliced member.
const REVISION_MEMBER_BYTES: usize = 48;

/// An object that travels by reference. Cheap to clone.
#[derive(Clone)]
pub struct Object(Arc<Forms>);

/// Makes the tree of a typed value.
type EncodeTyped = fn(&(dyn Any + Send + Sync)) -> Result<Value, DecodeError>;

#[derive(Default)]
struct Forms {
    /// As a store holds it: everything but the revision.
    stored: Option<(Bytes, Revision)>,
    /// As it came, encoded.
    bytes: Option<Bytes>,
    tree: OnceLock<Value>,
    /// What the object was made of, if it was made of a typed value.
    typed: Option<(Arc<dyn Any + Send + Sync>, EncodeTyped)>,
    /// The typed value that caches share.
    shared: OnceLock<Arc<dyn Any + Send + Sync>>,
    metadata: OnceLock<Arc<ObjectMeta>>,
    /// Another encoding, while somebody keeps it.
    recoded: OnceLock<Weak<Bytes>>,
}

/// An object's form could not be made from the one at hand.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot decode the object: {0}")]
pub struct DecodeError(pub String);

impl From<serde_json::Error> for DecodeError {
    fn from(error: serde_json::Error) -> Self {
        Self(error.to_string())
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.metadata() {
            Ok(metadata) => write!(
                f,
                "Object({}/{} @{})",
                metadata.namespace.as_deref().unwrap_or_default(),
                metadata.name.as_deref().unwrap_or_default(),
                metadata.resource_version.as_deref().unwrap_or("-"),
            ),
            Err(error) => write!(f, "Object({error})"),
        }
    }
}

impl Object {
    /// An object from its JSON encoding.
    pub fn from_bytes(bytes: Bytes) -> Self {
        Self(Arc::new(Forms { bytes: Some(bytes), ..Default::default() }))
    }

    /// An object from its tree.
    pub fn from_tree(tree: Value) -> Self {
        Self(Arc::new(Forms { tree: OnceLock::from(tree), ..Default::default() }))
    }

    /// An object from its typed value.
    pub fn from_typed<K: Serialize + Send + Sync + 'static>(value: Arc<K>) -> Self {
        let encode: EncodeTyped = |value| {
            let value = value.downcast_ref::<K>().ok_or_else(|| DecodeError("type mix-up".to_owned()))?;
            Ok(serde_json::to_value(value)?)
        };
        Self(Arc::new(Forms { typed: Some((value, encode)), ..Default::default() }))
    }

    /// An object from what a store holds: written by [`Self::encode_for_store`], at this revision.
    pub fn from_stored(stored: &Bytes, revision: Revision) -> Self {
        Self(Arc::new(Forms { stored: Some((stored.clone(), revision)), ..Default::default() }))
    }

    /// Encodes a tree as stores hold it: without `resourceVersion`, since only the store knows that, and with
    /// `kind`, `apiVersion` and `metadata` first, so that the revision can be spliced in when serving.
    pub fn encode_for_store(tree: &Value) -> Result<Bytes, DecodeError> {
        let members = tree.as_object().ok_or_else(|| DecodeError("not a JSON object".to_owned()))?;
        let mut out = Vec::with_capacity(USUAL_BYTES);
        let empty = Value::Object(serde_json::Map::new());
        let metadata = members.get("metadata").unwrap_or(&empty);
        out.extend_from_slice(b"{\"kind\":");
        serde_json::to_writer(&mut out, members.get("kind").unwrap_or(&Value::Null))?;
        out.extend_from_slice(b",\"apiVersion\":");
        serde_json::to_writer(&mut out, members.get("apiVersion").unwrap_or(&Value::Null))?;
        out.extend_from_slice(b",\"metadata\":");
        match metadata {
            Value::Object(members) => {
                let kept = members.iter().filter(|(name, _)| *name != "resourceVersion");
                serde_json::Serializer::new(&mut out).collect_map(kept)?;
            }
            other => serde_json::to_writer(&mut out, other)?,
        }
        for (name, value) in members {
            if !matches!(name.as_str(), "kind" | "apiVersion" | "metadata") {
                out.push(b',');
                serde_json::to_writer(&mut out, name)?;
                out.push(b':');
                serde_json::to_writer(&mut out, value)?;
            }
        }
        out.push(b'}');
        // What is stored stays for long: without spare room.
        Ok(Bytes::copy_from_slice(&out))
    }

    /// The JSON encoding. It is not kept where it has to be made: most objects of a cluster in one process are never
    /// served as bytes.
    pub fn bytes(&self) -> Result<Bytes, DecodeError> {
        if let Some(bytes) = &self.0.bytes {
            return Ok(bytes.clone());
        }
        let mut out = BytesMut::new();
        self.write_json(&mut out)?;
        Ok(out.freeze())
    }

    /// Appends the JSON encoding.
    pub fn write_json(&self, out: &mut BytesMut) -> Result<(), DecodeError> {
        match (&self.0.bytes, &self.0.stored) {
            (Some(bytes), _) => out.extend_from_slice(bytes),
            (None, Some((stored, revision))) => splice_revision(stored, *revision, out),
            (None, None) => serde_json::to_writer(out.writer(), self.tree()?)?,
        }
        Ok(())
    }

    /// The encoding in one other format, which everyone who asks has to agree on. It is shared for as long as somebody keeps
    /// it, and made of the JSON where nobody does.
    pub fn recoded<E: From<DecodeError>>(
        &self,
        recode: impl FnOnce(&[u8]) -> Result<Bytes, E>,
    ) -> Result<Arc<Bytes>, E> {
        if let Some(recoded) = self.0.recoded.get().and_then(Weak::upgrade) {
            return Ok(recoded);
        }
        let recoded = Arc::new(recode(&self.bytes()?)?);
        // Whoever comes late, when all have let go of it, makes one of their own.
        let _ = self.0.recoded.set(Arc::downgrade(&recoded));
        Ok(recoded)
    }

    /// The JSON encoding, if the object came encoded.
    fn json(&self) -> Option<Bytes> {
        let came_encoded = self.0.bytes.is_some() || self.0.stored.is_some();
        came_encoded.then(|| self.bytes().ok()).flatten()
    }

    /// The JSON encoding, if the object came as such and nothing was made of it yet.
    pub fn encoded(&self) -> Option<&Bytes> {
        let untouched = self.0.tree.get().is_none() && self.0.shared.get().is_none();
        self.0.bytes.as_ref().filter(|_| untouched)
    }

    /// The tree.
    pub fn tree(&self) -> Result<&Value, DecodeError> {
        if let Some(tree) = self.0.tree.get() {
            return Ok(tree);
        }
        let tree = self.make_tree()?;
        Ok(self.0.tree.get_or_init(|| tree))
    }

    /// A tree of the caller's own, to be changed. Does not make the shared one.
    pub fn to_tree(&self) -> Result<Value, DecodeError> {
        self.0.tree.get().map_or_else(|| self.make_tree(), |tree| Ok(tree.clone()))
    }

    fn make_tree(&self) -> Result<Value, DecodeError> {
        if let Some((stored, revision)) = &self.0.stored {
            let mut tree: Value = serde_json::from_slice(stored)?;
            if let Some(Value::Object(metadata)) = tree.get_mut("metadata") {
                metadata.insert("resourceVersion".to_owned(), revision.to_string().into());
            }
            return Ok(tree);
        }
        if let Some(json) = self.json() {
            return Ok(serde_json::from_slice(&json)?);
        }
        match &self.0.typed {
            Some((value, encode)) => encode(&**value),
            None => Err(DecodeError("the object has no form".to_owned())),
        }
    }

    /// The typed value, complete: the one that the object was made of, or one decoded for this call.
    pub fn typed<K: DeserializeOwned + Send + Sync + 'static>(&self) -> Result<Arc<K>, DecodeError> {
        if let Some(Ok(value)) = self.0.typed.as_ref().map(|(value, _)| Arc::downcast(value.clone())) {
            return Ok(value);
        }
        // Always from the bytes, even where there is a tree: a second decoder for each type costs more to compile than
        // the rare encoding costs to run.
        Ok(Arc::new(serde_json::from_slice(&self.bytes()?)?))
    }

    /// The typed value as caches hold it: without `managedFields`, as upstream's controllers keep their objects. The first
    /// type asked for is shared by all; further ones are decoded for each call.
    pub fn shared<K: Clone + DeserializeOwned + Send + Sync + 'static>(&self) -> Result<Arc<K>, DecodeError> {
        if let Some(Ok(value)) = self.0.shared.get().map(|value| Arc::downcast(value.clone())) {
            return Ok(value);
        }
        let decoded: K = serde_json::from_slice(&self.trimmed()?)?;
        // Decoded collections have room to grow, up to half of their size; those of a clone have none.
        let value = Arc::new(decoded.clone());
        let shared = self.0.shared.get_or_init(|| value.clone());
        Ok(Arc::downcast(shared.clone()).unwrap_or(value))
    }

    /// The JSON encoding without managed fields.
    fn trimmed(&self) -> Result<Cow<'_, [u8]>, DecodeError> {
        match (&self.0.bytes, &self.0.stored) {
            (Some(bytes), _) => Ok(without_managed_fields(bytes)),
            (None, Some((stored, revision))) => {
                let mut out = BytesMut::new();
                let managed = managed_fields(stored).unwrap_or(stored.len()..stored.len());
                splice_revision(&stored[..managed.start], *revision, &mut out);
                if !managed.is_empty() {
                    out.extend_from_slice(b"null");
                }
                out.extend_from_slice(&stored[managed.end..]);
                Ok(Cow::Owned(out.into()))
            }
            (None, None) => Ok(Cow::Owned(without_managed_fields(&self.bytes()?).into_owned())),
        }
    }

    /// The metadata without `managedFields`; nothing else is decoded.
    pub fn metadata(&self) -> Result<&ObjectMeta, DecodeError> {
        self.shared_metadata().map(|metadata| &**metadata)
    }

    /// The same, to be kept beyond the object.
    pub fn shared_metadata(&self) -> Result<&Arc<ObjectMeta>, DecodeError> {
        if let Some(metadata) = self.0.metadata.get() {
            return Ok(metadata);
        }
        let mut metadata = self.make_metadata()?;
        metadata.managed_fields = None;
        Ok(self.0.metadata.get_or_init(|| Arc::new(metadata)))
    }

    fn make_metadata(&self) -> Result<ObjectMeta, DecodeError> {
        #[derive(Deserialize)]
        struct OnlyMetadata {
            #[serde(default)]
            metadata: ObjectMeta,
        }
        if let (Some((stored, revision)), None) = (&self.0.stored, self.0.tree.get()) {
            let Some(place) = member(stored, "metadata") else { return Ok(ObjectMeta::default()) };
            let json = &stored[place];
            let metadata: ObjectMeta = serde_json::from_slice(&without(json, member(json, "managedFields")))?;
            return Ok(ObjectMeta { resource_version: Some(revision.to_string()), ..metadata });
        }
        let json = if self.0.tree.get().is_none() { self.json() } else { None };
        Ok(match json {
            Some(json) => serde_json::from_slice::<OnlyMetadata>(&without_managed_fields(&json))?.metadata,
            None => self.tree()?.get("metadata").map(ObjectMeta::deserialize).transpose()?.unwrap_or_default(),
        })
    }

    /// `metadata.resourceVersion` as a number, for servers whose versions compare (Kubernetes 1.35 and later).
    pub fn revision(&self) -> Option<Revision> {
        if let Some((_, revision)) = self.0.stored {
            return Some(revision);
        }
        self.metadata().ok()?.resource_version.as_ref()?.parse().ok().map(Revision)
    }
}

impl Serialize for Object {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.tree().map_err(serde::ser::Error::custom)?.serialize(serializer)
    }
}

/// Writes the revision as the first member of `metadata`.
fn splice_revision(stored: &[u8], revision: Revision, out: &mut BytesMut) {
    let open = stored.windows(METADATA_OPEN.len()).position(|window| window == METADATA_OPEN);
    let (head, tail) = stored.split_at(open.map_or(0, |open| open + METADATA_OPEN.len()));
    out.reserve(stored.len() + REVISION_MEMBER_BYTES);
    out.extend_from_slice(head);
    if open.is_some() {
        let separator = if tail.first() == Some(&b'}') { "" } else { "," };
        // A buffer that grows takes whatever is written.
        let _ = write!(out, "\"resourceVersion\":\"{revision}\"{separator}");
    }
    out.extend_from_slice(tail);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_stored_object_is_served_with_its_revision() {
        let tree = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "\"metadata\":{"},
            "metadata": {"name": "x", "resourceVersion": "1"},
        });
        let stored = Object::encode_for_store(&tree).unwrap();
        assert!(!String::from_utf8_lossy(&stored).contains("resourceVersion"));
        let object = Object::from_stored(&stored, Revision(42));
        assert_eq!(object.metadata().unwrap().resource_version.as_deref(), Some("42"));
        assert_eq!(object.tree().unwrap()["data"], tree["data"]);
    }

    #[test]
    fn another_encoding_is_shared_while_it_is_kept() {
        let stored = Object::encode_for_store(&json!({"kind": "ConfigMap", "metadata": {"name": "x"}})).unwrap();
        let object = Object::from_stored(&stored, Revision(42));
        let shout = |json: &[u8]| Ok::<_, DecodeError>(Bytes::from(json.to_ascii_uppercase()));
        let first = object.recoded(shout).unwrap();
        assert!(first.ends_with(br#""RESOURCEVERSION":"42","NAME":"X"}}"#));
        assert!(Arc::ptr_eq(&first, &object.clone().recoded(shout).unwrap()));
        drop(first);
        assert!(object.recoded(|_| Err(DecodeError("made again".to_owned()))).is_err());
    }

    #[test]
    fn a_typed_value_is_shared() {
        use k8s_openapi::api::core::v1::ConfigMap;
        let object = Object::from_tree(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}}));
        let first = object.shared::<ConfigMap>().unwrap();
        let second = object.shared::<ConfigMap>().unwrap();
        assert!(Arc::ptr_eq(&first, &second));
    }
}
