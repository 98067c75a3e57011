//! The API server alone, without controllers, scheduler or nodes: what a test of API behaviour needs.
//!
//! Without arguments it makes an object through HTTPS-ready parts in process and ends. With `--serve` it prints
//! `server: URL`, `token: TOKEN` and `kubeconfig: PATH`, and stays until it is told to stop.
#![expect(clippy::print_stdout, reason = "a program for people to look at")]

use std::net::{Ipv4Addr, SocketAddr};

use orchestrator::{
    Cluster,
    apiserver::{AddressRange, Config},
    client::UserInfo,
};

const TOKEN: &str = "example-token";

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = Config {
        service_range: AddressRange { base: Ipv4Addr::new(10, 0, 0, 0), prefix_bits: 16 },
        ..Config::default()
    };
    let path = std::env::temp_dir().join(format!("orchestrator-{}.kubeconfig", std::process::id()));
    let cluster = Cluster::builder()
        .api_config(config)
        .control_plane(false)
        .token(TOKEN, UserInfo::new("admin", &["system:masters"]))
        .listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
        .kubeconfig(&path)
        .start()
        .await?;
    if let Some(address) = cluster.address() {
        println!("server: https://{address}\ntoken: {TOKEN}\nkubeconfig: {}", path.display());
    }
    if std::env::args().any(|argument| argument == "--serve") {
        stop_signal().await?;
    } else {
        let text = "{apiVersion: v1, kind: ConfigMap, metadata: {name: hello}, data: {greeting: hello}}";
        println!("{:?}", cluster.apply(text).await?);
    }
    cluster.shutdown().await;
    Ok(())
}

/// Waits for Ctrl-C or SIGTERM.
async fn stop_signal() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    futures::future::select(Box::pin(interrupt.recv()), Box::pin(terminate.recv())).await;
    Ok(())
}
