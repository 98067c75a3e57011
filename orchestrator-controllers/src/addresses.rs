//! Ranges of IP addresses, as text such as `10.0.0.0/8` names them.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// All addresses of one family that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Prefix {
    /// Without any other bit.
    bits: u128,
    length: u8,
    /// Of an address of the family, in bits.
    width: u8,
}

/// A text that names no range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid CIDR address: {0}")]
pub(crate) struct InvalidPrefix(String);

fn bits_of(address: IpAddr) -> (u128, u8) {
    match address {
        IpAddr::V4(address) => (address.to_bits().into(), 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    }
}

impl Prefix {
    fn new(bits: u128, length: u8, width: u8) -> Self {
        let free = u32::from(width - length);
        let bits = bits.checked_shr(free).and_then(|bits| bits.checked_shl(free)).unwrap_or(0);
        Self { bits, length, width }
    }

    /// The length in bits.
    pub(crate) fn length(self) -> u8 {
        self.length
    }

    /// Whether its addresses are those of IPv6.
    pub(crate) fn is_ipv6(self) -> bool {
        self.width == 128
    }

    /// Whether an address is in it.
    pub(crate) fn contains_address(self, address: IpAddr) -> bool {
        let (bits, width) = bits_of(address);
        width == self.width && Self::new(bits, self.length, width).bits == self.bits
    }

    /// Whether all addresses of another range are in it.
    pub(crate) fn contains(self, other: Self) -> bool {
        other.width == self.width
            && other.length >= self.length
            && Self::new(other.bits, self.length, self.width).bits == self.bits
    }

    /// How many ranges of a length there are in it; none if it is smaller itself.
    pub(crate) fn parts(self, length: u8) -> u64 {
        match length.checked_sub(self.length) {
            Some(more) if length <= self.width => 1_u64.checked_shl(more.into()).unwrap_or(u64::MAX),
            _ => 0,
        }
    }

    /// One of these ranges.
    pub(crate) fn part(self, length: u8, index: u64) -> Self {
        let step = u32::from(self.width.saturating_sub(length));
        let offset = u128::from(index).checked_shl(step).unwrap_or(0);
        Self::new(self.bits.saturating_add(offset), length, self.width)
    }

    /// Which of these ranges another one takes up, if any.
    pub(crate) fn taken_up(self, length: u8, other: Self) -> std::ops::Range<u64> {
        if other.contains(self) {
            return 0..self.parts(length);
        }
        if !self.contains(other) {
            return 0..0;
        }
        let index = |bits: u128| {
            let offset = (bits - self.bits).checked_shr((self.width.saturating_sub(length)).into()).unwrap_or(0);
            u64::try_from(offset).unwrap_or(u64::MAX)
        };
        let first = index(other.bits);
        first..first.saturating_add(other.parts(length).max(1))
    }
}

impl FromStr for Prefix {
    type Err = InvalidPrefix;

    fn from_str(text: &str) -> Result<Self, InvalidPrefix> {
        let parse = || {
            let (address, length) = text.split_once('/')?;
            let (bits, width) = bits_of(address.parse().ok()?);
            let length = length.parse().ok().filter(|length| *length <= width)?;
            Some(Self::new(bits, length, width))
        };
        parse().ok_or_else(|| InvalidPrefix(text.to_owned()))
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address: IpAddr = match u32::try_from(self.bits) {
            Ok(bits) if !self.is_ipv6() => Ipv4Addr::from_bits(bits).into(),
            _ => Ipv6Addr::from_bits(self.bits).into(),
        };
        write!(f, "{address}/{}", self.length)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    #[test]
    fn ranges_are_read_cut_and_compared() {
        assert_eq!(prefix("10.1.2.3/16").to_string(), "10.1.0.0/16");
        assert_eq!(prefix("fd00::1/64").to_string(), "fd00::/64");
        for text in ["10.0.0.0", "10.0.0.0/33", "fd00::/129", "x/8", "10.0.0/8"] {
            assert!(text.parse::<Prefix>().is_err(), "{text}");
        }
        let wide = prefix("10.0.0.0/8");
        assert!(wide.contains(prefix("10.9.0.0/16")) && wide.contains(wide) && !prefix("10.9.0.0/16").contains(wide));
        assert!(!wide.contains(prefix("fd00::/64")) && !wide.contains(prefix("11.0.0.0/16")));
        assert!(wide.contains_address([10, 255, 0, 1].into()) && !wide.contains_address([11, 0, 0, 1].into()));
        assert!(prefix("0.0.0.0/0").contains(wide) && prefix("::/0").contains(prefix("fd00::/64")));
    }

    #[test]
    fn parts_are_numbered() {
        let wide = prefix("10.0.0.0/16");
        assert_eq!((wide.parts(24), wide.parts(16), wide.parts(8)), (256, 1, 0));
        assert_eq!(wide.part(24, 3).to_string(), "10.0.3.0/24");
        assert_eq!(prefix("fd00::/48").part(64, 258).to_string(), "fd00:0:0:102::/64");
        assert_eq!(wide.taken_up(24, prefix("10.0.4.0/22")), 4..8);
        assert_eq!(wide.taken_up(24, prefix("10.0.4.128/25")), 4..5);
        assert_eq!(wide.taken_up(24, prefix("10.0.0.0/8")), 0..256);
        assert_eq!(wide.taken_up(24, prefix("11.0.0.0/8")), 0..0);
    }

    proptest! {
        #[test]
        fn parts_lie_within_and_apart(bits in any::<u32>(), length in 4..20_u8, more in 1..8_u8, index in any::<u64>()) {
            let whole = Prefix::new(bits.into(), length, 32);
            let index = index % whole.parts(length + more);
            let part = whole.part(length + more, index);
            prop_assert!(whole.contains(part));
            prop_assert_eq!(whole.taken_up(length + more, part), index..index + 1);
            prop_assert_eq!(part.to_string().parse(), Ok(part));
        }
    }
}
