//! Values that the server draws: addresses of services and ports on nodes.
//!
//! A drawn value is taken by the same commit that writes the object; when another object holds it, a new one is drawn.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use super::{Scope, Server};
use crate::{
    field::{items_mut, member},
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
                    let port = NODE_PORTS.start + self.env.random_below(NODE_PORTS.end - NODE_PORTS.start);
                    if let Some(entry) = items_mut(member(tree, "spec"), "ports").nth(*index) {
                        *member(entry, "nodePort") = port.into();
                    }
                }
            }
        }
        !allocations.is_empty()
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
