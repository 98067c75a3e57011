//! Where programs in pods find the server: the endpoints of the `kubernetes` service, as upstream's API server keeps them.
//!
//! Each server on a store keeps a key that goes away by itself soon after the server; the endpoints are those of all of them.
//! Upstream: `pkg/controlplane/reconcilers/lease.go`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Weak, atomic::Ordering},
};

use bytes::Bytes;
use orchestrator_core::{
    client::{Call, DeleteOptions, Request, Resource},
    env::Env,
    status::ApiResult,
    store::{Batch, Key, KeyRange, ListOptions, Operation},
};
use serde_json::{Value, json};

use crate::{
    bootstrap::apply_as,
    kinds::check,
    limits,
    pipeline::{Server, store_error},
    server::OWN_MANAGER,
};

/// The service, its `Endpoints` and its `EndpointSlice` have one name.
pub(crate) const SERVICE: &str = "kubernetes";

/// What the keys of servers begin with; upstream's. The address follows, and the value is empty.
const SERVERS: &str = "/registry/masterleases/";

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
    /// Writes down where the server is, beside others that live; what one before them left is replaced.
    ///
    /// An address that only this machine reaches, or a name, is no endpoint. Where no server has one, there is none, and the
    /// answer is `false`.
    pub(crate) async fn announce(&self) -> ApiResult<bool> {
        let own = self.reachable_address();
        if let Some(address) = own
            && !self.draining.load(Ordering::Relaxed)
        {
            let put = Operation::Put {
                key: server_key(address),
                value: Bytes::new(),
                time_to_live: Some(limits::SERVER_LIFE),
            };
            self.write(put).await?;
        }
        let servers = self.servers().await?;
        let Some(first) = servers.first() else {
            // The last one to end leaves its endpoints, as upstream does.
            if own.is_none() {
                self.remove_endpoints(whole()).await?;
                self.remove_endpoints(sliced()).await?;
            }
            return Ok(false);
        };
        // A slice is of one family of addresses, and has one list of ports.
        let alike = servers.iter().filter(|server| server.is_ipv4() == first.is_ipv4());
        self.put_endpoints(whole(), endpoints(alike.clone())).await?;
        let slice = slice(*first, alike.filter(|server| server.port() == first.port()));
        match self.put_endpoints(sliced(), slice.clone()).await {
            // The family is for as long as it lives.
            Err(error) if error.code() == 422 => {
                self.remove_endpoints(sliced()).await?;
                self.put_endpoints(sliced(), slice).await?;
            }
            put => put?,
        }
        Ok(true)
    }

    /// Takes the server out of the endpoints, if others are left there.
    pub(crate) async fn withdraw(&self) -> ApiResult<()> {
        if let Some(address) = self.reachable_address() {
            self.write(Operation::Delete { key: server_key(address) }).await?;
            self.announce().await?;
        }
        Ok(())
    }

    /// Where others reach the server, if they do.
    fn reachable_address(&self) -> Option<SocketAddr> {
        let address: SocketAddr = self.known_address()?.parse().ok()?;
        check::is_reachable(&address.ip()).then_some(address)
    }

    /// The servers that live.
    async fn servers(&self) -> ApiResult<BTreeSet<SocketAddr>> {
        let listing = self.store.list(&KeyRange::prefix(SERVERS), ListOptions::default()).await.map_err(store_error)?;
        let address = |key: &Key| key.as_str().strip_prefix(SERVERS)?.parse().ok();
        Ok(listing.entries.iter().filter_map(|entry| address(&entry.key)).collect())
    }

    async fn write(&self, operation: Operation) -> ApiResult<()> {
        let batch = Batch { preconditions: Vec::new(), operations: vec![operation] };
        self.store.commit(batch).await.map(drop).map_err(store_error)
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

fn server_key(address: SocketAddr) -> Key {
    Key::new(format!("{SERVERS}{address}"))
}

fn endpoints<'a>(servers: impl Iterator<Item = &'a SocketAddr>) -> Value {
    let mut by_port: BTreeMap<u16, Vec<Value>> = BTreeMap::new();
    for server in servers {
        by_port.entry(server.port()).or_default().push(json!({"ip": server.ip()}));
    }
    let subset = |(number, addresses)| json!({"addresses": Value::Array(addresses), "ports": [port(number)]});
    json!({
        "apiVersion": "v1", "kind": "Endpoints",
        // The server keeps the slice itself; nobody is to make another one out of this.
        "metadata": {"name": SERVICE, "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": by_port.into_iter().map(subset).collect::<Vec<_>>(),
    })
}

fn slice<'a>(first: SocketAddr, servers: impl Iterator<Item = &'a SocketAddr>) -> Value {
    let endpoint = |server: &SocketAddr| json!({"addresses": [server.ip()], "conditions": {"ready": true}});
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": SERVICE, "labels": {"kubernetes.io/service-name": SERVICE}},
        "addressType": if first.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": servers.map(endpoint).collect::<Vec<_>>(),
        "ports": [port(first.port())],
    })
}

fn port(number: u16) -> Value {
    json!({"name": "https", "port": number, "protocol": "TCP"})
}

/// Says again and again where the server is, for as long as it lives, and hears of others that are no more.
pub(crate) async fn keep(server: Weak<Server>, env: Env) {
    // Others may have been there, and be gone by now.
    let mut announced = true;
    loop {
        env.sleep(limits::ANNOUNCE_AGAIN).await;
        let Some(server) = server.upgrade().filter(|server| !server.closed.is_cancelled()) else { return };
        if !announced && server.reachable_address().is_none() {
            continue;
        }
        match server.announce().await {
            Ok(there_are_servers) => announced = there_are_servers,
            Err(error) => tracing::warn!(%error, "cannot write down where the server is"),
        }
    }
}
