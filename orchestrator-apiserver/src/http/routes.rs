//! Where a request goes: resources into the pipeline, a few paths to answers of their own.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, Method, Request, Response, StatusCode, header};
use orchestrator_core::{
    client::{self, Call, Client, FieldValidation, PatchBody, Resource, UserInfo, WatchRequest, WriteOptions},
    metrics::{Exposition, MetricSource},
    object::Object,
    status::{ApiError, ApiResult, Reason},
    yaml,
};
use serde_json::Value;

use super::{
    body::{self, Body, RequestBody},
    connect,
    executor::Tasks,
    health, measure,
    negotiate::{Accept, Discovery, Form},
    path::{Path, ResourcePath},
    query::Query,
    respond::{self, Answer},
    turn::{self, Way},
    upgrade::Running,
    warnings, watch,
};
use crate::{
    decode, kinds, limits,
    metrics::{Present, Recording, objects},
    protobuf,
    server::ApiServer,
    views::{
        discovery, openapi,
        table::{IncludeObject, TableOptions},
    },
};

/// The version that this server says it is.
const VERSION: (&str, &str, &str) = ("1", "36", "v1.36.2");

/// Who asks, for what, and how the answer is to look.
struct Exchange<'a> {
    server: &'a ApiServer,
    tasks: &'a Tasks,
    user: Arc<UserInfo>,
    /// What requests about resources go through, if not straight to the server.
    through: Option<Client>,
    method: Method,
    query: Query,
    accept: Accept,
    /// How tables are made.
    table: TableOptions,
    content_type: String,
    /// Who manages the fields that are written, where the caller does not say.
    manager: String,
}

pub(super) async fn route(
    server: &ApiServer,
    tasks: &Tasks,
    user: Arc<UserInfo>,
    through: Option<Client>,
    mut request: Request<RequestBody>,
) -> Response<Body> {
    let content_type = text(request.headers(), header::CONTENT_TYPE);
    let content_type = content_type.split(';').next().unwrap_or_default().trim().to_owned();
    let query = Query::parse(request.uri().query());
    let include = IncludeObject::parse(query.get("includeObject").unwrap_or_default()).unwrap_or_default();
    let table = TableOptions { include_object: include, ..TableOptions::default() };
    let accept = Accept::of(request.headers());
    let method = request.method().clone();
    let Some(path) = Path::parse(request.uri().path()) else {
        return respond::error(&ApiError::bad_request("the path is not valid"), accept.error());
    };
    let raw_path = request.uri().path().to_owned();
    let manager = manager_of(text(request.headers(), header::USER_AGENT));
    let exchange = Exchange { server, tasks, user, through, method, query, accept, table, content_type, manager };
    let mut recording = exchange.record(&path, &raw_path, &mut request);
    let way = Way {
        user: &exchange.user,
        method: &exchange.method,
        path: &path,
        raw_path: &raw_path,
        query: &exchange.query,
    };
    let response = match turn::wait(server.server(), way).await {
        Ok(admitted) => {
            let mut response = exchange.answer(path, &raw_path, request).await;
            admitted.mark(&mut response);
            response
        }
        Err(refusal) => refusal,
    };
    recording.answered(response.status().as_u16());
    response.map(|body| body.recorded(recording))
}

/// The name of a program, without its version, as the name of a manager.
fn manager_of(user_agent: &str) -> String {
    let name = user_agent.split('/').next().unwrap_or_default();
    let mut manager = String::new();
    for letter in name.chars().filter(|letter| !letter.is_control()) {
        if manager.len() + letter.len_utf8() > limits::FIELD_MANAGER_BYTES {
            break;
        }
        manager.push(letter);
    }
    manager
}

fn text(headers: &HeaderMap, name: HeaderName) -> &str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

impl Exchange<'_> {
    async fn answer(&self, path: Path, raw_path: &str, request: Request<RequestBody>) -> Response<Body> {
        match path {
            // A group that nobody serves is no place of the API at all.
            Path::Resource(path) if !self.server.server().registry.has_group(&path.resource.group) => not_found(),
            Path::Resource(path) => {
                let notice = kinds::deprecation(&path.resource.group, &path.resource.plural);
                let answer = self.resource(path, request).await;
                let mut response = answer.unwrap_or_else(|error| self.error(&error));
                warnings::add(&mut response, notice);
                response
            }
            Path::Other(parts) => {
                let answer = self.other(&parts, raw_path).await;
                answer.unwrap_or_else(|error| self.error(&error))
            }
        }
    }

    /// Counts the request from now on, by what it asks for.
    fn record(&self, path: &Path, raw_path: &str, request: &mut Request<RequestBody>) -> Recording {
        let server = self.server.server();
        let (call, is_long) =
            measure::call(&server.registry, &self.method, path, raw_path, &self.query, &self.content_type);
        let requests = &server.metrics.requests;
        let present = if is_long {
            let running = requests.long_running(&call).map(Arc::new);
            if let Some(gauge) = running.clone() {
                request.extensions_mut().insert(Running::new(gauge));
            }
            Present::running(running)
        } else {
            Present::in_flight(requests.in_flight(&call))
        };
        Recording::begin(&server.metrics, &server.env, call, present)
    }

    /// The forms that whole objects of a resource have.
    fn forms(&self, resource: &Resource) -> &'static [Form] {
        let is_custom = self.server.server().registry.find(resource).is_some_and(|kind| kind.is_custom());
        if is_custom { Form::CUSTOM } else { Form::ALL }
    }

    fn error(&self, error: &ApiError) -> Response<Body> {
        respond::error(error, self.accept.error())
    }

    async fn resource(&self, path: ResourcePath, request: Request<RequestBody>) -> ApiResult<Response<Body>> {
        if let Some(subresource) = path.subresource.as_deref().filter(|name| connect::is_connect(&path, name)) {
            let target = connect::Target { path: &path, subresource, query: &self.query };
            return connect::connect(self.server, self.tasks, &self.user, target, request).await;
        }
        if self.method == Method::GET && path.name.is_none() && self.query.flag("watch") {
            return self.watch(path).await;
        }
        self.query.check_time_limit()?;
        let server = self.server.server();
        let kind = server.registry.find(&path.resource).ok_or_else(ApiError::no_such_path)?;
        let style = self.accept.object(self.forms(&path.resource))?;
        // Nothing is read from somebody who may not write, or writes to a place that takes nothing.
        let call = self.call(&path, request).await?;
        let notice = match &call {
            Call::Delete(options) if options.propagation.is_none() => {
                kinds::deletion_notice(&path.resource.group, &path.resource.plural)
            }
            _ => None,
        };
        let request = client::Request {
            user: Some(self.user.clone()),
            resource: path.resource.clone(),
            namespace: path.namespace,
            name: path.name,
            subresource: path.subresource,
            call,
        };
        let reply = match &self.through {
            Some(client) => client.request(request).await,
            None => server.handle(request).await,
        };
        let answer = Answer { server, kind: &kind, style, table: self.table };
        let answer = reply.and_then(|reply| answer.reply(reply));
        let mut response = answer.unwrap_or_else(|error| self.error(&error));
        warnings::add(&mut response, notice);
        Ok(response)
    }

    /// What a method with its body asks for.
    async fn call(&self, path: &ResourcePath, request: Request<RequestBody>) -> ApiResult<Call> {
        let named = path.name.is_some();
        match (self.method.as_str(), named) {
            ("GET" | "HEAD", true) => {
                Ok(Call::Get { resource_version: self.query.get("resourceVersion").map(str::to_owned) })
            }
            ("GET" | "HEAD", false) => Ok(Call::List(self.query.list()?)),
            ("POST", _) => {
                let options = self.options()?;
                Ok(Call::Create { object: self.object(path, request).await?, options })
            }
            ("PUT", true) => {
                let options = self.options()?;
                Ok(Call::Replace { object: self.object(path, request).await?, options })
            }
            ("PATCH", true) => self.patch(path, request).await,
            ("DELETE", true) => {
                let body = self.delete_body(request).await?;
                Ok(Call::Delete(self.query.delete(body.as_ref())?))
            }
            ("DELETE", false) => {
                let body = self.delete_body(request).await?;
                let namespaced = self.server.server().registry.find(&path.resource).is_some_and(|kind| kind.namespaced);
                if namespaced && path.namespace.is_none() {
                    return Err(ApiError::method_not_allowed());
                }
                Ok(Call::DeleteCollection(self.query.delete(body.as_ref())?, self.query.list()?))
            }
            _ => Err(ApiError::method_not_allowed()),
        }
    }

    /// How to write, by a manager who has a name.
    fn options(&self) -> ApiResult<WriteOptions> {
        let kind = match self.method {
            Method::PUT => "UpdateOptions",
            Method::PATCH => "PatchOptions",
            _ => "CreateOptions",
        };
        let mut options = self.query.write(kind)?;
        options.field_manager.get_or_insert_with(|| self.manager.clone());
        Ok(options)
    }

    async fn object(&self, path: &ResourcePath, request: Request<RequestBody>) -> ApiResult<Object> {
        let bytes = body::read(self.tasks.env(), request.into_body()).await?;
        // Scales are of a built-in kind, whatever they scale.
        let is_scale = path.subresource.as_deref() == Some("scale");
        let kind = self.server.server().registry.find(&path.resource).filter(|kind| kind.is_custom() && !is_scale);
        Ok(match (self.body_form()?, kind) {
            (Form::Json, _) => Object::from_bytes(bytes),
            (Form::Yaml, _) => {
                let strict = self.query.get("fieldValidation") == Some("Strict");
                Object::from_tree(parse_yaml(&bytes, strict)?)
            }
            // Upstream takes the form for one that it knows, and then finds nothing to read the body into.
            (Form::Protobuf, Some(kind)) => {
                let (name, version) = (&kind.kind, &kind.resource.version);
                return Err(ApiError::bad_request(format!(
                    "{name} in version {version:?} cannot be handled as a {name}: object *unstructured.Unstructured does not \
                     implement the protobuf marshalling interface and cannot be encoded to a protobuf message"
                )));
            }
            (Form::Protobuf, None) => Object::from_tree(parse_protobuf(&bytes)?),
        })
    }

    /// What the body is written in; JSON where nothing is said.
    fn body_form(&self) -> ApiResult<Form> {
        let form = match self.content_type.as_str() {
            "" => Some(Form::Json),
            "application/x-yaml" => Some(Form::Yaml),
            given => Form::ALL.iter().copied().find(|form| form.media() == given),
        };
        form.ok_or_else(|| unsupported(&Form::ALL.iter().map(|form| form.media()).collect::<Vec<_>>().join(", ")))
    }

    async fn patch(&self, path: &ResourcePath, request: Request<RequestBody>) -> ApiResult<Call> {
        let make = match self.content_type.as_str() {
            "application/json-patch+json" => PatchBody::Json,
            "application/merge-patch+json" => PatchBody::Merge,
            "application/strategic-merge-patch+json" => PatchBody::Strategic,
            "application/apply-patch+yaml" => PatchBody::Apply,
            _ if self.server.server().registry.find(&path.resource).is_some_and(|kind| kind.is_custom()) => {
                return Err(unsupported(
                    "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
                ));
            }
            // For its own kinds upstream refuses while it looks for the route, before anything is read.
            _ => {
                let details = Some(Default::default());
                let message = "415: Unsupported Media Type";
                return Err(ApiError::with_details(Reason::UnsupportedMediaType, message, details));
            }
        };
        let applies = self.content_type.ends_with("yaml");
        let mut options = if applies { self.query.write("PatchOptions")? } else { self.options()? };
        let bytes = body::read(self.tasks.env(), request.into_body()).await?;
        if applies {
            return Ok(Call::Patch { patch: make(parse_configuration(&bytes, options.field_validation)?), options });
        }
        let (tree, duplicates) = decode::parse(&bytes).map_err(|error| {
            let why = decode::complaint(&bytes).unwrap_or_else(|| error.to_string());
            let strategic = self.content_type.starts_with("application/strategic");
            let prefix = if strategic { "" } else { "error decoding patch: " };
            ApiError::bad_request(format!("{prefix}{why}"))
        })?;
        options.repeated_fields = duplicates;
        Ok(Call::Patch { patch: make(tree), options })
    }

    async fn delete_body(&self, request: Request<RequestBody>) -> ApiResult<Option<Value>> {
        let bytes = body::read(self.tasks.env(), request.into_body()).await?;
        if bytes.is_empty() {
            return Ok(None);
        }
        match self.body_form()? {
            Form::Json => {
                let garbage = |error: serde_json::Error| {
                    let why = decode::complaint(&bytes).unwrap_or_else(|| error.to_string());
                    ApiError::new(Reason::Unknown, format!("couldn't get version/kind; json parse error: {why}"))
                };
                let (tree, _) = decode::parse(&bytes).map_err(garbage)?;
                Ok(Some(tree))
            }
            Form::Yaml => parse_yaml(&bytes, false).map(Some),
            Form::Protobuf => parse_protobuf(&bytes).map(Some),
        }
    }

    async fn watch(&self, path: ResourcePath) -> ApiResult<Response<Body>> {
        let options = self.query.list()?;
        let request = WatchRequest {
            user: Some(self.user.clone()),
            resource: path.resource.clone(),
            namespace: path.namespace,
            label_selector: options.label_selector,
            field_selector: options.field_selector,
            resource_version: options.resource_version,
            bookmarks: self.query.flag("allowWatchBookmarks"),
            send_initial_events: self.query.initial_events(),
            timeout: self.query.timeout()?,
        };
        let server = self.server.server();
        let kind = server.registry.find(&path.resource).ok_or_else(ApiError::no_such_path)?;
        let style = self.accept.watch(self.forms(&path.resource))?;
        let events = match &self.through {
            Some(client) => client.watch(request).await?,
            None => server.watch(request).await?,
        };
        Ok(watch::respond(server.clone(), kind, events, style, self.table))
    }

    /// Paths that are no resources.
    async fn other(&self, parts: &[String], path: &str) -> ApiResult<Response<Body>> {
        let server = self.server.server();
        let verb = self.method.as_str().to_lowercase();
        server.authorizer.authorize_path(&self.user, &verb, path).allow_path(&self.user, &verb, path)?;
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let registry = &server.registry;
        if !matches!(self.method, Method::GET | Method::HEAD) {
            return Err(ApiError::method_not_allowed());
        }
        if let ["api" | "apis", ..] = parts[..] {
            return self.discovery(&parts);
        }
        let document = match parts[..] {
            [root @ ("healthz" | "livez" | "readyz"), ref rest @ ..] => {
                return Ok(health::answer(server, root, rest, &self.query).await.unwrap_or_else(not_found));
            }
            ["metrics"] => return Ok(self.metrics().await),
            ["version"] => Some(version()),
            ["openapi", "v2"] => match self.accept.open_api_in_protobuf() {
                Some(false) => Some(openapi::v2(registry)),
                Some(true) => return Ok(respond::open_api_protobuf(openapi::v2_protobuf(registry))),
                None => return Ok(respond::text(StatusCode::NOT_ACCEPTABLE, "406 not acceptable\n")),
            },
            ["openapi", "v3"] => Some(openapi::v3_index(registry)),
            ["openapi", "v3", "api", version] => openapi::v3(registry, "", version),
            ["openapi", "v3", "apis", group, version] => openapi::v3(registry, group, version),
            _ => return Ok(not_found()),
        };
        Ok(respond::document(&document.ok_or_else(ApiError::no_such_path)?))
    }

    /// What the server and those beside it have counted.
    async fn metrics(&self) -> Response<Body> {
        let server = self.server.server();
        let mut out = Exposition::default();
        server.metrics.write(&mut out);
        server.flows.write(&mut out);
        objects::write(server, &mut out).await;
        respond::metrics(out.into_text())
    }

    /// Which groups, versions and resources there are.
    fn discovery(&self, parts: &[&str]) -> ApiResult<Response<Body>> {
        let server = self.server.server();
        let registry = &server.registry;
        let style = self.accept.discovery(parts.len() == 1)?;
        let document = match (parts, style) {
            (["api"], Discovery::Aggregated) => Some(discovery::aggregated_core(registry)),
            (["apis"], Discovery::Aggregated) => Some(discovery::aggregated_groups(registry)),
            (["api"], _) => Some(discovery::api_versions(&server.advertised_address())),
            (["apis"], _) => Some(discovery::api_groups(registry)),
            (["api", version], _) => discovery::api_resources(registry, "", version),
            (["apis", group] | ["apis", group, _], _) if !registry.has_group(group) => return Ok(not_found()),
            (["apis", group], _) => discovery::api_group(registry, group),
            (["apis", group, version], _) => discovery::api_resources(registry, group, version),
            _ => return Ok(not_found()),
        };
        Ok(respond::discovery(&document.ok_or_else(ApiError::no_such_path)?, style))
    }
}

/// The answer of paths that lie outside of the API.
fn not_found() -> Response<Body> {
    respond::text(StatusCode::NOT_FOUND, "404 page not found\n")
}

fn version() -> Value {
    let (major, minor, git_version) = VERSION;
    serde_json::json!({
        "major": major,
        "minor": minor,
        "gitVersion": git_version,
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, platform()),
    })
}

/// The machine's architecture in Go's words.
fn platform() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// A configuration to apply: mostly JSON, which is YAML and read faster as what it is. Those who are not strict are not even
/// warned of repeated keys: upstream's warning has more than one line, and no header can carry that.
fn parse_configuration(bytes: &[u8], validation: FieldValidation) -> ApiResult<Value> {
    if let Ok((tree, duplicates)) = decode::parse(bytes)
        && (duplicates.is_empty() || validation != FieldValidation::Strict)
    {
        return Ok(tree);
    }
    let failed = |error: &dyn std::fmt::Display| ApiError::bad_request(format!("error decoding YAML: {error}"));
    let text = std::str::from_utf8(bytes).map_err(|error| failed(&error))?;
    let (tree, duplicates) = yaml::parse_lenient(text).map_err(|error| failed(&error))?;
    if duplicates.is_empty() || validation != FieldValidation::Strict {
        return Ok(tree);
    }
    Err(ApiError::bad_request(format!(
        "error strict decoding YAML: error converting YAML to JSON: {}",
        repeated(&duplicates)
    )))
}

/// What upstream's strict reader of YAML says of keys that a mapping has twice.
fn repeated(duplicates: &[yaml::YamlError]) -> String {
    let lines = duplicates.iter().map(|error| format!("\n  line {}: {}", error.line, error.problem));
    format!("yaml: unmarshal errors:{}", lines.collect::<String>())
}

fn parse_yaml(bytes: &[u8], strict: bool) -> ApiResult<Value> {
    let failed = |error: &dyn std::fmt::Display| ApiError::bad_request(error.to_string());
    let text = std::str::from_utf8(bytes).map_err(|error| failed(&error))?;
    let (tree, duplicates) = yaml::parse_lenient(text).map_err(|error| failed(&error))?;
    if duplicates.is_empty() || !strict {
        return Ok(tree);
    }
    Err(ApiError::bad_request(format!("strict decoding error: {}", repeated(&duplicates))))
}

fn parse_protobuf(bytes: &[u8]) -> ApiResult<Value> {
    protobuf::decode(bytes).map_err(|error| ApiError::bad_request(error.to_string()))
}

fn unsupported(accepted: &str) -> ApiError {
    let message =
        format!("the body of the request was in an unknown format - accepted media types include: {accepted}");
    ApiError::new(Reason::UnsupportedMediaType, message)
}
