//! All bounds of this crate, with their units.

use std::time::Duration;

use jiff::SignedDuration;

/// Longest manifest, index or configuration of an image, in bytes; registries have the same bound.
pub(crate) const DOCUMENT_BYTES: u64 = 4 * 1024 * 1024;
/// Longest answer of a server of tokens, or of a registry that refuses, in bytes.
pub(crate) const ANSWER_BYTES: usize = 64 * 1024;
/// Nested indices that are followed.
pub(crate) const INDEX_DEPTH: usize = 4;
/// Layers of one image. The kernel stacks no more than 500.
pub(crate) const LAYERS: usize = 400;
/// Shared libraries of one packed image.
pub(crate) const LIBRARIES: usize = 1024;
/// All layers of an image as they are on the disk, in bytes, unless the embedder says otherwise.
pub(crate) const UNPACKED_BYTES: u64 = 64 * 1024 * 1024 * 1024;
/// Files and directories of an image, unless the embedder says otherwise.
pub(crate) const ENTRIES: u64 = 500_000;
/// What stays free on the disk while images are unpacked, in bytes, unless the embedder says otherwise.
pub(crate) const RESERVED_BYTES: u64 = 256 * 1024 * 1024;
/// How much is written between two looks at the free space of the disk, in bytes.
pub(crate) const SPACE_CHECK_BYTES: u64 = 16 * 1024 * 1024;
/// How much of a file is read at once, in bytes.
pub(crate) const BUFFER_BYTES: usize = 64 * 1024;
/// Longest extended header or name of an archive's entry, in bytes.
pub(crate) const HEADER_BYTES: u64 = 1024 * 1024;
/// Directories within each other in an image.
pub(crate) const PATH_DEPTH: usize = 256;
/// Memory that a layer compressed with Zstandard may ask for, in bytes; the format's own recommendation is 8 MiB.
pub(crate) const ZSTD_WINDOW_BYTES: u64 = 128 * 1024 * 1024;
/// Layers of one image that are downloaded at the same time.
pub(crate) const DOWNLOADS: usize = 3;
/// Pieces of a download between the network and the disk.
pub(crate) const DOWNLOAD_PIECES: usize = 16;
/// How often a download is taken up again.
pub(crate) const DOWNLOAD_RESUMPTIONS: usize = 20;
/// How often in a row without getting any further.
pub(crate) const DOWNLOADS_IN_VAIN: usize = 2;
/// Wait before a broken download is taken up again.
pub(crate) const RESUMPTION_PAUSE: Duration = Duration::from_millis(500);
/// How long a registry may take to accept a connection.
pub(crate) const CONNECT_TIME: Duration = Duration::from_secs(10);
/// How long a registry may be silent.
pub(crate) const READ_TIME: Duration = Duration::from_secs(60);
/// Longest file of credentials, in bytes.
pub(crate) const CREDENTIALS_BYTES: u64 = 1024 * 1024;
/// How long a broken download is kept for the next pull of its image.
pub(crate) const DOWNLOAD_AGE: SignedDuration = SignedDuration::from_hours(24);
