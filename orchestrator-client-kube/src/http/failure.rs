//! Refusals and failures in the words of the API.

use http::{HeaderMap, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::client::Body;
use orchestrator_core::status::{ApiError, Reason};

use super::reply;
use crate::limits;

/// What a server says no with.
pub(super) async fn refusal(response: Response<Body>) -> ApiError {
    let (parts, body) = response.into_parts();
    // A body that breaks off still has its code.
    let bytes = Limited::new(body, limits::ERROR_BYTES).collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let mut status = match serde_json::from_slice::<Status>(&bytes) {
        Ok(status) if status.code.is_some() || status.reason.is_some() => status,
        _ => plain(parts.status, &String::from_utf8_lossy(&bytes)).status().clone(),
    };
    status.code.get_or_insert_with(|| i32::from(parts.status.as_u16()));
    if let Some(seconds) = retry_after(&parts.headers) {
        status.details.get_or_insert_default().retry_after_seconds.get_or_insert(seconds);
    }
    ApiError::from_status(status).with_warnings(reply::warnings(&parts.headers))
}

/// A refusal that is no `Status`: of a proxy on the way, or of a path that is no resource.
fn plain(code: StatusCode, text: &str) -> ApiError {
    let reason = match code {
        StatusCode::UNAUTHORIZED => Reason::Unauthorized,
        StatusCode::FORBIDDEN => Reason::Forbidden,
        StatusCode::NOT_FOUND => Reason::NotFound,
        StatusCode::METHOD_NOT_ALLOWED => Reason::MethodNotAllowed,
        StatusCode::NOT_ACCEPTABLE => Reason::NotAcceptable,
        StatusCode::CONFLICT => Reason::Conflict,
        StatusCode::GONE => Reason::Gone,
        StatusCode::PAYLOAD_TOO_LARGE => Reason::RequestEntityTooLarge,
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Reason::UnsupportedMediaType,
        StatusCode::UNPROCESSABLE_ENTITY => Reason::Invalid,
        StatusCode::TOO_MANY_REQUESTS => Reason::TooManyRequests,
        StatusCode::SERVICE_UNAVAILABLE => Reason::ServiceUnavailable,
        StatusCode::GATEWAY_TIMEOUT => Reason::Timeout,
        code if code.is_client_error() => Reason::BadRequest,
        _ => Reason::InternalError,
    };
    let text = text.trim();
    let text = if text.is_empty() { code.canonical_reason().unwrap_or("unknown") } else { text };
    let mut status = ApiError::new(reason, text).status().clone();
    status.code = Some(i32::from(code.as_u16()));
    ApiError::from_status(status)
}

fn retry_after(headers: &HeaderMap) -> Option<i32> {
    headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()
}

/// The server was not reached, or what it says is not to be had.
pub(super) fn transport(error: kube::Error) -> ApiError {
    match error {
        kube::Error::Api(status) => {
            let tree = serde_json::to_vec(&status).unwrap_or_default();
            match serde_json::from_slice::<Status>(&tree) {
                Ok(status) => ApiError::from_status(status),
                Err(_) => ApiError::unavailable(status.message.clone()),
            }
        }
        other => ApiError::unavailable(format!("the server cannot be reached: {}", chain(&other))),
    }
}

/// An error with everything that led to it.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(code: u16, body: &str) -> Response<Body> {
        Response::builder()
            .status(code)
            .header("retry-after", "3")
            .header("warning", "299 - \"careful\"")
            .body(Body::from(body.as_bytes().to_vec()))
            .unwrap()
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_status_is_kept_whole() {
        let body = r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"m",
            "reason":"Invalid","details":{"name":"n","causes":[{"reason":"FieldValueRequired","field":"f"}]},"code":422}"#;
        let error = refusal(response(422, body)).await;
        assert_eq!((error.reason(), error.code(), error.message()), (Reason::Invalid, 422, "m"));
        let details = error.status().details.as_ref().unwrap();
        assert_eq!(details.causes.as_ref().unwrap()[0].field.as_deref(), Some("f"));
        assert_eq!(details.retry_after_seconds, Some(3));
        assert_eq!(error.warnings(), ["careful"]);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_is_no_status_becomes_one() {
        for (code, body, reason, message) in [
            (404, "404 page not found\n", Reason::NotFound, "404 page not found"),
            (429, "", Reason::TooManyRequests, "Too Many Requests"),
            (502, "<html>", Reason::InternalError, "<html>"),
            (418, "{}", Reason::BadRequest, "{}"),
        ] {
            let error = refusal(response(code, body)).await;
            assert_eq!((error.reason(), error.message()), (reason, message), "{code}");
            assert_eq!(error.code(), i32::from(code));
        }
    }
}
