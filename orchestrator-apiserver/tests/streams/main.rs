//! Requests that become streams, as clients of any age make them: over WebSockets, over SPDY, and over both at once.

mod port_forward;
mod proxy;
mod sessions;
mod support;
