//! Where programs in pods find the server: the endpoints of the `kubernetes` service, as upstream's API server keeps them.

use std::net::SocketAddr;

use orchestrator_core::{
    client::{Call, DeleteOptions, Request, Resource},
    status::ApiResult,
};
use serde_json::{Value, json};

use crate::{bootstrap::apply_as, kinds::check, pipeline::Server, server::OWN_MANAGER};

/// The service, its `Endpoints` and its `EndpointSlice` have one name.
pub(crate) const SERVICE: &str = "kubernetes";

/// What is written: resource, namespace and name.
pub(crate) fn own_objects() -> [(Resource, &'static str, &'static str); 2] {
    [whole(), sliced()].map(|resource| (resource, "default", SERVICE))
}

fn whole() -> Resource {
    Resource::new("", "v1", "endpoints")
}

fn sliced() -> Resource {
    Resource::new("discovery.k8s.io", "v1", "endpointslices")
}

impl Server {
    /// Writes down where the server is; what an earlier server left is replaced.
    ///
    /// An address that only this machine reaches, or a name, is no endpoint: then there is none.
    pub(crate) async fn announce(&self) -> ApiResult<()> {
        let address = self.known_address().and_then(|address| address.parse().ok());
        let address = address.filter(|address: &SocketAddr| check::is_reachable(&address.ip()));
        match address {
            Some(address) => {
                self.put_endpoints(whole(), endpoints(address)).await?;
                match self.put_endpoints(sliced(), slice(address)).await {
                    // A slice is of one family of addresses for as long as it lives.
                    Err(error) if error.code() == 422 => {
                        self.remove_endpoints(sliced()).await?;
                        self.put_endpoints(sliced(), slice(address)).await
                    }
                    put => put,
                }
            }
            None => {
                self.remove_endpoints(whole()).await?;
                self.remove_endpoints(sliced()).await
            }
        }
    }

    async fn put_endpoints(&self, resource: Resource, tree: Value) -> ApiResult<()> {
        self.handle(endpoints_request(resource, apply_as(OWN_MANAGER, tree))).await.map(drop)
    }

    async fn remove_endpoints(&self, resource: Resource) -> ApiResult<()> {
        match self.handle(endpoints_request(resource, Call::Delete(DeleteOptions::default()))).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }
}

fn endpoints_request(resource: Resource, call: Call) -> Request {
    let (namespace, name) = (Some("default".to_owned()), Some(SERVICE.to_owned()));
    Request { user: None, resource, namespace, name, subresource: None, call }
}

fn endpoints(address: SocketAddr) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Endpoints",
        // The server keeps the slice itself; nobody is to make another one out of this.
        "metadata": {"name": SERVICE, "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{"addresses": [{"ip": address.ip()}], "ports": [port(address)]}],
    })
}

fn slice(address: SocketAddr) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": SERVICE, "labels": {"kubernetes.io/service-name": SERVICE}},
        "addressType": if address.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": [{"addresses": [address.ip()], "conditions": {"ready": true}}],
        "ports": [port(address)],
    })
}

fn port(address: SocketAddr) -> Value {
    json!({"name": "https", "port": address.port(), "protocol": "TCP"})
}
