//! Who asks, and whether he may.

mod authenticate;
mod authorize;
mod token;

pub use authenticate::Authenticator;
pub use authorize::{Attributes, Authorizer, Decision, DefaultAuthorizer};
pub use token::TokenIssuer;
