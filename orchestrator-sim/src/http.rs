//! The way of a `kube::Client` to the server: HTTP without a socket, over whatever way the process has.

use std::{
    io,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use futures::{FutureExt, future::BoxFuture};
use http::{Request, Response};
use orchestrator_apiserver::http::{Body, BodyError, HttpService};
use orchestrator_core::client::{Client, UserInfo};
use tower_service::Service;

use crate::{link::Seat, lock::lock};

/// HTTP to the server that is in its seat. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct KubeService {
    seat: Arc<Seat>,
    /// What requests about resources go through.
    client: Client,
    /// That of the present server; streams into pods end with it.
    service: Arc<Mutex<Option<(u64, HttpService)>>>,
}

impl KubeService {
    pub(crate) fn new(seat: &Arc<Seat>, client: &Client) -> Self {
        Self { seat: seat.clone(), client: client.clone(), service: Arc::default() }
    }

    fn service(&self) -> io::Result<HttpService> {
        let refused = || io::Error::new(io::ErrorKind::ConnectionRefused, "the API server cannot be reached");
        let (number, server) = self.seat.numbered().ok_or_else(refused)?;
        let mut present = lock(&self.service);
        if let Some((_, service)) = present.as_ref().filter(|(of, _)| *of == number) {
            return Ok(service.clone());
        }
        let service = HttpService::new(&server, UserInfo::admin()).through(self.client.clone());
        *present = Some((number, service.clone()));
        Ok(service)
    }
}

impl Service<Request<kube::client::Body>> for KubeService {
    type Response = Response<Body>;
    type Error = BodyError;
    type Future = BoxFuture<'static, Result<Response<Body>, BodyError>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<kube::client::Body>) -> Self::Future {
        match self.service() {
            Ok(mut service) => service.call(request),
            Err(error) => futures::future::ready(Err(error.into())).boxed(),
        }
    }
}
