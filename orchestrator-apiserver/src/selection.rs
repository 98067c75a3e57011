//! Selectors of lists and watches, and the fields that each kind can be selected by.

use std::borrow::Cow;

use orchestrator_core::{
    object::Object,
    selector::{FieldSelector, LabelSelector},
    status::{ApiError, ApiResult},
};
use serde_json::Value;

use crate::registry::Kind;

/// What of a collection is wanted.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    labels: LabelSelector,
    fields: FieldSelector,
}

/// Fields beside name and namespace, by group and resource.
fn selectable(kind: &Kind) -> &'static [&'static str] {
    match (&*kind.resource.group, &*kind.resource.plural) {
        ("", "pods") => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ],
        ("", "events") | ("events.k8s.io", "events") => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        ("", "namespaces") => &["status.phase", "name"],
        ("", "nodes") => &["spec.unschedulable"],
        ("", "secrets") => &["type"],
        ("", "services") => &["spec.clusterIP", "spec.type"],
        ("", "replicationcontrollers") | ("apps", "replicasets") => &["status.replicas"],
        ("batch", "jobs") => &["status.successful"],
        ("apps", "statefulsets") => &["status.successful"],
        ("resource.k8s.io", "resourceslices") => &["spec.nodeName", "spec.driver"],
        ("certificates.k8s.io", "certificatesigningrequests") => &["spec.signerName"],
        _ => &[],
    }
}

/// Upstream's words depend on who registered the fields of a kind.
fn unsupported(kind: &Kind, field: &str) -> String {
    let words = "field label not supported";
    match (&*kind.resource.group, &*kind.resource.plural) {
        ("batch", "jobs") => format!("field label {field:?} not supported for batchv1.Job"),
        ("apps", "statefulsets") => format!("{words} for appsv1.StatefulSet: {field}"),
        (group, _) if kind.is_custom() || group == "resource.k8s.io" && !selectable(kind).is_empty() => {
            format!("{words} for {}, Kind={}: {field}", kind.api_version(), kind.kind)
        }
        _ if selectable(kind).is_empty() => {
            format!("{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
        }
        _ => format!("{words}: {field}"),
    }
}

impl Selection {
    /// Refuses fields that the kind cannot be selected by.
    pub(crate) fn new(kind: &Kind, labels: LabelSelector, fields: FieldSelector) -> ApiResult<Self> {
        for requirement in fields.requirements() {
            let field = requirement.field.as_str();
            let own = selectable(kind);
            // Of a built-in kind without fields of its own nobody asks whether it has namespaces.
            let placed = kind.namespaced || (own.is_empty() && !kind.is_custom());
            let known = field == "metadata.name" || (field == "metadata.namespace" && placed);
            if !known && !own.contains(&field) {
                return Err(ApiError::bad_request(unsupported(kind, field)));
            }
        }
        Ok(Self { labels, fields })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// The one name that is wanted, if only one is.
    pub(crate) fn single_name(&self) -> Option<&str> {
        let by_name = |requirement: &&orchestrator_core::selector::FieldRequirement| {
            requirement.field == "metadata.name" && !requirement.negated && !requirement.value.is_empty()
        };
        self.fields.requirements().iter().find(by_name).map(|requirement| requirement.value.as_str())
    }

    pub(crate) fn matches(&self, object: &Object) -> ApiResult<bool> {
        if self.is_empty() {
            return Ok(true);
        }
        let metadata = object.metadata()?;
        if !self.labels.is_empty() && !self.labels.matches(metadata.labels.as_ref().unwrap_or(&Default::default())) {
            return Ok(false);
        }
        if self.fields.is_empty() {
            return Ok(true);
        }
        let beyond_metadata =
            self.fields.requirements().iter().any(|requirement| !requirement.field.starts_with("metadata."));
        let tree = if beyond_metadata { Some(object.to_tree()?) } else { None };
        Ok(self.fields.matches(|field| match field {
            "metadata.name" | "name" => metadata.name.as_deref().map(Cow::Borrowed),
            "metadata.namespace" => metadata.namespace.as_deref().map(Cow::Borrowed),
            path => tree.as_ref().and_then(|tree| text_at(tree, path)),
        }))
    }
}

/// The value at a dotted path, as text.
fn text_at<'a>(tree: &Value, path: &str) -> Option<Cow<'a, str>> {
    let default = match path {
        "spec.unschedulable" | "spec.hostNetwork" => "false",
        "status.replicas" | "status.successful" => "0",
        _ => "",
    };
    let path = match path {
        "source" => "source.component",
        "status.successful" => "status.succeeded",
        path => path,
    };
    let value = path.split('.').try_fold(tree, |value, name| value.get(name));
    Some(match value {
        Some(Value::String(text)) => Cow::Owned(text.clone()),
        Some(Value::Null) | None => Cow::Owned(default.to_owned()),
        Some(other) => Cow::Owned(other.to_string()),
    })
}
