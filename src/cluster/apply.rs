//! YAML into a cluster: what is new is created, what exists is patched.

use orchestrator_core::{
    client::{Call, PatchBody, Reply, Request, Resource, WriteOptions},
    object::Object,
    status::ApiError,
    yaml::{self, YamlError},
};
use serde_json::Value;

use super::Cluster;

/// A document could not be applied. Those before it were.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The text is not YAML.
    #[error(transparent)]
    Yaml(#[from] YamlError),
    /// The document has no `apiVersion`, `kind` or name.
    #[error("document {index}: {what} is missing")]
    Incomplete {
        /// Which document, from 0.
        index: usize,
        /// What it lacks.
        what: &'static str,
    },
    /// Nothing of this kind is served.
    #[error("no matches for kind {kind:?} in version {api_version:?}")]
    UnknownKind {
        /// `apiVersion` as given.
        api_version: String,
        /// `kind` as given.
        kind: String,
    },
    /// The server refused it.
    #[error("{kind} {name:?}: {source}")]
    Refused {
        /// The document's kind.
        kind: String,
        /// The object's name.
        name: String,
        /// Why.
        #[source]
        source: ApiError,
    },
}

impl Cluster {
    /// Brings all documents of a YAML text into the cluster, in order, and gives the objects as they are stored.
    /// Documents without a namespace go into `default`.
    pub async fn apply(&self, text: &str) -> Result<Vec<Object>, ApplyError> {
        let mut applied = Vec::new();
        for (index, document) in yaml::parse_all(text)?.into_iter().enumerate() {
            if !document.is_null() {
                applied.push(self.apply_document(index, document).await?);
            }
        }
        Ok(applied)
    }

    async fn apply_document(&self, index: usize, document: Value) -> Result<Object, ApplyError> {
        let text = |what: &'static str, value: &Value| {
            let text = value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
            text.ok_or(ApplyError::Incomplete { index, what })
        };
        let api_version = text("apiVersion", &document["apiVersion"])?;
        let kind = text("kind", &document["kind"])?;
        let name = text("metadata.name", &document["metadata"]["name"])?;
        let Some((resource, namespaced)) = self.server.resource_of(&api_version, &kind) else {
            return Err(ApplyError::UnknownKind { api_version, kind });
        };
        let namespace = document["metadata"]["namespace"].as_str().unwrap_or("default").to_owned();
        let namespace = namespaced.then_some(namespace);
        let custom = resource.group.contains('.') && !resource.group.ends_with(".k8s.io");
        let result = match self.send(&resource, &namespace, None, create(document.clone())).await {
            Err(error) if error.is_already_exists() => {
                let patch = if custom { PatchBody::Merge(document) } else { PatchBody::Strategic(document) };
                let call = Call::Patch { patch, options: WriteOptions::default() };
                self.send(&resource, &namespace, Some(&name), call).await
            }
            other => other,
        };
        result.map_err(|source| ApplyError::Refused { kind, name, source })
    }

    async fn send(
        &self,
        resource: &Resource,
        namespace: &Option<String>,
        name: Option<&str>,
        call: Call,
    ) -> Result<Object, ApiError> {
        let request = Request {
            user: None,
            resource: resource.clone(),
            namespace: namespace.clone(),
            name: name.map(str::to_owned),
            subresource: None,
            call,
        };
        match self.client().request(request).await? {
            Reply::Object { object, .. } => Ok(object),
            Reply::List { .. } => Err(ApiError::internal("an object was expected")),
        }
    }
}

fn create(document: Value) -> Call {
    Call::Create { object: Object::from_tree(document), options: WriteOptions::default() }
}
