//! Bodies in protobuf, as typed clients and `kubectl create namespace` send them: read into the tree that JSON would give.
//!
//! Upstream: <https://kubernetes.io/docs/reference/using-api/api-concepts/#protobuf-encoding>. Numbers and names of fields come
//! from the table of the published API.

use std::{collections::BTreeMap, sync::LazyLock};

use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::limits;

const FIELDS: &str = include_str!("../../data/protobuf-fields.tsv");
/// How every encoded object begins.
const MAGIC: &[u8] = b"k8s\0";
const META: &str = "k8s.io.apimachinery.pkg.apis.meta.v1";

/// Fields whose zero means something, with their message where another has one of the name: upstream holds them by pointer. Of all others an encoder writes the zero always, and
/// JSON leaves it out.
const SAID_BY_ZERO: &str = "activeDeadlineSeconds allocateLoadBalancerNodePorts allowPrivilegeEscalation allowVolumeExpansion allowed \
    appProtocol attachRequired automountServiceAccountToken backoffLimit backoffLimitPerIndex \
    blockOwnerDeletion completions controller defaultMode deletionGracePeriodSeconds enableServiceLinks \
    endPort expirationSeconds failedJobsHistoryLimit failureThreshold fsGroup fsGroupChangePolicy \
    gracePeriodSeconds hostUsers immutable leaseDurationSeconds leaseTransitions manualSelector \
    maxFailedIndexes maxReplicas minDomains minReplicas mode optional orphanDependents parallelism partition \
    podInfoOnMount EndpointPort.port preemptionPolicy priority privileged procMount progressDeadlineSeconds \
    readOnlyRootFilesystem ready DeploymentSpec.replicas ReplicaSetSpec.replicas StatefulSetSpec.replicas ReplicationControllerSpec.replicas requiresRepublish revisionHistoryLimit runAsGroup runAsNonRoot \
    runAsUser seLinuxMount serving setHostnameAsFQDN shareProcessNamespace startingDeadlineSeconds started \
    storageCapacity PersistentVolumeClaimSpec.storageClassName successfulJobsHistoryLimit suspend terminating \
    terminationGracePeriodSeconds timeoutSeconds tolerationSeconds ttlSecondsAfterFinished volumeMode";

/// A field of a message.
struct Field {
    json: &'static str,
    label: &'static str,
    of: &'static str,
    package: &'static str,
}

/// Messages by full name, their fields by number.
type Messages = BTreeMap<String, BTreeMap<u64, Field>>;

static MESSAGES: LazyLock<Messages> = LazyLock::new(|| {
    let mut messages = Messages::new();
    for line in FIELDS.lines().filter(|line| !line.starts_with('#')) {
        let columns: Vec<&'static str> = line.split('\t').collect();
        let [package, message, number, name, label, of, ref rest @ ..] = columns[..] else { continue };
        let Ok(number) = number.parse() else { continue };
        let json = rest.first().copied().filter(|json| !json.is_empty()).unwrap_or(name);
        let field = Field { json, label, of, package };
        messages.entry(format!("{package}.{message}")).or_default().insert(number, field);
    }
    messages
});

/// The bytes are no object.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum ProtobufError {
    /// They do not start as one.
    #[error("provided data does not appear to be a protobuf message, expected prefix {MAGIC:?}")]
    Prefix,
    /// They end too early, or are not of the form that the field has.
    #[error("the protobuf message is not well-formed")]
    Malformed,
    /// There is no such kind in protobuf.
    #[error("no kind {kind:?} of version {version:?} is known in protobuf")]
    Unknown {
        /// `apiVersion`.
        version: String,
        /// `kind`.
        kind: String,
    },
    /// Messages inside of messages without end.
    #[error("the protobuf message is nested too deeply")]
    Deep,
    /// A type that this server reads in JSON only.
    #[error("fields of type {0} are read in JSON only")]
    Unsupported(&'static str),
}

use ProtobufError::{Deep, Malformed, Prefix, Unknown, Unsupported};

/// The object that is encoded here, as a tree.
pub(crate) fn object(bytes: &[u8]) -> Result<Value, ProtobufError> {
    let envelope = bytes.strip_prefix(MAGIC).ok_or(Prefix)?;
    let (mut version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    for entry in Entries(envelope) {
        match entry? {
            (1, Wire::Bytes(meta)) => {
                for entry in Entries(meta) {
                    match entry? {
                        (1, Wire::Bytes(value)) => version = text(value)?,
                        (2, Wire::Bytes(value)) => kind = text(value)?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(value)) => raw = value,
            _ => {}
        }
    }
    let Some(name) = message_of(&version, &kind) else { return Err(Unknown { version, kind }) };
    let mut tree = message(name, raw, 0)?;
    tree.insert("apiVersion".to_owned(), version.into());
    tree.insert("kind".to_owned(), kind.into());
    Ok(Value::Object(tree))
}

/// The full name of a kind's message.
fn message_of(version: &str, kind: &str) -> Option<&'static str> {
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let short = group.split('.').next().filter(|group| !group.is_empty()).unwrap_or("core");
    let suffix = format!(".{short}.{version}.{kind}");
    let of_meta = format!("{META}.{kind}");
    let names = || MESSAGES.keys();
    names().find(|name| name.ends_with(&suffix)).or_else(|| names().find(|name| **name == of_meta)).map(String::as_str)
}

fn message(name: &str, bytes: &[u8], depth: usize) -> Result<Map<String, Value>, ProtobufError> {
    if depth > limits::NESTING_DEPTH {
        return Err(Deep);
    }
    let mut tree = Map::new();
    let Some(fields) = MESSAGES.get(name) else { return Ok(tree) };
    for entry in Entries(bytes) {
        let (number, wire) = entry?;
        // What is not known is of a later version: clients may be newer than servers.
        let Some(field) = fields.get(&number) else { continue };
        match field.label {
            "map" => {
                let (key, value) = pair(field, &wire, depth)?;
                if let Value::Object(map) = tree.entry(field.json).or_insert_with(|| Map::new().into()) {
                    map.insert(key, value);
                }
            }
            "repeated" => {
                let element = value(field, field.of, &wire, depth)?.unwrap_or_default();
                if let Value::Array(list) = tree.entry(field.json).or_insert_with(|| Value::Array(Vec::new())) {
                    list.push(element);
                }
            }
            _ if field.json == "inline" => {
                if let Some(Value::Object(inlined)) = value(field, field.of, &wire, depth)? {
                    tree.extend(inlined);
                }
            }
            _ => {
                if let Some(value) = value(field, field.of, &wire, depth)?.filter(|value| says(name, field.json, value))
                {
                    tree.insert(field.json.to_owned(), value);
                }
            }
        }
    }
    Ok(tree)
}

/// Whether a value would stand in JSON.
fn says(message: &str, name: &str, value: &Value) -> bool {
    let is_zero = match value {
        Value::String(text) => text.is_empty(),
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::Null => true,
        _ => false,
    };
    let message = message.rsplit('.').next().unwrap_or_default();
    let is_said = |said: &str| said == name || said.split_once('.') == Some((message, name));
    !is_zero || SAID_BY_ZERO.split_whitespace().any(is_said)
}

/// An entry of a map: a message of key and value.
fn pair(field: &Field, wire: &Wire<'_>, depth: usize) -> Result<(String, Value), ProtobufError> {
    let of = field.of.split_once(',').map_or(field.of, |(_, of)| of);
    let (mut key, mut found) = (String::new(), None);
    for entry in Entries(wire.bytes()?) {
        match entry? {
            (1, wire) => key = text(wire.bytes()?)?,
            (2, wire) => found = value(field, of, &wire, depth)?,
            _ => {}
        }
    }
    let zero = if of == "bytes" || of == "string" { Value::from("") } else { Value::Null };
    Ok((key, found.unwrap_or(zero)))
}

/// One value. `None` for a time that is not set.
fn value(field: &Field, of: &'static str, wire: &Wire<'_>, depth: usize) -> Result<Option<Value>, ProtobufError> {
    let value = match of {
        "string" => text(wire.bytes()?)?.into(),
        "bytes" => STANDARD.encode(wire.bytes()?).into(),
        "bool" => (wire.number()? != 0).into(),
        "int32" | "int64" => wire.number()?.cast_signed().into(),
        "uint32" | "uint64" => wire.number()?.into(),
        "double" => f64::from_bits(wire.number()?).into(),
        _ => return composed(field, of, wire.bytes()?, depth),
    };
    Ok(Some(value))
}

/// A message, and those that are something else in JSON.
fn composed(field: &Field, of: &'static str, bytes: &[u8], depth: usize) -> Result<Option<Value>, ProtobufError> {
    let first = || Entries(bytes).find_map(|entry| entry.ok().filter(|(number, _)| *number == 1).map(|(_, wire)| wire));
    let value = match of.rsplit('.').next().unwrap_or(of) {
        "Time" => return time(bytes, 0),
        "MicroTime" => return time(bytes, 6),
        "Quantity" => text(first().ok_or(Malformed)?.bytes()?)?.into(),
        "IntOrString" => int_or_string(bytes)?,
        "ExtraValue" | "Verbs" => {
            let texts: Result<Vec<_>, _> = Entries(bytes).map(|entry| text(entry?.1.bytes()?)).collect();
            texts?.into()
        }
        "RawExtension" | "FieldsV1" | "JSON" => match first() {
            Some(raw) => serde_json::from_slice(raw.bytes()?).map_err(|_| Malformed)?,
            None => return Ok(None),
        },
        "JSONSchemaProps" | "Duration" => return Err(Unsupported(of)),
        _ => {
            let name = if of.contains('.') { of.to_owned() } else { format!("{}.{of}", field.package) };
            message(&name, bytes, depth + 1)?.into()
        }
    };
    Ok(Some(value))
}

fn time(bytes: &[u8], digits: u8) -> Result<Option<Value>, ProtobufError> {
    let (mut seconds, mut nanoseconds) = (None, 0);
    for entry in Entries(bytes) {
        match entry? {
            (1, wire) => seconds = Some(wire.number()?.cast_signed()),
            (2, wire) => nanoseconds = i32::try_from(wire.number()?).map_err(|_| Malformed)?,
            _ => {}
        }
    }
    let Some(seconds) = seconds else { return Ok(None) };
    let time = Timestamp::new(seconds, nanoseconds).map_err(|_| Malformed)?;
    Ok(Some(format!("{time:.*}", usize::from(digits)).into()))
}

fn int_or_string(bytes: &[u8]) -> Result<Value, ProtobufError> {
    let (mut is_text, mut number, mut word) = (false, 0, String::new());
    for entry in Entries(bytes) {
        match entry? {
            (1, wire) => is_text = wire.number()? == 1,
            (2, wire) => number = wire.number()?.cast_signed(),
            (3, wire) => word = text(wire.bytes()?)?,
            _ => {}
        }
    }
    Ok(if is_text { word.into() } else { number.into() })
}

fn text(bytes: &[u8]) -> Result<String, ProtobufError> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| Malformed)
}

/// What stands behind a field's number.
enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Wire<'a> {
    fn number(&self) -> Result<u64, ProtobufError> {
        if let Self::Number(number) = self { Ok(*number) } else { Err(Malformed) }
    }

    fn bytes(&self) -> Result<&'a [u8], ProtobufError> {
        if let Self::Bytes(bytes) = self { Ok(bytes) } else { Err(Malformed) }
    }
}

/// The fields of a message, one after the other; an error ends them.
struct Entries<'a>(&'a [u8]);

impl<'a> Iterator for Entries<'a> {
    type Item = Result<(u64, Wire<'a>), ProtobufError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let entry = self.entry().ok_or(Malformed);
        if entry.is_err() {
            self.0 = &[];
        }
        Some(entry)
    }
}

impl<'a> Entries<'a> {
    fn entry(&mut self) -> Option<(u64, Wire<'a>)> {
        let tag = self.varint()?;
        let wire = match tag & 7 {
            0 => Wire::Number(self.varint()?),
            1 => Wire::Number(u64::from_le_bytes(self.take(8)?.try_into().ok()?)),
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Wire::Bytes(self.take(length)?)
            }
            5 => Wire::Number(u32::from_le_bytes(self.take(4)?.try_into().ok()?).into()),
            _ => return None,
        };
        Some((tag >> 3, wire))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// A tree without the members that are empty: encoders write those always, and JSON some of them.
    fn dense(value: &Value) -> Value {
        let is_empty = |value: &Value| matches!(value, Value::Object(inner) if inner.is_empty());
        match value {
            Value::Object(members) => {
                let members = members.iter().map(|(name, value)| (name.clone(), dense(value)));
                members.filter(|(name, value)| !is_empty(value) && says("", name, value)).collect()
            }
            Value::Array(items) => items.iter().map(dense).collect(),
            other => other.clone(),
        }
    }

    /// Where two trees differ.
    fn differences(left: &Value, right: &Value, path: &str) -> Vec<String> {
        match (left, right) {
            (Value::Object(left), Value::Object(right)) => {
                let names: std::collections::BTreeSet<_> = left.keys().chain(right.keys()).collect();
                let member = |map: &Map<String, Value>, name: &String| map.get(name).cloned().unwrap_or_default();
                let all = names.into_iter();
                all.flat_map(|name| differences(&member(left, name), &member(right, name), &format!("{path}.{name}")))
                    .collect()
            }
            (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
                left.iter().zip(right).flat_map(|(left, right)| differences(left, right, path)).collect()
            }
            _ if left == right => Vec::new(),
            _ => vec![format!("{path}: {left} and {right}")],
        }
    }

    /// Recorded objects in both forms are the same tree.
    #[test]
    fn both_forms_agree() {
        let pairs = include_str!("../../tests/fixtures/protobuf-pairs.json");
        let pairs: Vec<Value> = serde_json::from_str(pairs).unwrap();
        let (mut compared, mut found) = (0, Vec::new());
        for pair in &pairs {
            let bytes = STANDARD.decode(pair["protobuf"].as_str().unwrap()).unwrap();
            let name = format!("{} {}", pair["groupVersion"], pair["kind"]);
            match object(&bytes) {
                Err(Unsupported(_)) => {}
                Err(error) => found.push(format!("{name}: {error}")),
                Ok(decoded) => {
                    found.extend(differences(&dense(&decoded), &dense(&pair["json"]), &name));
                    compared += 1;
                }
            }
        }
        assert!(found.is_empty(), "{}", found.join("\n"));
        assert!(compared * 10 > pairs.len() * 9, "{compared} of {}", pairs.len());
    }

    #[test]
    fn what_is_no_object() {
        assert_eq!(object(b"{}"), Err(Prefix));
        assert_eq!(object(b"k8s\0\x0a\xff"), Err(Malformed));
        let unknown = object(b"k8s\0\x0a\x09\x0a\x02v1\x12\x03Foo");
        assert_eq!(unknown, Err(Unknown { version: "v1".to_owned(), kind: "Foo".to_owned() }));
    }

    #[test]
    fn a_zero_that_says_something() {
        assert!(says("a.DeploymentSpec", "replicas", &json!(0)));
        assert!(says("a.PersistentVolumeClaimSpec", "storageClassName", &json!("")));
        assert!(!says("a.PersistentVolumeSpec", "storageClassName", &json!("")));
        assert!(!says("a.PodSpec", "hostNetwork", &json!(false)));
        assert!(says("a.PodSpec", "hostname", &json!("a")));
    }

    proptest! {
        /// Whatever comes is an answer, not the end of the server.
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = object(&[b"k8s\0\x0a\x09\x0a\x02v1\x12\x03Pod\x12\xc8\x01".as_slice(), &bytes].concat());
        }
    }
}
