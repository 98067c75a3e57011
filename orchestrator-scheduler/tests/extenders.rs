//! Extenders: what a decision makes of their answers, in virtual time, and HTTP against a server on the loopback address.

#[path = "extenders/deciding.rs"]
mod deciding;
#[path = "extenders/over_http.rs"]
mod over_http;
