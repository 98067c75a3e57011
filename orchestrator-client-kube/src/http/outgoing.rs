//! What is asked, as a request of HTTP.

use http::{HeaderName, HeaderValue, Method, header, request};
use kube::client::Body;
use orchestrator_core::{
    client::{
        Call, DeleteOptions, FieldValidation, ListOptions, PatchBody, Propagation, Request, Resource, UserInfo,
        VersionMatch, WatchRequest, WriteOptions,
    },
    status::{ApiError, ApiResult},
};
use serde_json::{Map, Value};

const JSON: &str = "application/json";

/// A request for objects.
pub(super) fn request(request: &Request) -> ApiResult<http::Request<Body>> {
    let mut path = path(&request.resource, request.namespace.as_deref());
    for part in request.name.iter().chain(&request.subresource) {
        path.push('/');
        path.push_str(&escape(part));
    }
    let mut query = Query::default();
    let (method, body) = match &request.call {
        Call::Get { resource_version } => {
            query.text("resourceVersion", resource_version.as_deref());
            (Method::GET, None)
        }
        Call::List(options) => {
            query.list(options);
            (Method::GET, None)
        }
        Call::Create { object, options } => {
            query.write(options);
            (Method::POST, Some((JSON, object.bytes()?.into())))
        }
        Call::Replace { object, options } => {
            query.write(options);
            (Method::PUT, Some((JSON, object.bytes()?.into())))
        }
        Call::Patch { patch, options } => {
            query.write(options);
            query.flag("force", options.force);
            let (media, tree) = patch_form(patch);
            (Method::PATCH, Some((media, encode(tree)?)))
        }
        Call::Delete(options) => (Method::DELETE, Some((JSON, delete_body(options)?))),
        Call::DeleteCollection(options, list) => {
            query.list(list);
            (Method::DELETE, Some((JSON, delete_body(options)?)))
        }
    };
    let mut builder = builder(method, &path, &query, request.user.as_deref())?;
    let body = match body {
        Some((media, body)) => {
            builder = builder.header(header::CONTENT_TYPE, media);
            body
        }
        None => Body::empty(),
    };
    builder.body(body).map_err(ApiError::internal)
}

/// A request to follow a collection.
pub(super) fn watch(request: &WatchRequest) -> ApiResult<http::Request<Body>> {
    let mut query = Query::default();
    query.flag("watch", true);
    query.flag("allowWatchBookmarks", request.bookmarks);
    query.text("labelSelector", Some(&request.label_selector));
    query.text("fieldSelector", Some(&request.field_selector));
    query.text("resourceVersion", request.resource_version.as_deref());
    if request.send_initial_events {
        query.flag("sendInitialEvents", true);
        query.text("resourceVersionMatch", Some("NotOlderThan"));
    }
    if let Some(timeout) = request.timeout {
        let seconds = timeout.as_secs() + u64::from(timeout.subsec_nanos() > 0);
        query.text("timeoutSeconds", Some(&seconds.to_string()));
    }
    let path = path(&request.resource, request.namespace.as_deref());
    builder(Method::GET, &path, &query, request.user.as_deref())?
        // Events that come in pieces of a compressed stream come late.
        .header(header::ACCEPT_ENCODING, "identity")
        .body(Body::empty())
        .map_err(ApiError::internal)
}

fn builder(method: Method, path: &str, query: &Query, user: Option<&UserInfo>) -> ApiResult<request::Builder> {
    let mut builder =
        http::Request::builder().method(method).uri(format!("{path}{}", query.0)).header(header::ACCEPT, JSON);
    if let Some(user) = user {
        for (name, value) in impersonation(user)? {
            builder = builder.header(name, value);
        }
    }
    Ok(builder)
}

/// Where a collection is.
fn path(resource: &Resource, namespace: Option<&str>) -> String {
    let mut path = match resource.group.is_empty() {
        true => format!("/api/{}", escape(&resource.version)),
        false => format!("/apis/{}/{}", escape(&resource.group), escape(&resource.version)),
    };
    if let Some(namespace) = namespace.filter(|namespace| !namespace.is_empty()) {
        path.push_str("/namespaces/");
        path.push_str(&escape(namespace));
    }
    path.push('/');
    path.push_str(&escape(&resource.plural));
    path
}

/// A query, with its question mark.
#[derive(Default)]
struct Query(String);

impl Query {
    /// Nothing, where there is no text.
    fn text(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            self.0.push(if self.0.is_empty() { '?' } else { '&' });
            self.0.push_str(name);
            self.0.push('=');
            self.0.push_str(&escape(value));
        }
    }

    fn flag(&mut self, name: &str, value: bool) {
        self.text(name, value.then_some("true"));
    }

    fn list(&mut self, options: &ListOptions) {
        self.text("labelSelector", Some(&options.label_selector));
        self.text("fieldSelector", Some(&options.field_selector));
        self.text("limit", options.limit.map(|limit| limit.to_string()).as_deref());
        self.text("continue", options.continue_token.as_deref());
        self.text("resourceVersion", options.resource_version.as_deref());
        self.text(
            "resourceVersionMatch",
            options.version_match.map(|version_match| match version_match {
                VersionMatch::Exact => "Exact",
                VersionMatch::NotOlderThan => "NotOlderThan",
            }),
        );
    }

    fn write(&mut self, options: &WriteOptions) {
        self.text("dryRun", options.dry_run.then_some("All"));
        self.text("fieldManager", options.field_manager.as_deref());
        self.text(
            "fieldValidation",
            Some(match options.field_validation {
                FieldValidation::Ignore => "Ignore",
                FieldValidation::Warn => "Warn",
                FieldValidation::Strict => "Strict",
            }),
        );
    }
}

/// Media type and content of a patch. JSON is YAML, so an apply needs no other encoding.
fn patch_form(patch: &PatchBody) -> (&'static str, &Value) {
    match patch {
        PatchBody::Json(tree) => ("application/json-patch+json", tree),
        PatchBody::Merge(tree) => ("application/merge-patch+json", tree),
        PatchBody::Strategic(tree) => ("application/strategic-merge-patch+json", tree),
        PatchBody::Apply(tree) => ("application/apply-patch+yaml", tree),
    }
}

fn delete_body(options: &DeleteOptions) -> ApiResult<Body> {
    let mut body = Map::new();
    body.insert("apiVersion".to_owned(), "v1".into());
    body.insert("kind".to_owned(), "DeleteOptions".into());
    if options.dry_run {
        body.insert("dryRun".to_owned(), vec!["All"].into());
    }
    if let Some(seconds) = options.grace_period_seconds {
        body.insert("gracePeriodSeconds".to_owned(), seconds.into());
    }
    if let Some(preconditions) = &options.preconditions {
        let tree = serde_json::to_value(preconditions).map_err(ApiError::internal)?;
        body.insert("preconditions".to_owned(), tree);
    }
    if let Some(propagation) = options.propagation {
        let policy = match propagation {
            Propagation::Orphan => "Orphan",
            Propagation::Background => "Background",
            Propagation::Foreground => "Foreground",
        };
        body.insert("propagationPolicy".to_owned(), policy.into());
    }
    encode(&Value::Object(body))
}

fn encode(tree: &Value) -> ApiResult<Body> {
    serde_json::to_vec(tree).map(Body::from).map_err(ApiError::internal)
}

/// The headers that speak in somebody's name.
/// <https://kubernetes.io/docs/reference/access-authn-authz/authentication/#user-impersonation>
fn impersonation(user: &UserInfo) -> ApiResult<Vec<(HeaderName, HeaderValue)>> {
    let invalid = |error: &dyn std::fmt::Display| ApiError::bad_request(format!("cannot impersonate: {error}"));
    let value = |text: &str| HeaderValue::from_str(text).map_err(|error| invalid(&error));
    let mut headers = vec![(HeaderName::from_static("impersonate-user"), value(&user.name)?)];
    if !user.uid.is_empty() {
        headers.push((HeaderName::from_static("impersonate-uid"), value(&user.uid)?));
    }
    for group in &user.groups {
        headers.push((HeaderName::from_static("impersonate-group"), value(group)?));
    }
    for (key, values) in &user.extra {
        // Names of headers have no case, and few characters.
        let name = format!("impersonate-extra-{}", escape(&key.to_lowercase()).to_lowercase());
        let name = HeaderName::try_from(name).map_err(|error| invalid(&error))?;
        for text in values {
            headers.push((name.clone(), value(text)?));
        }
    }
    Ok(headers)
}

/// A part of a path or of a query: everything that could mean something there is escaped.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Preconditions;
    use orchestrator_core::object::Object;
    use serde_json::json;

    use super::*;

    fn ask(call: Call) -> Request {
        Request {
            user: None,
            resource: Resource::new("apps", "v1", "deployments"),
            namespace: Some("a".to_owned()),
            name: Some("b:c/d".to_owned()),
            subresource: Some("status".to_owned()),
            call,
        }
    }

    async fn sent(call: Call) -> (String, String, String, Value) {
        let sent = super::request(&ask(call)).unwrap();
        let media = sent.headers().get(header::CONTENT_TYPE).map_or("", |value| value.to_str().unwrap()).to_owned();
        let (method, uri) = (sent.method().to_string(), sent.uri().to_string());
        let bytes = sent.into_body().collect_bytes().await.unwrap();
        (method, uri, media, serde_json::from_slice(&bytes).unwrap_or_default())
    }

    const PLACE: &str = "/apis/apps/v1/namespaces/a/deployments/b%3Ac%2Fd/status";

    #[tokio::test(flavor = "current_thread")]
    async fn calls_become_methods_with_their_options() {
        let (method, uri, media, body) = sent(Call::Get { resource_version: Some("7".to_owned()) }).await;
        assert_eq!((method.as_str(), uri), ("GET", format!("{PLACE}?resourceVersion=7")));
        assert_eq!((media.as_str(), body), ("", Value::Null));

        let list = ListOptions {
            label_selector: "a in (b,c)".to_owned(),
            field_selector: "metadata.name=x".to_owned(),
            limit: Some(3),
            continue_token: Some("t=&".to_owned()),
            resource_version: Some("9".to_owned()),
            version_match: Some(VersionMatch::Exact),
        };
        let (_, uri, ..) = sent(Call::List(list)).await;
        let query = "labelSelector=a%20in%20%28b%2Cc%29&fieldSelector=metadata.name%3Dx&limit=3&continue=t%3D%26\
                     &resourceVersion=9&resourceVersionMatch=Exact";
        assert_eq!(uri, format!("{PLACE}?{query}"));

        let object = Object::from_tree(json!({"a": 1}));
        let options = WriteOptions {
            dry_run: true,
            field_manager: Some("me".to_owned()),
            force: true,
            field_validation: FieldValidation::Strict,
            repeated_fields: Vec::new(),
        };
        let query = "dryRun=All&fieldManager=me&fieldValidation=Strict";
        let (method, uri, media, body) = sent(Call::Create { object, options: options.clone() }).await;
        assert_eq!((method.as_str(), uri), ("POST", format!("{PLACE}?{query}")));
        assert_eq!((media.as_str(), body), (JSON, json!({"a": 1})));

        let (method, uri, media, body) = sent(Call::Patch { patch: PatchBody::Apply(json!({"b": 2})), options }).await;
        assert_eq!((method.as_str(), uri), ("PATCH", format!("{PLACE}?{query}&force=true")));
        assert_eq!((media.as_str(), body), ("application/apply-patch+yaml", json!({"b": 2})));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn deletions_carry_their_conditions() {
        let options = DeleteOptions {
            dry_run: true,
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid: Some("u".to_owned()), resource_version: None }),
            propagation: Some(Propagation::Foreground),
        };
        let (method, uri, media, body) = sent(Call::Delete(options)).await;
        assert_eq!((method.as_str(), uri.as_str(), media.as_str()), ("DELETE", PLACE, JSON));
        let expected = json!({
            "apiVersion": "v1", "kind": "DeleteOptions", "dryRun": ["All"], "gracePeriodSeconds": 0,
            "preconditions": {"uid": "u"}, "propagationPolicy": "Foreground",
        });
        assert_eq!(body, expected);
    }

    #[test]
    fn watches_say_where_they_begin_and_whom_for() {
        let user = UserInfo {
            name: "jane".to_owned(),
            uid: "7".to_owned(),
            groups: vec!["a".to_owned(), "b".to_owned()],
            extra: [("example.org/Scope".to_owned(), vec!["x".to_owned()])].into(),
        };
        let asked = WatchRequest {
            user: Some(Arc::new(user)),
            send_initial_events: true,
            timeout: Some(Duration::from_millis(1_500)),
            ..WatchRequest::new(Resource::new("", "v1", "nodes"), Some("4".to_owned()))
        };
        let sent = super::watch(&asked).unwrap();
        let query = "watch=true&allowWatchBookmarks=true&resourceVersion=4&sendInitialEvents=true\
                     &resourceVersionMatch=NotOlderThan&timeoutSeconds=2";
        assert_eq!(sent.uri().to_string(), format!("/api/v1/nodes?{query}"));
        let all = |name: &str| -> Vec<&str> {
            sent.headers().get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
        };
        assert_eq!(all("impersonate-user"), ["jane"]);
        assert_eq!(all("impersonate-uid"), ["7"]);
        assert_eq!(all("impersonate-group"), ["a", "b"]);
        assert_eq!(all("impersonate-extra-example.org%2fscope"), ["x"]);
    }
}
