//! The `nginx` of a machine without registry: answers every request with the host's name.

use std::{io, net::Ipv4Addr, time::Duration};

use futures::future::{Either, select};
use orchestrator::env::{Env, TaskGroup};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    signal::unix::{SignalKind, signal},
};

use crate::Failure;

/// Where this program is in the container.
pub(crate) const PATH: &str = "/opt/mini-cluster";

/// Makes this program the web server.
pub(crate) const ARGUMENT: &str = "--web-server";

const PATIENCE: Duration = Duration::from_secs(5);

/// The longest head of a request, in bytes.
const HEAD_BYTES: usize = 8 << 10;

/// Serves until it is asked to end: the first process of a container has to hear SIGTERM by itself.
pub(crate) fn run() -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        match select(Box::pin(terminate.recv()), Box::pin(serve())).await {
            Either::Left(_) => Ok(()),
            Either::Right((result, _)) => Ok(result?),
        }
    })
}

async fn serve() -> io::Result<()> {
    let env = Env::real();
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 80)).await?;
    let host = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    println!("serving on port 80");
    let mut connections = TaskGroup::new(&env);
    loop {
        let (stream, _) = listener.accept().await?;
        let (env, host) = (env.clone(), host.trim().to_owned());
        connections.spawn("connection", async move {
            // Who is too slow, or hangs up before the answer, does not get one.
            let _ = env.timeout(PATIENCE, answer(stream, &host)).await;
        });
    }
}

async fn answer(mut stream: TcpStream, host: &str) -> io::Result<()> {
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") && request.len() < HEAD_BYTES {
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let body = format!("Welcome to {host}\n");
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    stream.write_all((head + &body).as_bytes()).await?;
    stream.shutdown().await
}
