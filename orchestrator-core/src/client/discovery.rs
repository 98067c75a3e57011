//! Which resources a server has, for those who work on all of them: namespace finalization, garbage collection.

use std::fmt;

use async_trait::async_trait;

use super::Resource;
use crate::status::ApiResult;

/// Knows what a server serves now. Custom kinds come and go.
#[async_trait]
pub trait ResourceDiscovery: Send + Sync + fmt::Debug {
    /// All resources in their preferred version, each once, without subresources.
    async fn resources(&self) -> ApiResult<Vec<ResourceInfo>>;
}

/// A resource as discovery describes it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ResourceInfo {
    /// Group, version and plural name.
    pub resource: Resource,
    /// Such as `Pod`.
    pub kind: String,
    /// Its objects live in namespaces.
    pub namespaced: bool,
    /// Such as `get`, `list`, `watch`, `delete`, `deletecollection`.
    pub verbs: Vec<String>,
}

impl ResourceInfo {
    /// Whether the server offers all of these verbs.
    pub fn supports(&self, verbs: &[&str]) -> bool {
        verbs.iter().all(|verb| self.verbs.iter().any(|offered| offered == verb))
    }
}
