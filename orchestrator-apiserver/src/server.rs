//! The API server as a value: [`ApiServer`], made by [`ApiServerBuilder`].

use std::{
    net::Ipv4Addr,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::VolumeProjection;
use orchestrator_core::{
    client::{
        Backend, Client, Reply, Request, Resource, ResourceDiscovery, ResourceInfo, UserInfo, WatchRequest, WatchStream,
    },
    env::{Env, TaskHandle},
    metrics::MetricSource,
    node_connector::{NodeConnector, NodeDirectory},
    status::{ApiError, ApiResult},
    store::Store,
};
use tokio_util::sync::CancellationToken;

use crate::{
    address_range::AddressRange,
    announce,
    auth::{Authenticator, Authorizer, DefaultAuthorizer, TokenIssuer},
    flow::{self, Flows},
    metrics::{MeasuredStore, Metrics, StoreTimes},
    objects::{self, Objects},
    own::{self, Own},
    pipeline::{Server, store_error},
    recent::Recent,
    registry::Registry,
};

/// Who manages the fields that the server writes by itself; upstream's name.
pub(crate) const OWN_MANAGER: &str = "kube-apiserver";

/// An API server. Cheap to clone; clones are the same server.
///
/// As a [`Backend`] it is what in-process clients speak to: the same pipeline that HTTPS requests pass through.
#[derive(Clone, Debug)]
pub struct ApiServer {
    server: Arc<Server>,
    /// Keep the shared objects and the flow schemas true to the store; they end with the last clone.
    followers: Arc<[TaskHandle; 4]>,
}

/// An API server that may be gone.
#[derive(Clone, Debug)]
pub(crate) struct WeakApiServer {
    server: Weak<Server>,
    followers: Weak<[TaskHandle; 4]>,
}

impl WeakApiServer {
    pub(crate) fn upgrade(&self) -> Option<ApiServer> {
        Some(ApiServer { server: self.server.upgrade()?, followers: self.followers.upgrade()? })
    }
}

/// How a server behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which admission steps are on.
    pub admission: Admission,
    /// Where the addresses of services come from.
    pub service_range: AddressRange,
    /// A watch that passes over changes for this long gets a bookmark, if it wants any. The default is upstream's.
    pub bookmark_interval: Duration,
    /// Whether it is kept from an object's creation on who manages its fields, as upstream does. Without, it is kept from
    /// the first configuration on that is applied to an object; writes of others cost less and objects are smaller.
    pub track_updates: bool,
    /// Whom requests come from that name nobody: in-process clients.
    pub own_identity: Arc<UserInfo>,
    /// Whether requests over HTTP may come from nobody who is known: `system:anonymous`, as upstream has it. Without, they
    /// are refused with 401.
    pub anonymous: bool,
    /// Requests over HTTP that are answered at once, for all priority levels that have a limit together. The default is the
    /// sum of upstream's `--max-requests-inflight` and `--max-mutating-requests-inflight`.
    pub requests_in_flight: usize,
    /// What clients are told at `/api` about where the server is, as host and port. Without, it is where its first endpoint
    /// listens, or upstream's default port of this machine where it has none.
    pub advertised_address: Option<String>,
    /// What the volume with a pod's token holds beside token, root certificate and namespace, as some distributions have
    /// it. Whoever lists a source here provides it.
    pub token_volume_sources: Vec<VolumeProjection>,
}

/// Admission steps that can be switched off, for servers that run without the controllers they rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    /// Objects are created in namespaces that exist only.
    pub namespace_lifecycle: bool,
    /// Pods get a service account and its token.
    pub service_account: bool,
    /// Priority classes become priorities.
    pub priority: bool,
    /// Pods leave nodes in trouble only after a while.
    pub default_tolerations: Option<DefaultTolerations>,
    /// Claims without a class get the default class.
    pub default_storage_class: bool,
    /// Limit ranges hold for what is created in their namespace.
    pub limit_ranges: bool,
    /// Writes that would use more than a quota of their namespace allows are refused, as far as the controller has counted.
    pub quotas: bool,
    /// Pods of a runtime class get what it says.
    pub runtime_class: bool,
}

impl Default for Admission {
    fn default() -> Self {
        Self {
            namespace_lifecycle: true,
            service_account: true,
            priority: true,
            default_tolerations: Some(DefaultTolerations::default()),
            default_storage_class: true,
            limit_ranges: true,
            quotas: true,
            runtime_class: true,
        }
    }
}

/// How long pods that do not say otherwise stay on a node in trouble. The defaults are upstream's
/// `--default-not-ready-toleration-seconds` and `--default-unreachable-toleration-seconds`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DefaultTolerations {
    /// On a node that says it is not ready.
    pub not_ready_seconds: i64,
    /// On a node that says nothing any more.
    pub unreachable_seconds: i64,
}

impl Default for DefaultTolerations {
    fn default() -> Self {
        Self { not_ready_seconds: 300, unreachable_seconds: 300 }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            admission: Admission::default(),
            service_range: AddressRange { base: Ipv4Addr::new(10, 96, 0, 0), prefix_bits: 12 },
            bookmark_interval: Duration::from_secs(60),
            track_updates: true,
            own_identity: Arc::new(UserInfo::admin()),
            anonymous: true,
            requests_in_flight: 600,
            advertised_address: None,
            token_volume_sources: Vec::new(),
        }
    }
}

/// Makes an [`ApiServer`].
#[derive(Debug)]
pub struct ApiServerBuilder {
    env: Env,
    store: Arc<dyn Store>,
    config: Config,
    authenticator: Authenticator,
    authorizer: Arc<dyn Authorizer>,
    tokens: Option<TokenIssuer>,
    nodes: Arc<dyn NodeConnector>,
}

impl ApiServerBuilder {
    /// Behaves like this.
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Knows these users.
    #[must_use]
    pub fn authenticator(mut self, authenticator: Authenticator) -> Self {
        self.authenticator = authenticator;
        self
    }

    /// Asks this one who may.
    #[must_use]
    pub fn authorizer(mut self, authorizer: Arc<dyn Authorizer>) -> Self {
        self.authorizer = authorizer;
        self
    }

    /// Signs the tokens of service accounts with this key.
    #[must_use]
    pub fn token_issuer(mut self, tokens: TokenIssuer) -> Self {
        self.tokens = Some(tokens);
        self
    }

    /// Reaches containers through this one.
    #[must_use]
    pub fn nodes(mut self, nodes: Arc<dyn NodeConnector>) -> Self {
        self.nodes = nodes;
        self
    }

    /// Reads what the store holds, adds what every cluster has, and is ready to serve.
    ///
    /// # Errors
    /// The store cannot be read, or no key for tokens can be made.
    pub async fn build(self) -> ApiResult<ApiServer> {
        self.boxed_build().await
    }

    /// Boxed, so that all of it is compiled into this crate, and not again into each that makes a server.
    fn boxed_build(self) -> BoxFuture<'static, ApiResult<ApiServer>> {
        Box::pin(self.make())
    }

    async fn make(self) -> ApiResult<ApiServer> {
        let tokens = match self.tokens {
            Some(tokens) => tokens,
            None => TokenIssuer::generate()?,
        };
        let registry = Registry::new();
        let times = Arc::new(StoreTimes::new(&registry.kinds()));
        let store = Arc::new(MeasuredStore::new(self.store, &self.env, times.clone()));
        let own = Arc::new(Own::new(&registry));
        let server = Server {
            env: self.env,
            store,
            registry,
            own: own.clone(),
            objects: Objects::default(),
            recent: Recent::default(),
            config: self.config,
            flows: Flows::default(),
            metrics: Arc::new(Metrics::new(times)),
            authenticator: self.authenticator,
            authorizer: self.authorizer,
            tokens,
            nodes: self.nodes,
            address: OnceLock::new(),
            draining: AtomicBool::new(false),
            closed: CancellationToken::new(),
        };
        server.load_definitions().await.map_err(store_error)?;
        server.bootstrap().await?;
        let server = Arc::new(server);
        let env = server.env.clone();
        let followers = Arc::new([
            env.spawn("api-objects", objects::follow(Arc::downgrade(&server), env.clone())),
            env.spawn("api-flows", flow::follow(Arc::downgrade(&server), env.clone())),
            env.spawn("api-own", own::keep(Arc::downgrade(&server), own, env.clone())),
            env.spawn("api-announce", announce::keep(Arc::downgrade(&server), env.clone())),
        ]);
        Ok(ApiServer { server, followers })
    }
}

impl ApiServer {
    /// A server over a store.
    pub fn builder(env: &Env, store: Arc<dyn Store>) -> ApiServerBuilder {
        ApiServerBuilder {
            env: env.clone(),
            store,
            config: Config::default(),
            authenticator: Authenticator::default(),
            authorizer: Arc::new(DefaultAuthorizer),
            tokens: None,
            nodes: Arc::new(NodeDirectory::default()),
        }
    }

    /// A client in this process, with the server's own identity.
    pub fn client(&self) -> Client {
        Client::new(Arc::new(self.clone()))
    }

    /// Which resource a kind belongs to, such as `v1` and `Pod` to `pods`, and whether it is in namespaces.
    pub fn resource_of(&self, api_version: &str, kind: &str) -> Option<(Resource, bool)> {
        let kinds = self.server.registry.kinds();
        let found = kinds.iter().find(|row| row.kind == kind && row.api_version() == api_version)?;
        Some((found.resource.clone(), found.namespaced))
    }

    /// Shows what another part counts at `/metrics`, beside the server's own counts.
    pub fn add_metrics(&self, source: Arc<dyn MetricSource>) {
        self.server.metrics.add_source(source);
    }

    /// Says at `/readyz` that it is about to end, and goes on answering: those who balance loads send no more.
    pub fn drain(&self) {
        self.server.draining.store(true, Ordering::Relaxed);
    }

    /// Takes the server out of the endpoints of the `kubernetes` service, so that programs in pods ask others, if there are
    /// any on the same store. Call it after [`drain`](Self::drain).
    ///
    /// # Errors
    /// The store cannot be written; after 15 seconds the others find out by themselves.
    pub async fn withdraw(&self) -> ApiResult<()> {
        self.server.withdraw().await
    }

    /// Ends the service: whoever still holds a client of it is told so, and open watches end.
    pub fn close(&self) {
        self.server.closed.cancel();
    }

    pub(crate) fn server(&self) -> &Arc<Server> {
        &self.server
    }

    pub(crate) fn downgrade(&self) -> WeakApiServer {
        WeakApiServer { server: Arc::downgrade(&self.server), followers: Arc::downgrade(&self.followers) }
    }
}

#[async_trait]
impl Backend for ApiServer {
    async fn request(&self, request: Request) -> Result<Reply, ApiError> {
        self.server.handle(request).await
    }

    async fn watch(&self, request: WatchRequest) -> Result<WatchStream, ApiError> {
        self.server.watch(request).await
    }
}

#[async_trait]
impl ResourceDiscovery for ApiServer {
    async fn resources(&self) -> ApiResult<Vec<ResourceInfo>> {
        let mut found: Vec<ResourceInfo> = Vec::new();
        for kind in self.server.registry.kinds() {
            let stored = kind.api_version() == kind.stored_as;
            let same = |other: &ResourceInfo| {
                other.resource.group == kind.resource.group && other.resource.plural == kind.resource.plural
            };
            // Of several versions the one that objects are stored in speaks for all.
            if found.iter().any(same) {
                if !stored {
                    continue;
                }
                found.retain(|other| !same(other));
            }
            found.push(ResourceInfo {
                resource: kind.resource.clone(),
                kind: kind.kind.clone(),
                namespaced: kind.namespaced,
                verbs: kind.verbs.clone(),
            });
        }
        // Events are the same objects in both groups.
        found.retain(|resource| resource.resource.group != "events.k8s.io");
        Ok(found)
    }
}
