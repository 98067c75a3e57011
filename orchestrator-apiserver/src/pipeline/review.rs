//! Kinds that are answered and not stored: who am I, may I, whose token is this.

use orchestrator_core::{
    client::{Reply, UserInfo, WriteOptions},
    object::Object,
    status::{ApiError, ApiResult, FieldError, FieldErrorKind, Subject},
};
use serde_json::{Value, json};

use super::{Scope, Server};
use crate::{
    auth::{Attributes, Decision},
    field::{Field, member},
};

impl Server {
    pub(super) fn review(&self, scope: &Scope, object: &Object, options: &WriteOptions) -> ApiResult<Reply> {
        let mut warnings = Vec::new();
        let mut tree = self.decode(scope, object, options.field_validation, &mut warnings)?;
        self.track(scope, "", None, &mut tree, options);
        if scope.kind.kind == "SelfSubjectRulesReview" {
            return self.review_rules(&scope.user, &tree, warnings);
        }
        let status = match scope.kind.kind.as_str() {
            "SelfSubjectReview" => json!({"userInfo": user_info(&scope.user)}),
            "TokenReview" => self.review_token(&tree),
            "SelfSubjectAccessReview" => self.review_access(&scope.user, &tree)?,
            "SubjectAccessReview" | "LocalSubjectAccessReview" => self.review_access(&subject(&tree)?, &tree)?,
            _ => return Err(ApiError::method_not_allowed()),
        };
        *member(&mut tree, "status") = status;
        let metadata = member(&mut tree, "metadata");
        if metadata.is_null() {
            *metadata = json!({});
        }
        if scope.kind.kind == "SelfSubjectReview" {
            *member(metadata, "creationTimestamp") = self.now().into();
        }
        Ok(Self::object_reply(Object::from_tree(tree), true, warnings))
    }

    /// What somebody may do in a namespace. The answer does not repeat the question.
    fn review_rules(&self, user: &UserInfo, tree: &Value, warnings: Vec<String>) -> ApiResult<Reply> {
        let namespace = Field::root(tree).at("spec.namespace");
        if namespace.text().is_empty() {
            return Err(ApiError::bad_request("no namespace on request"));
        }
        let answer = json!({
            "kind": "SelfSubjectRulesReview", "apiVersion": "authorization.k8s.io/v1", "metadata": {}, "spec": {},
            "status": self.authorizer.rules(user, namespace.text()).status(),
        });
        Ok(Self::object_reply(Object::from_tree(answer), true, warnings))
    }

    fn review_token(&self, tree: &Value) -> Value {
        let token = Field::root(tree).at("spec.token");
        match self.authenticator.token(token.text(), self.env.now(), &self.tokens) {
            Ok(user) => json!({"authenticated": true, "user": user_info(&user)}),
            Err(error) => json!({"authenticated": false, "user": {}, "error": error.message()}),
        }
    }

    fn review_access(&self, user: &UserInfo, tree: &Value) -> ApiResult<Value> {
        let spec = Field::root(tree).get("spec");
        let resource = spec.get("resourceAttributes");
        let path = spec.get("nonResourceAttributes");
        let decision = if path.exists() {
            self.authorizer.authorize_path(user, path.get("verb").text(), path.get("path").text())
        } else {
            self.authorizer.authorize(
                user,
                &Attributes {
                    verb: resource.get("verb").text(),
                    group: resource.get("group").text(),
                    version: resource.get("version").text(),
                    resource: resource.get("resource").text(),
                    subresource: resource.get("subresource").text(),
                    namespace: resource.get("namespace").text(),
                    name: resource.get("name").text(),
                },
            )
        };
        Ok(match decision {
            Decision::Allow => json!({"allowed": true}),
            Decision::Deny(reason) => json!({"allowed": false, "denied": true, "reason": reason}),
            Decision::NoOpinion => json!({"allowed": false}),
        })
    }
}

/// Whom an access review is about.
fn subject(tree: &Value) -> ApiResult<UserInfo> {
    let spec = Field::root(tree).get("spec");
    let groups: Vec<String> = spec.get("groups").items().iter().map(|group| group.text().to_owned()).collect();
    let name = spec.get("user").text().to_owned();
    if name.is_empty() && groups.is_empty() {
        let subject = Subject { group: "authorization.k8s.io", resource: "", name: "" };
        let error = FieldError {
            field: "spec.user".to_owned(),
            kind: FieldErrorKind::Invalid,
            detail: "\"\": at least one of user or group must be specified".to_owned(),
        };
        return Err(ApiError::invalid(subject, &[error]));
    }
    Ok(UserInfo { name, groups, ..Default::default() })
}

fn user_info(user: &UserInfo) -> Value {
    let mut info = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        *member(&mut info, "uid") = user.uid.clone().into();
    }
    if !user.extra.is_empty() {
        *member(&mut info, "extra") = json!(user.extra);
    }
    info
}
