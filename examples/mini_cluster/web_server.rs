//! The `nginx` of a machine without registry: answers every request with the host's name.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener},
    time::Duration,
};

use crate::Failure;

/// Where this program is in the container.
pub(crate) const PATH: &str = "/opt/mini-cluster";

/// Makes this program the web server.
pub(crate) const ARGUMENT: &str = "--web-server";

const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) fn run() -> Result<(), Failure> {
    // The first process of a container has no default for SIGTERM; who asks it to end should not have to wait.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut terminate = {
        let _guard = runtime.enter();
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?
    };
    std::thread::spawn(|| serve().inspect_err(|error| println!("{error}")));
    runtime.block_on(terminate.recv());
    Ok(())
}

fn serve() -> std::io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 80))?;
    let host = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    println!("serving on port 80");
    for stream in listener.incoming() {
        let mut stream = stream?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut request = [0; 4096];
        if stream.read(&mut request).is_ok() {
            let body = format!("Welcome to {}\n", host.trim());
            let length = body.len();
            // Who hangs up before the answer does not get one.
            let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
        }
    }
    Ok(())
}
