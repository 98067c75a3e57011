//! How a cluster is put together.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
};

use orchestrator_apiserver::{
    ApiServer, Authenticator, Authorizer, Config, DefaultAuthorizer,
    http::{Endpoint, EndpointError, HttpService, TlsError},
};
use orchestrator_core::{client::UserInfo, env::Env, node_connector::NodeDirectory, status::ApiError, store::Store};
use orchestrator_store_mem::MemStore;

use super::{Cluster, access::Access, administrator};

/// What a cluster is to be made of.
#[derive(Debug)]
pub struct ClusterBuilder {
    env: Option<Env>,
    store: Option<Arc<dyn Store>>,
    config: Config,
    authorizer: Arc<dyn Authorizer>,
    tokens: Vec<(String, UserInfo)>,
    listen: Option<SocketAddr>,
    kubeconfig: Option<PathBuf>,
    control_plane: bool,
}

/// A node of a cluster.
#[derive(Clone, Debug)]
pub struct NodeSpec {}

/// The cluster could not be started. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Certificates could not be made.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The API server cannot work on this store.
    #[error("the API server cannot start: {0}")]
    Api(#[from] ApiError),
    /// The socket could not be opened.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The kubeconfig could not be written.
    #[error("cannot write {path}: {source}")]
    Kubeconfig {
        /// Where it was to be.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl Default for ClusterBuilder {
    fn default() -> Self {
        Self {
            env: None,
            store: None,
            config: Config::default(),
            authorizer: Arc::new(DefaultAuthorizer),
            tokens: Vec::new(),
            listen: None,
            kubeconfig: None,
            control_plane: true,
        }
    }
}

impl ClusterBuilder {
    /// Where time, chance and tasks come from; the tokio runtime of the caller by default.
    #[must_use]
    pub fn env(mut self, env: &Env) -> Self {
        self.env = Some(env.clone());
        self
    }

    /// Where the state is kept; in memory by default.
    #[must_use]
    pub fn store(mut self, store: Arc<dyn Store>) -> Self {
        self.store = Some(store);
        self
    }

    /// How the API server behaves.
    #[must_use]
    pub fn api_config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Who decides what users may do.
    #[must_use]
    pub fn authorizer(mut self, authorizer: Arc<dyn Authorizer>) -> Self {
        self.authorizer = authorizer;
        self
    }

    /// Knows a user by a bearer token.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>, user: UserInfo) -> Self {
        self.tokens.push((token.into(), user));
        self
    }

    /// Serves the API over HTTPS on this address; port 0 draws a free one.
    #[must_use]
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = Some(address);
        self
    }

    /// Writes a configuration for `kubectl` here, readable by its owner alone. It is removed with the cluster.
    #[must_use]
    pub fn kubeconfig(mut self, path: impl Into<PathBuf>) -> Self {
        self.kubeconfig = Some(path.into());
        self
    }

    /// Whether controllers and scheduler run; they do by default. A server alone answers, but nothing happens.
    #[must_use]
    pub fn control_plane(mut self, runs: bool) -> Self {
        self.control_plane = runs;
        self
    }

    /// Starts the cluster.
    pub async fn start(self) -> Result<Cluster, StartError> {
        let env = self.env.unwrap_or_else(Env::real);
        let store = self.store.unwrap_or_else(|| Arc::new(MemStore::new(&env)));
        let nodes = NodeDirectory::default();
        let mut authenticator = Authenticator::default();
        for (token, user) in self.tokens {
            authenticator = authenticator.with_token(token, user);
        }
        let service_address = Ipv4Addr::from(u32::from(self.config.service_range.base).wrapping_add(1));
        let server = ApiServer::builder(&env, store.clone())
            .config(self.config)
            .authenticator(authenticator)
            .authorizer(self.authorizer)
            .nodes(Arc::new(nodes.clone()))
            .build()
            .await?;
        let mut access = Access::new()?;
        let endpoint = match self.listen {
            None => None,
            Some(listen) => {
                let certificate = access.server_certificate(listen, service_address)?;
                let endpoint = Endpoint::start(&env, &server, listen, access.authority(), &certificate).await?;
                access.admit_administrator(endpoint.address())?;
                Some(endpoint)
            }
        };
        if let (Some(path), Some(_)) = (&self.kubeconfig, &endpoint) {
            access
                .write_kubeconfig(path)
                .map_err(|source| StartError::Kubeconfig { path: path.clone(), source })?;
        }
        let service = HttpService::new(&server, administrator());
        Ok(Cluster { env, store, server, access, endpoint, service })
    }
}
