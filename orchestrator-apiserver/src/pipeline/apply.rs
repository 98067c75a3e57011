//! Apply: a configuration is laid over the object that is there, or makes one where there is none.

use orchestrator_core::{
    client::{FieldValidation, Reply, WriteOptions},
    object::Object,
    status::{ApiError, ApiResult},
};
use serde_json::Value;

use super::{
    Scope, Server,
    change::{Change, check_name, patch_is_invalid},
    create::name_of,
    input, track,
    update::answer,
};
use crate::{field::member, limits};

impl Server {
    pub(super) async fn apply(&self, scope: &Scope, configuration: Value, options: WriteOptions) -> ApiResult<Reply> {
        track::check_type(&scope.kind, &configuration)?;
        let change = Change::Apply(configuration);
        for _ in 0..limits::UPDATE_ATTEMPTS {
            let mut warnings = Vec::new();
            let result = self.update(scope, &change, &options, &mut warnings).await;
            let missing = result.as_ref().is_err_and(|error| is_missing(scope, error));
            let Change::Apply(configuration) = &change else { return answer(result, warnings) };
            if !missing || scope.subresource.is_some() {
                return answer(result, warnings);
            }
            match self.apply_new(scope, configuration, &options, &mut warnings).await {
                Ok(object) => return Ok(Self::object_reply(object, true, warnings)),
                // Somebody else was first.
                Err(error) if error.is_already_exists() => {}
                Err(error) => return Err(error.with_warnings(warnings)),
            }
        }
        Err(ApiError::stale(scope.kind.subject(scope.name()?)))
    }

    async fn apply_new(
        &self,
        scope: &Scope,
        configuration: &Value,
        options: &WriteOptions,
        warnings: &mut Vec<String>,
    ) -> ApiResult<Object> {
        self.authorize(scope, "create")?;
        let mut tree = self.applied(scope, "", None, configuration, options)?;
        if let Some(uid) = tree["metadata"]["uid"].as_str().filter(|uid| !uid.is_empty()) {
            let why =
                format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
            return Err(ApiError::conflict(scope.kind.subject(scope.name()?), &why));
        }
        input::prune(&scope.kind, &mut tree, Vec::new(), FieldValidation::Ignore, warnings)
            .map_err(|why| patch_is_invalid(&tree.to_string(), &why.json))?;
        self.place_in_namespace(scope, &mut tree)?;
        if name_of(&tree).is_empty() {
            let name = scope.name()?;
            return Err(ApiError::bad_request(format!(
                "the name of the object ({name} based on URL) was undeterminable: name must be provided"
            )));
        }
        check_name(scope, &tree)?;
        *member(&mut tree, "kind") = scope.kind.kind.clone().into();
        *member(&mut tree, "apiVersion") = scope.kind.api_version().into();
        self.check_namespace(scope, &tree).await?;
        scope.kind.strategy.default(&mut tree);
        self.write_decoded(scope, tree, options.dry_run, warnings).await
    }
}

/// Whether it is the object itself that was not found.
pub(super) fn is_missing(scope: &Scope, error: &ApiError) -> bool {
    let details = error.status().details.as_ref();
    error.is_not_found() && details.and_then(|details| details.name.as_deref()) == scope.name.as_deref()
}
