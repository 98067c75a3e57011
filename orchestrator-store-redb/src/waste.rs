//! Whether it is worth its while to give space back, pure.

use crate::limits::{RECLAIM_BYTES, WASTE_BYTES, WASTE_FACTOR, WORTH_PERCENT};

/// What was left when space was given back the last time: pages that are not full stay so.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Left {
    /// Size of what was stored, in bytes.
    pub(crate) stored_bytes: u64,
    /// Size of the file, in bytes.
    pub(crate) size_bytes: u64,
}

impl Left {
    /// Whether a file of this size is large for what is stored, and can be expected to become smaller.
    pub(crate) fn is_wasteful(self, size_bytes: u64, stored_bytes: u64) -> bool {
        let much = stored_bytes.saturating_mul(WASTE_FACTOR).saturating_add(WASTE_BYTES);
        let share = |bytes: u64| u128::from(bytes) + u128::from(WASTE_BYTES);
        let expected = share(stored_bytes) * u128::from(self.size_bytes) / share(self.stored_bytes);
        stored_bytes <= RECLAIM_BYTES
            && size_bytes > much
            && u128::from(size_bytes) > expected * u128::from(WORTH_PERCENT) / 100
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEGABYTE: u64 = 1 << 20;

    #[test]
    fn space_is_given_back_where_there_is_some() {
        let never = Left::default();
        assert!(!never.is_wasteful(3 * MEGABYTE, 0), "little is not worth it");
        assert!(!never.is_wasteful(60 * MEGABYTE, 40 * MEGABYTE) && never.is_wasteful(90 * MEGABYTE, 40 * MEGABYTE));
        assert!(!never.is_wasteful(u64::MAX, RECLAIM_BYTES + 1), "it would take too long");
        // Full of small records it was not much smaller afterwards.
        let left = Left { stored_bytes: 40 * MEGABYTE, size_bytes: 80 * MEGABYTE };
        assert!(!left.is_wasteful(90 * MEGABYTE, 40 * MEGABYTE) && left.is_wasteful(130 * MEGABYTE, 40 * MEGABYTE));
        assert!(left.is_wasteful(80 * MEGABYTE, 10 * MEGABYTE), "most of it was removed");
        assert!(!left.is_wasteful(u64::MAX, u64::MAX));
    }
}
