//! Query parameters.

use std::time::Duration;

use orchestrator_core::{
    client::{DeleteOptions, FieldValidation, ListOptions, Propagation, VersionMatch, WriteOptions},
    status::{ApiError, ApiResult, FieldError, FieldErrorKind, Subject},
};
use serde_json::Value;

use super::path::unescape;

/// The parameters of a request, in order.
#[derive(Clone, Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn parse(query: Option<&str>) -> Self {
        let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        let decode = |text: &str| unescape(&text.replace('+', " ")).unwrap_or_default();
        Self(
            pairs
                .map(|pair| {
                    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decode(name), decode(value))
                })
                .collect(),
        )
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(given, _)| given == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(given, _)| given == name)
    }

    /// Upstream reads everything but `0` and `false` as true, the bare name included.
    pub(super) fn flag(&self, name: &str) -> bool {
        self.has(name) && !matches!(self.all(name).next(), Some("0" | "false"))
    }

    pub(super) fn int(&self, name: &str) -> ApiResult<Option<i64>> {
        let Some(text) = self.get(name) else { return Ok(None) };
        text.parse()
            .map(Some)
            .map_err(|_| ApiError::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax")))
    }

    pub(super) fn list(&self) -> ApiResult<ListOptions> {
        self.timeout()?;
        let version_match = match self.get("resourceVersionMatch") {
            None => None,
            Some("Exact") => Some(VersionMatch::Exact),
            Some("NotOlderThan") => Some(VersionMatch::NotOlderThan),
            Some(other) => {
                let detail = format!("{other:?}: supported values: \"Exact\", \"NotOlderThan\", \"\"");
                return Err(list_options_error("resourceVersionMatch", FieldErrorKind::NotSupported, &detail));
            }
        };
        let resource_version = self.get("resourceVersion").map(str::to_owned);
        if version_match.is_some() && resource_version.is_none() && !self.flag("sendInitialEvents") {
            let detail = "resourceVersionMatch is forbidden unless resourceVersion is provided";
            return Err(list_options_error("resourceVersionMatch", FieldErrorKind::Forbidden, detail));
        }
        Ok(ListOptions {
            label_selector: self.get("labelSelector").unwrap_or_default().to_owned(),
            field_selector: self.get("fieldSelector").unwrap_or_default().to_owned(),
            limit: self.int("limit")?.and_then(|limit| usize::try_from(limit).ok()),
            continue_token: self.get("continue").map(str::to_owned),
            resource_version,
            version_match,
        })
    }

    /// Whether a watch wants the state first. That needs a `resourceVersionMatch` beside it.
    pub(super) fn initial_events(&self) -> ApiResult<bool> {
        let wanted = self.flag("sendInitialEvents");
        if wanted && self.get("resourceVersionMatch") != Some("NotOlderThan") {
            let detail = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
            return Err(list_options_error("resourceVersionMatch", FieldErrorKind::Forbidden, detail));
        }
        Ok(wanted)
    }

    pub(super) fn timeout(&self) -> ApiResult<Option<Duration>> {
        Ok(self.int("timeoutSeconds")?.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs))
    }

    pub(super) fn write(&self) -> ApiResult<WriteOptions> {
        let field_validation = match self.get("fieldValidation") {
            None | Some("Warn") => FieldValidation::Warn,
            Some("Ignore") => FieldValidation::Ignore,
            Some("Strict") => FieldValidation::Strict,
            Some(other) => {
                let detail = format!("{other:?}: supported values: \"\", \"Ignore\", \"Strict\", \"Warn\"");
                return Err(options_error("CreateOptions", "fieldValidation", FieldErrorKind::NotSupported, &detail));
            }
        };
        Ok(WriteOptions {
            dry_run: self.dry_run("CreateOptions")?,
            field_manager: self.get("fieldManager").map(str::to_owned),
            force: self.flag("force"),
            field_validation,
        })
    }

    fn dry_run(&self, kind: &str) -> ApiResult<bool> {
        match self.get("dryRun") {
            None => Ok(false),
            Some("All") => Ok(true),
            Some(other) => {
                let detail = format!("[{other:?}]: supported values: \"All\"");
                Err(options_error(kind, "dryRun", FieldErrorKind::NotSupported, &detail))
            }
        }
    }

    /// How to delete: the body's word counts, else the parameters'.
    pub(super) fn delete(&self, body: Option<&Value>) -> ApiResult<DeleteOptions> {
        let member = |name: &str| body.and_then(|body| body.get(name)).filter(|value| !value.is_null());
        let policy = member("propagationPolicy").and_then(Value::as_str).or(self.get("propagationPolicy"));
        let orphan = member("orphanDependents")
            .and_then(Value::as_bool)
            .or(self.get("orphanDependents").map(|orphan| orphan == "true"));
        if let (Some(policy), Some(_)) = (policy, orphan) {
            let detail = format!("{policy:?}: orphanDependents and deletionPropagation cannot be both set");
            return Err(options_error("DeleteOptions", "propagationPolicy", FieldErrorKind::Invalid, &detail));
        }
        let propagation = match (policy, orphan) {
            (Some("Orphan"), _) | (None, Some(true)) => Some(Propagation::Orphan),
            (Some("Background"), _) | (None, Some(false)) => Some(Propagation::Background),
            (Some("Foreground"), _) => Some(Propagation::Foreground),
            (Some(other), _) => {
                let detail = format!("{other:?}: supported values: \"Background\", \"Foreground\", \"Orphan\"");
                return Err(options_error("DeleteOptions", "propagationPolicy", FieldErrorKind::NotSupported, &detail));
            }
            (None, None) => None,
        };
        let body_dry_run = member("dryRun").and_then(Value::as_array).is_some_and(|values| !values.is_empty());
        let preconditions = member("preconditions").cloned().map(serde_json::from_value).transpose();
        Ok(DeleteOptions {
            dry_run: body_dry_run || self.dry_run("DeleteOptions")?,
            grace_period_seconds: match member("gracePeriodSeconds") {
                Some(seconds) => seconds.as_i64(),
                None => self.int("gracePeriodSeconds")?,
            },
            preconditions: preconditions.map_err(|error| ApiError::bad_request(error.to_string()))?,
            propagation,
        })
    }
}

fn options_error(kind: &str, field: &str, error: FieldErrorKind, detail: &str) -> ApiError {
    let subject = Subject { group: "meta.k8s.io", resource: kind, name: "" };
    ApiError::invalid(subject, &[FieldError { field: field.to_owned(), kind: error, detail: detail.to_owned() }])
}

fn list_options_error(field: &str, error: FieldErrorKind, detail: &str) -> ApiError {
    options_error("ListOptions", field, error, detail)
}
