//! Every bound of this crate.

use std::time::Duration;

/// Size of one piece of a value in sled, in bytes: its leaves hold up to 20 pieces, and what is larger than a fourth of a segment
/// (128 KiB) goes into a file of its own, which sled does not flush.
pub(crate) const PIECE_BYTES: usize = 6 << 10;
/// How often sled's own thread moves what lives out of segments that are mostly empty, in milliseconds.
pub(crate) const RECLAIM_INTERVAL_MILLISECONDS: u64 = 2000;
/// How long sled's own threads may hold on to the files of a database that was closed.
pub(crate) const RELEASE_TIME: Duration = Duration::from_secs(10);
/// Time between looks at it.
pub(crate) const RELEASE_PAUSE: Duration = Duration::from_millis(1);
/// Free space that a write needs which only deletes, in bytes: two of sled's segments.
pub(crate) const DELETE_RESERVE_BYTES: u64 = 1 << 20;
