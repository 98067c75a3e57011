//! Every bound of this crate.

/// Size of one piece of a value in redb, in bytes: with its key, its checksum and what redb adds it fills a page. Larger records
/// would take as many pages as the next power of two, in a row.
pub(crate) const PIECE_BYTES: usize = 4032;
/// Free space that a write needs which only deletes, in bytes: for copies of the pages that a group changes.
pub(crate) const DELETE_RESERVE_BYTES: u64 = 1 << 20;
/// How many times as large as what is stored the file may be before space is given back. Pages that are not full take a third.
pub(crate) const WASTE_FACTOR: u64 = 2;
/// Waste that is never given back, in bytes.
pub(crate) const WASTE_BYTES: u64 = 4 << 20;
/// How much larger the file has to be than it would be afterwards, as the last time tells it, in percent.
pub(crate) const WORTH_PERCENT: u64 = 150;
/// Size of what is stored up to which space is given back, in bytes: readers and writers wait meanwhile, for some seconds at
/// this size. Larger files keep what they have, for what is written later.
pub(crate) const RECLAIM_BYTES: u64 = 128 << 20;
/// Size of the parts of the file that are kept in memory after the disk has failed, in bytes.
pub(crate) const PART_BYTES: u64 = 4096;
