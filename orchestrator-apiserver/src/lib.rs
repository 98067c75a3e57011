//! The API server: one request pipeline, in process and over HTTPS.
//!
//! Start at [`ApiServer`]. Inside, `pipeline` is the one way that every request takes; `registry` says what is served,
//! `kinds` what is particular to each kind, `decode` and `patch` make trees, `protobuf` writes them in another
//! form, `views` shows them, `flow` says whose turn it is, `metrics` counts, `spdy` is what old clients stream over, and `http` is the edge: nothing outside of it names HTTP.

mod address_range;
mod announce;
mod apply;
mod auth;
mod bootstrap;
mod decode;
mod field;
mod flow;
pub mod http;
mod kinds;
mod limits;
mod metrics;
mod names;
mod objects;
mod own;
mod patch;
mod pipeline;
mod protobuf;
mod recent;
mod registry;
mod selection;
mod server;
pub mod spdy;
mod strategy;
mod views;

pub use address_range::{AddressRange, AddressRangeError};
pub use auth::{
    Attributes, Authenticator, Authorizer, Decision, DefaultAuthorizer, PathRule, ResourceRule, Rules, TokenIssuer,
};
pub use registry::support_matrix;
pub use server::{Admission, ApiServer, ApiServerBuilder, Config, DefaultTolerations};
