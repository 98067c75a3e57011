//! Replace and patch: read, change, check, compare-and-swap; tried anew when another write came between.

use std::sync::Arc;

use orchestrator_core::{
    client::{PatchBody, Reply, WriteOptions},
    object::Object,
    status::{ApiError, ApiResult, FieldError, FieldErrorKind, Reason},
    store::Entry,
};
use serde_json::Value;

use super::{
    Scope, Server,
    allocate::Draw,
    change::{Change, check_name},
    commit::Refusal,
    create::{name_of, refuse},
    metadata,
};
use crate::{
    apply, decode,
    field::{Errors, Field, member, remove},
    kinds, limits, patch,
    strategy::{Generation, Strategy},
};

/// Which part of an object a request may touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// All but the status.
    Main,
    /// The status alone.
    Status,
}

impl Server {
    pub(super) async fn replace(&self, scope: &Scope, object: Object, options: WriteOptions) -> ApiResult<Reply> {
        let mut warnings = Vec::new();
        let replaced = async {
            let mut tree = self.decode(scope, &object, options.field_validation, &mut warnings)?;
            metadata::unite_owners(&mut tree, "", &mut warnings);
            self.place_in_namespace(scope, &mut tree)?;
            check_name(scope, &tree)?;
            self.update(scope, &Change::Replace(tree), &options, &mut warnings).await
        };
        let result = replaced.await;
        answer(result, warnings)
    }

    pub(super) async fn patch(&self, scope: &Scope, patch: PatchBody, options: WriteOptions) -> ApiResult<Reply> {
        if let PatchBody::Apply(configuration) = patch {
            patch::check_configuration(&configuration)?;
            return self.apply(scope, configuration, options).await;
        }
        let mut warnings = Vec::new();
        let result = self.update(scope, &Change::Patch(patch), &options, &mut warnings).await;
        answer(result, warnings)
    }

    /// Changes an object that is there, as often as it takes.
    pub(super) async fn update(
        &self,
        scope: &Scope,
        change: &Change,
        options: &WriteOptions,
        warnings: &mut Vec<String>,
    ) -> ApiResult<Object> {
        let kind = &scope.kind;
        let warned = warnings.len();
        for attempt in 0..limits::UPDATE_ATTEMPTS {
            let entry = self.entry(scope).await?;
            let old_object = kind.served(self.objects.of(&entry))?;
            let old = old_object.to_tree()?;

            let mut new = self.changed(scope, change, &old, options, warnings)?;
            self.check_preconditions(scope, &new, &old)?;
            keep_identity(&mut new, &old);
            if !matches!(change, Change::Replace(_)) {
                metadata::unite_owners(&mut new, " after mutating admission happens", warnings);
            }
            strategy(scope).default(&mut new);
            if change.configuration().is_none() {
                self.track(scope, change.endpoint(scope), Some(&old), &mut new, options);
            }
            match part(scope) {
                Part::Main => self.prepare_main(scope, &mut new, &old).await?,
                Part::Status => {
                    prepare_status(&mut new, &old);
                    if strategy(scope).keeps_metadata_of_status() {
                        keep_metadata(&mut new, &old);
                    }
                    strategy(scope).prepare_status(&mut new, &old);
                    self.settle_status(scope, &mut new, &old);
                }
            }
            if let Some(schema) = kind.schema {
                decode::settle(&mut new, schema);
            }
            apply::ignore_times(&old, &mut new);
            if new == old {
                return Ok(old_object);
            }
            let mut candidate = new;
            let draw = Draw::at(attempt, options.dry_run);
            let drawn = self.allocate(scope, &mut candidate, Some(&old), draw).await?;
            let errors = self.refuse_device_access(scope, &candidate, Some(&old)).await?;
            validate_changed(scope, &candidate, &old, errors)?;
            if scope.subresource.is_none() {
                kind.strategy.warn(&Field::root(&candidate), Some(&Field::root(&old)), warnings);
            }
            self.admit_validating(scope, &candidate, Some(&old), warnings).await?;
            if attempt == 0 {
                self.admit_by_quotas(scope, &candidate, Some(&old), options.dry_run).await?;
            }
            if options.dry_run {
                return Ok(Object::from_tree(candidate));
            }
            match self.store_changed(scope, &candidate, &entry).await {
                Ok(object) => {
                    self.after_write(scope, &object).await;
                    return Ok(object);
                }
                Err(Refusal::Failed(error)) => return Err(error),
                Err(Refusal::Taken(key)) if !drawn => return Err(Refusal::taken(kind, scope.name()?, &key)),
                // A patch is applied again to what is there now; a version that the caller named is compared again.
                Err(Refusal::Moved | Refusal::Taken(_)) => {}
            }
            warnings.truncate(warned);
        }
        Err(ApiError::stale(kind.subject(scope.name()?)))
    }

    /// The caller's UID and version must be the object's, where they are given.
    fn check_preconditions(&self, scope: &Scope, new: &Value, old: &Value) -> ApiResult<()> {
        let text = |tree: &Value, name: &str| tree["metadata"][name].as_str().unwrap_or_default().to_owned();
        let subject = scope.kind.subject(scope.name()?);
        let (uid, current_uid) = (text(new, "uid"), text(old, "uid"));
        if !uid.is_empty() && uid != current_uid {
            let key = scope.kind.key(&scope.namespace, scope.name()?);
            let why = format!(
                "StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: Precondition \
                 failed: UID in precondition: {uid}, UID in object meta: {current_uid}"
            );
            return Err(ApiError::conflict(subject, &why));
        }
        let version = text(new, "resourceVersion");
        if let Err(error) = version.parse::<u64>()
            && !version.is_empty()
        {
            let overflow = *error.kind() == std::num::IntErrorKind::PosOverflow;
            let why = if overflow { "value out of range" } else { "invalid syntax" };
            let why = format!("strconv.ParseUint: parsing {version:?}: {why}");
            return Err(ApiError::new(Reason::Unknown, why));
        }
        if version.is_empty() || version == "0" {
            if scope.kind.strategy.needs_version() && part(scope) == Part::Main {
                let error = FieldError {
                    field: "metadata.resourceVersion".to_owned(),
                    kind: FieldErrorKind::Invalid,
                    detail: "0: must be specified for an update".to_owned(),
                };
                return Err(ApiError::invalid(subject, &[error]));
            }
            return Ok(());
        }
        if version != text(old, "resourceVersion") {
            return Err(ApiError::stale(subject));
        }
        Ok(())
    }

    async fn prepare_main(&self, scope: &Scope, new: &mut Value, old: &Value) -> ApiResult<()> {
        let strategy = strategy(scope);
        self.admit_mutating(scope, new, Some(old)).await?;
        strategy.default(new);
        if strategy.has_status() {
            keep(new, old, "status");
        }
        strategy.prepare_update(new, old);
        let counts = match strategy.generation() {
            Generation::None | Generation::Fixed => false,
            Generation::Intent => intent(new) != intent(old),
            Generation::Annotated => intent(new) != intent(old) || notes(new) != notes(old),
        };
        if counts {
            let generation = old["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
            *member(member(new, "metadata"), "generation") = generation.into();
        }
        Ok(())
    }

    /// Writes the object, or removes it when this write took away what held it.
    async fn store_changed(&self, scope: &Scope, new: &Value, entry: &Entry) -> Result<Object, Refusal> {
        if released(new) {
            let revision = self.remove(&scope.kind, entry).await?;
            let mut gone = new.clone();
            *member(member(&mut gone, "metadata"), "resourceVersion") = revision.to_string().into();
            return Ok(Object::from_tree(gone));
        }
        self.put(scope, new, Some(entry)).await
    }
}

/// The object, or the refusal, with what the caller is warned of.
pub(super) fn answer(result: ApiResult<Object>, warnings: Vec<String>) -> ApiResult<Reply> {
    match result {
        Ok(object) => Ok(Server::object_reply(object, false, warnings)),
        Err(error) => Err(error.with_warnings(warnings)),
    }
}

/// Whether nothing holds a deleted object any more.
pub(super) fn released(tree: &Value) -> bool {
    let metadata = &tree["metadata"];
    let finalizers = metadata["finalizers"].as_array().map_or(0, Vec::len);
    let grace = metadata["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
    let held_by_spec =
        tree["kind"] == "Namespace" && tree["spec"]["finalizers"].as_array().is_some_and(|f| !f.is_empty());
    metadata["deletionTimestamp"].is_string() && finalizers == 0 && grace == 0 && !held_by_spec
}

fn part(scope: &Scope) -> Part {
    if scope.subresource.as_deref() == Some("status") { Part::Status } else { Part::Main }
}

/// The rules of the part of the object that is written.
fn strategy(scope: &Scope) -> Arc<dyn Strategy> {
    let resource = &scope.kind.resource;
    let of_subresource = |name: &str| kinds::of_subresource(&resource.group, &resource.plural, name);
    scope.subresource.as_deref().and_then(of_subresource).unwrap_or_else(|| scope.kind.strategy.clone())
}

/// What a caller can never change.
fn keep_identity(new: &mut Value, old: &Value) {
    let old = &old["metadata"];
    let new = member(new, "metadata");
    for name in ["uid", "creationTimestamp", "generation", "resourceVersion", "selfLink"] {
        match old.get(name) {
            Some(value) => *member(new, name) = value.clone(),
            None => drop(remove(new, name)),
        }
    }
    // A deletion is begun by a deletion only; validation refuses an update that tries.
    for name in ["deletionTimestamp", "deletionGracePeriodSeconds"] {
        if let Some(value) = old.get(name) {
            *member(new, name) = value.clone();
        }
    }
}

/// Takes a member from the old object. Most writes did not touch it.
fn keep(new: &mut Value, old: &Value, name: &str) {
    match old.get(name) {
        Some(value) if new.get(name) == Some(value) => {}
        Some(value) => *member(new, name) = value.clone(),
        None => drop(remove(new, name)),
    }
}

/// The status endpoint takes the status, and of the metadata only annotations and labels.
fn prepare_status(new: &mut Value, old: &Value) {
    let names: Vec<String> = new.as_object().map(|members| members.keys().cloned().collect()).unwrap_or_default();
    for name in names.iter().map(String::as_str).filter(|name| !matches!(*name, "status" | "metadata")) {
        keep(new, old, name);
    }
    let old_names = old.as_object().into_iter().flatten().map(|(name, _)| name.as_str());
    for name in old_names.filter(|name| !matches!(*name, "status" | "metadata")) {
        keep(new, old, name);
    }
}

/// Who owns an object and what holds it.
fn keep_metadata(new: &mut Value, old: &Value) {
    for name in ["ownerReferences", "finalizers"] {
        keep(member(new, "metadata"), &old["metadata"], name);
    }
}

/// The part of an object that generations count: all but metadata and status.
fn intent(tree: &Value) -> Vec<(&String, &Value)> {
    let members = tree.as_object().into_iter().flatten();
    members.filter(|(name, _)| !matches!(name.as_str(), "metadata" | "status" | "apiVersion" | "kind")).collect()
}

/// The annotations of an object, where there are any.
fn notes(tree: &Value) -> Option<&serde_json::Map<String, Value>> {
    tree["metadata"]["annotations"].as_object().filter(|annotations| !annotations.is_empty())
}

/// The rules of a change, after those that it has broken already.
fn validate_changed(scope: &Scope, new: &Value, old: &Value, mut errors: Errors) -> ApiResult<()> {
    let (new_field, old_field) = (Field::root(new), Field::root(old));
    metadata::validate(&scope.kind, &new_field, &mut errors);
    metadata::validate_update(&new_field, &old_field, &mut errors);
    let strategy = strategy(scope);
    match part(scope) {
        Part::Main => {
            strategy.validate(&new_field, &mut errors);
            strategy.validate_update(&new_field, &old_field, &mut errors);
        }
        Part::Status => strategy.validate_status(&new_field, &old_field, &mut errors),
    }
    refuse(scope, name_of(new), errors)
}
