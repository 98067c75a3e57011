//! Which pod and port a proxied request goes to.

use std::sync::Arc;

use k8s_openapi::api::{
    core::v1::{Pod, Service},
    discovery::v1::{Endpoint, EndpointSlice},
};
use kube_core::params::ListParams;
use orchestrator_core::{
    client::Api,
    node_connector::{NodeConnector, Target},
    runtime::Duplex,
    status::{ApiError, ApiResult},
};

use super::{place::Place, tls, unreachable};
use crate::server::ApiServer;

/// The other side of a proxied request.
#[derive(Debug)]
pub(super) struct Backend {
    nodes: Arc<dyn NodeConnector>,
    target: Target,
    port: u16,
    is_encrypted: bool,
    /// Its own address and port.
    pub(super) host: String,
}

impl Backend {
    fn new(server: &ApiServer, pod: &Pod, port: u16, is_encrypted: bool) -> Self {
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
        Self { nodes: server.server().nodes.clone(), target, port, is_encrypted, host }
    }

    /// A new connection.
    pub(super) async fn connect(&self) -> Result<Box<dyn Duplex>, String> {
        let plain = self.nodes.port_forward(&self.target, self.port).await.map_err(|error| error.to_string())?;
        if !self.is_encrypted {
            return Ok(plain);
        }
        let encrypted = tls::connect(plain, &self.target.pod).await.map_err(|error| error.to_string())?;
        Ok(Box::new(encrypted))
    }
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
    Ok(Backend::new(server, &pod, port, place.is_encrypted))
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
    let mut candidates: Vec<(&str, u16)> = slices.items.iter().flat_map(|slice| ready_pods(slice, &port)).collect();
    while !candidates.is_empty() {
        let drawn = server.server().env.random_below(candidates.len() as u64) as usize;
        let (name, port) = candidates.swap_remove(drawn.min(candidates.len() - 1));
        let pod = Api::<Pod>::namespaced(&client, namespace).get_opt(name).await?;
        if let Some(pod) = pod.filter(|pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some())) {
            return Ok(Backend::new(server, &pod, port, place.is_encrypted));
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

/// The pods of a slice that are ready, with the port of this name.
fn ready_pods<'a>(slice: &'a EndpointSlice, port: &str) -> Vec<(&'a str, u16)> {
    let mut ports = slice.ports.iter().flatten();
    let found = ports.find(|given| given.name.as_deref().unwrap_or_default() == port).and_then(|given| given.port);
    let Some(port) = found.and_then(|port| u16::try_from(port).ok()) else { return Vec::new() };
    slice.endpoints.iter().flatten().filter_map(|endpoint| Some((ready_pod(endpoint)?, port))).collect()
}

/// Who does not say whether it is ready is.
fn ready_pod(endpoint: &Endpoint) -> Option<&str> {
    let is_ready = endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true);
    let pod = endpoint.target_ref.as_ref().filter(|target| target.kind.as_deref() == Some("Pod"))?;
    pod.name.as_deref().filter(|_| is_ready)
}
