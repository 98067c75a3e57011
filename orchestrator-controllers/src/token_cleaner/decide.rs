//! When a bootstrap token expires.
//!
//! Upstream: <https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/>.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;

/// The namespace of bootstrap tokens.
pub(crate) const NAMESPACE: &str = "kube-system";

/// Whether a secret is a bootstrap token.
pub(crate) fn is_token(secret: &Secret) -> bool {
    secret.metadata.namespace.as_deref() == Some(NAMESPACE)
        && secret.type_.as_deref() == Some("bootstrap.kubernetes.io/token")
}

/// How long until a token expires; zero when it has, or when its time cannot be read. None when it never does.
pub(crate) fn until_expired(token: &Secret, now: Timestamp) -> Option<Duration> {
    let written = token.data.as_ref()?.get("expiration").filter(|written| !written.0.is_empty())?;
    let expiration = std::str::from_utf8(&written.0).ok().and_then(|text| text.parse::<Timestamp>().ok());
    let left = expiration.map(|expiration| Duration::try_from(expiration.duration_since(now)));
    Some(left.and_then(Result::ok).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;
    use proptest::prelude::*;

    use super::*;
    use crate::pods::fixtures::at;

    fn token(expiration: Option<&str>) -> Secret {
        let data = expiration.map(|text| [("expiration".to_owned(), ByteString(text.into()))].into());
        Secret { data, type_: Some("bootstrap.kubernetes.io/token".to_owned()), ..Default::default() }
    }

    #[test]
    fn tokens_expire_when_they_say_so_or_say_nonsense() {
        for (expiration, left) in [
            (None, None),
            (Some(""), None),
            (Some("2026-01-01T00:00:10Z"), Some(10)),
            (Some("2026-01-01T02:00:10+02:00"), Some(10)),
            (Some("2025-12-31T00:00:00Z"), Some(0)),
            (Some("soon"), Some(0)),
        ] {
            assert_eq!(until_expired(&token(expiration), at(0)), left.map(Duration::from_secs), "{expiration:?}");
        }
    }

    #[test]
    fn only_secrets_of_the_type_in_the_namespace_are_tokens() {
        let mut secret = token(None);
        assert!(!is_token(&secret));
        secret.metadata.namespace = Some(NAMESPACE.to_owned());
        assert!(is_token(&secret));
        secret.type_ = Some("Opaque".to_owned());
        assert!(!is_token(&secret));
    }

    proptest! {
        #[test]
        fn time_only_takes_away(expiration in 0..1000_i64, now in 0..1000_i64, later in 0..1000_i64) {
            let token = token(Some(&at(expiration).to_string()));
            prop_assert!(until_expired(&token, at(now + later)) <= until_expired(&token, at(now)));
        }
    }
}
