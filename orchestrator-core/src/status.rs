//! Errors as the API gives them: a `Status` with reason, code and causes.
//!
//! Upstream: `k8s.io/apimachinery/pkg/api/errors` and
//! <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/>.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Status, StatusCause, StatusDetails};

/// Result of a call to the API.
pub type ApiResult<T> = Result<T, ApiError>;

/// A refusal or failure, in the words of the API.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{}", self.message())]
pub struct ApiError {
    status: Box<Status>,
    /// What the caller was warned of before the refusal.
    warnings: Vec<String>,
}

/// Why a call was refused, for machines: the `reason` of a `Status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// 401: who is asking is not known.
    Unauthorized,
    /// 403: who is asking may not.
    Forbidden,
    /// 404.
    NotFound,
    /// 409: the name is taken.
    AlreadyExists,
    /// 409: the object is not as the caller believed.
    Conflict,
    /// 410: the history asked for is gone.
    Expired,
    /// 410: nothing will be at this place again.
    Gone,
    /// 422: the object breaks a rule.
    Invalid,
    /// 400.
    BadRequest,
    /// 405.
    MethodNotAllowed,
    /// 406.
    NotAcceptable,
    /// 413.
    RequestEntityTooLarge,
    /// 415.
    UnsupportedMediaType,
    /// 429.
    TooManyRequests,
    /// 500.
    InternalError,
    /// 500: try again later.
    ServerTimeout,
    /// 503.
    ServiceUnavailable,
    /// 504.
    Timeout,
    /// Anything else.
    Unknown,
}

impl Reason {
    const ALL: [(Self, &'static str, i32); 18] = [
        (Self::Unauthorized, "Unauthorized", 401),
        (Self::Forbidden, "Forbidden", 403),
        (Self::NotFound, "NotFound", 404),
        (Self::AlreadyExists, "AlreadyExists", 409),
        (Self::Conflict, "Conflict", 409),
        (Self::Expired, "Expired", 410),
        (Self::Gone, "Gone", 410),
        (Self::Invalid, "Invalid", 422),
        (Self::BadRequest, "BadRequest", 400),
        (Self::MethodNotAllowed, "MethodNotAllowed", 405),
        (Self::NotAcceptable, "NotAcceptable", 406),
        (Self::RequestEntityTooLarge, "RequestEntityTooLarge", 413),
        (Self::UnsupportedMediaType, "UnsupportedMediaType", 415),
        (Self::TooManyRequests, "TooManyRequests", 429),
        (Self::InternalError, "InternalError", 500),
        (Self::ServerTimeout, "ServerTimeout", 500),
        (Self::ServiceUnavailable, "ServiceUnavailable", 503),
        (Self::Timeout, "Timeout", 504),
    ];

    /// As a `Status` writes it.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(reason, ..)| *reason == self).map_or("", |(_, text, _)| text)
    }

    /// The HTTP status code that goes with it.
    pub fn code(self) -> i32 {
        Self::ALL.iter().find(|(reason, ..)| *reason == self).map_or(500, |(_, _, code)| *code)
    }

    fn parse(text: &str) -> Self {
        Self::ALL.iter().find(|(_, name, _)| *name == text).map_or(Self::Unknown, |(reason, ..)| *reason)
    }
}

/// What an error is about: the group, the resource or kind, and the name of an object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Subject<'a> {
    /// The API group; empty for the core group.
    pub group: &'a str,
    /// The plural resource (or, for validation, the kind).
    pub resource: &'a str,
    /// The object's name.
    pub name: &'a str,
}

impl Subject<'_> {
    /// `pods` or `deployments.apps`.
    fn qualified(&self) -> String {
        if self.group.is_empty() { self.resource.to_owned() } else { format!("{}.{}", self.resource, self.group) }
    }

    fn details(&self) -> StatusDetails {
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        StatusDetails {
            group: text(self.group),
            kind: text(self.resource),
            name: text(self.name),
            ..Default::default()
        }
    }
}

/// One broken rule of an object, at a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// Where, such as `spec.containers[0].image`.
    pub field: String,
    /// Which kind of rule.
    pub kind: FieldErrorKind,
    /// What is wrong, without the leading kind: as upstream's `field.Error` body.
    pub detail: String,
}

/// Which kind of rule a field breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldErrorKind {
    /// It must be given.
    Required,
    /// Its value is wrong.
    Invalid,
    /// Its value is not one of a list.
    NotSupported,
    /// It occurs twice.
    Duplicate,
    /// It may not be given here.
    Forbidden,
    /// It is too long.
    TooLong,
    /// It has too many items.
    TooMany,
    /// It refers to something that is not there.
    NotFound,
    /// Its type is wrong.
    TypeInvalid,
    /// The server failed while checking it.
    Internal,
}

impl FieldErrorKind {
    /// The words before the detail, and the reason of the cause.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Required => ("Required value", "FieldValueRequired"),
            Self::Invalid => ("Invalid value", "FieldValueInvalid"),
            Self::NotSupported => ("Unsupported value", "FieldValueNotSupported"),
            Self::Duplicate => ("Duplicate value", "FieldValueDuplicate"),
            Self::Forbidden => ("Forbidden", "FieldValueForbidden"),
            Self::TooLong => ("Too long", "FieldValueTooLong"),
            Self::TooMany => ("Too many", "FieldValueTooMany"),
            Self::NotFound => ("Not found", "FieldValueNotFound"),
            Self::TypeInvalid => ("Invalid value", "FieldValueTypeInvalid"),
            Self::Internal => ("Internal error", "InternalError"),
        }
    }
}

impl FieldError {
    /// The message without the field: `Required value: name or generateName is required`.
    pub fn message(&self) -> String {
        let (words, _) = self.kind.words();
        if self.detail.is_empty() { words.to_owned() } else { format!("{words}: {}", self.detail) }
    }

    fn cause(&self) -> StatusCause {
        StatusCause {
            field: Some(self.field.clone()),
            message: Some(self.message()),
            reason: Some(self.kind.words().1.to_owned()),
        }
    }
}

impl ApiError {
    /// Any refusal.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self::with_details(reason, message, None)
    }

    /// A refusal with details about an object.
    pub fn with_details(reason: Reason, message: impl Into<String>, details: Option<StatusDetails>) -> Self {
        let status = Status {
            code: Some(reason.code()),
            details,
            message: Some(message.into()),
            reason: Some(reason.as_str().to_owned()).filter(|reason| !reason.is_empty()),
            status: Some("Failure".to_owned()),
            ..Default::default()
        };
        Self { status: Box::new(status), warnings: Vec::new() }
    }

    /// An error that came over the wire.
    pub fn from_status(status: Status) -> Self {
        Self { status: Box::new(status), warnings: Vec::new() }
    }

    /// The same refusal, with what the caller was warned of before it.
    #[must_use]
    pub fn with_warnings(mut self, warnings: Vec<String>) -> Self {
        self.warnings.extend(warnings);
        self
    }

    /// What the caller was warned of before the refusal.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// 404 for an object.
    pub fn not_found(subject: Subject<'_>) -> Self {
        let message = format!("{} \"{}\" not found", subject.qualified(), subject.name);
        Self::with_details(Reason::NotFound, message, Some(subject.details()))
    }

    /// 404 for a path that nothing is served at.
    pub fn no_such_path() -> Self {
        let details = StatusDetails::default();
        Self::with_details(Reason::NotFound, "the server could not find the requested resource", Some(details))
    }

    /// 409: the name is taken.
    pub fn already_exists(subject: Subject<'_>) -> Self {
        let message = format!("{} \"{}\" already exists", subject.qualified(), subject.name);
        Self::with_details(Reason::AlreadyExists, message, Some(subject.details()))
    }

    /// 409: the object has moved on.
    pub fn conflict(subject: Subject<'_>, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} \"{}\": {why}", subject.qualified(), subject.name);
        Self::with_details(Reason::Conflict, message, Some(subject.details()))
    }

    /// 409 as an update with a stale `resourceVersion` gets it.
    pub fn stale(subject: Subject<'_>) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(subject, why)
    }

    /// 403.
    pub fn forbidden(subject: Subject<'_>, why: &str) -> Self {
        let message = if subject.name.is_empty() {
            format!("{} is forbidden: {why}", subject.qualified())
        } else {
            format!("{} \"{}\" is forbidden: {why}", subject.qualified(), subject.name)
        };
        Self::with_details(Reason::Forbidden, message, Some(subject.details()))
    }

    /// 422 with all broken rules. The subject's `resource` is the kind.
    pub fn invalid(subject: Subject<'_>, errors: &[FieldError]) -> Self {
        let text = |error: &FieldError| format!("{}: {}", error.field, error.message());
        // The text says everything once, although the causes may repeat themselves.
        let mut texts: Vec<String> = Vec::new();
        for text in errors.iter().map(text) {
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        let list = match texts.as_slice() {
            [] => String::new(),
            [only] => only.clone(),
            texts => format!("[{}]", texts.join(", ")),
        };
        let message = format!("{} \"{}\" is invalid: {list}", subject.qualified(), subject.name);
        let mut details = subject.details();
        details.causes = Some(errors.iter().map(FieldError::cause).collect());
        Self::with_details(Reason::Invalid, message, Some(details))
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(Reason::BadRequest, message)
    }

    /// 405.
    pub fn method_not_allowed() -> Self {
        let details = StatusDetails::default();
        let message = "the server does not allow this method on the requested resource";
        Self::with_details(Reason::MethodNotAllowed, message, Some(details))
    }

    /// 410: the history asked for is gone.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(Reason::Expired, message)
    }

    /// 500 for an error that is the server's own.
    pub fn internal(error: impl std::fmt::Display) -> Self {
        let message = format!("Internal error occurred: {error}");
        let details = StatusDetails {
            causes: Some(vec![StatusCause { message: Some(error.to_string()), ..Default::default() }]),
            ..Default::default()
        };
        Self::with_details(Reason::InternalError, message, Some(details))
    }

    /// 503.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Reason::ServiceUnavailable, message)
    }

    /// The whole `Status`.
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// Why, for machines.
    pub fn reason(&self) -> Reason {
        self.status.reason.as_deref().map_or(Reason::Unknown, Reason::parse)
    }

    /// The HTTP status code.
    pub fn code(&self) -> i32 {
        self.status.code.unwrap_or(500)
    }

    /// Why, for people.
    pub fn message(&self) -> &str {
        self.status.message.as_deref().unwrap_or("unknown")
    }

    /// There is no such object.
    pub fn is_not_found(&self) -> bool {
        self.reason() == Reason::NotFound
    }

    /// The object is not as the caller believed; read it again.
    pub fn is_conflict(&self) -> bool {
        self.reason() == Reason::Conflict
    }

    /// The name is taken.
    pub fn is_already_exists(&self) -> bool {
        self.reason() == Reason::AlreadyExists
    }

    /// The history asked for is gone; list again.
    pub fn is_expired(&self) -> bool {
        matches!(self.reason(), Reason::Expired | Reason::Gone)
    }
}
