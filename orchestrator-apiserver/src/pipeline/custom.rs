//! Custom resource definitions: a definition that was written is served at once, one that another server wrote soon after.

use std::collections::BTreeSet;

use orchestrator_core::{
    client::WriteOptions,
    object::Object,
    status::ApiResult,
    store::{Change, Entry, KeyRange, ListOptions, StoreError},
};
use serde_json::{Value, json};

use super::{Scope, Server, create::name_of};
use crate::{
    field::member,
    registry::{DEFINITIONS, custom_kinds},
    server::OWN_MANAGER,
};

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
        self.registry.define(name_of(tree), object.revision().unwrap_or_default(), custom_kinds(tree));
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

    /// Serves what the store holds definitions of, and nothing else.
    pub(crate) async fn load_definitions(&self) -> Result<(), StoreError> {
        let before = self.registry.definitions();
        let listing = self.store.list(&KeyRange::prefix(DEFINITIONS), ListOptions::default()).await?;
        let found: BTreeSet<String> = listing.entries.iter().filter_map(|entry| self.define_stored(entry)).collect();
        for gone in before.iter().filter(|name| !found.contains(*name)) {
            self.registry.undefine(gone);
        }
        Ok(())
    }

    /// Takes in what another server on the same store did to a definition, if this change is of one.
    pub(crate) async fn definition_changed(&self, change: &Change) -> Result<(), StoreError> {
        let Some(name) = change.key.as_str().strip_prefix(DEFINITIONS) else { return Ok(()) };
        if change.entry.as_ref().is_some_and(|entry| self.registry.has_definition(name, entry.modified)) {
            return Ok(());
        }
        // The change may be an old one: what counts is what is there now.
        match self.store.get(&change.key).await? {
            Some(entry) => drop(self.define_stored(&entry)),
            None => self.registry.undefine(name),
        }
        Ok(())
    }

    /// Serves the kinds of a definition as it is stored, and gives its name; none where it cannot be read.
    fn define_stored(&self, entry: &Entry) -> Option<String> {
        let object = self.objects.of(entry);
        match object.tree() {
            Ok(tree) => {
                self.registry.define(name_of(tree), entry.modified, custom_kinds(tree));
                Some(name_of(tree).to_owned())
            }
            Err(error) => {
                tracing::error!(key = %entry.key, %error, "a stored custom resource definition cannot be read");
                None
            }
        }
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
