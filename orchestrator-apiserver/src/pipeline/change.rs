//! What a request wants an object to be, and the object as it is then.

use orchestrator_core::{
    client::{PatchBody, WriteOptions},
    status::{ApiError, ApiResult, FieldError, FieldErrorKind, Subject},
};
use serde_json::Value;

use super::{Scope, Server, create::name_of, input};
use crate::{field::member, patch};

/// What a request wants the object to be.
pub(super) enum Change {
    Replace(Value),
    Patch(PatchBody),
    /// A configuration to apply.
    Apply(Value),
    /// As one of the others, asked for by the object's scale.
    Scale(Box<Self>),
}

impl Change {
    /// Which of the object's endpoints its managers are known by.
    pub(super) fn endpoint<'a>(&self, scope: &'a Scope) -> &'a str {
        match self {
            Self::Scale(_) => "scale",
            _ => scope.subresource.as_deref().unwrap_or_default(),
        }
    }

    /// The configuration, where it is one.
    pub(super) fn configuration(&self) -> Option<&Value> {
        match self {
            Self::Apply(configuration) => Some(configuration),
            Self::Scale(change) => change.configuration(),
            Self::Replace(_) | Self::Patch(_) => None,
        }
    }
}

impl Server {
    /// The object as the request wants it.
    pub(super) fn changed(
        &self,
        scope: &Scope,
        change: &Change,
        old: &Value,
        options: &WriteOptions,
        warnings: &mut Vec<String>,
    ) -> ApiResult<Value> {
        let mut tree = match change {
            Change::Replace(tree) => return Ok(tree.clone()),
            Change::Scale(change) if change.configuration().is_none() => {
                return self.changed(scope, change, old, options, warnings);
            }
            Change::Apply(_) | Change::Scale(_) => {
                let Some(configuration) = change.configuration() else { return Ok(old.clone()) };
                self.applied(scope, change.endpoint(scope), Some(old), configuration, options)?
            }
            Change::Patch(patch) => {
                patch::check(patch, options.field_validation)?;
                patch::apply(&scope.kind, old, patch)?
            }
        };
        if !tree.is_object() {
            let why = input::no_type(&tree).unwrap_or_default();
            let why = format!("couldn't get version/kind; json parse error: {why}");
            return Err(patch_is_invalid(&tree.to_string(), &why));
        }
        let found = match change {
            Change::Patch(patch) => patch::findings(patch, &options.repeated_fields),
            _ => Vec::new(),
        };
        let pruned = input::prune(&scope.kind, &mut tree, found, options.field_validation, warnings);
        pruned.map_err(|why| match change {
            Change::Patch(PatchBody::Strategic(patch)) => patch_is_invalid(&patch::shown(patch), &why.tree),
            // The object as the patch left it, with all that is wrong in it.
            Change::Patch(patch) => patch::apply(&scope.kind, old, patch)
                .map_or_else(|error| error, |tree| patch_is_invalid(&tree.to_string(), &why.json)),
            _ => patch_is_invalid(&tree.to_string(), &why.json),
        })?;
        check_name(scope, &tree)?;
        *member(&mut tree, "kind") = scope.kind.kind.clone().into();
        *member(&mut tree, "apiVersion") = scope.kind.api_version().into();
        Ok(tree)
    }
}

/// The refusal of a patch that leaves something else than an object of the kind.
pub(super) fn patch_is_invalid(shown: &str, why: &str) -> ApiError {
    let detail = format!("{shown:?}: {why}");
    let error = FieldError { field: "patch".to_owned(), kind: FieldErrorKind::Invalid, detail };
    ApiError::invalid(Subject { group: "", resource: "", name: "" }, &[error])
}

pub(super) fn check_name(scope: &Scope, tree: &Value) -> ApiResult<()> {
    let (given, expected) = (name_of(tree), scope.name()?);
    if given.is_empty() {
        let why = format!("the name of the object ({expected} based on URL) was undeterminable: name must be provided");
        return Err(ApiError::bad_request(why));
    }
    if given == expected {
        return Ok(());
    }
    Err(ApiError::bad_request(format!(
        "the name of the object ({given}) does not match the name on the URL ({expected})"
    )))
}
