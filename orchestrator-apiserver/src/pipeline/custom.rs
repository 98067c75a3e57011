//! Custom resource definitions: a definition that was written is served at once.

use orchestrator_core::{
    client::{Resource, WriteOptions},
    object::Object,
    status::{ApiError, ApiResult},
    store::ListOptions,
};
use serde_json::{Value, json};

use super::{Scope, Server, create::name_of, store_error};
use crate::{field::member, registry::custom_kinds, server::OWN_MANAGER};

impl Server {
    /// What follows from a write.
    pub(super) async fn after_write(&self, scope: &Scope, object: &Object) {
        if scope.kind.is("apiextensions.k8s.io", "customresourcedefinitions")
            && let Err(error) = self.define(scope, object).await
        {
            tracing::error!(%error, "cannot serve a custom resource definition");
        }
    }

    /// Serves the kinds of a definition and says so in its status.
    async fn define(&self, scope: &Scope, object: &Object) -> ApiResult<()> {
        let tree = object.tree()?;
        if tree["metadata"]["deletionTimestamp"].is_string() {
            return Ok(());
        }
        self.registry.define(name_of(tree), custom_kinds(tree));
        if scope.subresource.is_some() {
            return Ok(());
        }
        let mut accepted = tree.clone();
        let status = established(tree, &self.now());
        if accepted.get("status") == Some(&status) {
            return Ok(());
        }
        *member(&mut accepted, "status") = status;
        let name = name_of(tree).to_owned();
        let scope = Scope { name: Some(name), subresource: Some("status".to_owned()), ..scope.clone() };
        // Boxed, since a write of the status comes through here again.
        let options = WriteOptions { field_manager: Some(OWN_MANAGER.to_owned()), ..WriteOptions::default() };
        Box::pin(self.replace(&scope, Object::from_tree(accepted), options)).await.map(drop)
    }

    /// Serves a definition's kinds no more, and removes their objects.
    pub(super) async fn undefine(&self, definition: &Value) {
        for kind in custom_kinds(definition) {
            let range = kind.range(None);
            if let Ok(listing) = self.store.list(&range, ListOptions::default()).await {
                self.remove_entries(&kind, &listing.entries).await;
            }
        }
        self.registry.undefine(name_of(definition));
    }

    /// Serves what the store holds definitions of; called once, before the first request.
    pub(crate) async fn load_definitions(&self) -> ApiResult<()> {
        let resource = Resource::new("apiextensions.k8s.io", "v1", "customresourcedefinitions");
        let kind = self.registry.find(&resource).ok_or_else(ApiError::no_such_path)?;
        let listing = self.store.list(&kind.range(None), ListOptions::default()).await.map_err(store_error)?;
        for entry in &listing.entries {
            let object = self.objects.of(entry);
            let tree = object.tree()?;
            self.registry.define(name_of(tree), custom_kinds(tree));
        }
        Ok(())
    }
}

/// Warns of rules in a definition's schemas that nobody evaluates.
pub(super) fn warn_of_rules(definition: &Value, warnings: &mut Vec<String>) {
    let versions = definition["spec"]["versions"].as_array().into_iter().flatten();
    for (index, _) in versions.enumerate().filter(|(_, version)| has_rules(&version["schema"])) {
        warnings.push(format!("spec.versions[{index}].schema: x-kubernetes-validations are not evaluated"));
    }
}

fn has_rules(schema: &Value) -> bool {
    match schema {
        Value::Object(members) => members.contains_key("x-kubernetes-validations") || members.values().any(has_rules),
        Value::Array(items) => items.iter().any(has_rules),
        _ => false,
    }
}

/// The status of a definition that is served.
fn established(tree: &Value, now: &str) -> Value {
    let condition = |name: &str, reason: &str, message: &str| {
        let old = tree["status"]["conditions"].as_array().into_iter().flatten();
        let since = old
            .filter(|old| old["type"] == name && old["status"] == "True")
            .find_map(|old| old["lastTransitionTime"].as_str());
        json!({
            "type": name, "status": "True", "reason": reason, "message": message,
            "lastTransitionTime": since.unwrap_or(now),
        })
    };
    let versions = tree["spec"]["versions"].as_array().into_iter().flatten();
    let storage: Vec<&Value> =
        versions.filter(|version| version["storage"] == true).map(|version| &version["name"]).collect();
    let mut stored: Vec<Value> = tree["status"]["storedVersions"].as_array().cloned().unwrap_or_default();
    for version in storage {
        if !stored.contains(version) {
            stored.push(version.clone());
        }
    }
    json!({
        "acceptedNames": tree["spec"]["names"],
        "conditions": [
            condition("NamesAccepted", "NoConflicts", "no conflicts found"),
            condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        ],
        "storedVersions": stored,
    })
}
