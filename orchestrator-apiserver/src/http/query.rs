//! Query parameters.

use std::time::Duration;

use orchestrator_core::{
    client::{DeleteOptions, FieldValidation, ListOptions, Propagation, VersionMatch, WriteOptions},
    status::{ApiError, ApiResult, FieldError, FieldErrorKind, Subject},
};
use serde_json::Value;

use super::path::unescape;
use crate::decode;

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

    /// The parameters by themselves.
    pub(super) fn into_pairs(self) -> Vec<(String, String)> {
        self.0
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(given, _)| given == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(given, _)| given == name)
    }

    /// Upstream reads everything but `0` and `false` as true, the bare name included.
    pub(super) fn flag(&self, name: &str) -> bool {
        let given = self.all(name).next().map(str::to_lowercase);
        given.is_some_and(|given| !matches!(given.as_str(), "0" | "false"))
    }

    pub(super) fn int(&self, name: &str) -> ApiResult<Option<i64>> {
        let Some(text) = self.get(name) else { return Ok(None) };
        text.parse()
            .map(Some)
            .map_err(|_| ApiError::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax")))
    }

    pub(super) fn list(&self) -> ApiResult<ListOptions> {
        self.timeout()?;
        let limit = self.int("limit")?.and_then(|limit| usize::try_from(limit).ok());
        self.check_list()?;
        Ok(ListOptions {
            label_selector: self.get("labelSelector").unwrap_or_default().to_owned(),
            field_selector: self.get("fieldSelector").unwrap_or_default().to_owned(),
            limit,
            continue_token: self.get("continue").map(str::to_owned),
            resource_version: self.get("resourceVersion").map(str::to_owned),
            version_match: match self.get("resourceVersionMatch") {
                Some("Exact") => Some(VersionMatch::Exact),
                Some("NotOlderThan") => Some(VersionMatch::NotOlderThan),
                _ => None,
            },
        })
    }

    /// Whether a watch wants the state first.
    pub(super) fn initial_events(&self) -> bool {
        self.flag("sendInitialEvents")
    }

    /// Which options of a list or a watch go together.
    fn check_list(&self) -> ApiResult<()> {
        let mut errors = Vec::new();
        let version_match = self.get("resourceVersionMatch");
        let mut match_error = |kind, detail: String| {
            errors.push(FieldError { field: "resourceVersionMatch".to_owned(), kind, detail });
        };
        let mut forbidden = |detail: &str| match_error(FieldErrorKind::Forbidden, detail.to_owned());
        let (watches, initial) = (self.flag("watch"), self.has("sendInitialEvents"));
        if watches && initial && version_match != Some("NotOlderThan") {
            forbidden("sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
        }
        if let Some(given) = version_match {
            if watches && !initial {
                forbidden("resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided");
            }
            if !watches && self.get("resourceVersion").is_none() {
                forbidden("resourceVersionMatch is forbidden unless resourceVersion is provided");
            }
            if !watches && self.get("continue").is_some() {
                forbidden("resourceVersionMatch is forbidden when continue is provided");
            }
            let known: &[&str] = if watches { &["NotOlderThan"] } else { &["Exact", "NotOlderThan", ""] };
            if !known.contains(&given) {
                let known = known.iter().map(|known| format!("{known:?}")).collect::<Vec<_>>().join(", ");
                match_error(FieldErrorKind::NotSupported, format!("{given:?}: supported values: {known}"));
            } else if given == "Exact" && self.get("resourceVersion") == Some("0") {
                let detail = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
                match_error(FieldErrorKind::Forbidden, detail.to_owned());
            }
        }
        if !watches && initial {
            let detail = "sendInitialEvents is forbidden for list".to_owned();
            errors.push(FieldError { field: "sendInitialEvents".to_owned(), kind: FieldErrorKind::Forbidden, detail });
        }
        if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid(options_subject("ListOptions"), &errors)) }
    }

    pub(super) fn timeout(&self) -> ApiResult<Option<Duration>> {
        Ok(self.int("timeoutSeconds")?.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs))
    }

    /// Refuses a time limit that is none. Requests that are no watches are answered at once, so that there is nothing to limit.
    pub(super) fn check_time_limit(&self) -> ApiResult<()> {
        let problem = self.get("timeout").and_then(decode::duration_problem);
        problem.map_or(Ok(()), |problem| {
            Err(ApiError::bad_request(format!("invalid timeout specified in the request URL - {problem}")))
        })
    }

    /// How to write; `kind` is what upstream calls the options of the verb.
    pub(super) fn write(&self, kind: &str) -> ApiResult<WriteOptions> {
        let field_validation = match self.get("fieldValidation") {
            None | Some("Warn") => FieldValidation::Warn,
            Some("Ignore") => FieldValidation::Ignore,
            Some("Strict") => FieldValidation::Strict,
            Some(other) => {
                let detail = format!("{other:?}: supported values: \"\", \"Ignore\", \"Strict\", \"Warn\"");
                return Err(options_error(kind, "fieldValidation", FieldErrorKind::NotSupported, &detail));
            }
        };
        Ok(WriteOptions {
            dry_run: self.dry_run(kind)?,
            field_manager: self.get("fieldManager").map(str::to_owned),
            force: self.flag("force"),
            field_validation,
            repeated_fields: Vec::new(),
        })
    }

    fn dry_run(&self, kind: &str) -> ApiResult<bool> {
        match self.get("dryRun") {
            None => Ok(false),
            Some(stage) => only_all(kind, &[stage.into()]),
        }
    }

    /// How to delete: the parameters say it where there is no body.
    pub(super) fn delete(&self, body: Option<&Value>) -> ApiResult<DeleteOptions> {
        let member = |name: &str| body.and_then(|body| body.get(name)).filter(|value| !value.is_null());
        let parameter = |name: &str| self.get(name).filter(|_| body.is_none());
        let policy = member("propagationPolicy").and_then(Value::as_str).or(parameter("propagationPolicy"));
        let orphan = member("orphanDependents")
            .and_then(Value::as_bool)
            .or(parameter("orphanDependents").map(|orphan| orphan == "true"));
        if let (Some(policy), Some(_)) = (policy, orphan) {
            let detail = format!("{policy:?}: orphanDependents and deletionPropagation cannot be both set");
            return Err(options_error("DeleteOptions", "propagationPolicy", FieldErrorKind::Invalid, &detail));
        }
        let propagation = match (policy, orphan) {
            (Some("Orphan"), _) | (None, Some(true)) => Some(Propagation::Orphan),
            (Some("Background"), _) | (None, Some(false)) => Some(Propagation::Background),
            (Some("Foreground"), _) => Some(Propagation::Foreground),
            (Some(other), _) => {
                let detail =
                    format!("{other:?}: supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\"");
                return Err(options_error("DeleteOptions", "propagationPolicy", FieldErrorKind::NotSupported, &detail));
            }
            (None, None) => None,
        };
        let dry_run = match member("dryRun").and_then(Value::as_array) {
            Some(stages) => only_all("DeleteOptions", stages)?,
            None => body.is_none() && self.dry_run("DeleteOptions")?,
        };
        let preconditions = member("preconditions").cloned().map(serde_json::from_value).transpose();
        Ok(DeleteOptions {
            dry_run,
            grace_period_seconds: match member("gracePeriodSeconds") {
                Some(seconds) => seconds.as_i64(),
                None if body.is_some() => None,
                None => self.int("gracePeriodSeconds")?,
            },
            preconditions: preconditions.map_err(|error| ApiError::bad_request(error.to_string()))?,
            propagation,
        })
    }
}

/// Whether stages are to be run dry: all of them, if any.
fn only_all(kind: &str, stages: &[Value]) -> ApiResult<bool> {
    if stages.iter().any(|stage| stage != "All") {
        let detail = format!("{}: supported values: \"All\"", Value::from(stages));
        return Err(options_error(kind, "dryRun", FieldErrorKind::NotSupported, &detail));
    }
    Ok(!stages.is_empty())
}

fn options_error(kind: &str, field: &str, error: FieldErrorKind, detail: &str) -> ApiError {
    let error = FieldError { field: field.to_owned(), kind: error, detail: detail.to_owned() };
    ApiError::invalid(options_subject(kind), &[error])
}

fn options_subject(kind: &str) -> Subject<'_> {
    Subject { group: "meta.k8s.io", resource: kind, name: "" }
}
