//! Every bound of this crate.

/// Size of an answer, in bytes. A list that is longer has to be read in pages.
pub(crate) const REPLY_BYTES: usize = 256 << 20;

/// Size of an answer that says why not, in bytes.
pub(crate) const ERROR_BYTES: usize = 1 << 20;

/// Size of one event of a watch, in bytes: more than twice what an upstream server takes as an object.
pub(crate) const EVENT_BYTES: usize = 8 << 20;
