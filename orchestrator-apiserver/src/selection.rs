//! Selectors of lists and watches, and the fields that each kind can be selected by.

use std::{
    borrow::Cow,
    sync::{Arc, OnceLock},
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use orchestrator_core::{
    object::Object,
    selector::{FieldSelector, LabelSelector},
    status::{ApiError, ApiResult},
};
use serde_json::Value;

use crate::{kinds::event_versions, registry::Kind};

/// What of a collection is wanted.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    labels: LabelSelector,
    fields: FieldSelector,
    /// The fields that the kind can be selected by, beside name and namespace.
    selectable: Arc<[String]>,
}

/// What selectors look at in one version of an object: made once, however many there are.
#[derive(Debug)]
pub(crate) struct Attributes {
    metadata: Arc<ObjectMeta>,
    /// The values of the selectable fields, once somebody selects by one.
    fields: OnceLock<Values>,
}

/// Values of fields, which versions of a custom kind can differ in.
#[derive(Debug)]
struct Values {
    of: Arc<[String]>,
    values: Arc<[String]>,
}

impl Values {
    fn read(selectable: &Arc<[String]>, object: impl FnOnce() -> Object) -> ApiResult<Self> {
        let tree = object().to_tree()?;
        Ok(Self { of: selectable.clone(), values: selectable.iter().map(|path| text_at(&tree, path)).collect() })
    }
}

impl Attributes {
    pub(crate) fn of(object: &Object) -> ApiResult<Self> {
        Ok(Self { metadata: object.shared_metadata()?.clone(), fields: OnceLock::new() })
    }

    fn fields(&self, selectable: &Arc<[String]>, object: impl Fn() -> Object) -> ApiResult<Arc<[String]>> {
        let known = match self.fields.get() {
            Some(known) => known,
            None => {
                let read = Values::read(selectable, &object)?;
                self.fields.get_or_init(|| read)
            }
        };
        // Mostly the very same list; two of the same fields serve as well.
        let same = Arc::ptr_eq(&known.of, selectable) || known.of == *selectable;
        if same { Ok(known.values.clone()) } else { Ok(Values::read(selectable, object)?.values) }
    }
}

/// Fields beside name and namespace, by group and resource.
pub(crate) fn selectable(group: &str, plural: &str) -> Arc<[String]> {
    let fields: &[&str] = match (group, plural) {
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
    };
    fields.iter().map(ToString::to_string).collect()
}

/// What a field is called in the version that objects are stored in, if it is a field at all.
fn stored_name(kind: &Kind, field: &str) -> Option<String> {
    if kind.is("events.k8s.io", "events") { event_versions::selectable(field) } else { Some(field.to_owned()) }
}

/// Upstream's words depend on who registered the fields of a kind.
fn unsupported(kind: &Kind, field: &str) -> String {
    let words = "field label not supported";
    match (&*kind.resource.group, &*kind.resource.plural) {
        ("batch", "jobs") => format!("field label {field:?} not supported for batchv1.Job"),
        ("apps", "statefulsets") => format!("{words} for appsv1.StatefulSet: {field}"),
        (group, _) if kind.is_custom() || group == "resource.k8s.io" && !kind.selectable.is_empty() => {
            format!("{words} for {}, Kind={}: {field}", kind.api_version(), kind.kind)
        }
        _ if kind.selectable.is_empty() => {
            format!("{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
        }
        _ => format!("{words}: {field}"),
    }
}

impl Selection {
    /// Refuses fields that the kind cannot be selected by.
    pub(crate) fn new(kind: &Kind, labels: LabelSelector, fields: FieldSelector) -> ApiResult<Self> {
        let own = kind.selectable.clone();
        // Of a built-in kind without fields of its own nobody asks whether it has namespaces.
        let placed = kind.namespaced || (own.is_empty() && !kind.is_custom());
        let fields = fields.renamed(|field| {
            let stored = stored_name(kind, field);
            let known = |field: &str| {
                field == "metadata.name"
                    || (field == "metadata.namespace" && placed)
                    || own.iter().any(|own| own == field)
            };
            stored.filter(|stored| known(stored)).ok_or_else(|| ApiError::bad_request(unsupported(kind, field)))
        })?;
        Ok(Self { labels, fields, selectable: own })
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

    /// Whether an object with these attributes is wanted. The object itself is looked at for the first of those who select
    /// by its fields.
    pub(crate) fn matches(&self, attributes: &Attributes, object: impl Fn() -> Object) -> ApiResult<bool> {
        let metadata = &attributes.metadata;
        if !self.labels.is_empty() && !self.labels.matches(metadata.labels.as_ref().unwrap_or(&Default::default())) {
            return Ok(false);
        }
        let beyond_metadata =
            self.fields.requirements().iter().any(|requirement| !requirement.field.starts_with("metadata."));
        let fields = if beyond_metadata { attributes.fields(&self.selectable, object)? } else { Arc::default() };
        let value = |path: &str| {
            let index = self.selectable.iter().position(|known| known == path);
            index.and_then(|index| fields.get(index)).map(String::as_str)
        };
        let matches = self.fields.matches(|field| {
            match field {
                "metadata.name" | "name" => metadata.name.as_deref(),
                "metadata.namespace" => metadata.namespace.as_deref(),
                path => value(path),
            }
            .map(Cow::Borrowed)
        });
        Ok(matches)
    }
}

/// The value at a dotted path, as text.
fn text_at(tree: &Value, path: &str) -> String {
    let default = match path {
        "spec.unschedulable" | "spec.hostNetwork" => "false",
        "status.replicas" | "status.successful" => "0",
        _ => "",
    };
    let path = match path {
        // Who reports speaks for the source of an event that names none.
        "source" if tree["source"]["component"].as_str().is_none_or(str::is_empty) => "reportingComponent",
        "source" => "source.component",
        "status.successful" => "status.succeeded",
        path => path,
    };
    let value = path.split('.').try_fold(tree, |value, name| value.get(name));
    match value {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => default.to_owned(),
        Some(other) => other.to_string(),
    }
}
