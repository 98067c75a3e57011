//! The edge: HTTP in, HTTP out. Nothing outside of this module names HTTP.
//!
//! [`Endpoint`] listens on a socket; [`HttpService`] is the same without one. Both call [`service::answer`].

mod body;
mod channels;
mod connect;
mod endpoint;
mod executor;
mod health;
mod list;
mod measure;
mod negotiate;
mod path;
mod pipe;
mod port_forward;
mod port_forward_channels;
mod port_forward_streams;
mod proxy;
mod query;
mod respond;
mod routes;
mod service;
mod session;
mod session_channels;
mod session_streams;
mod signing;
mod spdy;
mod tls;
mod turn;
mod upgrade;
mod warnings;
mod watch;
mod websocket;

pub use body::{Body, BodyError};
pub use endpoint::{Endpoint, EndpointError};
pub use service::HttpService;
pub use tls::{CertificateAuthority, Issued, TlsError};
