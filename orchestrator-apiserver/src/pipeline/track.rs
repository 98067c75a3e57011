//! The managers of fields, kept with every write, and configurations that are applied.

use std::{
    borrow::Cow,
    cell::OnceCell,
    sync::{Arc, LazyLock},
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{StatusCause, StatusDetails};
use orchestrator_core::{
    client::{Call, PatchBody, WriteOptions},
    status::{ApiError, ApiResult, FieldError, FieldErrorKind, Reason, Subject},
};
use serde_json::Value;

use super::{Scope, Server};
use crate::{
    apply::{ApplyError, Conflicts, FieldSet, Tracker, TypeRef, Updater, Versions},
    field::{member, remove},
    kinds, limits,
    registry::{Kind, Registry},
};

/// The subresource whose writes have no time of their own: upstream moves its managers to and fro.
const SCALE: &str = "scale";

static NOTHING: LazyLock<FieldSet> = LazyLock::new(FieldSet::default);
static STATUS: LazyLock<FieldSet> = LazyLock::new(|| FieldSet::of_fields(&["status"]));
static SPEC: LazyLock<FieldSet> = LazyLock::new(|| FieldSet::of_fields(&["spec"]));
static SPEC_AND_LABELS: LazyLock<FieldSet> = LazyLock::new(|| FieldSet::of_fields(&["spec", "metadata.labels"]));
static SPEC_AND_METADATA: LazyLock<FieldSet> = LazyLock::new(|| FieldSet::of_fields(&["spec", "metadata"]));

impl Server {
    /// Writes into an object who manages its fields after a write through an endpoint, empty for the object's own.
    pub(super) fn track(
        &self,
        scope: &Scope,
        endpoint: &str,
        live: Option<&Value>,
        new: &mut Value,
        options: &WriteOptions,
    ) {
        if live.is_none() && !self.config.track_updates {
            remove(member(new, "metadata"), "managedFields");
            return;
        }
        let manager = options.field_manager.as_deref().unwrap_or_default();
        self.tracked(scope, endpoint, |tracker| tracker.update(live, new, manager));
    }

    /// The object after a configuration was applied to it through an endpoint, its managers included.
    pub(super) fn applied(
        &self,
        scope: &Scope,
        endpoint: &str,
        live: Option<&Value>,
        configuration: &Value,
        options: &WriteOptions,
    ) -> ApiResult<Value> {
        let manager = options.field_manager.as_deref().unwrap_or_default();
        let applied =
            self.tracked(scope, endpoint, |tracker| tracker.apply(live, configuration, manager, options.force));
        applied.map_err(|error| match error {
            ApplyError::Refused(why) => ApiError::bad_request(why),
            // Upstream answers to what does not fit its types with a bare error of the server.
            ApplyError::Failed(why) => ApiError::new(Reason::Unknown, why),
            ApplyError::Conflicts(conflicts) => conflict(&conflicts),
        })
    }

    fn tracked<T>(&self, scope: &Scope, endpoint: &str, write: impl FnOnce(&Tracker<'_>) -> T) -> T {
        let kind = &scope.kind;
        let api_version = kind.api_version();
        let versions = KindVersions { kind, registry: &self.registry, others: OnceCell::new() };
        let ignored = ignored(kind, endpoint);
        let updater = Updater { versions: &versions, api_version: &api_version, of: kind.type_of_objects(), ignored };
        let now = (endpoint != SCALE).then(|| self.now());
        write(&Tracker {
            updater,
            kind: &type_name(&api_version, &kind.kind),
            subresource: endpoint,
            now: now.as_deref(),
            schema_is_fixed: !kind.is_custom(),
            empty: kind.empty_object(),
        })
    }
}

/// Refuses names that no manager can have, and what only those who apply may say.
pub(super) fn check_options(call: &Call) -> ApiResult<()> {
    let (kind, applies, options) = match call {
        Call::Create { options, .. } => ("CreateOptions", false, options),
        Call::Replace { options, .. } => ("UpdateOptions", false, options),
        Call::Patch { patch, options } => ("PatchOptions", matches!(patch, PatchBody::Apply(_)), options),
        _ => return Ok(()),
    };
    let error =
        |field: &str, kind: FieldErrorKind, detail: String| FieldError { field: field.to_owned(), kind, detail };
    let manager = options.field_manager.as_deref().unwrap_or_default();
    let mut errors = Vec::new();
    if matches!(call, Call::Patch { .. }) && !applies && options.force {
        errors.push(error("force", FieldErrorKind::Forbidden, "may not be specified for non-apply patch".to_owned()));
    }
    if applies && manager.is_empty() {
        errors.push(error("fieldManager", FieldErrorKind::Required, "is required for apply patch".to_owned()));
    }
    if manager.len() > limits::FIELD_MANAGER_BYTES {
        let detail = format!("may not be more than {} bytes", limits::FIELD_MANAGER_BYTES);
        errors.push(error("fieldManager", FieldErrorKind::TooLong, detail));
    }
    if let Some((position, letter)) = manager.char_indices().find(|(_, letter)| letter.is_control()) {
        let detail = format!("{manager:?}: invalid character U+{:04X} (at position {position})", u32::from(letter));
        errors.push(error("fieldManager", FieldErrorKind::Invalid, detail));
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(ApiError::invalid(Subject { group: "meta.k8s.io", resource: kind, name: "" }, &errors))
}

/// Refuses a configuration of another kind.
pub(super) fn check_type(kind: &Kind, configuration: &Value) -> ApiResult<()> {
    let text = |name: &str| configuration.get(name).and_then(Value::as_str).unwrap_or_default();
    if text("kind") == kind.kind && text("apiVersion") == kind.api_version() {
        return Ok(());
    }
    let given = type_name(text("apiVersion"), text("kind"));
    Err(ApiError::bad_request(format!("invalid object type: {given}")))
}

/// The versions of a kind.
struct KindVersions<'a> {
    kind: &'a Kind,
    registry: &'a Registry,
    /// The same objects in other versions; looked up when one of them has a manager.
    others: OnceCell<Vec<Arc<Kind>>>,
}

impl Versions for KindVersions<'_> {
    fn type_of(&self, api_version: &str) -> Option<TypeRef<'_>> {
        if api_version == self.kind.api_version() {
            return Some(self.kind.type_of_objects());
        }
        let others = self.others.get_or_init(|| {
            let mut kinds = self.registry.kinds();
            kinds.retain(|kind| kind.prefix == self.kind.prefix);
            kinds
        });
        others.iter().find(|kind| kind.api_version() == api_version).map(|kind| kind.type_of_objects())
    }

    fn convert<'v>(&self, object: &'v Value, api_version: &str) -> Cow<'v, Value> {
        kinds::convert(&self.kind.resource.group, &self.kind.resource.plural, object, api_version)
    }
}

/// What an endpoint does not take, so that nobody manages it by writing there.
fn ignored(kind: &Kind, endpoint: &str) -> &'static FieldSet {
    match endpoint {
        "status" => status_ignores(kind),
        SCALE => &NOTHING,
        "approval" => &SPEC,
        _ if kind.subresource("status").is_some() => &STATUS,
        _ => &NOTHING,
    }
}

fn status_ignores(kind: &Kind) -> &'static FieldSet {
    match (&*kind.resource.group, &*kind.resource.plural) {
        ("apps", "deployments") => &SPEC_AND_LABELS,
        ("apiextensions.k8s.io" | "apiregistration.k8s.io" | "flowcontrol.apiserver.k8s.io" | "resource.k8s.io", _)
        | ("storage.k8s.io", "volumeattachments") => &SPEC_AND_METADATA,
        _ if kind.is_custom() => &SPEC_AND_METADATA,
        _ => &SPEC,
    }
}

/// `apps/v1, Kind=Deployment`, as messages name a kind.
fn type_name(api_version: &str, kind: &str) -> String {
    let slash = if api_version.contains('/') { "" } else { "/" };
    format!("{slash}{api_version}, Kind={kind}")
}

fn conflict(conflicts: &Conflicts) -> ApiError {
    let causes = conflicts.0.iter().map(|conflict| StatusCause {
        field: Some(conflict.field()),
        message: Some(conflict.message()),
        reason: Some("FieldManagerConflict".to_owned()),
    });
    let details = StatusDetails { causes: Some(causes.collect()), ..Default::default() };
    ApiError::with_details(Reason::Conflict, conflicts.to_string(), Some(details))
}
