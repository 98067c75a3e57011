//! One HTTP request: who asks, and where it goes.

use std::{
    collections::BTreeMap,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response, header};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use orchestrator_core::{
    client::{Client, UserInfo},
    status::{ApiError, ApiResult, Reason},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    body::{self, Body, BodyError, RequestBody},
    executor::Tasks,
    negotiate::{Accept, Form},
    path::unescape,
    respond, routes,
};
use crate::{
    auth::Attributes,
    limits,
    server::{ApiServer, WeakApiServer},
};

/// Answers one request.
///
/// `user` is whom the connection stands for: the subject of a client certificate, or the owner of an in-process client.
/// `through` is what requests about resources go through, if not straight to the server.
///
/// The answer is boxed here, so that all that leads to it is compiled into this crate.
pub(super) fn answer(
    server: ApiServer,
    tasks: Tasks,
    user: Option<Arc<UserInfo>>,
    through: Option<Client>,
    request: Request<RequestBody>,
) -> BoxFuture<'static, Response<Body>> {
    Box::pin(async move {
        match authenticate(&server, user, request.headers()) {
            Ok(user) => routes::route(&server, &tasks, user, through, request).await,
            Err(error) => respond::error(&error, Accept::of(request.headers()).error()),
        }
    })
}

/// Who asks, and in whose name.
fn authenticate(server: &ApiServer, user: Option<Arc<UserInfo>>, headers: &HeaderMap) -> ApiResult<Arc<UserInfo>> {
    let server = server.server();
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let token = text(header::AUTHORIZATION).and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    let user = match (user, token) {
        (Some(user), _) => user,
        (None, Some(token)) => Arc::new(server.authenticator.token(token, server.env.now(), &server.tokens)?),
        (None, None) if server.config.anonymous => Arc::new(server.authenticator.anonymous()),
        (None, None) => return Err(ApiError::new(Reason::Unauthorized, "Unauthorized")),
    };
    impersonate(server, user, headers)
}

/// Another identity, for those who may take it: the `Impersonate-` headers.
fn impersonate(server: &crate::pipeline::Server, user: Arc<UserInfo>, headers: &HeaderMap) -> ApiResult<Arc<UserInfo>> {
    let texts = |name: &str| {
        headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).map(str::to_owned).collect::<Vec<_>>()
    };
    let (names, uids, groups) = (texts("impersonate-user"), texts("impersonate-uid"), texts("impersonate-group"));
    let extra = extra(headers)?;
    let Some(name) = names.into_iter().next() else {
        return match groups.is_empty() && uids.is_empty() && extra.is_empty() {
            true => Ok(user),
            false => Err(ApiError::bad_request("requested groups, a uid or extra facts without impersonating a user")),
        };
    };
    let may = |group: &str, resource: &str, subresource: &str, name: &str| {
        let attributes =
            Attributes { verb: "impersonate", group, version: "v1", resource, subresource, name, ..Default::default() };
        server.authorizer.authorize(&user, &attributes).allow(&user, &attributes)
    };
    may("", "users", "", &name)?;
    groups.iter().try_for_each(|group| may("", "groups", "", group))?;
    uids.iter().try_for_each(|uid| may(AUTHENTICATION, "uids", "", uid))?;
    for (key, values) in &extra {
        values.iter().try_for_each(|value| may(AUTHENTICATION, "userextras", key, value))?;
    }
    let mut other = UserInfo { name, uid: uids.into_iter().next().unwrap_or_default(), groups, extra };
    let says = |group: &str| other.groups.iter().any(|given| given == group);
    if other.name != "system:anonymous" && !says("system:authenticated") && !says("system:unauthenticated") {
        other.groups.push("system:authenticated".to_owned());
    }
    Ok(Arc::new(other))
}

/// The API group of facts about users.
const AUTHENTICATION: &str = "authentication.k8s.io";

/// Further facts of an impersonated user: the key is the rest of the header's name, with escapes.
fn extra(headers: &HeaderMap) -> ApiResult<BTreeMap<String, Vec<String>>> {
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in headers {
        if let (Some(key), Ok(value)) = (name.as_str().strip_prefix("impersonate-extra-"), value.to_str()) {
            let invalid = || ApiError::bad_request(format!("the header {name} cannot be read"));
            extra.entry(unescape(key).ok_or_else(invalid)?).or_default().push(value.to_owned());
        }
    }
    Ok(extra)
}

/// The API server as a service without a socket: what an in-process `kube::Client` is made of.
///
/// It holds the server weakly, because a `kube::Client` lives as long as anyone wants it to. Once the service is shut down
/// or the server is gone, requests are answered with 503 and streams end.
#[derive(Clone, Debug)]
pub struct HttpService {
    server: WeakApiServer,
    /// Whom requests come from, unless each says so itself.
    user: Option<Arc<UserInfo>>,
    /// What requests about resources go through, if not straight to the server.
    through: Option<Client>,
    tasks: Tasks,
    closed: CancellationToken,
}

impl HttpService {
    /// A service whose requests come from this user.
    pub fn new(server: &ApiServer, user: UserInfo) -> Self {
        Self { user: Some(Arc::new(user)), ..Self::unauthenticated(server) }
    }

    /// A service whose requests say who they come from, by a bearer token, as on a socket.
    pub fn unauthenticated(server: &ApiServer) -> Self {
        let tasks = Tasks::new(&server.server().env);
        Self { server: server.downgrade(), user: None, through: None, tasks, closed: CancellationToken::new() }
    }

    /// The same service, with a client between it and the server: each request about resources goes through the client,
    /// which may delay or fail it. The rest (discovery, documents, what leads into pods) is the server's own.
    #[must_use]
    pub fn through(mut self, client: Client) -> Self {
        self.through = Some(client);
        self
    }

    /// Refuses requests from now on, and ends every stream that was opened through the service.
    pub async fn shutdown(&self) {
        self.closed.cancel();
        self.tasks.take().stop().await;
    }

    /// Closes the service when the guard is dropped, without waiting for anything.
    pub fn close_on_drop(&self) -> DropGuard {
        self.closed.clone().drop_guard()
    }

    /// Answers one request for as long as there is someone to answer.
    async fn answer(&self, request: Request<RequestBody>) -> Response<Body> {
        let answered = self.closed.run_until_cancelled(async {
            let server = self.server.upgrade()?;
            Some(answer(server, self.tasks.clone(), self.user.clone(), self.through.clone(), request).await)
        });
        match answered.await.flatten() {
            Some(response) => response.map(|body| body.until(self.closed.clone())),
            None => respond::error(&ApiError::unavailable("the cluster has ended"), Form::Json),
        }
    }
}

impl<B> tower_service::Service<Request<B>> for HttpService
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BodyError>,
{
    type Response = Response<Body>;
    type Error = BodyError;
    type Future = BoxFuture<'static, Result<Response<Body>, BodyError>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        self.clone().boxed_answer(request.map(body::boxed))
    }
}

impl HttpService {
    fn boxed_answer(self, request: Request<RequestBody>) -> BoxFuture<'static, Result<Response<Body>, BodyError>> {
        Box::pin(async move {
            if request.headers().contains_key(header::UPGRADE) && !self.closed.is_cancelled() {
                return self.upgraded(request).await;
            }
            Ok(self.answer(request).await)
        })
    }

    /// A request that leaves HTTP needs a real connection: one in memory.
    async fn upgraded(&self, request: Request<RequestBody>) -> Result<Response<Body>, BodyError> {
        let (near, far) = tokio::io::duplex(limits::STREAM_MESSAGE_BYTES * 2);
        let service = self.clone();
        self.tasks.spawn("in-process-connection", async move {
            let handler = hyper::service::service_fn(move |request: Request<Incoming>| {
                let service = service.clone();
                async move { Ok::<_, std::convert::Infallible>(service.answer(request.map(body::boxed)).await) }
            });
            let connection =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(far), handler).with_upgrades();
            let _ = connection.await;
        });
        let (parts, body) = request.into_parts();
        let bytes = body::read(self.tasks.env(), body).await?;
        let mut request = Request::from_parts(parts, Body::full(bytes));
        if let Some(path) = request.uri().path_and_query().cloned() {
            *request.uri_mut() = path.into();
        }
        request.headers_mut().entry(header::HOST).or_insert(header::HeaderValue::from_static("in-process"));
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(near)).await?;
        self.tasks.spawn("in-process-connection", async move {
            let _ = connection.with_upgrades().await;
        });
        let response = sender.send_request(request).await?;
        // The sender keeps the connection open until the answer is read.
        Ok(response.map(|body| {
            let stream = http_body_util::BodyStream::new(body);
            Body::stream(futures::StreamExt::filter_map(stream, move |frame| {
                let _keep = &sender;
                let data = frame.map(|frame| frame.into_data().ok()).map_err(BodyError::from).transpose();
                async move { data }
            }))
        }))
    }
}
