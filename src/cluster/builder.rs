//! How a cluster is put together.

use std::{
    fmt, io,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use futures::future::BoxFuture;
use orchestrator_apiserver::{
    ApiServer, Authenticator, Authorizer, Config, DefaultAuthorizer,
    http::{Endpoint, EndpointError, HttpService, TlsError},
};
use orchestrator_controllers::{Controllers, ControllersBuilder, Options, UnknownController};
use orchestrator_core::{
    client::{Client, UserInfo},
    controller::{
        Caches,
        leader::{InvalidElection, LeaderElection},
    },
    env::Env,
    node_connector::NodeDirectory,
    runtime::ContainerRuntime,
    scheduler::Scheduler,
    status::ApiError,
    store::Store,
};
use orchestrator_node::{NodeAgent, NodeConfig, PodSource, VolumeHost};
use orchestrator_store_mem::MemStore;

use super::{
    ApplyError, Cluster, ClusterKeys, KeysError,
    access::Access,
    administrator,
    parts::{self, Parts},
};

/// What a cluster is to be made of.
pub struct ClusterBuilder {
    env: Option<Env>,
    store: Option<Arc<dyn Store>>,
    config: Config,
    authorizer: Arc<dyn Authorizer>,
    tokens: Vec<(String, UserInfo)>,
    listen: Option<SocketAddr>,
    kubeconfig: Option<PathBuf>,
    runs_controllers: bool,
    runs_scheduler: bool,
    controllers: Option<Vec<String>>,
    controller_options: Options,
    scheduler: Option<Box<dyn Scheduler>>,
    keys: Option<ClusterKeys>,
    election: Option<Election>,
    directory: NodeDirectory,
    nodes: Vec<NodeSpec>,
}

/// Who stands for the leases of controllers and scheduler, and how long things take.
#[derive(Clone, Debug)]
struct Election {
    identity: String,
    times: Option<[Duration; 3]>,
}

impl Election {
    fn for_lease(&self, name: &str) -> LeaderElection {
        let mut election = LeaderElection::new("kube-system", name, self.identity.as_str());
        if let Some([lease_duration, renew_deadline, retry_period]) = self.times {
            election = LeaderElection { lease_duration, renew_deadline, retry_period, ..election };
        }
        election
    }
}

/// A node of a cluster: a name, and what runs its containers.
#[derive(Clone, Debug)]
pub struct NodeSpec {
    name: String,
    runtime: Arc<dyn ContainerRuntime>,
    runtime_name: Option<String>,
    config: NodeConfig,
    volumes: Option<Arc<dyn VolumeHost>>,
}

impl NodeSpec {
    /// A node that runs its containers on this runtime, without volumes on disk.
    pub fn new(name: impl Into<String>, runtime: Arc<dyn ContainerRuntime>) -> Self {
        Self { name: name.into(), runtime, runtime_name: None, config: NodeConfig::default(), volumes: None }
    }

    /// What the node says of itself.
    #[must_use]
    pub fn config(mut self, config: NodeConfig) -> Self {
        self.config = config;
        self
    }

    /// Starts the node's agent.
    pub(super) fn start(self, client: &Client, env: &Env, pods: PodSource) -> NodeAgent {
        let mut agent =
            NodeAgent::builder(client, env, self.runtime, self.name.as_str()).config(self.config).pods(pods);
        if let Some(volumes) = self.volumes {
            agent = agent.volumes(volumes);
        }
        if let Some(name) = self.runtime_name {
            agent = agent.runtime_name(name);
        }
        agent.start()
    }

    /// The node's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the node keeps the volumes of its pods.
    #[must_use]
    pub fn volumes(mut self, volumes: Arc<dyn VolumeHost>) -> Self {
        self.volumes = Some(volumes);
        self
    }

    /// The runtime's name in statuses and container IDs.
    #[must_use]
    pub fn runtime_name(mut self, name: impl Into<String>) -> Self {
        self.runtime_name = Some(name.into());
        self
    }
}

/// The cluster could not be started. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Certificates could not be made.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Keys could not be made.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// Names or times of the elections do not fit together.
    #[error(transparent)]
    Election(#[from] InvalidElection),
    /// A scheduler of the embedder's own is one value, and each term of an election begins with a new one.
    #[error("an own scheduler cannot stand for election; run it beside the cluster, with `controller::leader::lead`")]
    ElectedScheduler,
    /// The API server cannot work on this store.
    #[error("the API server cannot start: {0}")]
    Api(#[from] ApiError),
    /// The socket could not be opened.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// There is no controller of this name.
    #[error(transparent)]
    Controller(#[from] UnknownController),
    /// The default storage class could not be made.
    #[error(transparent)]
    Apply(#[from] ApplyError),
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

impl fmt::Debug for ClusterBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterBuilder")
            .field("listen", &self.listen)
            .field("nodes", &self.nodes)
            .finish_non_exhaustive()
    }
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
            runs_controllers: true,
            runs_scheduler: true,
            controllers: None,
            controller_options: Options::default(),
            scheduler: None,
            keys: None,
            election: None,
            directory: NodeDirectory::default(),
            nodes: Vec::new(),
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
    pub fn control_plane(self, runs: bool) -> Self {
        self.run_controllers(runs).run_scheduler(runs)
    }

    /// Whether controllers run; they do by default. Without them a Deployment makes no pods, and nothing is cleaned up.
    #[must_use]
    pub fn run_controllers(mut self, runs: bool) -> Self {
        self.runs_controllers = runs;
        self
    }

    /// Whether a scheduler runs; it does by default. Without one a pod waits until somebody binds it.
    #[must_use]
    pub fn run_scheduler(mut self, runs: bool) -> Self {
        self.runs_scheduler = runs;
        self
    }

    /// Runs these controllers, by upstream's names, instead of all.
    #[must_use]
    pub fn controllers(mut self, names: &[&str]) -> Self {
        self.controllers = Some(names.iter().map(ToString::to_string).collect());
        self
    }

    /// Tells the controllers how to work.
    #[must_use]
    pub fn controller_options(mut self, options: Options) -> Self {
        self.controller_options = options;
        self
    }

    /// Lets this one choose nodes, in place of the default scheduler.
    #[must_use]
    pub fn scheduler(mut self, scheduler: Box<dyn Scheduler>) -> Self {
        self.scheduler = Some(scheduler);
        self
    }

    /// What the cluster is known by; new keys by default. A cluster that comes back, and several control planes on one store,
    /// need the same ones.
    #[must_use]
    pub fn keys(mut self, keys: &ClusterKeys) -> Self {
        self.keys = Some(keys.clone());
        self
    }

    /// Lets controllers and scheduler work only while they hold upstream's leases, `kube-controller-manager` and
    /// `kube-scheduler`: of several control planes on one store one works, the others stand by, and all serve. The identity
    /// is for people.
    #[must_use]
    pub fn leader_election(mut self, identity: impl Into<String>) -> Self {
        let times = self.election.and_then(|election| election.times);
        self.election = Some(Election { identity: identity.into(), times });
        self
    }

    /// The same with other times than upstream's: see [`LeaderElection`].
    #[must_use]
    pub fn leader_election_with(
        mut self,
        identity: impl Into<String>,
        lease_duration: Duration,
        renew_deadline: Duration,
        retry_period: Duration,
    ) -> Self {
        let times = Some([lease_duration, renew_deadline, retry_period]);
        self.election = Some(Election { identity: identity.into(), times });
        self
    }

    /// Where the API server finds the nodes that run in this process. Several control planes in one process that share a
    /// directory reach each other's: for logs, `exec` and the like.
    #[must_use]
    pub fn node_directory(mut self, directory: &NodeDirectory) -> Self {
        self.directory = directory.clone();
        self
    }

    /// Adds a node.
    #[must_use]
    pub fn node(mut self, node: NodeSpec) -> Self {
        self.nodes.push(node);
        self
    }

    /// Starts the cluster.
    pub async fn start(self) -> Result<Cluster, StartError> {
        self.boxed_start().await
    }

    /// Boxed, so that a whole cluster is compiled into this crate, and not again into each program that starts one.
    fn boxed_start(self) -> BoxFuture<'static, Result<Cluster, StartError>> {
        Box::pin(self.make())
    }

    async fn make(self) -> Result<Cluster, StartError> {
        let env = self.env.clone().unwrap_or_else(Env::real);
        let store = self.store.clone().unwrap_or_else(|| Arc::new(MemStore::new(&env)));
        if self.election.is_some() && self.scheduler.is_some() && self.runs_scheduler {
            return Err(StartError::ElectedScheduler);
        }
        let keys = self.keys.clone().map_or_else(ClusterKeys::generate, Ok)?;
        let directory = self.directory.clone();
        let server = self.start_server(&env, store.clone(), &keys).await?;
        let (access, endpoint) = self.open_access(&env, &server, &keys).await?;
        let caches = Caches::new(&server.client(), &env);
        server.add_metrics(Arc::new(caches.work_queues().clone()));
        let service = HttpService::new(&server, administrator());
        let mut cluster = Cluster {
            _service_guard: service.close_on_drop(),
            service,
            parts: Parts::new(&caches),
            directory,
            env,
            store,
            server,
            access,
            endpoint,
        };
        if let Err(error) = self.start_parts(&mut cluster, &caches).await {
            cluster.shutdown().await;
            return Err(error);
        }
        Ok(cluster)
    }

    async fn start_server(
        &self,
        env: &Env,
        store: Arc<dyn Store>,
        keys: &ClusterKeys,
    ) -> Result<ApiServer, StartError> {
        let mut authenticator = Authenticator::default();
        for (token, user) in &self.tokens {
            authenticator = authenticator.with_token(token.clone(), user.clone());
        }
        let mut config = self.config.clone();
        if let Some(listen) = self.listen.filter(|listen| listen.port() != 0 && !listen.ip().is_unspecified()) {
            config.advertised_address.get_or_insert_with(|| listen.to_string());
        }
        let server = ApiServer::builder(env, store)
            .config(config)
            .authenticator(authenticator)
            .authorizer(self.authorizer.clone())
            .token_issuer(keys.token_issuer()?)
            .nodes(Arc::new(self.directory.clone()))
            .build()
            .await?;
        Ok(server)
    }

    /// Makes the certificates, and opens the socket if one is wanted.
    async fn open_access(
        &self,
        env: &Env,
        server: &ApiServer,
        keys: &ClusterKeys,
    ) -> Result<(Access, Option<Endpoint>), StartError> {
        let mut access = Access::new(keys.authority());
        let Some(listen) = self.listen else { return Ok((access, None)) };
        let service = Ipv4Addr::from(u32::from(self.config.service_range.base).wrapping_add(1));
        let certificate = access.server_certificate(listen, service)?;
        let endpoint = Endpoint::start(env, server, listen, access.authority(), &certificate).await?;
        access.admit_administrator(endpoint.address())?;
        if let Some(path) = &self.kubeconfig {
            access.write_kubeconfig(path).map_err(|source| StartError::Kubeconfig { path: path.clone(), source })?;
        }
        Ok((access, Some(endpoint)))
    }

    /// Starts controllers, scheduler and nodes.
    async fn start_parts(self, cluster: &mut Cluster, caches: &Caches) -> Result<(), StartError> {
        let (client, env) = (cluster.client(), cluster.env.clone());
        if self.runs_controllers {
            let mut options = self.controller_options;
            options.root_certificates.get_or_insert_with(|| cluster.access.authority().certificate_pem().to_owned());
            options.certificate_signer.get_or_insert_with(|| cluster.access.signer());
            if options.local_volumes.is_some() {
                cluster.apply(DEFAULT_STORAGE_CLASS).await?;
            }
            let (server, names) = (Arc::new(cluster.server.clone()), self.controllers);
            let controllers = move |caches: &Caches| -> Result<ControllersBuilder, UnknownController> {
                let builder = Controllers::builder(caches, server.clone()).options(options.clone());
                match &names {
                    Some(names) => builder.controllers(names),
                    None => Ok(builder),
                }
            };
            // A wrong name is found before anybody leads.
            let builder = controllers(caches)?;
            match &self.election {
                None => cluster.parts.controllers = Some(builder.start()),
                Some(election) => {
                    let election = election.for_lease("kube-controller-manager");
                    cluster.parts.stand(&client, &env, election, move |leadership| {
                        Box::pin(parts::lead_controllers(leadership, controllers.clone()))
                    })?;
                }
            }
        }
        match &self.election {
            _ if !self.runs_scheduler => {}
            None => cluster.parts.start_scheduler(caches, &env, self.scheduler),
            Some(election) => {
                let election = election.for_lease("kube-scheduler");
                cluster
                    .parts
                    .stand(&client, &env, election, |leadership| Box::pin(parts::lead_scheduling(leadership)))?;
            }
        }
        for node in self.nodes {
            cluster.add_node(node).await;
        }
        Ok(())
    }
}

/// The class of claims that name none, when the cluster makes volumes of local directories.
const DEFAULT_STORAGE_CLASS: &str = "
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata:
  name: local-directory
  annotations: {storageclass.kubernetes.io/is-default-class: 'true'}
provisioner: orchestrator.local/directory
volumeBindingMode: WaitForFirstConsumer
reclaimPolicy: Delete
";
