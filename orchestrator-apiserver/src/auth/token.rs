//! Tokens of service accounts: signed, bound to an audience, and with an end (KEP-1205).

use std::{collections::BTreeMap, fmt};

use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use orchestrator_core::{
    client::UserInfo,
    object::time,
    status::{ApiError, ApiResult},
};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use serde::{Deserialize, Serialize};

use super::authenticate::AUTHENTICATED;

/// Who tokens say they come from.
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// Signs and checks tokens with a key of its own.
pub struct TokenIssuer {
    sign: EncodingKey,
    verify: DecodingKey,
}

impl fmt::Debug for TokenIssuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenIssuer")
    }
}

/// A token and what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Issued {
    pub(crate) token: String,
    pub(crate) audiences: Vec<String>,
    pub(crate) expires: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: Vec<String>,
    exp: i64,
    iat: i64,
    nbf: i64,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Kubernetes,
}

#[derive(Serialize, Deserialize)]
struct Kubernetes {
    namespace: String,
    serviceaccount: Named,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pod: Option<Named>,
}

#[derive(Serialize, Deserialize)]
struct Named {
    name: String,
    uid: String,
}

impl TokenIssuer {
    /// An issuer with a new key.
    pub fn generate() -> ApiResult<Self> {
        Self::from_key(&new_key()?)
    }

    /// A new key, to be kept secret, for [`from_pem`](Self::from_pem).
    pub fn generate_key_pem() -> ApiResult<String> {
        Ok(new_key()?.serialize_pem())
    }

    /// An issuer with this key (ECDSA on P-256, in PEM of PKCS #8), so that tokens outlive a restart and are good for all
    /// servers that have it.
    pub fn from_pem(pem: &str) -> ApiResult<Self> {
        Self::from_key(&KeyPair::from_pem(pem).map_err(ApiError::internal)?)
    }

    fn from_key(key: &KeyPair) -> ApiResult<Self> {
        let sign = EncodingKey::from_ec_der(&key.serialize_der());
        let public = pem_public(&key.subject_public_key_info());
        let verify = DecodingKey::from_ec_pem(public.as_bytes()).map_err(ApiError::internal)?;
        Ok(Self { sign, verify })
    }

    /// A token for a service account.
    #[expect(clippy::too_many_arguments, reason = "each is one claim of the token")]
    pub(crate) fn issue(
        &self,
        namespace: &str,
        name: &str,
        uid: &str,
        audiences: &[String],
        pod: Option<(String, String)>,
        now: Timestamp,
        seconds: i64,
    ) -> ApiResult<Issued> {
        let audiences = if audiences.is_empty() { vec![ISSUER.to_owned()] } else { audiences.to_vec() };
        let expires = now.saturating_add(SignedDuration::from_secs(seconds)).map_err(ApiError::internal)?;
        let claims = Claims {
            iss: ISSUER.to_owned(),
            sub: user_name(namespace, name),
            aud: audiences.clone(),
            exp: expires.as_second(),
            iat: now.as_second(),
            nbf: now.as_second(),
            kubernetes: Kubernetes {
                namespace: namespace.to_owned(),
                serviceaccount: Named { name: name.to_owned(), uid: uid.to_owned() },
                pod: pod.map(|(name, uid)| Named { name, uid }),
            },
        };
        let token =
            jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &self.sign).map_err(ApiError::internal)?;
        Ok(Issued { token, audiences, expires: time(expires).0 })
    }

    /// The user of a token that is valid for this server now.
    pub(crate) fn verify(&self, token: &str, now: Timestamp) -> Option<UserInfo> {
        let mut validation = Validation::new(Algorithm::ES256);
        // The clock is the environment's, so times are checked here.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.required_spec_claims.clear();
        validation.set_audience(&[ISSUER]);
        validation.set_issuer(&[ISSUER]);
        let claims = jsonwebtoken::decode::<Claims>(token, &self.verify, &validation).ok()?.claims;
        let now = now.as_second();
        if now >= claims.exp || now < claims.nbf {
            return None;
        }
        let Kubernetes { namespace, serviceaccount, pod } = claims.kubernetes;
        let mut extra = BTreeMap::new();
        if let Some(pod) = pod {
            extra.insert("authentication.kubernetes.io/pod-name".to_owned(), vec![pod.name]);
            extra.insert("authentication.kubernetes.io/pod-uid".to_owned(), vec![pod.uid]);
        }
        Some(UserInfo {
            name: user_name(&namespace, &serviceaccount.name),
            uid: serviceaccount.uid,
            groups: vec![
                "system:serviceaccounts".to_owned(),
                format!("system:serviceaccounts:{namespace}"),
                AUTHENTICATED.to_owned(),
            ],
            extra,
        })
    }
}

fn new_key() -> ApiResult<KeyPair> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(ApiError::internal)
}

fn user_name(namespace: &str, name: &str) -> String {
    format!("system:serviceaccount:{namespace}:{name}")
}

fn pem_public(der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).filter_map(|chunk| std::str::from_utf8(chunk).ok()).collect();
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_valid_until_its_end() {
        let issuer = TokenIssuer::generate().unwrap();
        let now = Timestamp::from_second(1_767_225_600).unwrap();
        let issued = issuer.issue("ns", "default", "u", &[], None, now, 600).unwrap();
        let user = issuer.verify(&issued.token, now).unwrap();
        assert_eq!(user.name, "system:serviceaccount:ns:default");
        assert!(issuer.verify(&issued.token, now + SignedDuration::from_secs(600)).is_none());
        assert!(TokenIssuer::generate().unwrap().verify(&issued.token, now).is_none());
        let other = issuer.issue("ns", "default", "u", &["other".to_owned()], None, now, 600).unwrap();
        assert!(issuer.verify(&other.token, now).is_none());
    }
}
