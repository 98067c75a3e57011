//! The schemas of what is served: OpenAPI 3 for each group version, and OpenAPI 2 for all together.
//!
//! Upstream: <https://kubernetes.io/docs/concepts/overview/kubernetes-api/#openapi-interface-definition>. Clients read
//! from it how objects are made up (`kubectl explain`), how lists are merged (`kubectl apply`), and whether the server
//! validates fields (the parameter `fieldValidation` of the PATCH operations).
//!
//! Documents are made anew at each call; the caller keeps them.

mod connect;
mod enumerations;
mod paths;
mod protobuf;
mod schemas;

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use serde_json::{Map, Value, json};

use self::schemas::{Definitions, Dialect};
use crate::registry::{Kind, Registry};

/// `/openapi/v3`: which documents there are. Their addresses change when they do.
pub(crate) fn v3_index(registry: &Registry) -> Value {
    let mut paths = Map::new();
    for (group, version) in group_versions(registry) {
        let path = if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") };
        let hash = fingerprint(&kinds_of(registry, &group, &version));
        let address = json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={hash:016X}")});
        paths.insert(path, address);
    }
    json!({"paths": paths})
}

/// `/openapi/v3/api/v1` (with the empty group) and `/openapi/v3/apis/<group>/<version>`. `None` when the version is
/// not served.
pub(crate) fn v3(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let kinds = kinds_of(registry, group, version);
    if kinds.is_empty() {
        return None;
    }
    let mut definitions = Definitions::new(Dialect::V3);
    let paths = document(&kinds, &mut definitions);
    Some(json!({
        "openapi": "3.0.0",
        "info": info(),
        "paths": paths,
        "components": {"schemas": definitions.finish()},
    }))
}

/// `/openapi/v2`.
pub(crate) fn v2(registry: &Registry) -> Value {
    let mut definitions = Definitions::new(Dialect::V2);
    let paths = document(&registry.kinds(), &mut definitions);
    json!({"swagger": "2.0", "info": info(), "paths": paths, "definitions": definitions.finish()})
}

/// `/openapi/v2` in protobuf.
pub(crate) fn v2_protobuf(registry: &Registry) -> Vec<u8> {
    protobuf::encode(&v2(registry))
}

fn info() -> Value {
    json!({"title": "Kubernetes", "version": "v1.36.2"})
}

/// Adds the schemas of kinds and gives their paths.
fn document(kinds: &[Arc<Kind>], definitions: &mut Definitions) -> Value {
    let mut paths = Map::new();
    for kind in kinds {
        let names = if kind.is_custom() { definitions.add_custom(kind) } else { definitions.add_built_in(kind) };
        paths::add(&mut paths, kind, &names, definitions);
    }
    Value::Object(paths)
}

fn kinds_of(registry: &Registry, group: &str, version: &str) -> Vec<Arc<Kind>> {
    let of_version = |kind: &Arc<Kind>| kind.resource.group == group && kind.resource.version == version;
    registry.kinds().into_iter().filter(of_version).collect()
}

fn group_versions(registry: &Registry) -> Vec<(String, String)> {
    let kinds = registry.kinds().into_iter();
    let mut versions: Vec<_> =
        kinds.map(|kind| (kind.resource.group.to_string(), kind.resource.version.to_string())).collect();
    versions.sort();
    versions.dedup();
    versions
}

/// A number that changes when a document does: with the release, the kinds, and the schemas of custom ones.
fn fingerprint(kinds: &[Arc<Kind>]) -> u64 {
    let mut hasher = DefaultHasher::new();
    env!("CARGO_PKG_VERSION").hash(&mut hasher);
    for kind in kinds {
        (&kind.resource.plural, &kind.kind, kind.namespaced, &kind.verbs).hash(&mut hasher);
        for subresource in &kind.subresources {
            (&subresource.name, &subresource.kind, &subresource.verbs).hash(&mut hasher);
        }
        kind.open_api.as_ref().map(Value::to_string).hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests;
