//! A range of addresses that services get theirs from.

use std::{fmt, net::Ipv4Addr, str::FromStr};

/// A range of IPv4 addresses.
///
/// ```
/// use orchestrator_apiserver::AddressRange;
///
/// let range: AddressRange = "10.96.0.0/12".parse()?;
/// assert_eq!(range.prefix_bits, 12);
/// assert_eq!(range.to_string(), "10.96.0.0/12");
/// assert!("10.96.0.1/12".parse::<AddressRange>().is_err());
/// # Ok::<(), orchestrator_apiserver::AddressRangeError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRange {
    /// The first address.
    pub base: Ipv4Addr,
    /// How many leading bits all its addresses share.
    pub prefix_bits: u8,
}

/// A text names no range that services can get addresses from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressRangeError {
    /// It is not `ADDRESS/BITS` with an IPv4 address.
    #[error("an address range is written as ADDRESS/BITS, such as 10.96.0.0/12")]
    Syntax,
    /// Fewer than four addresses, or more than upstream lets a service range have.
    #[error("an address range has between 12 and 30 leading bits in common")]
    Size,
    /// The address lies inside the range, not at its beginning.
    #[error("{0} is not the first address of the range")]
    Base(Ipv4Addr),
}

/// At most 2^20 addresses, as upstream's `--service-cluster-ip-range`; at least one for the API server and one to draw.
const PREFIX_BITS: std::ops::RangeInclusive<u8> = 12..=30;

impl FromStr for AddressRange {
    type Err = AddressRangeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (base, bits) = text.split_once('/').ok_or(AddressRangeError::Syntax)?;
        let base: Ipv4Addr = base.parse().map_err(|_| AddressRangeError::Syntax)?;
        let prefix_bits: u8 = bits.parse().map_err(|_| AddressRangeError::Syntax)?;
        if !PREFIX_BITS.contains(&prefix_bits) {
            return Err(AddressRangeError::Size);
        }
        if u32::from(base) << prefix_bits != 0 {
            return Err(AddressRangeError::Base(base));
        }
        Ok(Self { base, prefix_bits })
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix_bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read() {
        let cases = [
            ("10.0.0.0/16", Ok((Ipv4Addr::new(10, 0, 0, 0), 16))),
            ("192.168.7.4/30", Ok((Ipv4Addr::new(192, 168, 7, 4), 30))),
            ("10.0.0.0", Err(AddressRangeError::Syntax)),
            ("fd00::/108", Err(AddressRangeError::Syntax)),
            ("10.0.0.0/-1", Err(AddressRangeError::Syntax)),
            ("10.0.0.0/33", Err(AddressRangeError::Size)),
            ("10.0.0.0/8", Err(AddressRangeError::Size)),
            ("10.0.0.1/16", Err(AddressRangeError::Base(Ipv4Addr::new(10, 0, 0, 1)))),
        ];
        for (text, expected) in cases {
            let expected = expected.map(|(base, prefix_bits)| AddressRange { base, prefix_bits });
            assert_eq!(text.parse(), expected, "{text}");
        }
    }
}
