//! Which signatures the cluster's public description carries: one for each bootstrap token, so that whoever has a token can tell
//! that the description is the cluster's.
//!
//! Upstream: <https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/#configmap-signing>.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use orchestrator_core::meta;
use serde_json::json;

use crate::token_cleaner::{is_token, until_expired};

/// The description: its namespace and its name.
pub(super) const DESCRIPTION: (&str, &str) = ("kube-public", "cluster-info");
/// What of it is signed.
const SIGNED: &str = "kubeconfig";
const SIGNATURE: &str = "jws-kubeconfig-";
const TOKEN_NAME: &str = "bootstrap-token-";

/// The description with its signatures, if it has others, and when time alone changes them.
pub(super) fn decide(
    description: &ConfigMap,
    secrets: &[Arc<Secret>],
    now: Timestamp,
) -> (Option<ConfigMap>, Option<Duration>) {
    let Some(signed) = description.data.as_ref().and_then(|data| data.get(SIGNED)) else { return (None, None) };
    let tokens: BTreeMap<String, &Secret> = secrets.iter().filter_map(|secret| token(secret, now)).collect();
    let next = tokens.values().filter_map(|secret| until_expired(secret, now)).min();
    let signatures = tokens.iter().filter_map(|(id, secret)| {
        let signature = sign(signed, id, &entry(secret, "token-secret")?)?;
        Some((format!("{SIGNATURE}{id}"), signature))
    });
    let mut data = description.data.clone().unwrap_or_default();
    data.retain(|key, _| !key.starts_with(SIGNATURE));
    data.extend(signatures);
    let changed = description.data.as_ref() != Some(&data);
    (changed.then(|| ConfigMap { data: Some(data), ..description.clone() }), next)
}

fn entry(secret: &Secret, name: &str) -> Option<String> {
    let value = secret.data.as_ref()?.get(name)?;
    String::from_utf8(value.0.clone()).ok().filter(|text| !text.is_empty())
}

/// A token that signs, by its name.
fn token(secret: &Secret, now: Timestamp) -> Option<(String, &Secret)> {
    let id = entry(secret, "token-id")?;
    let is_named = meta::name(&secret.metadata).strip_prefix(TOKEN_NAME) == Some(&id);
    let signs = entry(secret, "usage-bootstrap-signing").as_deref() == Some("true");
    let expired = until_expired(secret, now) == Some(Duration::ZERO);
    let is_good = is_token(secret) && !meta::is_deleting(&secret.metadata) && is_named && signs && !expired;
    is_good.then_some((id, secret))
}

/// A JSON web signature without what it signs.
fn sign(content: &str, id: &str, secret: &str) -> Option<String> {
    let header = BASE64_URL_SAFE_NO_PAD.encode(json!({"alg": "HS256", "kid": id}).to_string());
    let message = format!("{header}.{}", BASE64_URL_SAFE_NO_PAD.encode(content));
    let key = EncodingKey::from_secret(secret.as_bytes());
    let signature = crypto::sign(message.as_bytes(), &key, Algorithm::HS256).ok()?;
    Some(format!("{header}..{signature}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pods::fixtures::at;

    fn secret(id: &str, usage: &str, expiration: Option<i64>) -> Arc<Secret> {
        let mut data = json!({"token-id": id, "token-secret": "0123456789abcdef", "usage-bootstrap-signing": usage});
        if let Some(second) = expiration {
            data["expiration"] = at(second).to_string().into();
        }
        let encode = |value: &serde_json::Value| base64::prelude::BASE64_STANDARD.encode(value.as_str().unwrap());
        let data: BTreeMap<_, _> = data.as_object().unwrap().iter().map(|(key, value)| (key, encode(value))).collect();
        let metadata = json!({"name": format!("{TOKEN_NAME}{id}"), "namespace": "kube-system"});
        let tree = json!({"metadata": metadata, "type": "bootstrap.kubernetes.io/token", "data": data});
        Arc::new(serde_json::from_value(tree).unwrap())
    }

    fn description() -> ConfigMap {
        let data = [(SIGNED.to_owned(), "kubeconfig".to_owned()), (format!("{SIGNATURE}gone"), "x".to_owned())];
        ConfigMap { data: Some(data.into()), ..Default::default() }
    }

    #[test]
    fn each_token_that_may_signs() {
        let secrets = [
            secret("abcdef", "true", None),
            secret("unused", "false", None),
            secret("passed", "true", Some(5)),
            secret("passes", "true", Some(25)),
        ];
        let (signed, next) = decide(&description(), &secrets, at(10));
        let signed = signed.unwrap();
        let data = signed.data.as_ref().unwrap();
        let keys: Vec<&str> = data.keys().map(String::as_str).collect();
        assert_eq!(keys, ["jws-kubeconfig-abcdef", "jws-kubeconfig-passes", "kubeconfig"]);
        assert_eq!(next, Some(Duration::from_secs(15)));
        let (header, signature) = data["jws-kubeconfig-abcdef"].split_once("..").unwrap();
        assert_eq!(BASE64_URL_SAFE_NO_PAD.decode(header).unwrap(), br#"{"alg":"HS256","kid":"abcdef"}"#);
        assert_eq!(BASE64_URL_SAFE_NO_PAD.decode(signature).unwrap().len(), 32);
        assert_eq!(decide(&signed, &secrets, at(10)).0, None, "what is signed stays as it is");
        assert_eq!(decide(&ConfigMap::default(), &secrets, at(10)), (None, None), "there is nothing to sign");
    }

    #[test]
    fn signatures_are_upstreams() {
        let expected = "eyJhbGciOiJIUzI1NiIsImtpZCI6Impvc2h1YSJ9..VShe2taLd-YTrmWuRkcL_8QTNDHYxQIEBsAYYiIj1_8";
        assert_eq!(
            sign(
                "Hello from the other side. I must have called a thousand times.",
                "joshua",
                "my voice is my passcode"
            )
            .as_deref(),
            Some(expected)
        );
    }

    proptest! {
        #[test]
        fn no_signature_is_without_its_token(ids in prop::collection::btree_set("[a-z0-9]{6}", 0..5)) {
            let secrets: Vec<_> = ids.iter().map(|id| secret(id, "true", None)).collect();
            let description = description();
            let signed = decide(&description, &secrets, at(0)).0.unwrap_or(description);
            let data = signed.data.unwrap();
            let found: std::collections::BTreeSet<String> =
                data.keys().filter_map(|key| key.strip_prefix(SIGNATURE)).map(str::to_owned).collect();
            prop_assert_eq!(found, ids);
        }
    }
}
