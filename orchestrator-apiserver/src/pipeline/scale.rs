//! The `scale` subresource: the number of replicas, in the same form for every kind that has one.

use orchestrator_core::{
    client::{Call, FieldValidation, PatchBody, Reply},
    object::Object,
    selector::LabelSelector,
    status::{ApiError, ApiResult},
};
use serde_json::{Value, json};

use super::{
    Scope, Server,
    change::{Change, check_name, patch_is_invalid},
    input, track,
};
use crate::{
    field::member,
    patch,
    registry::{Kind, ScalePaths},
};

impl Server {
    pub(super) async fn scale(&self, scope: &Scope, call: Call) -> ApiResult<Reply> {
        let entry = self.entry(scope).await?;
        let object = self.objects.of(&entry);
        let current = scale_of(&scope.kind, object.tree()?);
        let mut warnings = Vec::new();
        let (wanted, applied, options) = match call {
            Call::Get { .. } => return Ok(Self::object_reply(Object::from_tree(current), false, Vec::new())),
            Call::Replace { object, options } => {
                (decode_scale(scope, &object, options.field_validation, &mut warnings)?, false, options)
            }
            Call::Patch { patch: PatchBody::Apply(configuration), options } => {
                track::check_type(&input::body_kind("autoscaling", "v1", "Scale"), &configuration)?;
                (configuration, true, options)
            }
            Call::Patch { patch, mut options } => {
                patch::check(&patch, options.field_validation)?;
                let found = patch::findings(&patch, &std::mem::take(&mut options.repeated_fields));
                let patched = patch_scale(&current, &patch, found, options.field_validation, &mut warnings)?;
                (patched, false, options)
            }
            _ => return Err(ApiError::method_not_allowed()),
        };
        let replicas = wanted["spec"]["replicas"].as_i64().unwrap_or(0);
        if replicas < 0 {
            let error = orchestrator_core::status::FieldError {
                field: "spec.replicas".to_owned(),
                kind: orchestrator_core::status::FieldErrorKind::Invalid,
                detail: format!("{replicas}: must be greater than or equal to 0"),
            };
            let subject =
                orchestrator_core::status::Subject { group: "autoscaling", resource: "Scale", name: scope.name()? };
            return Err(ApiError::invalid(subject, &[error]));
        }
        let mut change = json!({});
        if !applied || wanted["spec"]["replicas"].is_number() {
            set(&mut change, &paths(&scope.kind).spec_replicas, replicas.into());
        }
        if let Some(version) = wanted["metadata"]["resourceVersion"].as_str().filter(|version| !version.is_empty()) {
            *member(member(&mut change, "metadata"), "resourceVersion") = version.into();
        }
        let parent = Scope { subresource: None, ..scope.clone() };
        let change = if applied {
            *member(&mut change, "apiVersion") = parent.kind.api_version().into();
            *member(&mut change, "kind") = parent.kind.kind.clone().into();
            *member(member(&mut change, "metadata"), "name") = scope.name()?.into();
            Change::Apply(change)
        } else {
            Change::Patch(PatchBody::Merge(change))
        };
        let object = self.update(&parent, &Change::Scale(Box::new(change)), &options, &mut warnings).await;
        let object = object.map_err(|error| error.with_warnings(std::mem::take(&mut warnings)))?;
        Ok(Self::object_reply(Object::from_tree(scale_of(&scope.kind, object.tree()?)), false, warnings))
    }
}

fn patch_scale(
    current: &Value,
    change: &PatchBody,
    found: Vec<String>,
    validation: FieldValidation,
    warnings: &mut Vec<String>,
) -> ApiResult<Value> {
    let kind = input::body_kind("autoscaling", "v1", "Scale");
    let patched = patch::apply(&kind, current, change)?;
    let mut tree = patched.clone();
    input::prune(&kind, &mut tree, found, validation, warnings)
        .map_err(|why| patch_is_invalid(&patched.to_string(), &why.json))?;
    Ok(tree)
}

fn decode_scale(
    scope: &Scope,
    object: &Object,
    validation: FieldValidation,
    warnings: &mut Vec<String>,
) -> ApiResult<Value> {
    let kind = input::body_kind("autoscaling", "v1", "Scale");
    let tree = input::decode_as(&kind, object, validation, warnings)?;
    let namespace = tree["metadata"]["namespace"].as_str().unwrap_or_default();
    if !namespace.is_empty() && namespace != scope.namespace {
        let why = "the namespace of the provided object does not match the namespace sent on the request";
        return Err(ApiError::bad_request(why));
    }
    check_name(scope, &tree)?;
    Ok(tree)
}

fn paths(kind: &Kind) -> ScalePaths {
    kind.scale.clone().unwrap_or_else(|| ScalePaths {
        spec_replicas: "spec.replicas".to_owned(),
        status_replicas: "status.replicas".to_owned(),
        label_selector: String::new(),
    })
}

fn get<'a>(tree: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(tree, |tree, name| &tree[name])
}

fn set(tree: &mut Value, path: &str, value: Value) {
    *path.split('.').fold(tree, member) = value;
}

fn scale_of(kind: &Kind, tree: &Value) -> Value {
    let paths = paths(kind);
    let metadata = &tree["metadata"];
    let kept = ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"];
    let metadata: serde_json::Map<String, Value> = kept
        .into_iter()
        .filter(|name| !metadata[*name].is_null())
        .map(|name| (name.to_owned(), metadata[name].clone()))
        .collect();
    let mut spec = json!({});
    let replicas = get(tree, &paths.spec_replicas).as_i64().unwrap_or(0);
    if replicas != 0 {
        *member(&mut spec, "replicas") = replicas.into();
    }
    let mut status = json!({"replicas": get(tree, &paths.status_replicas).as_i64().unwrap_or(0)});
    let selector = if paths.label_selector.is_empty() {
        structured_selector(&tree["spec"]["selector"])
    } else {
        get(tree, &paths.label_selector).as_str().map(str::to_owned)
    };
    if let Some(selector) = selector.filter(|selector| !selector.is_empty()) {
        *member(&mut status, "selector") = selector.into();
    }
    json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status})
}

/// A structured selector in the form that URLs have. The plain map of a ReplicationController is one, too.
fn structured_selector(selector: &Value) -> Option<String> {
    if selector.get("matchLabels").is_none() && selector.get("matchExpressions").is_none() {
        let labels: std::collections::BTreeMap<String, String> = serde_json::from_value(selector.clone()).ok()?;
        return Some(LabelSelector::from_labels(&labels).to_string());
    }
    let selector = serde_json::from_value(selector.clone()).ok()?;
    Some(LabelSelector::from_meta(&selector).ok()?.to_string())
}
