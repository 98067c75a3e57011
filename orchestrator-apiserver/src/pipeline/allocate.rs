//! Values that the server draws: addresses of services and ports on nodes.
//!
//! A drawn value is taken by the same commit that writes the object; when another object holds it, a new one is drawn.
//! Upstream: `pkg/registry/core/service/storage/alloc.go` and `pkg/registry/core/service/ipallocator`.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
};

use orchestrator_core::{
    client::Resource,
    status::{ApiError, ApiResult, FieldError, FieldErrorKind},
    store::{KeyRange, ListOptions},
};
use serde_json::{Value, json};

use super::{Scope, Server, pool::Pool, store_error};
use crate::{
    field::{Field, items_mut, member},
    kinds::{check, reserved},
    limits,
    strategy::Allocation,
};

const FULL: &str = "range is full";

/// How values are drawn.
#[derive(Clone, Copy)]
pub(super) struct Draw {
    /// Whether only of those that nobody has. Most often one at random is free, and the commit tells when it is not.
    looks: bool,
    /// Whether nothing will be stored. Any address of a range will do then.
    dry_run: bool,
}

impl Draw {
    /// At an attempt, of which the first is 0, to write an object.
    pub(super) fn at(attempt: usize, dry_run: bool) -> Self {
        Self { looks: attempt >= limits::BLIND_ATTEMPTS, dry_run }
    }
}

impl Server {
    /// Fills in what the server draws, and refuses addresses that are of no range. Tells whether anything was drawn.
    pub(super) async fn allocate(
        &self,
        scope: &Scope,
        tree: &mut Value,
        old: Option<&Value>,
        draw: Draw,
    ) -> ApiResult<bool> {
        if !scope.kind.strategy.allocates() {
            return Ok(false);
        }
        if old.is_none_or(|old| old["spec"]["type"] == "ExternalName") {
            self.refuse_foreign_address(scope, tree).await?;
        }
        let allocations = scope.kind.strategy.allocations(tree, old.is_none());
        for allocation in &allocations {
            match allocation {
                Allocation::ClusterIp => {
                    let address = self.draw_address(draw).await?.to_string();
                    let spec = member(tree, "spec");
                    *member(spec, "clusterIP") = address.clone().into();
                    *member(spec, "clusterIPs") = json!([address]);
                }
                Allocation::NodePort { indexes } => {
                    let port = self.draw_port(tree, draw, "failed to allocate a nodePort").await?;
                    let ports = items_mut(member(tree, "spec"), "ports").enumerate();
                    for (_, entry) in ports.filter(|(index, _)| indexes.contains(index)) {
                        *member(entry, "nodePort") = port.into();
                    }
                }
                Allocation::HealthCheckPort => {
                    let port = self.draw_port(tree, draw, "failed to allocate a HealthCheck NodePort 0").await?;
                    *member(member(tree, "spec"), "healthCheckNodePort") = port.into();
                }
            }
        }
        Ok(!allocations.is_empty())
    }

    /// Refuses an address that is not of a range that addresses are drawn from.
    async fn refuse_foreign_address(&self, scope: &Scope, tree: &Value) -> ApiResult<()> {
        let service = Field::root(tree);
        let addresses = service.at("spec.clusterIPs");
        let items = addresses.items();
        let given: Vec<&str> = items.iter().map(Field::text).filter(|text| check::parse_ip(text).is_some()).collect();
        if given.is_empty() || service.at("spec.type").text() == "ExternalName" {
            return Ok(());
        }
        let pools = self.address_pools().await?;
        let foreign = given.into_iter().find(|text| match check::parse_ip(text) {
            Some(IpAddr::V4(address)) => !pools.iter().any(|pool| pool.contains(u32::from(address).into())),
            // The rules of services tell which families are served.
            _ => false,
        });
        let Some(foreign) = foreign else { return Ok(()) };
        let why = "the provided network does not match the current range";
        let error = FieldError {
            field: addresses.path(),
            kind: FieldErrorKind::Invalid,
            detail: format!("{}: failed to allocate IP {foreign}: {why}", addresses.shown()),
        };
        Err(ApiError::invalid(scope.kind.kind_subject(super::create::name_of(tree)), &[error]))
    }

    async fn draw_port(&self, tree: &Value, draw: Draw, what: &str) -> ApiResult<u64> {
        let spec = &tree["spec"];
        let ports = spec["ports"].as_array().into_iter().flatten().map(|port| &port["nodePort"]);
        let mut taken: BTreeSet<u64> = ports.chain([&spec["healthCheckNodePort"]]).filter_map(Value::as_u64).collect();
        if draw.looks {
            taken.extend(self.reserved(reserved::NODE_PORTS, |text| text.parse().ok()).await?);
        }
        let drawn = Pool::node_ports().free(|bound| self.env.random_below(bound), &taken);
        drawn.ok_or_else(|| ApiError::internal(format!("{what}: {FULL}")))
    }

    /// An address of one of the ranges, which are taken in turn from a random one on.
    async fn draw_address(&self, draw: Draw) -> ApiResult<Ipv4Addr> {
        let failed = |why: &str| ApiError::internal(format!("failed to allocate a serviceIP: {why}"));
        let pools = self.address_pools().await?;
        if draw.dry_run {
            let pool = pools.first().ok_or_else(|| failed("allocator not ready"))?;
            return Ok(address(pool.network()));
        }
        let mut taken = BTreeSet::new();
        if draw.looks {
            let number = |text: &str| text.parse().ok().map(|address: Ipv4Addr| u64::from(u32::from(address)));
            for prefix in [reserved::ADDRESSES, reserved::ADDRESS_OBJECTS] {
                taken.extend(self.reserved(prefix, number).await?);
            }
        }
        let (before, after) = pools.split_at(self.env.random_below(pools.len() as u64) as usize);
        let mut in_turn = after.iter().chain(before);
        let drawn = in_turn.find_map(|pool| pool.free(|bound| self.env.random_below(bound), &taken));
        drawn.map(address).ok_or_else(|| failed(FULL))
    }

    /// The addresses of each range that is ready and not about to go. One family is served: IPv4.
    async fn address_pools(&self) -> ApiResult<Vec<Pool>> {
        let resource = Resource::new("networking.k8s.io", "v1", "servicecidrs");
        let kind = self.registry.find(&resource).ok_or_else(ApiError::no_such_path)?;
        let listing = self.store.list(&kind.range(None), ListOptions::default()).await.map_err(store_error)?;
        let mut pools = BTreeSet::new();
        for entry in &listing.entries {
            let object = self.objects.of(entry);
            pools.extend(pools_of(object.tree()?));
        }
        Ok(pools.into_iter().collect())
    }

    /// What is held at keys of a prefix.
    async fn reserved(&self, prefix: &str, read: impl Fn(&str) -> Option<u64>) -> ApiResult<Vec<u64>> {
        let range = KeyRange::prefix(format!("{prefix}/"));
        let listing = self.store.list(&range, ListOptions::default()).await.map_err(store_error)?;
        let names = listing.entries.iter().filter_map(|entry| entry.key.as_str().strip_prefix(range.as_prefix()));
        Ok(names.filter_map(read).collect())
    }
}

fn address(number: u64) -> Ipv4Addr {
    Ipv4Addr::from(number as u32)
}

/// The pools of a range, none while addresses must not be drawn from it. One of which nothing is said is ready.
fn pools_of(range: &Value) -> Vec<Pool> {
    let conditions = range["status"]["conditions"].as_array().into_iter().flatten();
    let ready = conditions.into_iter().find(|condition| condition["type"] == "Ready");
    if ready.is_some_and(|ready| ready["status"] != "True") || range["metadata"].get("deletionTimestamp").is_some() {
        return Vec::new();
    }
    let networks = range["spec"]["cidrs"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let pools = networks.filter_map(|network| match check::parse_cidr(network)? {
        (IpAddr::V4(address), bits) => Some(Pool::of_network(address.into(), bits)),
        _ => None,
    });
    pools.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_give_addresses_while_they_are_ready_and_stay() {
        let range = |networks: &[&str], ready: &str, metadata: Value| {
            json!({"metadata": metadata, "spec": {"cidrs": networks}, "status": {
                "conditions": [{"type": "Other", "status": "False"}, {"type": "Ready", "status": ready}],
            }})
        };
        let networks = ["10.0.0.0/24", "fd00::/112"];
        let pools = [Pool::of_network(0x0a00_0000, 24)];
        assert_eq!(pools_of(&range(&networks, "True", json!({}))), pools);
        assert_eq!(pools_of(&json!({"spec": {"cidrs": networks}, "status": {}})), pools, "nothing said");
        assert_eq!(pools_of(&range(&networks, "False", json!({}))), []);
        assert_eq!(pools_of(&range(&networks, "Unknown", json!({}))), []);
        let going = json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
        assert_eq!(pools_of(&range(&networks, "True", going)), []);
    }
}
