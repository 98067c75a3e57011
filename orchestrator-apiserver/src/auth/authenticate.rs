//! Who asks: client certificates and bearer tokens.

use std::{collections::BTreeMap, fmt};

use jiff::Timestamp;
use orchestrator_core::{
    client::UserInfo,
    status::{ApiError, ApiResult, Reason},
};

use super::TokenIssuer;

/// The group that everyone belongs to who is known.
pub(crate) const AUTHENTICATED: &str = "system:authenticated";

/// Knows users by their tokens.
#[derive(Clone, Default)]
pub struct Authenticator {
    tokens: BTreeMap<String, UserInfo>,
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticator").field("tokens", &self.tokens.len()).finish()
    }
}

impl Authenticator {
    /// Makes a bearer token known.
    #[must_use]
    pub fn with_token(mut self, token: impl Into<String>, mut user: UserInfo) -> Self {
        add_authenticated(&mut user);
        self.tokens.insert(token.into(), user);
        self
    }

    /// The user of a bearer token.
    pub(crate) fn token(&self, token: &str, now: Timestamp, issuer: &TokenIssuer) -> ApiResult<UserInfo> {
        match self.tokens.get(token) {
            Some(user) => Ok(user.clone()),
            None => issuer.verify(token, now).ok_or_else(|| ApiError::new(Reason::Unauthorized, "Unauthorized")),
        }
    }

    /// The user that a verified client certificate names: the common name, in the organizations.
    pub(crate) fn certificate(&self, common_name: String, organizations: Vec<String>) -> UserInfo {
        let mut user = UserInfo { name: common_name, groups: organizations, ..Default::default() };
        add_authenticated(&mut user);
        user
    }

    /// The user that nobody knows.
    pub(crate) fn anonymous(&self) -> UserInfo {
        UserInfo::new("system:anonymous", &["system:unauthenticated"])
    }
}

fn add_authenticated(user: &mut UserInfo) {
    if !user.groups.iter().any(|group| group == AUTHENTICATED) {
        user.groups.push(AUTHENTICATED.to_owned());
    }
}
