//! Who asks: basic authentication, and tokens of a server that the registry names.
//!
//! The tokens: <https://distribution.github.io/distribution/spec/auth/token/>.

use base64::Engine as _;
use reqwest::StatusCode;
use serde::Deserialize;

use super::Repository;
use crate::{ImageError, limits::ANSWER_BYTES};

/// What a server of tokens answers.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Answer {
    token: String,
    access_token: String,
}

/// How a registry wants to be asked.
#[derive(Debug, PartialEq, Eq)]
enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

impl Repository {
    /// What to send as `Authorization` after these challenges.
    pub(super) async fn authorize(&self, challenges: &[String]) -> Result<String, ImageError> {
        match challenges.iter().find_map(|challenge| read(challenge)) {
            Some(Challenge::Bearer { realm, service, scope }) => {
                let token = self.token(&realm, service.as_deref(), scope.as_deref()).await?;
                Ok(format!("Bearer {token}"))
            }
            Some(Challenge::Basic) => self.basic().ok_or_else(|| self.denied("authentication required")),
            None => Err(self.denied("the registry asks for an authentication that is not known here")),
        }
    }

    fn basic(&self) -> Option<String> {
        let credentials = self.credentials.as_ref()?;
        let text = format!("{}:{}", credentials.username, credentials.password);
        Some(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(text)))
    }

    async fn token(&self, realm: &str, service: Option<&str>, scope: Option<&str>) -> Result<String, ImageError> {
        // Secrets go unprotected only where the embedder wants it so.
        let is_protected = realm.starts_with("https://") || self.is_plain && realm.starts_with("http://");
        if !is_protected {
            return Err(self.denied(&format!("the registry sends for a token to {realm:?}")));
        }
        let own_scope = format!("repository:{}:pull", self.name);
        let mut query = vec![("scope", scope.unwrap_or(&own_scope))];
        query.extend(service.map(|service| ("service", service)));
        let url = reqwest::Url::parse_with_params(realm, &query)
            .map_err(|error| self.denied(&format!("the registry sends for a token to {realm:?}: {error}")))?;
        let mut request = self.http.get(url);
        if let Some(basic) = self.basic() {
            request = request.header(reqwest::header::AUTHORIZATION, basic);
        }
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        let body = self.read(response, ANSWER_BYTES, "token").await?;
        if !status.is_success() {
            let message = format!("the server of tokens answers {status}");
            return Err(match status {
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => self.denied(&message),
                _ => ImageError::Registry(message),
            });
        }
        let answer: Answer = serde_json::from_slice(&body).unwrap_or_default();
        let token = if answer.token.is_empty() { answer.access_token } else { answer.token };
        // It becomes a header.
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ImageError::Registry("the server of tokens sent none".to_owned()));
        }
        Ok(token)
    }

    fn denied(&self, why: &str) -> ImageError {
        ImageError::Unauthorized(format!("{}: {why}", self.described(&self.name)))
    }
}

/// The first challenge of a header that can be met.
fn read(header: &str) -> Option<Challenge> {
    let challenges = http_auth::parse_challenges(header).ok()?;
    challenges.into_iter().find_map(|challenge| {
        let parameter = |name: &str| {
            let found = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.to_unescaped())
        };
        if challenge.scheme.eq_ignore_ascii_case("bearer") {
            Some(Challenge::Bearer {
                realm: parameter("realm")?,
                service: parameter("service"),
                scope: parameter("scope"),
            })
        } else {
            challenge.scheme.eq_ignore_ascii_case("basic").then_some(Challenge::Basic)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges() {
        let bearer = r#"Bearer realm="https://auth.h.io/token",service="h.io",scope="repository:a/b:pull""#;
        let expected = Challenge::Bearer {
            realm: "https://auth.h.io/token".to_owned(),
            service: Some("h.io".to_owned()),
            scope: Some("repository:a/b:pull".to_owned()),
        };
        assert_eq!(read(bearer), Some(expected));
        assert_eq!(read(r#"Basic realm="Registry""#), Some(Challenge::Basic));
        assert_eq!(read("Negotiate"), None);
        assert_eq!(read("\u{1}"), None);
    }
}
