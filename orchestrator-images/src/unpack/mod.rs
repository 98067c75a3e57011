//! Turns a layer, an archive made by a stranger, into a directory that can be stacked.
//!
//! ```text
//! file ─▶ decompress ─▶ digest, bound ─▶ archive (entries) ─▶ tree (files below one directory)
//! ```

mod archive;
mod decompress;
mod tree;

use std::{
    fs::File,
    io::{self, BufReader, Read, Take},
    path::Path,
};

use sha2::{Digest, Sha256};

use crate::{
    ImageError,
    parts::{Layer, hexadecimal},
};
use archive::Archive;
use tree::Tree;

/// What a layer may take; what is left of it is there for the next one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowance {
    /// Unpacked content with its headers, in bytes.
    pub(crate) bytes: u64,
    /// Files and directories.
    pub(crate) entries: u64,
    /// What has to stay free on the disk, in bytes.
    pub(crate) reserved_bytes: u64,
}

/// What a layer took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unpacked {
    /// Content of files, in bytes.
    pub(crate) content_bytes: u64,
    /// The archive, in bytes.
    pub(crate) archive_bytes: u64,
    /// Files and directories.
    pub(crate) entries: u64,
}

/// Unpacks a layer into an empty directory. The digest is that of the archive without compression, in hexadecimal.
///
/// On an error the directory holds a part of it and is to be removed.
pub(crate) fn unpack(
    layer: &mut Layer,
    diff_id: &str,
    into: &Path,
    allowance: Allowance,
) -> Result<Unpacked, ImageError> {
    let content = decompress::reader(layer.reader().map_err(|error| ImageError::io(into, error))?)?;
    let mut counted = Counted { content, digest: Sha256::new(), bytes: 0, limit_bytes: allowance.bytes };
    let mut tree = Tree::open(into, allowance)?;
    let mut archive = Archive::new(&mut counted);
    while let Some(entry) = archive.next_entry()? {
        tree.add(&entry, &mut archive)?;
    }
    let (content_bytes, entries) = tree.finish()?;
    // What follows the end of the archive belongs to the digest.
    io::copy(&mut counted, &mut io::sink()).map_err(broken)?;
    let actual = hexadecimal(&counted.digest.finalize());
    if actual != diff_id {
        return Err(ImageError::Invalid(format!("the layer sha256:{diff_id} unpacks to sha256:{actual}")));
    }
    Ok(Unpacked { content_bytes, archive_bytes: counted.bytes, entries })
}

/// A part of a file, as one reads it.
type Stored = BufReader<Take<File>>;

/// Counts and digests what is read, and ends what is too long.
struct Counted<R> {
    content: R,
    digest: Sha256,
    bytes: u64,
    limit_bytes: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.content.read(buffer)?;
        self.bytes += count as u64;
        if self.bytes > self.limit_bytes {
            return Err(io::Error::other(TooLong(self.limit_bytes)));
        }
        self.digest.update(&buffer[..count]);
        Ok(count)
    }
}

/// How [`Counted`] says that its bound is passed.
#[derive(Debug, thiserror::Error)]
#[error("the layer unpacks to more than {0} bytes")]
struct TooLong(u64);

/// An error of reading a layer.
fn broken(error: io::Error) -> ImageError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<TooLong>()) {
        Some(TooLong(limit_bytes)) => ImageError::too_long("the image unpacked", *limit_bytes),
        None => ImageError::Invalid(format!("the layer is broken: {error}")),
    }
}
