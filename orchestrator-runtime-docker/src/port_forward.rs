//! Connections into a pod: the engine has no way for them, so the socket is made inside of the pod's network namespace.

use std::{fs::File, io, net::Ipv4Addr, os::fd::OwnedFd, path::PathBuf};

use orchestrator_core::{
    env::Env,
    runtime::{Duplex, RuntimeError, SandboxId},
};
use rustix::{
    net::{AddressFamily, SocketFlags, SocketType, socket_with},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};
use tokio::net::TcpSocket;

use crate::limits::CONNECT_TIME;

/// Connects to a port of the pod's loopback address. `namespace` is a file of the engine's machine, `None` for a pod on the
/// machine's own network.
pub(crate) async fn connect(
    env: &Env,
    id: &SandboxId,
    namespace: Option<PathBuf>,
    port: u16,
) -> Result<Box<dyn Duplex>, RuntimeError> {
    let failed = |error: io::Error| RuntimeError::internal(format!("connecting to port {port} of {id}"), error);
    let socket = match namespace {
        None => new_socket(),
        Some(path) => {
            let file = File::open(&path).map_err(|error| {
                let message = format!(
                    "connections into a pod of an engine whose network namespaces are not on this machine: {}: {error}",
                    path.display()
                );
                RuntimeError::Unsupported(message)
            })?;
            let made = env.blocking(move || socket_inside(&file)).await;
            made.unwrap_or_else(|| Err(io::Error::other("the work was given up")))
        }
    };
    let socket = socket.map_err(failed)?;
    let socket = TcpSocket::from_std_stream(std::net::TcpStream::from(socket));
    match env.timeout(CONNECT_TIME, socket.connect((Ipv4Addr::LOCALHOST, port).into())).await {
        Ok(stream) => Ok(Box::new(stream.map_err(failed)?)),
        Err(elapsed) => Err(RuntimeError::internal(format!("connecting to port {port} of {id}"), elapsed)),
    }
}

/// A socket belongs to the namespace that it was made in, wherever it is used. The thread that enters the namespace ends at
/// once, so that nothing else ever runs there.
fn socket_inside(namespace: &File) -> io::Result<OwnedFd> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            move_into_link_name_space(std::os::fd::AsFd::as_fd(namespace), Some(LinkNameSpaceType::Network))?;
            new_socket()
        });
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread has failed")))
    })
}

fn new_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?)
}
