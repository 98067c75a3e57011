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
        ("certificates.k8s.io", "certificatesigningrequests") => &["spec.signerName"],
        _ => &[],
    }
}

impl Selection {
    /// Refuses fields that the kind cannot be selected by.
    pub(crate) fn new(kind: &Kind, labels: LabelSelector, fields: FieldSelector) -> ApiResult<Self> {
        for requirement in fields.requirements() {
            let field = requirement.field.as_str();
            let known = field == "metadata.name" || (field == "metadata.namespace" && kind.namespaced);
            if !known && !selectable(kind).contains(&field) {
                return Err(ApiError::bad_request(format!("field label not supported: {field}")));
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
