//! The client's remote backend: any Kubernetes API server, over [`kube::Client`].
//!
//! A reconciler that runs in a cluster of its own runs against any other one by exchanging its client:
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use k8s_openapi::api::core::v1::Namespace;
//! use orchestrator_client_kube::KubeBackend;
//! use orchestrator_core::client::Api;
//!
//! let client = KubeBackend::new(kube::Client::try_default().await?).into_client();
//! let namespaces: Api<Namespace> = Api::all(&client);
//! println!("{:?}", namespaces.get("default").await?.metadata.uid);
//! # Ok(())
//! # }
//! ```
//!
//! How the server is reached and trusted is `kube`'s business, and so are its features for TLS: `rustls-tls`, `oidc` and
//! the like. By default `kube` repeats requests that are answered with 429, 503 or 504 up to fifteen times, for minutes; a
//! reconciler repeats its work by itself, so `default_retry` in the `Config` is better switched off.
//!
//! Objects travel as the bytes that the server sent; nothing is decoded that nobody asks for.

mod http;
mod limits;

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use orchestrator_core::{
    client::{Backend, Client, Reply, Request, ResourceDiscovery, ResourceInfo, WatchRequest, WatchStream},
    status::{ApiError, ApiResult},
};

use crate::http as wire;

/// A Kubernetes API server behind a [`kube::Client`]. Cheap to clone.
///
/// A request with a user is sent in that user's name, by impersonation; the server must allow that to whoever the
/// `kube::Client` is.
#[derive(Clone)]
pub struct KubeBackend {
    client: kube::Client,
}

impl fmt::Debug for KubeBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KubeBackend").field("namespace", &self.client.default_namespace()).finish_non_exhaustive()
    }
}

impl KubeBackend {
    /// Speaks to the server of this client.
    pub fn new(client: kube::Client) -> Self {
        Self { client }
    }

    /// A client of this server.
    pub fn into_client(self) -> Client {
        Client::new(Arc::new(self))
    }
}

#[async_trait]
impl Backend for KubeBackend {
    async fn request(&self, request: Request) -> Result<Reply, ApiError> {
        wire::request(&self.client, request).await
    }

    async fn watch(&self, request: WatchRequest) -> Result<WatchStream, ApiError> {
        wire::watch(&self.client, request).await
    }
}

/// In two requests, by aggregated discovery: servers since Kubernetes 1.30.
#[async_trait]
impl ResourceDiscovery for KubeBackend {
    async fn resources(&self) -> ApiResult<Vec<ResourceInfo>> {
        wire::resources(&self.client).await
    }
}
