//! The client: [`Client`] and [`Api`] over one small, object-safe seam, [`Backend`].
//!
//! Start at [`Api`]. In process the backend is the API server's pipeline itself; `orchestrator-client-kube` is the
//! backend for any Kubernetes server. Wrap a backend to add latency, conflicts, or another identity.

mod api;
mod discovery;
mod request;

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use futures::stream::BoxStream;

pub use api::{Api, ObjectList};
pub use discovery::{ResourceDiscovery, ResourceInfo};
pub use request::{
    Call, DeleteOptions, FieldValidation, ListOptions, PatchBody, Propagation, Reply, Request, Resource, UserInfo,
    VersionMatch, WatchEvent, WatchRequest, WriteOptions,
};

use crate::status::ApiError;

/// What a client speaks to.
#[async_trait]
pub trait Backend: Send + Sync + fmt::Debug {
    /// Answers one request.
    async fn request(&self, request: Request) -> Result<Reply, ApiError>;

    /// Follows a collection. The stream ends with an error, when the server closes it, or when it is dropped.
    async fn watch(&self, request: WatchRequest) -> Result<WatchStream, ApiError>;
}

/// Changes of a collection, in order.
pub type WatchStream = BoxStream<'static, Result<WatchEvent, ApiError>>;

/// A handle on an API server. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    backend: Arc<dyn Backend>,
    user: Option<Arc<UserInfo>>,
    field_manager: Option<Arc<str>>,
}

impl Client {
    /// A client of this backend, with the backend's own identity.
    pub fn new(backend: Arc<dyn Backend>) -> Self {
        Self { backend, user: None, field_manager: None }
    }

    /// The same client as somebody else. In process this is the identity itself; over the wire it is impersonation.
    #[must_use]
    pub fn with_user(&self, user: UserInfo) -> Self {
        Self { user: Some(Arc::new(user)), ..self.clone() }
    }

    /// The same client, whose writes are those of a field manager of this name, unless they name another one.
    ///
    /// Configurations that are applied always name theirs.
    #[must_use]
    pub fn with_field_manager(&self, name: &str) -> Self {
        Self { field_manager: Some(name.into()), ..self.clone() }
    }

    /// What this client speaks to, to be wrapped.
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    /// Sends a request as this client's user.
    pub async fn request(&self, mut request: Request) -> Result<Reply, ApiError> {
        request.user = request.user.or_else(|| self.user.clone());
        if let (Some(name), Some(options)) = (&self.field_manager, request.call.write_options_mut()) {
            options.field_manager.get_or_insert_with(|| name.to_string());
        }
        self.backend.request(request).await
    }

    /// Follows a collection as this client's user.
    pub async fn watch(&self, mut request: WatchRequest) -> Result<WatchStream, ApiError> {
        request.user = request.user.or_else(|| self.user.clone());
        self.backend.watch(request).await
    }
}
