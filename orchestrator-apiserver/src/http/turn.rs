//! Priority and fairness at the edge: a request waits for its turn, and learns which objects decided about it.

use http::{HeaderName, HeaderValue, Method, Response, StatusCode, header};
use orchestrator_core::client::UserInfo;

use super::{body::Body, measure::LONG_RUNNING, path::Path, query::Query, respond};
use crate::{
    flow::{Asked, Flow, Guest, Place, Seat, Turn},
    metrics::Gauge,
    pipeline::Server,
};

const SCHEMA_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
const LEVEL_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");

/// A request whose turn it is, until its answer begins.
#[derive(Debug, Default)]
pub(super) struct Admitted {
    flow: Option<std::sync::Arc<Flow>>,
    _seat: Option<Seat>,
    _guest: Option<Guest>,
    _runs: Option<Gauge>,
}

impl Admitted {
    /// Tells in an answer what decided about its request.
    pub(super) fn mark(&self, response: &mut Response<Body>) {
        let Some(flow) = &self.flow else { return };
        for (name, uid) in [(SCHEMA_UID, flow.uid()), (LEVEL_UID, flow.level_uid())] {
            if let Ok(value) = HeaderValue::from_maybe_shared(uid.clone()) {
                response.headers_mut().insert(name, value);
            }
        }
    }
}

/// A request's way, as far as it matters here.
#[derive(Clone, Copy)]
pub(super) struct Way<'a> {
    pub(super) user: &'a UserInfo,
    pub(super) method: &'a Method,
    pub(super) path: &'a Path,
    pub(super) raw_path: &'a str,
    pub(super) query: &'a Query,
}

/// Waits until a request may be answered; the error is the answer that others go first.
pub(super) async fn wait(server: &Server, way: Way<'_>) -> Result<Admitted, Response<Body>> {
    let place = match way.path {
        Path::Resource(path) => {
            let subresource = path.subresource.as_deref().unwrap_or_default();
            // Nobody counts what lasts as long as clients want.
            if LONG_RUNNING.contains(&subresource) {
                return Ok(Admitted::default());
            }
            let (group, resource) = (&*path.resource.group, &*path.resource.plural);
            Place::Resource { group, resource, subresource, namespace: path.namespace.as_deref().unwrap_or_default() }
        }
        Path::Other(_) => Place::Path(way.raw_path),
    };
    let asked = Asked { user: way.user, verb: verb(&way), place };
    let Some((flow, turn)) = server.flows.turn(&asked).await else { return Ok(Admitted::default()) };
    let (seat, guest) = match turn {
        Turn::Exempt(guest) => (None, Some(guest)),
        Turn::Seated(seat) => (Some(seat), None),
        Turn::Refused(why) => {
            flow.counts().refuse(why);
            let mut response = too_many();
            Admitted { flow: Some(flow), ..Admitted::default() }.mark(&mut response);
            return Err(response);
        }
    };
    let runs = Some(flow.counts().run());
    Ok(Admitted { flow: Some(flow), _seat: seat, _guest: guest, _runs: runs })
}

fn verb(way: &Way<'_>) -> &'static str {
    let (method, Path::Resource(path)) = (way.method.as_str(), way.path) else {
        let methods = ["get", "head", "post", "put", "patch", "delete", "options"];
        return methods.into_iter().find(|name| name.eq_ignore_ascii_case(way.method.as_str())).unwrap_or_default();
    };
    match (method, path.name.is_some()) {
        ("GET" | "HEAD", true) => "get",
        ("GET" | "HEAD", false) if way.query.flag("watch") => "watch",
        ("GET" | "HEAD", false) => "list",
        ("POST", _) => "create",
        ("PUT", _) => "update",
        ("PATCH", _) => "patch",
        ("DELETE", true) => "delete",
        ("DELETE", false) => "deletecollection",
        _ => "",
    }
}

/// The answer in upstream's form: no `Status`, but text.
fn too_many() -> Response<Body> {
    let text = "Too many requests, please try again later.\n";
    let mut response = respond::text(StatusCode::TOO_MANY_REQUESTS, text);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
