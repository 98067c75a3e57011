//! Operations that answer with a stream and not with an object: logs, sessions, proxies.

use serde_json::{Map, Value, json};

use super::{
    paths::{self, capitalized},
    schemas::Dialect,
};
use crate::{
    decode::{Schema, Shape, Type},
    registry::{Kind, Subresource},
};

/// Methods by the verb that discovery names.
const METHODS: [(&str, &str); 5] =
    [("get", "get"), ("create", "post"), ("update", "put"), ("patch", "patch"), ("delete", "delete")];

/// The kind of the options of a subresource, where it answers with a stream.
pub(super) fn options_of(subresource: &Subresource) -> Option<&str> {
    match subresource.name.as_str() {
        "log" => Some("PodLogOptions"),
        _ => Some(subresource.kind.as_str()).filter(|kind| kind.ends_with("Options")),
    }
}

/// Adds the paths of such a subresource. `path` is that of the object, `id` the end of its operations' ids.
pub(super) fn add(
    into: &mut Map<String, Value>,
    (path, id): (&str, &str),
    kind: &Kind,
    subresource: &Subresource,
    options: &str,
    scope: &[Value],
    dialect: Dialect,
) {
    let (path, id) = (format!("{path}/{}", subresource.name), format!("{id}{}", capitalized(&subresource.name)));
    let mut parameters = scope.to_vec();
    parameters.extend(options_parameters(kind, options, dialect));
    into.insert(path.clone(), item(kind, subresource, &id, &parameters));
    if subresource.name == "proxy" {
        let mut parameters = parameters;
        parameters.push(paths::path_parameter("path", dialect));
        into.insert(format!("{path}/{{path}}"), item(kind, subresource, &format!("{id}WithPath"), &parameters));
    }
}

fn item(kind: &Kind, subresource: &Subresource, id: &str, parameters: &[Value]) -> Value {
    let (group, version) = (&kind.resource.group, &kind.resource.version);
    let mut item = Map::new();
    for (verb, method) in METHODS {
        if !subresource.verbs.iter().any(|served| served == verb) {
            continue;
        }
        // Logs are read; with the others one is connected.
        let is_log = subresource.name == "log";
        let (action, prefix) = if is_log { ("get", "read") } else { ("connect", "connect") };
        let group_id = paths::group_id(group);
        let place = format!("{group_id}{}", capitalized(version));
        let rest = id.strip_prefix(place.as_str()).unwrap_or(id);
        let method_id = if is_log { String::new() } else { capitalized(method) };
        let operation = json!({
            "operationId": format!("{prefix}{place}{method_id}{rest}"),
            "tags": [paths::tag(kind)],
            "responses": {"200": {"description": "OK"}, "401": {"description": "Unauthorized"}},
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": subresource.kind},
        });
        item.insert(method.to_owned(), operation);
    }
    item.insert("parameters".to_owned(), parameters.into());
    Value::Object(item)
}

/// Options stand in the query, each as a parameter.
fn options_parameters(kind: &Kind, options: &str, dialect: Dialect) -> Vec<Value> {
    let schema = Schema::get();
    let message = schema.kind(&kind.resource.group, &kind.resource.version, options);
    let fields = message.into_iter().flat_map(|message| &message.fields);
    fields
        .filter(|(name, _)| !matches!(&***name, "apiVersion" | "kind"))
        .map(|(name, field)| {
            let of = match field.of {
                Type::Bool => "boolean",
                Type::Int32 | Type::Int64 => "integer",
                _ => "string",
            };
            let of = match field.shape {
                Shape::List => json!({"type": "array", "items": {"type": of}}),
                _ => json!({"type": of, "uniqueItems": true}),
            };
            let mut parameter = json!({"name": name, "in": "query"});
            let Some(members) = parameter.as_object_mut() else { return parameter };
            match (dialect, of) {
                (Dialect::V2, Value::Object(of)) => members.extend(of),
                (_, of) => drop(members.insert("schema".to_owned(), of)),
            }
            parameter
        })
        .collect()
}
