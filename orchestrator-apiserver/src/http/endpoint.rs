//! A socket that the API is served on, with TLS.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::{FutureExt, future::Either};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
};
use orchestrator_core::{
    client::UserInfo,
    env::{Env, TaskHandle},
    status::ApiError,
};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::Semaphore,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;

use super::{CertificateAuthority, Issued, TlsError, body, executor::Tasks, proxy::Peer, service, tls};
use crate::{limits, server::ApiServer};

/// A socket that an [`ApiServer`] is served on.
#[derive(Debug)]
pub struct Endpoint {
    address: SocketAddr,
    stop: CancellationToken,
    accept: TaskHandle,
}

/// The socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Which address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The certificates are of no use.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Where it listens could not be written down.
    #[error("cannot write down where the server is: {0}")]
    Announce(#[from] ApiError),
}

/// What every connection needs.
#[derive(Clone)]
struct Shared {
    env: Env,
    server: ApiServer,
    acceptor: TlsAcceptor,
    tasks: Tasks,
    stop: CancellationToken,
}

impl Endpoint {
    /// Listens on an address (port 0 draws a free one) and serves.
    pub async fn start(
        env: &Env,
        server: &ApiServer,
        address: SocketAddr,
        authority: &CertificateAuthority,
        certificate: &Issued,
    ) -> Result<Self, EndpointError> {
        let config = authority.server_config(certificate)?;
        let listener = listen(address).map_err(|source| EndpointError::Listen { address, source })?;
        let address = listener.local_addr().map_err(|source| EndpointError::Listen { address, source })?;
        let shared = Shared {
            env: env.clone(),
            server: server.clone(),
            acceptor: TlsAcceptor::from(Arc::new(config)),
            tasks: Tasks::new(env),
            stop: CancellationToken::new(),
        };
        let parts = server.server();
        // Or another endpoint came first, or the configuration has said where the server is, which is written down by then.
        if parts.address.set(reachable(address)).is_ok() && parts.config.advertised_address.is_none() {
            parts.announce().await?;
        }
        let stop = shared.stop.clone();
        Ok(Self { address, stop, accept: shared.serve_all(listener) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts no more, lets requests end for a moment, and closes the rest.
    pub async fn shutdown(self) {
        self.stop.cancel();
        self.accept.join().await;
    }
}

impl Shared {
    /// No part of an asynchronous function, so that serving is compiled into this crate.
    fn serve_all(self, listener: TcpListener) -> TaskHandle {
        self.env.clone().spawn("api-endpoint", accept(listener, self))
    }
}

/// Where a socket can be reached: one that listens on every address, at the one from which packets leave the machine.
fn reachable(address: SocketAddr) -> SocketAddr {
    if !address.ip().is_unspecified() {
        return address;
    }
    // An address for documentation, to which nothing is sent.
    let (any, elsewhere) = match address {
        SocketAddr::V4(_) => (IpAddr::from(Ipv4Addr::UNSPECIFIED), IpAddr::from([192, 0, 2, 1])),
        SocketAddr::V6(_) => (IpAddr::from(Ipv6Addr::UNSPECIFIED), IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1])),
    };
    let route = || {
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect((elsewhere, 9))?;
        socket.local_addr()
    };
    let own = route().map_or_else(
        |_: io::Error| if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() },
        |own| own.ip(),
    );
    SocketAddr::new(own, address.port())
}

/// Listens with room for a crowd that comes at once: a connection that there is no room for is tried again a second later.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(limits::WAITING_CONNECTIONS)
}

/// Takes connections until it is told to stop, then ends them.
async fn accept(listener: TcpListener, shared: Shared) {
    let places = Arc::new(Semaphore::new(limits::CONNECTIONS));
    while let Either::Left((place, _)) =
        futures::future::select(places.clone().acquire_owned().boxed(), shared.stop.cancelled().boxed()).await
    {
        let stream = match futures::future::select(listener.accept().boxed(), shared.stop.cancelled().boxed()).await {
            Either::Left((Ok((stream, _)), _)) => stream,
            Either::Left((Err(error), _)) => {
                // Out of file descriptors, most likely: others have to end first.
                tracing::warn!(%error, "cannot accept a connection");
                shared.env.sleep(Duration::from_millis(50)).await;
                continue;
            }
            Either::Right(_) => break,
        };
        let connection = shared.clone();
        shared.tasks.spawn("api-connection", async move {
            serve(stream, connection).await;
            drop(place);
        });
    }
    drop(listener);
    let mut tasks = shared.tasks.take();
    let _ = shared
        .env
        .timeout(limits::DRAIN_TIME, async {
            while tasks.running() > 0 {
                tasks.join().await;
            }
        })
        .await;
    tasks.stop().await;
    shared.tasks.take().stop().await;
}

/// One connection, from the handshake to its end.
async fn serve(stream: TcpStream, shared: Shared) {
    let _ = stream.set_nodelay(true);
    let peer = stream.peer_addr().ok().map(|address| address.ip());
    let handshake = shared.env.timeout(limits::HANDSHAKE_TIME, shared.acceptor.accept(stream)).await;
    let Ok(Ok(stream)) = handshake else { return };
    let user = certificate_user(&stream, &shared.server);
    let (server, tasks) = (shared.server.clone(), shared.tasks.clone());
    let asked = Arc::new(AtomicBool::new(false));
    let asks = asked.clone();
    let handler = service_fn(move |mut request: http::Request<Incoming>| {
        if let Some(peer) = peer {
            request.extensions_mut().insert(Peer(peer));
        }
        asks.store(true, Ordering::Relaxed);
        let answer = service::answer(server.clone(), tasks.clone(), user.clone(), None, request.map(body::boxed));
        answer.map(Ok::<_, std::convert::Infallible>)
    });
    let mut builder = auto::Builder::new(shared.tasks.clone());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits::HANDSHAKE_TIME);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(limits::STREAMS_PER_CONNECTION);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), handler);
    let mut connection = std::pin::pin!(connection);
    let stopped = std::pin::pin!(shared.stop.cancelled());
    let silent = std::pin::pin!(silent(&shared.env, &asked));
    let over = futures::future::select(stopped, silent);
    if let Either::Right((Either::Left(_), _)) = futures::future::select(connection.as_mut(), over).await {
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }
}

/// Resolves when nothing was asked in time. Before it is known which HTTP is spoken, hyper itself waits without an end.
async fn silent(env: &Env, asked: &AtomicBool) {
    env.sleep(limits::HANDSHAKE_TIME).await;
    if asked.load(Ordering::Relaxed) {
        std::future::pending::<()>().await;
    }
}

fn certificate_user(stream: &TlsStream<TcpStream>, server: &ApiServer) -> Option<Arc<UserInfo>> {
    let certificate = stream.get_ref().1.peer_certificates()?.first()?;
    let (name, groups) = tls::subject(certificate)?;
    Some(Arc::new(server.server().authenticator.certificate(name, groups)))
}
