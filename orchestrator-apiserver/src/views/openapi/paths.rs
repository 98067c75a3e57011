//! The paths of a kind and the operations on them.

use serde_json::{Map, Value, json};

use super::{
    connect,
    schemas::{self, Definitions, Dialect, KindNames},
};
use crate::registry::{Kind, Subresource};

const BODY_TYPES: [&str; 3] = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
const PATCH_TYPES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/apply-patch+yaml",
    // Custom kinds do not have it: their types say nothing about how lists are merged.
    "application/strategic-merge-patch+json",
];

/// A query parameter: name, type, description.
type Parameter = (&'static str, &'static str, &'static str);

const DRY_RUN: Parameter =
    ("dryRun", "string", "With `All`, all stages of the request are processed, but nothing is stored.");
const FIELD_MANAGER: Parameter = ("fieldManager", "string", "The name of whoever makes the change.");
const FIELD_VALIDATION: Parameter =
    ("fieldValidation", "string", "What to do with unknown and repeated fields: `Ignore`, `Warn` or `Strict`.");
const FORCE: Parameter = ("force", "boolean", "Takes fields over from other managers. For apply only.");
const WRITE: [Parameter; 3] = [DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION];
const PATCH: [Parameter; 4] = [DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION, FORCE];
const DELETE: [Parameter; 4] = [
    DRY_RUN,
    ("gracePeriodSeconds", "integer", "Seconds until the object goes away."),
    ("orphanDependents", "boolean", "Deprecated: use propagationPolicy."),
    ("propagationPolicy", "string", "What becomes of dependents: `Orphan`, `Background` or `Foreground`."),
];
const LIST: [Parameter; 10] = [
    ("allowWatchBookmarks", "boolean", "Whether a watch sends bookmarks."),
    ("continue", "string", "Where to go on, as the list before said."),
    ("fieldSelector", "string", "Restricts the objects by their fields."),
    ("labelSelector", "string", "Restricts the objects by their labels."),
    ("limit", "integer", "How many objects at most."),
    ("resourceVersion", "string", "Which version is asked for."),
    ("resourceVersionMatch", "string", "How the version is meant: `NotOlderThan` or `Exact`."),
    ("sendInitialEvents", "boolean", "Whether a watch starts with what is there."),
    ("timeoutSeconds", "integer", "How long the call lasts at most, in seconds."),
    ("watch", "boolean", "Watches instead of lists."),
];

/// What an operation does.
#[derive(Clone, Copy)]
struct Verb {
    /// As discovery names it.
    name: &'static str,
    method: &'static str,
    action: &'static str,
    /// How the operation's id starts.
    id: &'static str,
}

const COLLECTION: [Verb; 3] = [
    Verb { name: "list", method: "get", action: "list", id: "list" },
    Verb { name: "create", method: "post", action: "post", id: "create" },
    Verb { name: "deletecollection", method: "delete", action: "deletecollection", id: "deleteCollection" },
];
const ITEM: [Verb; 4] = [
    Verb { name: "get", method: "get", action: "get", id: "read" },
    Verb { name: "update", method: "put", action: "put", id: "replace" },
    Verb { name: "patch", method: "patch", action: "patch", id: "patch" },
    Verb { name: "delete", method: "delete", action: "delete", id: "delete" },
];
const CREATE: [Verb; 1] = [Verb { name: "create", method: "post", action: "post", id: "create" }];

/// What the operations of one path have in common.
struct Target<'a> {
    kind: &'a Kind,
    /// Group, version and kind of the body.
    body: Value,
    object: &'a str,
    list: &'a str,
    /// The end of the operations' ids: `CoreV1NamespacedPod`.
    id: String,
    parameters: Vec<Value>,
}

/// Adds the paths of a kind.
pub(super) fn add(paths: &mut Map<String, Value>, kind: &Kind, names: &KindNames, definitions: &mut Definitions) {
    let (group, version, plural) = (&*kind.resource.group, &*kind.resource.version, &*kind.resource.plural);
    let root = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
    let dialect = definitions.dialect;
    let (mut base, mut scope) = (format!("{root}/{plural}"), Vec::new());
    let id = format!("{}{}", group_id(group), capitalized(version));
    let namespaced = if kind.namespaced { "Namespaced" } else { "" };
    let target = |id: String, parameters: Vec<Value>| Target {
        kind,
        body: json!({"group": group, "version": version, "kind": kind.kind}),
        object: &names.object,
        list: &names.list,
        id,
        parameters,
    };
    if kind.namespaced {
        let all = target(format!("{id}{}ForAllNamespaces", kind.kind), Vec::new());
        let list: Vec<Verb> = COLLECTION.into_iter().take(1).collect();
        insert(paths, base, item(&all, &list, &kind.verbs, definitions));
        base = format!("{root}/namespaces/{{namespace}}/{plural}");
        scope.push(path_parameter("namespace", dialect));
    }
    let id = format!("{id}{namespaced}{}", kind.kind);
    let collection = target(id.clone(), scope.clone());
    insert(paths, base.clone(), item(&collection, &COLLECTION, &kind.verbs, definitions));
    scope.push(path_parameter("name", dialect));
    let single = target(id.clone(), scope.clone());
    insert(paths, format!("{base}/{{name}}"), item(&single, &ITEM, &kind.verbs, definitions));
    for subresource in &kind.subresources {
        if let Some(options) = connect::options_of(subresource) {
            let place = (format!("{base}/{{name}}"), &id);
            connect::add(paths, (&place.0, place.1), kind, subresource, options, &scope, dialect);
            continue;
        }
        let Some((body, object)) = subresource_body(kind, subresource, names, definitions) else { continue };
        let id = format!("{id}{}", capitalized(&subresource.name));
        let target = Target { kind, body, object: &object, list: &names.list, id, parameters: scope.clone() };
        let verbs: Vec<Verb> = ITEM.into_iter().chain(CREATE).collect();
        let path = format!("{base}/{{name}}/{}", subresource.name);
        insert(paths, path, item(&target, &verbs, &subresource.verbs, definitions));
    }
}

/// Group, version and kind of a subresource's body, and its definition.
fn subresource_body(
    kind: &Kind,
    subresource: &Subresource,
    names: &KindNames,
    definitions: &mut Definitions,
) -> Option<(Value, String)> {
    let own = subresource.group_version.as_ref().map(|(group, version)| (group.as_str(), version.as_str()));
    let (group, version) = own.unwrap_or((&kind.resource.group, &kind.resource.version));
    let body = json!({"group": group, "version": version, "kind": subresource.kind});
    if own.is_none() && subresource.kind == kind.kind {
        return Some((body, names.object.clone()));
    }
    definitions.kind(group, version, &subresource.kind).map(|object| (body, object))
}

fn insert(paths: &mut Map<String, Value>, path: String, item: Option<Value>) {
    if let Some(item) = item {
        paths.insert(path, item);
    }
}

/// A path with those operations that are served. `None` when none is.
fn item(target: &Target<'_>, verbs: &[Verb], served: &[String], definitions: &Definitions) -> Option<Value> {
    let mut item = Map::new();
    for verb in verbs.iter().filter(|verb| served.iter().any(|served| served == verb.name)) {
        item.insert(verb.method.to_owned(), operation(target, *verb, definitions));
    }
    if item.is_empty() {
        return None;
    }
    if !target.parameters.is_empty() {
        item.insert("parameters".to_owned(), target.parameters.as_slice().into());
    }
    Some(Value::Object(item))
}

fn operation(target: &Target<'_>, verb: Verb, definitions: &Definitions) -> Value {
    let dialect = definitions.dialect;
    let (parameters, body, answer): (&[Parameter], _, _) = match verb.name {
        "list" => (&LIST, None, target.list),
        "get" => (&[], None, target.object),
        "create" | "update" => (&WRITE, Some(target.object), target.object),
        "patch" => (&PATCH, Some(schemas::PATCH), target.object),
        _ => (
            &DELETE,
            Some("io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"),
            "io.k8s.apimachinery.pkg.apis.meta.v1.Status",
        ),
    };
    let mut parameters: Vec<Value> = parameters.iter().map(|parameter| query_parameter(*parameter, dialect)).collect();
    let mut operation = json!({
        "operationId": format!("{}{}", verb.id, target.id),
        "tags": [tag(target.kind)],
        "responses": responses(verb, answer, definitions),
        "x-kubernetes-action": verb.action,
        "x-kubernetes-group-version-kind": target.body,
    });
    if let Some(body) = body {
        let schema = definitions.reference(body, None);
        let types: &[&str] = match verb.name {
            "patch" if target.kind.is_custom() => PATCH_TYPES.get(..3).unwrap_or_default(),
            "patch" => &PATCH_TYPES,
            _ => &BODY_TYPES,
        };
        let required = !matches!(verb.name, "delete" | "deletecollection");
        match dialect {
            Dialect::V2 => {
                parameters.push(json!({"name": "body", "in": "body", "required": required, "schema": schema}));
                insert_member(&mut operation, "consumes", json!(types));
            }
            Dialect::V3 => {
                let content: Map<String, Value> =
                    types.iter().map(|of| ((*of).to_owned(), json!({"schema": schema}))).collect();
                insert_member(&mut operation, "requestBody", json!({"required": required, "content": content}));
            }
        }
    }
    if dialect == Dialect::V2 {
        insert_member(&mut operation, "produces", json!(BODY_TYPES));
    }
    insert_member(&mut operation, "parameters", parameters.into());
    operation
}

fn insert_member(value: &mut Value, name: &str, member: Value) {
    if let Some(members) = value.as_object_mut() {
        members.insert(name.to_owned(), member);
    }
}

/// All answers that are no errors, and the one of those who are not known.
fn responses(verb: Verb, definition: &str, definitions: &Definitions) -> Value {
    let further: &[(&str, &str)] = match verb.name {
        "create" => &[("201", "Created"), ("202", "Accepted")],
        "update" | "patch" => &[("201", "Created")],
        "delete" => &[("202", "Accepted")],
        _ => &[],
    };
    let mut responses = Map::new();
    for (code, text) in [("200", "OK")].iter().chain(further) {
        let mut response = response(definition, definitions);
        insert_member(&mut response, "description", (*text).into());
        responses.insert((*code).to_owned(), response);
    }
    responses.insert("401".to_owned(), json!({"description": "Unauthorized"}));
    Value::Object(responses)
}

fn response(definition: &str, definitions: &Definitions) -> Value {
    let schema = definitions.reference(definition, None);
    match definitions.dialect {
        Dialect::V2 => json!({"description": "OK", "schema": schema}),
        Dialect::V3 => {
            let content: Map<String, Value> =
                BODY_TYPES.iter().map(|of| ((*of).to_owned(), json!({"schema": schema}))).collect();
            json!({"description": "OK", "content": content})
        }
    }
}

fn query_parameter((name, of, text): Parameter, dialect: Dialect) -> Value {
    match dialect {
        Dialect::V2 => json!({"name": name, "in": "query", "description": text, "type": of, "uniqueItems": true}),
        Dialect::V3 => {
            json!({"name": name, "in": "query", "description": text, "schema": {"type": of, "uniqueItems": true}})
        }
    }
}

pub(super) fn path_parameter(name: &str, dialect: Dialect) -> Value {
    let text = match name {
        "namespace" => "The namespace.",
        "path" => "The path behind it.",
        _ => "The object's name.",
    };
    match dialect {
        Dialect::V2 => json!({"name": name, "in": "path", "description": text, "required": true, "type": "string"}),
        Dialect::V3 => {
            json!({"name": name, "in": "path", "description": text, "required": true, "schema": {"type": "string"}})
        }
    }
}

/// What operations of a group version have in common.
pub(super) fn tag(kind: &Kind) -> String {
    format!("{}_{}", lowercased(&group_id(&kind.resource.group)), kind.resource.version)
}

/// `rbac.authorization.k8s.io` to `RbacAuthorization`, and the core group to `Core`.
pub(super) fn group_id(group: &str) -> String {
    if group.is_empty() {
        return "Core".to_owned();
    }
    group.trim_end_matches(".k8s.io").split('.').map(capitalized).collect()
}

pub(super) fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

fn lowercased(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}
