//! Which pod and port a proxied request goes to.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use k8s_openapi::api::{
    core::v1::{Node, Pod, Service},
    discovery::v1::{Endpoint, EndpointSlice},
};
use kube_core::params::ListParams;
use orchestrator_core::{
    client::Api,
    node_connector::{NodeConnector, Target},
    runtime::Duplex,
    status::{ApiError, ApiResult},
};

use tokio::net::TcpStream;

use super::{place::Place, tls, unreachable};
use crate::{kinds::check::is_reachable, server::ApiServer};

/// Where kubelets listen that do not say it.
const KUBELET_PORT: u16 = 10250;

/// The other side of a proxied request.
#[derive(Debug)]
pub(super) enum Backend {
    /// Something that speaks HTTP.
    Socket(Socket),
    /// The agent of the node of this name.
    Agent(String),
}

/// Where something listens.
#[derive(Debug)]
pub(super) struct Socket {
    way: Way,
    port: u16,
    is_encrypted: bool,
    /// Its own address and port.
    pub(super) host: String,
}

/// How to get there.
#[derive(Debug)]
enum Way {
    /// Into a pod, by its node.
    Pod(Arc<dyn NodeConnector>, Target),
    /// Over the network.
    Address(IpAddr),
}

impl Socket {
    fn of_pod(server: &ApiServer, pod: &Pod, port: u16, is_encrypted: bool) -> Self {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let address = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref()).unwrap_or_default();
        let target = Target {
            node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default(),
            namespace: text(&pod.metadata.namespace),
            pod: text(&pod.metadata.name),
            pod_uid: text(&pod.metadata.uid),
            container: String::new(),
        };
        let host = if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") };
        Self { way: Way::Pod(server.server().nodes.clone(), target), port, is_encrypted, host }
    }

    /// A new connection.
    pub(super) async fn connect(&self) -> Result<Box<dyn Duplex>, String> {
        let (plain, name) = match &self.way {
            Way::Pod(nodes, target) => {
                let stream = nodes.port_forward(target, self.port).await.map_err(|error| error.to_string())?;
                (stream, target.pod.clone())
            }
            Way::Address(address) => (dial(SocketAddr::new(*address, self.port)).await?, address.to_string()),
        };
        if !self.is_encrypted {
            return Ok(plain);
        }
        let encrypted = tls::connect(plain, &name).await.map_err(|error| error.to_string())?;
        Ok(Box::new(encrypted))
    }
}

/// Connects over the network, where there is one: a simulated world has none.
async fn dial(address: SocketAddr) -> Result<Box<dyn Duplex>, String> {
    if tokio::runtime::Handle::try_current().is_err() {
        return Err(format!("dial tcp {address}: there is no network"));
    }
    let stream = TcpStream::connect(address).await.map_err(|error| format!("dial tcp {address}: {error}"))?;
    Ok(Box::new(stream))
}

/// A node: its agent, or another port of its machine.
pub(super) async fn node(server: &ApiServer, place: &Place) -> ApiResult<Backend> {
    let node = Api::<Node>::all(&server.client()).get(&place.name).await?;
    let status = node.status.clone().unwrap_or_default();
    let endpoint = status.daemon_endpoints.and_then(|endpoints| endpoints.kubelet_endpoint);
    let kubelet = endpoint.and_then(|endpoint| u16::try_from(endpoint.port).ok());
    let kubelet = kubelet.filter(|port| *port != 0).unwrap_or(KUBELET_PORT);
    let port = match place.port.as_str() {
        "" => kubelet,
        given => given.parse().map_err(|_| unreachable(format_args!("unknown port {given:?}")))?,
    };
    if port == kubelet {
        return Ok(Backend::Agent(place.name.clone()));
    }
    let of_type = |of: &str| {
        let addresses = status.addresses.iter().flatten();
        addresses.filter(|address| address.type_ == of).find_map(|address| address.address.parse::<IpAddr>().ok())
    };
    let address = of_type("InternalIP").or_else(|| of_type("ExternalIP")).filter(is_reachable);
    let address = address.ok_or_else(|| ApiError::bad_request("address not allowed"))?;
    let host = SocketAddr::new(address, port).to_string();
    Ok(Backend::Socket(Socket { way: Way::Address(address), port, is_encrypted: place.is_encrypted, host }))
}

/// A pod and the port that is given, or its first one.
pub(super) async fn pod(server: &ApiServer, namespace: &str, place: &Place) -> ApiResult<Backend> {
    let pod = Api::<Pod>::namespaced(&server.client(), namespace).get(&place.name).await?;
    if pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref()).is_none() {
        return Err(ApiError::bad_request("address not allowed"));
    }
    let port = match place.port.as_str() {
        "" => first_port(&pod).unwrap_or(if place.is_encrypted { 443 } else { 80 }),
        given => given.parse().map_err(|_| unreachable(format_args!("unknown port {given:?}")))?,
    };
    Ok(Backend::Socket(Socket::of_pod(server, &pod, port, place.is_encrypted)))
}

fn first_port(pod: &Pod) -> Option<u16> {
    let mut containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    containers.find_map(|container| u16::try_from(container.ports.as_ref()?.first()?.container_port).ok())
}

/// One of the pods of a service that are ready, by chance.
pub(super) async fn service(server: &ApiServer, namespace: &str, place: &Place) -> ApiResult<Backend> {
    let client = server.client();
    let service = Api::<Service>::namespaced(&client, namespace).get(&place.name).await?;
    let port = port_name(&service, place)?;
    let selected = ListParams::default().labels(&format!("kubernetes.io/service-name={}", place.name));
    let slices = Api::<EndpointSlice>::namespaced(&client, namespace).list(&selected).await?;
    let none = |who: &str| ApiError::unavailable(format!("no endpoints available for service {who:?}"));
    if slices.items.iter().flat_map(|slice| &slice.endpoints).all(Vec::is_empty) {
        return Err(none(&place.name));
    }
    let mut candidates: Vec<_> = slices.items.iter().flat_map(|slice| ready_pods(slice, namespace, &port)).collect();
    while !candidates.is_empty() {
        let drawn = server.server().env.random_below(candidates.len() as u64) as usize;
        let (name, address, port) = candidates.swap_remove(drawn.min(candidates.len() - 1));
        let pod = Api::<Pod>::namespaced(&client, namespace).get_opt(name).await?;
        if let Some(pod) = pod.filter(|pod| has_address(pod, address)) {
            return Ok(Backend::Socket(Socket::of_pod(server, &pod, port, place.is_encrypted)));
        }
    }
    Err(none(&place.id))
}

/// The name of the port that is meant: ports are given by name or by number.
fn port_name(service: &Service, place: &Place) -> ApiResult<String> {
    let Ok(number) = place.port.parse::<i64>() else { return Ok(place.port.clone()) };
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let found = ports.into_iter().find(|port| i64::from(port.port) == number);
    found
        .map(|port| port.name.clone().unwrap_or_default())
        .ok_or_else(|| ApiError::unavailable(format!("no service port {number} found for service {:?}", place.name)))
}

/// Whether an address is one of a pod's: an endpoint that says so may have been written by anybody.
fn has_address(pod: &Pod, address: &str) -> bool {
    let addresses = pod.status.iter().flat_map(|status| status.pod_ips.iter().flatten());
    pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some()) && addresses.into_iter().any(|own| own.ip == address)
}

/// The pods of a slice that are ready, each with an address and the port of this name.
fn ready_pods<'a>(slice: &'a EndpointSlice, namespace: &str, port: &str) -> Vec<(&'a str, &'a str, u16)> {
    let mut ports = slice.ports.iter().flatten();
    let found = ports.find(|given| given.name.as_deref().unwrap_or_default() == port).and_then(|given| given.port);
    let Some(port) = found.and_then(|port| u16::try_from(port).ok()) else { return Vec::new() };
    slice
        .endpoints
        .iter()
        .flatten()
        .flat_map(|endpoint| {
            let pod = ready_pod(endpoint, namespace);
            pod.into_iter()
                .flat_map(move |pod| endpoint.addresses.iter().map(move |address| (pod, address.as_str(), port)))
        })
        .collect()
}

/// Who does not say whether it is ready is.
fn ready_pod<'a>(endpoint: &'a Endpoint, namespace: &str) -> Option<&'a str> {
    let is_ready = endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true);
    let pod = endpoint.target_ref.as_ref().filter(|target| target.kind.as_deref() == Some("Pod"))?;
    let is_here = pod.namespace.as_deref() == Some(namespace);
    pod.name.as_deref().filter(|_| is_ready && is_here)
}
