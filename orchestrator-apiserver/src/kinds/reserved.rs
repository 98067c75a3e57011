//! Where the store keeps what services hold for themselves.

/// Addresses of services.
pub(crate) const ADDRESSES: &str = "/reservations/clusterip";
/// The objects of addresses, which others hold too.
pub(crate) const ADDRESS_OBJECTS: &str = "/registry/ipaddresses";
/// Ports of nodes.
pub(crate) const NODE_PORTS: &str = "/reservations/nodeport";
