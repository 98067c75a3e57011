//! Get and list.

use std::num::IntErrorKind;

use base64::{
    Engine,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use orchestrator_core::{
    client::{ListOptions, Reply, Resource, VersionMatch},
    object::Object,
    selector::{FieldSelector, LabelSelector, Operator},
    status::{ApiError, ApiResult, Reason},
    store::{self, Entry, Key, Revision, StoreError},
};
use serde::{Deserialize, Serialize};

use super::{Scope, Server, store_error};
use crate::{decode, names, selection::Selection};

/// Where a list goes on: upstream's form of the token.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Continue {
    v: String,
    rv: u64,
    start: String,
}

/// As Go writes tokens, and as it reads them: it does not look at the last bits.
const TOKEN_LETTERS: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::URL_SAFE,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(true),
);

const CONTINUE_VERSION: &str = "meta.k8s.io/v1";

impl Server {
    pub(super) async fn get(&self, scope: &Scope, version: Option<&str>) -> ApiResult<Reply> {
        if let Some(asked) = parse_version(version)?.filter(|asked| asked.0 > 0) {
            self.reached(asked).await?;
        }
        let entry = self.entry(scope).await?;
        Ok(Self::object_reply(scope.kind.served(self.objects.of(&entry))?, false, Vec::new()))
    }

    /// The stored entry of the object that the request names.
    pub(super) async fn entry(&self, scope: &Scope) -> ApiResult<Entry> {
        let name = scope.name()?;
        let key = scope.kind.key(&scope.namespace, name);
        let entry = self.store.get(&key).await.map_err(store_error)?;
        entry.ok_or_else(|| ApiError::not_found(scope.kind.subject(name)))
    }

    /// An object of a built-in kind by its place, for the server's own needs.
    pub(crate) async fn find_object(
        &self,
        group: &'static str,
        plural: &'static str,
        namespace: &str,
        name: &str,
    ) -> ApiResult<Option<Object>> {
        let resource = Resource::new(group, "v1", plural);
        let kind = self.registry.find(&resource).ok_or_else(ApiError::no_such_path)?;
        let entry = self.store.get(&kind.key(namespace, name)).await.map_err(store_error)?;
        Ok(entry.map(|entry| self.objects.of(&entry)))
    }

    /// A pod, or the error that there is none.
    pub(crate) async fn find_pod(&self, namespace: &str, name: &str) -> ApiResult<Object> {
        let subject = orchestrator_core::status::Subject { group: "", resource: "pods", name };
        self.find_object("", "pods", namespace, name).await?.ok_or_else(|| ApiError::not_found(subject))
    }

    pub(super) async fn list(&self, scope: &Scope, options: ListOptions) -> ApiResult<Reply> {
        let selection = self.selection(scope, &options.label_selector, &options.field_selector)?;
        let start = self.start(&options).await?;
        let range = scope.kind.range(scope.namespace_opt());
        let limit = options.limit.filter(|limit| *limit > 0);
        if let (None, Some(name)) = (limit, selection.single_name()) {
            return self.list_one(scope, &selection, name).await;
        }
        let mut items = Vec::new();
        let (mut after, mut revision) = (start.after, start.revision);
        loop {
            // With a selector a page may need more than one read.
            let wanted = limit.map(|limit| limit - items.len());
            let page = store::ListOptions { revision, limit: wanted, after: after.clone() };
            let listing = self.store.list(&range, page).await.map_err(|error| continue_error(error, &options))?;
            revision = Some(listing.revision);
            after = listing.entries.last().map(|entry| entry.key.clone()).or(after);
            for entry in &listing.entries {
                if self.objects.selected(&selection, entry)? {
                    items.push(scope.kind.served(self.objects.of(entry))?);
                }
            }
            let more = listing.remaining > 0;
            if more && limit.is_some_and(|limit| items.len() < limit) {
                continue;
            }
            let token = match (&after, more) {
                (Some(after), true) => Some(encode_continue(listing.revision, after)?),
                _ => None,
            };
            return Ok(Reply::List {
                items,
                resource_version: listing.revision.to_string(),
                remaining: token.as_ref().filter(|_| selection.is_empty()).map(|_| listing.remaining),
                continue_token: token,
            });
        }
    }

    /// A list that a selector narrows to one name is a read of one key.
    async fn list_one(&self, scope: &Scope, selection: &Selection, name: &str) -> ApiResult<Reply> {
        let resource_version = self.store.status().await.map_err(store_error)?.revision;
        let mut items = Vec::new();
        if let (Some(namespace), _) | (None, Some(namespace)) =
            (scope.namespace_opt(), (!scope.kind.namespaced).then_some(""))
        {
            let entry = self.store.get(&scope.kind.key(namespace, name)).await.map_err(store_error)?;
            if let Some(entry) = entry
                && self.objects.selected(selection, &entry)?
            {
                items.push(scope.kind.served(self.objects.of(&entry))?);
            }
        } else {
            let range = scope.kind.range(None);
            let listing = self.store.list(&range, store::ListOptions::default()).await.map_err(store_error)?;
            for entry in &listing.entries {
                if self.objects.selected(selection, entry)? {
                    items.push(scope.kind.served(self.objects.of(entry))?);
                }
            }
        }
        Ok(Reply::List { items, resource_version: resource_version.to_string(), continue_token: None, remaining: None })
    }

    /// The selectors of a request, checked against what the kind can select by.
    pub(super) fn selection(&self, scope: &Scope, labels: &str, fields: &str) -> ApiResult<Selection> {
        let labels: LabelSelector = labels.parse().map_err(|error| ApiError::bad_request(format!("{error}")))?;
        check_labels(&labels)?;
        let fields: FieldSelector = fields.parse().map_err(|error| ApiError::bad_request(format!("{error}")))?;
        Selection::new(&scope.kind, labels, fields)
    }

    /// Where and at which state a list begins.
    async fn start(&self, options: &ListOptions) -> ApiResult<Start> {
        let version = options.resource_version.as_deref();
        if let Some(token) = options.continue_token.as_deref().filter(|token| !token.is_empty()) {
            let (revision, after) = decode_continue(token)?;
            if !matches!(version, None | Some("" | "0")) {
                return Err(ApiError::bad_request("specifying resource version is not allowed when using continue"));
            }
            return Ok(Start { revision, after: Some(after) });
        }
        let asked = parse_version(version)
            .map_err(|error| ApiError::bad_request(format!("invalid resource version: {}", error.message())))?;
        let Some(asked) = asked.filter(|asked| asked.0 > 0) else { return Ok(Start::default()) };
        self.reached(asked).await?;
        let exact = options.version_match == Some(VersionMatch::Exact)
            || (options.version_match.is_none() && options.limit.is_some_and(|limit| limit > 0));
        Ok(Start { revision: exact.then_some(asked), after: None })
    }

    /// Refuses a version that lies ahead.
    async fn reached(&self, asked: Revision) -> ApiResult<()> {
        let current = self.store.status().await.map_err(store_error)?.revision;
        if asked > current { Err(too_large(asked, current)) } else { Ok(()) }
    }
}

#[derive(Default)]
struct Start {
    revision: Option<Revision>,
    after: Option<Key>,
}

/// A version as a request gives it. `None` where it gives none.
pub(super) fn parse_version(text: Option<&str>) -> ApiResult<Option<Revision>> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    let why = match text.parse::<u64>() {
        Ok(number) if !text.starts_with('+') => return Ok(Some(Revision(number))),
        Err(error) if matches!(error.kind(), IntErrorKind::PosOverflow) => "value out of range",
        _ => "invalid syntax",
    };
    let message = format!("resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: {why}");
    // Upstream gives no reason for it.
    Err(ApiError::new(Reason::Unknown, message))
}

/// The error of a version that lies ahead.
pub(super) fn too_large(asked: Revision, current: Revision) -> ApiError {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{StatusCause, StatusDetails};
    let details = StatusDetails {
        causes: Some(vec![StatusCause {
            message: Some("Too large resource version".to_owned()),
            reason: Some("ResourceVersionTooLarge".to_owned()),
            field: None,
        }]),
        retry_after_seconds: Some(1),
        ..Default::default()
    };
    let message = format!("Timeout: Too large resource version: {asked}, current: {current}");
    ApiError::with_details(Reason::Timeout, message, Some(details))
}

fn encode_continue(revision: Revision, after: &Key) -> ApiResult<String> {
    let token = Continue { v: CONTINUE_VERSION.to_owned(), rv: revision.0, start: after.as_str().to_owned() };
    let json = serde_json::to_vec(&token).map_err(ApiError::internal)?;
    Ok(TOKEN_LETTERS.encode(json))
}

fn decode_continue(token: &str) -> ApiResult<(Option<Revision>, Key)> {
    let invalid =
        |why: String| ApiError::bad_request(format!("invalid continue token: continue key is not valid: {why}"));
    let json = TOKEN_LETTERS.decode(token).map_err(|error| invalid(base64_problem(&error)))?;
    let token: Continue = serde_json::from_slice(&json)
        .map_err(|error| invalid(decode::complaint(&json).unwrap_or_else(|| error.to_string())))?;
    if token.v != CONTINUE_VERSION {
        return Err(invalid(format!("server does not recognize this encoded version {:?}", token.v)));
    }
    if token.start.is_empty() {
        return Err(invalid(format!("encoded start key empty (version {CONTINUE_VERSION})")));
    }
    Ok((Some(Revision(token.rv)).filter(|revision| revision.0 > 0), Key::new(token.start)))
}

/// Go tells where the first wrong letter stands.
fn base64_problem(error: &base64::DecodeError) -> String {
    let at = match error {
        base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => *at,
        base64::DecodeError::InvalidLength(length) => *length,
        base64::DecodeError::InvalidPadding => 0,
    };
    format!("illegal base64 data at input byte {at}")
}

/// A walk whose snapshot is gone gets a token that goes on with the newest state, as upstream gives it.
fn continue_error(error: StoreError, options: &ListOptions) -> ApiError {
    let StoreError::Compacted { .. } = &error else { return store_error(error) };
    let Some(Ok((_, after))) = options.continue_token.as_deref().map(decode_continue) else {
        return store_error(error);
    };
    let Ok(token) = encode_continue(Revision(0), &after) else { return store_error(error) };
    let expired = ApiError::expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list \
         without the continue parameter, or use the continue token in this response to retrieve the remainder of the \
         results. Continuing with the provided token results in an inconsistent list - objects that were created, \
         modified, or deleted between the time the first chunk was returned and now may show up in the list.",
    );
    let mut status = expired.status().clone();
    status.metadata.continue_ = Some(token);
    ApiError::from_status(status)
}

/// A selector asks for labels that can be.
fn check_labels(selector: &LabelSelector) -> ApiResult<()> {
    for requirement in selector.requirements() {
        let key = &requirement.key;
        let mut problems = Vec::new();
        let key_problems = names::qualified_name(key);
        if !key_problems.is_empty() {
            problems.push(format!("key: Invalid value: {key:?}: {}", key_problems.join("; ")));
        }
        for (index, value) in requirement.values.iter().enumerate() {
            let number = matches!(requirement.operator, Operator::GreaterThan | Operator::LessThan);
            if number && value.parse::<i64>().is_err() {
                let why = "for 'Gt', 'Lt' operators, the value must be an integer";
                problems.push(format!("values[{index}]: Invalid value: {value:?}: {why}"));
            }
            let value_problems = names::label_value(value);
            if !value_problems.is_empty() {
                problems
                    .push(format!("values[{index}][{key}]: Invalid value: {value:?}: {}", value_problems.join("; ")));
            }
        }
        let why = match problems.as_slice() {
            [] => continue,
            [only] => only.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        return Err(ApiError::bad_request(format!("unable to parse requirement: {why}")));
    }
    Ok(())
}
