//! Admission of claims of volumes: which class they have, and whether they may grow.

use orchestrator_core::{
    quantity::Quantity,
    status::{ApiError, ApiResult},
};
use serde_json::Value;

use super::{Scope, Server, create::name_of};
use crate::field::member;

/// The annotation of the storage class that claims without a class get.
const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";

/// The annotation that names the class of old claims.
const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

impl Server {
    /// Gives a claim without a class the default class.
    pub(super) async fn admit_storage_class(&self, tree: &mut Value) -> ApiResult<()> {
        let spec = member(tree, "spec");
        if !spec["storageClassName"].is_null() || !tree["metadata"]["annotations"][BETA_CLASS].is_null() {
            return Ok(());
        }
        let mut defaults = Vec::new();
        for class in self.all_of("storage.k8s.io", "storageclasses", None).await? {
            let metadata = class.metadata()?;
            let annotations = metadata.annotations.as_ref();
            if annotations.and_then(|annotations| annotations.get(DEFAULT_CLASS)).is_some_and(|value| value == "true") {
                let created = metadata.creation_timestamp.as_ref().map(|time| time.0);
                defaults.push((created, metadata.name.clone().unwrap_or_default()));
            }
        }
        // The newest one wins; of equal age the first by name.
        defaults.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        if let Some((_, name)) = defaults.into_iter().next() {
            *member(member(tree, "spec"), "storageClassName") = name.into();
        }
        Ok(())
    }

    /// A claim grows only when it is bound, and when its class says that volumes can.
    pub(super) async fn admit_larger_claim(&self, scope: &Scope, tree: &Value, old: &Value) -> ApiResult<()> {
        let size = |claim: &Value| claim["spec"]["resources"]["requests"]["storage"].as_str()?.parse::<Quantity>().ok();
        if size(tree) <= size(old) {
            return Ok(());
        }
        let refused = |why: &str| Err(ApiError::forbidden(scope.kind.subject(name_of(tree)), why));
        if old["status"]["phase"] != "Bound" {
            return refused("Only bound persistent volume claims can be expanded");
        }
        let class = class_of(tree).filter(|class| class_of(old) == Some(class));
        let class = match class {
            Some(class) => self.find_object("storage.k8s.io", "storageclasses", "", class).await?,
            None => None,
        };
        match class {
            Some(class) if class.tree()?["allowVolumeExpansion"] == true => Ok(()),
            _ => refused(
                "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must \
                 support resize",
            ),
        }
    }
}

/// The storage class of a claim, where it has one.
fn class_of(claim: &Value) -> Option<&str> {
    let named = claim["metadata"]["annotations"][BETA_CLASS].as_str().or(claim["spec"]["storageClassName"].as_str());
    named.filter(|name| !name.is_empty())
}
