//! Values that the server draws: addresses of services and ports on nodes.
//!
//! A drawn value is taken by the same commit that writes the object; when another object holds it, a new one is drawn.

use std::net::{IpAddr, Ipv4Addr};

use orchestrator_core::status::{ApiError, ApiResult, FieldError, FieldErrorKind};
use serde_json::{Value, json};

use super::{Scope, Server};
use crate::{
    field::{Field, items_mut, member},
    kinds::check,
    strategy::Allocation,
};

/// Ports on nodes; upstream's default range.
const NODE_PORTS: std::ops::Range<u64> = 30_000..32_768;

/// Addresses at the beginning of the range that are kept for fixed use.
const RESERVED_ADDRESSES: u64 = 16;

impl Server {
    /// Fills in what the server draws. Tells whether anything was drawn.
    pub(super) fn allocate(&self, scope: &Scope, tree: &mut Value) -> bool {
        let allocations = scope.kind.strategy.allocations(tree);
        for allocation in &allocations {
            match allocation {
                Allocation::ClusterIp => {
                    let address = self.draw_address().to_string();
                    let spec = member(tree, "spec");
                    *member(spec, "clusterIP") = address.clone().into();
                    *member(spec, "clusterIPs") = json!([address]);
                }
                Allocation::NodePort { index } => {
                    let port = self.draw_port();
                    if let Some(entry) = items_mut(member(tree, "spec"), "ports").nth(*index) {
                        *member(entry, "nodePort") = port.into();
                    }
                }
                Allocation::HealthCheckPort => {
                    *member(member(tree, "spec"), "healthCheckNodePort") = self.draw_port().into();
                }
            }
        }
        !allocations.is_empty()
    }

    /// Refuses the address of a service that is not of the range that addresses are drawn from.
    pub(super) fn refuse_foreign_address(&self, scope: &Scope, tree: &Value) -> ApiResult<()> {
        if !scope.kind.is("", "services") {
            return Ok(());
        }
        let spec = Field::root(tree);
        let (addresses, range) = (spec.at("spec.clusterIPs"), self.config.service_range);
        let network = (range.base.into(), range.prefix_bits);
        for address in addresses.items() {
            let parsed: Option<IpAddr> = address.text().parse().ok();
            if parsed.is_some_and(|parsed| !check::contains(network, parsed)) {
                let why = "the provided network does not match the current range";
                let error = FieldError {
                    field: addresses.path().to_owned(),
                    kind: FieldErrorKind::Invalid,
                    detail: format!("{}: failed to allocate IP {}: {why}", addresses.shown(), address.text()),
                };
                let name = super::create::name_of(tree);
                return Err(ApiError::invalid(scope.kind.kind_subject(name), &[error]));
            }
        }
        Ok(())
    }

    fn draw_port(&self) -> u64 {
        NODE_PORTS.start + self.env.random_below(NODE_PORTS.end - NODE_PORTS.start)
    }

    fn draw_address(&self) -> Ipv4Addr {
        let range = self.config.service_range;
        let hosts = 1_u64 << (32 - u32::from(range.prefix_bits.min(30)));
        let reserved = RESERVED_ADDRESSES.min(hosts / 2);
        // Without the first addresses and without the broadcast address.
        let offset = reserved + self.env.random_below(hosts - reserved - 1);
        Ipv4Addr::from(u32::from(range.base).wrapping_add(offset as u32))
    }
}
