//! Objects in protobuf. Everything else works on JSON, so this is a way from there and a way back.
//!
//! Upstream: <https://kubernetes.io/docs/reference/using-api/api-concepts/#protobuf-encoding>. Numbers, names and types of fields
//! come from tables of the published API.

mod decode;
mod encode;
mod envelope;
mod json;
mod schema;
mod table;
#[cfg(test)]
mod tests;
mod wire;

pub(crate) use decode::object as decode;
pub(crate) use envelope::{ListWriter, event, object, partial};

/// How every encoded object begins.
const MAGIC: &[u8] = b"k8s\0";
