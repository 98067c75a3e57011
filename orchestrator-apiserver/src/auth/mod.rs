//! Who asks, and whether he may.

mod authenticate;
mod authorize;
mod rules;
mod token;

pub use authenticate::Authenticator;
pub use authorize::{Attributes, Authorizer, Decision, DefaultAuthorizer};
pub use rules::{PathRule, ResourceRule, Rules};
pub use token::TokenIssuer;
