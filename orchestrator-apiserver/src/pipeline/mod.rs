//! The one way in: every request, in process or over HTTPS, passes through [`Server::handle`].
//!
//! A write goes authenticate ▸ authorize ▸ decode ▸ mutate ▸ default ▸ validate ▸ admit ▸ commit; the steps stand in
//! that order in [`Server::create`] and [`Server::update`].

mod admission;
mod allocate;
mod apply;
mod change;
mod claims;
mod commit;
mod create;
mod custom;
mod delete;
mod devices;
mod input;
mod limit_ranges;
mod metadata;
mod pool;
mod quotas;
mod read;
mod replace;
mod review;
mod runtime_class;
mod scale;
mod signing;
mod subresources;
mod track;
mod update;
mod watch;

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock, atomic::AtomicBool},
};

use orchestrator_core::{
    client::{Call, PatchBody, Reply, Request, UserInfo},
    env::Env,
    node_connector::NodeConnector,
    object::Object,
    status::{ApiError, ApiResult},
    store::{Store, StoreError},
};
use tokio_util::sync::CancellationToken;

use crate::{
    auth::{Attributes, Authenticator, Authorizer, TokenIssuer},
    flow::Flows,
    metrics::Metrics,
    objects::Objects,
    own::Own,
    recent::Recent,
    registry::{Kind, Registry},
    server::Config,
};

/// Everything that requests share.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) env: Env,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) registry: Registry,
    pub(crate) objects: Objects,
    pub(crate) own: Arc<Own>,
    pub(crate) recent: Recent,
    pub(crate) config: Config,
    pub(crate) flows: Flows,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) authenticator: Authenticator,
    pub(crate) authorizer: Arc<dyn Authorizer>,
    pub(crate) tokens: TokenIssuer,
    pub(crate) nodes: Arc<dyn NodeConnector>,
    /// Where its first endpoint listens.
    pub(crate) address: OnceLock<SocketAddr>,
    /// Whether the server says that it is about to end.
    pub(crate) draining: AtomicBool,
    /// Cancelled when the server answers nobody any more.
    pub(crate) closed: CancellationToken,
}

/// Where a server is that nobody can connect to.
const UNKNOWN_ADDRESS: &str = "127.0.0.1:443";

/// A request that was understood: who, where, which kind.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    pub(crate) user: Arc<UserInfo>,
    pub(crate) kind: Arc<Kind>,
    /// Empty for kinds of the cluster and for all namespaces.
    pub(crate) namespace: String,
    pub(crate) name: Option<String>,
    pub(crate) subresource: Option<String>,
    /// Whether it is a configuration that is applied.
    pub(crate) applies: bool,
}

impl Scope {
    pub(crate) fn namespace_opt(&self) -> Option<&str> {
        Some(self.namespace.as_str()).filter(|namespace| !namespace.is_empty())
    }

    /// The object's name, or the error that the path has none.
    pub(crate) fn name(&self) -> ApiResult<&str> {
        self.name.as_deref().ok_or_else(ApiError::method_not_allowed)
    }
}

impl Server {
    /// Where clients find the server, as host and port.
    pub(crate) fn advertised_address(&self) -> String {
        self.known_address().unwrap_or_else(|| UNKNOWN_ADDRESS.to_owned())
    }

    /// The same, unless neither the configuration nor an endpoint has said so far.
    pub(crate) fn known_address(&self) -> Option<String> {
        let endpoint = || self.address.get().map(ToString::to_string);
        self.config.advertised_address.clone().or_else(endpoint)
    }

    /// Answers a request of a known user.
    pub(crate) async fn handle(&self, request: Request) -> ApiResult<Reply> {
        let scope = self.scope(&request)?;
        self.authorize(&scope, verb(&request.call))?;
        track::check_options(&request.call)?;
        let subresource = scope.subresource.clone();
        match (subresource.as_deref(), request.call) {
            (None | Some("approval" | "status" | "resize" | "ephemeralcontainers"), Call::Get { resource_version }) => {
                self.get(&scope, resource_version.as_deref()).await
            }
            (None, Call::List(options)) => self.list(&scope, options).await,
            (None, Call::Create { object, options }) => self.create_any(&scope, object, options).await,
            (None, Call::Delete(options)) => self.delete(&scope, options).await,
            (None, Call::DeleteCollection(delete, list)) => self.delete_collection(&scope, delete, list).await,
            (
                None | Some("approval" | "status" | "resize" | "ephemeralcontainers"),
                Call::Replace { object, options },
            ) => self.replace_or_create(&scope, object, options).await,
            (None | Some("approval" | "status" | "resize" | "ephemeralcontainers"), Call::Patch { patch, options }) => {
                self.patch(&scope, patch, options).await
            }
            (Some("scale"), call) => self.scale(&scope, call).await,
            (Some("finalize"), Call::Replace { object, options }) => self.finalize(&scope, object, options).await,
            (Some(name), Call::Create { object, options }) => {
                self.create_subresource(&scope, name, object, options).await
            }
            _ => Err(ApiError::method_not_allowed()),
        }
    }

    /// Finds the kind and checks that the place makes sense.
    pub(crate) fn scope(&self, request: &Request) -> ApiResult<Scope> {
        let scope = self.resolve(
            request.user.clone(),
            &request.resource,
            request.namespace.clone(),
            request.name.clone(),
            request.subresource.clone(),
        )?;
        let applies = matches!(&request.call, Call::Patch { patch: PatchBody::Apply(_), .. });
        Ok(Scope { applies, ..scope })
    }

    pub(crate) fn resolve(
        &self,
        user: Option<Arc<UserInfo>>,
        resource: &orchestrator_core::client::Resource,
        namespace: Option<String>,
        name: Option<String>,
        subresource: Option<String>,
    ) -> ApiResult<Scope> {
        if self.closed.is_cancelled() {
            return Err(ApiError::unavailable("the server has been shut down"));
        }
        let kind = self.registry.find(resource).ok_or_else(ApiError::no_such_path)?;
        if let Some(subresource) = &subresource
            && kind.subresource(subresource).is_none()
        {
            return Err(ApiError::no_such_path());
        }
        let namespace = namespace.unwrap_or_default();
        if !kind.namespaced && !namespace.is_empty() {
            return Err(ApiError::no_such_path());
        }
        if let Some(name) = &name {
            check_path_name(name)?;
        }
        check_path_name(&namespace)?;
        let user = user.unwrap_or_else(|| self.config.own_identity.clone());
        Ok(Scope { user, kind, namespace, name, subresource, applies: false })
    }

    pub(crate) fn authorize(&self, scope: &Scope, verb: &str) -> ApiResult<()> {
        let attributes = Attributes {
            verb,
            group: &scope.kind.resource.group,
            version: &scope.kind.resource.version,
            resource: &scope.kind.resource.plural,
            subresource: scope.subresource.as_deref().unwrap_or_default(),
            namespace: &scope.namespace,
            name: scope.name.as_deref().unwrap_or_default(),
        };
        self.authorizer.authorize(&scope.user, &attributes).allow(&scope.user, &attributes)
    }

    /// The reply that holds one object.
    pub(crate) fn object_reply(object: Object, created: bool, warnings: Vec<String>) -> Reply {
        Reply::Object { object, created, warnings }
    }
}

/// The verb that authorizers see.
fn verb(call: &Call) -> &'static str {
    match call {
        Call::Get { .. } => "get",
        Call::List(_) => "list",
        Call::Create { .. } => "create",
        Call::Replace { .. } => "update",
        Call::Patch { .. } => "patch",
        Call::Delete(_) => "delete",
        Call::DeleteCollection(..) => "deletecollection",
    }
}

/// Refuses names that cannot stand in a path.
fn check_path_name(name: &str) -> ApiResult<()> {
    match crate::names::path_segment(name).as_slice() {
        [] => Ok(()),
        [problem, ..] => Err(ApiError::bad_request(format!("Name parameter invalid: {name:?}: {problem}"))),
    }
}

/// A failure of the store in the words of the API, where no better words are at hand.
pub(crate) fn store_error(error: StoreError) -> ApiError {
    match error {
        StoreError::Compacted { asked, oldest } => {
            ApiError::expired(format!("too old resource version: {asked} ({oldest})"))
        }
        StoreError::Lagged => ApiError::expired("the watch fell behind; list again"),
        StoreError::Refused(why) => ApiError::new(orchestrator_core::status::Reason::RequestEntityTooLarge, why),
        StoreError::Closed => ApiError::unavailable("the server is shutting down"),
        other => ApiError::internal(other),
    }
}
