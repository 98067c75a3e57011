//! Create: the steps of a write, in order.

use orchestrator_core::{
    client::{Reply, WriteOptions},
    object::{Object, time},
    status::{ApiError, ApiResult, FieldError, FieldErrorKind, Reason, Subject},
};
use serde_json::Value;

use super::{
    Scope, Server,
    allocate::Draw,
    commit::{Refusal, place},
    metadata, store_error,
};
use crate::{
    decode,
    field::{Errors, Field, member, remove},
    limits,
    strategy::Generation,
};

impl Server {
    /// A new object, or the answer of a kind that is not stored.
    pub(super) async fn create_any(&self, scope: &Scope, object: Object, options: WriteOptions) -> ApiResult<Reply> {
        match (&*scope.kind.resource.group, &*scope.kind.resource.plural) {
            ("authentication.k8s.io" | "authorization.k8s.io", _) => self.review(scope, &object, &options),
            ("", "bindings") => self.create_binding(scope, None, &object, &options).await,
            ("", "componentstatuses") => Err(ApiError::method_not_allowed()),
            _ if scope.name.is_some() => Err(ApiError::method_not_allowed()),
            _ => self.create(scope, object, options).await,
        }
    }

    /// Writes a new object.
    pub(super) async fn create(&self, scope: &Scope, object: Object, options: WriteOptions) -> ApiResult<Reply> {
        let mut warnings = Vec::new();
        match self.write_new(scope, object, options, &mut warnings).await {
            Ok(object) => Ok(Self::object_reply(object, true, warnings)),
            Err(error) => Err(error.with_warnings(warnings)),
        }
    }

    async fn write_new(
        &self,
        scope: &Scope,
        object: Object,
        options: WriteOptions,
        warnings: &mut Vec<String>,
    ) -> ApiResult<Object> {
        let mut tree = self.decode(scope, &object, options.field_validation, warnings)?;
        metadata::unite_owners(&mut tree, "", warnings);
        self.place_in_namespace(scope, &mut tree)?;
        self.check_namespace(scope, &tree).await?;
        scope.kind.strategy.default(&mut tree);
        self.track(scope, "", None, &mut tree, &options);
        self.write_decoded(scope, tree, options.dry_run, warnings).await
    }

    /// The steps of a new object that is decoded, with defaults and managers.
    pub(super) async fn write_decoded(
        &self,
        scope: &Scope,
        mut tree: Value,
        dry_run: bool,
        warnings: &mut Vec<String>,
    ) -> ApiResult<Object> {
        let kind = &scope.kind;
        self.admit_mutating(scope, &mut tree, None).await?;
        kind.strategy.default(&mut tree);
        refuse_version(&tree)?;
        self.begin_metadata(scope, &mut tree);

        let generated = tree["metadata"].get("generateName").is_some() && !has_name(&tree);
        let may_retry = generated || kind.strategy.allocates();
        for attempt in 1.. {
            if generated {
                self.generate_name(&mut tree);
            }
            let mut candidate = if may_retry { tree.clone() } else { std::mem::take(&mut tree) };
            kind.strategy.prepare_create(&mut candidate);
            if let Some(schema) = kind.schema {
                decode::settle(&mut candidate, schema);
            }
            let drawn = self.allocate(scope, &mut candidate, None, Draw::at(attempt - 1, dry_run)).await?;
            let errors = self.refuse_device_access(scope, &candidate, None).await?;
            validate_new(scope, &candidate, errors)?;
            if attempt == 1 {
                kind.strategy.warn(&Field::root(&candidate), None, warnings);
            }
            self.admit_validating(scope, &candidate, None, warnings).await?;
            if attempt == 1 {
                self.admit_by_quotas(scope, &candidate, None, dry_run).await?;
            }
            if dry_run {
                self.refuse_taken(scope, &candidate).await?;
                return Ok(Object::from_tree(candidate));
            }
            match self.put(scope, &candidate, None).await {
                Ok(object) => {
                    self.after_write(scope, &object).await;
                    return Ok(object);
                }
                Err(Refusal::Failed(error)) => return Err(error),
                Err(Refusal::Moved) if generated && attempt < limits::ALLOCATION_ATTEMPTS => {}
                Err(Refusal::Taken(_)) if drawn && attempt < limits::ALLOCATION_ATTEMPTS => {}
                Err(Refusal::Moved) => return Err(ApiError::already_exists(kind.subject(name_of(&candidate)))),
                Err(Refusal::Taken(key)) => return Err(Refusal::taken(kind, name_of(&candidate), &key)),
            }
        }
        Err(ApiError::internal("the attempts ran out"))
    }

    /// What a commit would have found out about the name.
    pub(super) async fn refuse_taken(&self, scope: &Scope, tree: &Value) -> ApiResult<()> {
        let (namespace, name) = place(tree);
        let there = self.store.get(&scope.kind.key(namespace, name)).await.map_err(store_error)?;
        there.map_or(Ok(()), |_| Err(ApiError::already_exists(scope.kind.subject(name))))
    }

    /// The namespace of the path is the object's; another one in the body is an error.
    pub(super) fn place_in_namespace(&self, scope: &Scope, tree: &mut Value) -> ApiResult<()> {
        let metadata = member(tree, "metadata");
        if !scope.kind.namespaced {
            // What belongs to the cluster is in no namespace, whatever its sender says.
            remove(metadata, "namespace");
            return Ok(());
        }
        let namespace = member(metadata, "namespace");
        match namespace.as_str() {
            None | Some("") => *namespace = scope.namespace.clone().into(),
            Some(given) if given == scope.namespace => {}
            Some(_) => {
                return Err(ApiError::bad_request(
                    "the namespace of the provided object does not match the namespace sent on the request",
                ));
            }
        }
        Ok(())
    }

    /// What the server writes into the metadata of a new object.
    fn begin_metadata(&self, scope: &Scope, tree: &mut Value) {
        let metadata = member(tree, "metadata");
        for name in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "resourceVersion"] {
            remove(metadata, name);
        }
        *member(metadata, "uid") = self.env.uid().into();
        *member(metadata, "creationTimestamp") = self.now().into();
        if scope.kind.strategy.generation() != Generation::None {
            *member(metadata, "generation") = 1.into();
        } else {
            remove(metadata, "generation");
        }
    }

    /// The time as objects carry it.
    pub(crate) fn now(&self) -> String {
        time(self.env.now()).0.to_string()
    }

    fn generate_name(&self, tree: &mut Value) {
        let metadata = member(tree, "metadata");
        let mut base = metadata["generateName"].as_str().unwrap_or_default().to_owned();
        let room = limits::GENERATED_NAME_BYTES - limits::NAME_SUFFIX_LETTERS;
        while base.len() > room {
            base.pop();
        }
        *member(metadata, "name") = (base + &self.env.name_suffix(limits::NAME_SUFFIX_LETTERS)).into();
    }

    /// The namespace must exist and not be about to go.
    pub(super) async fn check_namespace(&self, scope: &Scope, tree: &Value) -> ApiResult<()> {
        if !scope.kind.namespaced || !self.config.admission.namespace_lifecycle {
            return Ok(());
        }
        if scope.namespace.is_empty() {
            let error = FieldError {
                field: "metadata.namespace".to_owned(),
                kind: FieldErrorKind::Required,
                detail: String::new(),
            };
            return Err(ApiError::invalid(scope.kind.kind_subject(name_of(tree)), &[error]));
        }
        let Some(namespace) = self.find_object("", "namespaces", "", &scope.namespace).await? else {
            let subject = Subject { group: "", resource: "namespaces", name: &scope.namespace };
            return Err(ApiError::not_found(subject));
        };
        if namespace.metadata()?.deletion_timestamp.is_none() {
            return Ok(());
        }
        let why =
            format!("unable to create new content in namespace {} because it is being terminated", scope.namespace);
        let error = ApiError::forbidden(scope.kind.subject(name_of(tree)), &why);
        let mut status = error.status().clone();
        if let Some(details) = &mut status.details {
            details.causes = Some(vec![k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusCause {
                field: Some("metadata.namespace".to_owned()),
                message: Some(format!("namespace {} is being terminated", scope.namespace)),
                reason: Some("NamespaceTerminating".to_owned()),
            }]);
        }
        Err(ApiError::from_status(status))
    }
}

/// The rules of a new object, after those that it has broken already.
fn validate_new(scope: &Scope, tree: &Value, mut errors: Errors) -> ApiResult<()> {
    let object = Field::root(tree);
    metadata::validate(&scope.kind, &object, &mut errors);
    scope.kind.strategy.validate(&object, &mut errors);
    scope.kind.strategy.validate_create(&object, &mut errors);
    refuse(scope, name_of(tree), errors)
}

/// An object that is new has no version; what is no version does not count. Upstream notices only when it stores, hence
/// the bare error.
fn refuse_version(tree: &Value) -> ApiResult<()> {
    let given = tree["metadata"]["resourceVersion"].as_str().and_then(|version| version.parse::<u64>().ok());
    match given {
        None | Some(0) => Ok(()),
        Some(_) => Err(ApiError::new(Reason::Unknown, "resourceVersion should not be set on objects to be created")),
    }
}

/// The error of an object that breaks rules, if it does.
pub(super) fn refuse(scope: &Scope, name: &str, errors: Errors) -> ApiResult<()> {
    let errors = errors.into_vec();
    if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid(scope.kind.kind_subject(name), &errors)) }
}

pub(super) fn name_of(tree: &Value) -> &str {
    tree["metadata"]["name"].as_str().unwrap_or_default()
}

fn has_name(tree: &Value) -> bool {
    !name_of(tree).is_empty()
}
