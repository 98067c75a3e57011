//! IPv4 networks in the notation `10.244.0.0/16`.

use std::{fmt, net::Ipv4Addr, str::FromStr};

/// An IPv4 network: an address and the length of its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ipv4Network {
    address: u32,
    prefix: u8,
}

/// The text is not an IPv4 network that can hold pods.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an IPv4 network such as 10.244.0.0/16, with a prefix from 8 to 30")]
pub struct InvalidNetwork(String);

impl Ipv4Network {
    /// Length of the prefix, in bits.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether the whole of the other network lies in this one.
    pub fn contains(&self, other: &Self) -> bool {
        other.prefix >= self.prefix && other.address & self.mask() == self.address
    }

    /// The first address that a machine can have; the bridge takes it in the cluster's network.
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from(self.address + 1)
    }

    /// How many addresses the network has, all counted.
    pub(crate) fn size(&self) -> u32 {
        1 << (32 - self.prefix)
    }

    /// The address with this number in the network.
    pub(crate) fn nth(&self, number: u32) -> Ipv4Addr {
        Ipv4Addr::from(self.address + number % self.size())
    }

    /// Whether the address is one that only the network itself or all of its machines have.
    pub(crate) fn is_reserved(&self, address: Ipv4Addr) -> bool {
        let number = u32::from(address);
        number == self.address || number == self.address + (self.size() - 1)
    }

    fn mask(&self) -> u32 {
        !(self.size() - 1)
    }
}

impl FromStr for Ipv4Network {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        let invalid = || InvalidNetwork(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(invalid)?;
        let address: Ipv4Addr = address.parse().map_err(|_| invalid())?;
        let prefix: u8 = prefix.parse().map_err(|_| invalid())?;
        if !(8..=30).contains(&prefix) {
            return Err(invalid());
        }
        let network = Self { address: u32::from(address), prefix };
        if network.address & network.mask() != network.address {
            return Err(invalid());
        }
        Ok(network)
    }
}

impl fmt::Display for Ipv4Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.address), self.prefix)
    }
}

impl TryFrom<String> for Ipv4Network {
    type Error = InvalidNetwork;

    fn try_from(text: String) -> Result<Self, InvalidNetwork> {
        text.parse()
    }
}

impl From<Ipv4Network> for String {
    fn from(network: Ipv4Network) -> Self {
        network.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_and_counts() {
        let cluster: Ipv4Network = "10.244.0.0/16".parse().unwrap();
        let node: Ipv4Network = "10.244.3.0/24".parse().unwrap();
        assert_eq!(cluster.gateway(), Ipv4Addr::new(10, 244, 0, 1));
        assert!(cluster.contains(&node) && !node.contains(&cluster));
        assert_eq!(node.nth(256 + 7), Ipv4Addr::new(10, 244, 3, 7));
        assert!(node.is_reserved(Ipv4Addr::new(10, 244, 3, 255)));
        for wrong in ["10.244.0.1/16", "10.244.0.0", "10.244.0.0/31", "x/16", "10.244.0.0/99", "::/64"] {
            assert!(wrong.parse::<Ipv4Network>().is_err(), "{wrong}");
        }
    }
}
