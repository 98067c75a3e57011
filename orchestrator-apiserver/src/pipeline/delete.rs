//! Delete: at once, after a grace period, or when the finalizers are gone.

use jiff::{SignedDuration, Timestamp};
use orchestrator_core::{
    client::{DeleteOptions, ListOptions, Propagation, Reply, VersionMatch},
    object::{Object, time},
    status::{ApiError, ApiResult},
    store::Entry,
};
use serde_json::{Value, json};

use super::{Scope, Server, commit::Refusal, update::released};
use crate::{
    field::{member, remove},
    kinds, limits,
    strategy::Generation,
};

/// Namespaces that a cluster cannot do without.
const PROTECTED_NAMESPACES: [&str; 3] = ["default", "kube-system", "kube-public"];

impl Server {
    pub(super) async fn delete(&self, scope: &Scope, options: DeleteOptions) -> ApiResult<Reply> {
        let name = scope.name()?;
        if scope.kind.is("", "namespaces") && PROTECTED_NAMESPACES.contains(&name) {
            return Err(ApiError::forbidden(scope.kind.subject(name), "this namespace may not be deleted"));
        }
        for _ in 0..limits::UPDATE_ATTEMPTS {
            let entry = self.entry(scope).await?;
            let object = scope.kind.served(self.objects.of(&entry))?;
            let old = object.to_tree()?;
            check_preconditions(scope, &options, &old)?;

            let mut new = old.clone();
            self.mark(scope, &mut new, &options);
            if options.dry_run {
                return Ok(if released(&new) {
                    Self::deleted_reply(scope, &object, &new)
                } else {
                    Self::object_reply(Object::from_tree(new), false, Vec::new())
                });
            }
            let done = if released(&new) {
                self.remove(&scope.kind, &entry).await.map(|_| Self::deleted_reply(scope, &object, &new))
            } else if new == old {
                Ok(Self::object_reply(object, false, Vec::new()))
            } else {
                self.put(scope, &new, Some(&entry)).await.map(|object| Self::object_reply(object, false, Vec::new()))
            };
            match done {
                Ok(reply) => {
                    self.after_delete(scope, &old, released(&new)).await;
                    return Ok(reply);
                }
                Err(Refusal::Failed(error)) => return Err(error),
                Err(Refusal::Moved | Refusal::Taken(_)) => {}
            }
        }
        Err(ApiError::stale(scope.kind.subject(name)))
    }

    /// Writes into an object that it is to go, when, and who has to agree.
    fn mark(&self, scope: &Scope, tree: &mut Value, options: &DeleteOptions) {
        // Upstream takes a negative wait for the shortest one.
        let asked = options.grace_period_seconds.map(|seconds| if seconds < 0 { 1 } else { seconds });
        let grace = scope.kind.strategy.grace_seconds(tree, asked).max(0);
        let metadata = member(tree, "metadata");
        let decided = metadata["finalizers"].as_array().is_some_and(|finalizers| {
            finalizers.iter().any(|finalizer| finalizer == "orphan" || finalizer == "foregroundDeletion")
        });
        let resource = &scope.kind.resource;
        let orphans = !decided && kinds::orphans_dependents(&resource.group, &resource.plural);
        let propagation = options.propagation.or(orphans.then_some(Propagation::Orphan));
        set_finalizer(metadata, "orphan", propagation == Some(Propagation::Orphan), propagation.is_some());
        let foreground = propagation == Some(Propagation::Foreground);
        set_finalizer(metadata, "foregroundDeletion", foreground, propagation.is_some());
        let pending = metadata["deletionGracePeriodSeconds"].as_i64();
        let already = metadata["deletionTimestamp"].is_string();
        if already && pending.is_none_or(|pending| pending <= grace) {
            return;
        }
        // A second request can only shorten the wait.
        let start = if already { requested_at(metadata) } else { Some(self.env.now()) };
        let end = start.and_then(|start| start.saturating_add(SignedDuration::from_secs(grace)).ok());
        let end = end.unwrap_or_else(|| self.env.now());
        *member(metadata, "deletionTimestamp") = time(end).0.to_string().into();
        *member(metadata, "deletionGracePeriodSeconds") = grace.into();
        if scope.kind.strategy.generation() != Generation::None
            && let Some(generation) = metadata["generation"].as_i64()
        {
            *member(metadata, "generation") = (generation + 1).into();
        }
        if scope.kind.is("", "namespaces") {
            *member(member(tree, "status"), "phase") = "Terminating".into();
        }
    }

    fn deleted_reply(scope: &Scope, last: &Object, marked: &Value) -> Reply {
        if scope.kind.strategy.returns_deleted() {
            return Self::object_reply(Object::from_tree(marked.clone()), false, Vec::new());
        }
        let uid = last.metadata().ok().and_then(|metadata| metadata.uid.clone()).unwrap_or_default();
        let mut details = json!({
            "name": scope.name.clone().unwrap_or_default(),
            "kind": scope.kind.resource.plural,
            "uid": uid,
        });
        if !scope.kind.resource.group.is_empty() {
            *member(&mut details, "group") = scope.kind.resource.group.to_string().into();
        }
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details,
        });
        Self::object_reply(Object::from_tree(status), false, Vec::new())
    }

    pub(super) async fn delete_collection(
        &self,
        scope: &Scope,
        options: DeleteOptions,
        list: ListOptions,
    ) -> ApiResult<Reply> {
        if !scope.kind.verbs.iter().any(|verb| verb == "deletecollection") {
            return Err(ApiError::method_not_allowed());
        }
        let mut gone = Vec::new();
        let mut page =
            ListOptions { limit: Some(limits::WALK_PAGE_OBJECTS), version_match: None::<VersionMatch>, ..list };
        loop {
            let Reply::List { items, resource_version, continue_token, .. } = self.list(scope, page.clone()).await?
            else {
                return Err(ApiError::internal("a list was expected"));
            };
            for item in items {
                let metadata = item.metadata()?;
                let scope = Scope {
                    namespace: metadata.namespace.clone().unwrap_or_default(),
                    name: metadata.name.clone(),
                    ..scope.clone()
                };
                match self.delete(&scope, options.clone()).await {
                    Ok(_) => gone.push(item),
                    Err(error) if error.is_not_found() => {}
                    Err(error) => return Err(error),
                }
            }
            if continue_token.is_none() {
                return Ok(Reply::List { items: gone, resource_version, continue_token: None, remaining: None });
            }
            page.continue_token = continue_token;
        }
    }

    /// What goes with an object that was deleted.
    async fn after_delete(&self, scope: &Scope, old: &Value, gone: bool) {
        if scope.kind.is("apiextensions.k8s.io", "customresourcedefinitions") && gone {
            self.undefine(old).await;
        }
    }

    /// Objects of a kind that is served no more.
    pub(super) async fn remove_entries(&self, scope_kind: &crate::registry::Kind, entries: &[Entry]) {
        for entry in entries {
            // Another delete may have come first; either way the object is gone.
            let _ = self.remove(scope_kind, entry).await;
        }
    }
}

/// When the deletion was asked for.
fn requested_at(metadata: &Value) -> Option<Timestamp> {
    let end: Timestamp = metadata["deletionTimestamp"].as_str()?.parse().ok()?;
    let grace = metadata["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
    end.checked_sub(SignedDuration::from_secs(grace)).ok()
}

/// Adds or takes away one of the finalizers of the garbage collector, where the caller said what he wants.
fn set_finalizer(metadata: &mut Value, name: &str, wanted: bool, asked: bool) {
    if !asked {
        return;
    }
    let mut finalizers = metadata["finalizers"].as_array().cloned().unwrap_or_default();
    finalizers.retain(|finalizer| finalizer != name);
    if wanted {
        finalizers.push(name.into());
    }
    if finalizers.is_empty() {
        remove(metadata, "finalizers");
    } else {
        *member(metadata, "finalizers") = finalizers.into();
    }
}

fn check_preconditions(scope: &Scope, options: &DeleteOptions, old: &Value) -> ApiResult<()> {
    let Some(preconditions) = &options.preconditions else { return Ok(()) };
    let name = scope.name()?;
    let current = |field: &str| old["metadata"][field].as_str().unwrap_or_default();
    let (uid, version) = (preconditions.uid.as_deref(), preconditions.resource_version.as_deref());
    for (field, wanted, current, guess) in [
        ("UID", uid, current("uid"), "deleted and then recreated"),
        ("ResourceVersion", version, current("resourceVersion"), "modified"),
    ] {
        if let Some(wanted) = wanted
            && wanted != current
        {
            let why = format!(
                "the {field} in the precondition ({wanted}) does not match the {field} in record ({current}). The object \
                 might have been {guess}"
            );
            return Err(ApiError::conflict(scope.kind.kind_subject(name), &why));
        }
    }
    Ok(())
}
