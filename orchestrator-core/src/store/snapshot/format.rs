//! The bytes of a snapshot.
//!
//! Eight letters, the version (4 bytes), the revision (8); then pieces: the lengths of key and value (4 each), both, and the
//! checksum (4); at the end a piece whose key has the length [`END`] and whose value is the number of entries. Numbers
//! are little-endian. A checksum (CRC-32) is of everything before it but the checksums: behind a checksum of its own, a CRC has forgotten
//! what came before, and pieces that are moved, lost or repeated would not be seen.

use bytes::Bytes;
use crc32fast::Hasher;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{Key, Revision, SnapshotError, Summary};

/// The version that is written, and the only one that is read.
pub const FORMAT_VERSION: u32 = 1;

const LETTERS: &[u8; 8] = b"ORCSNAP\n";
/// In place of a key's length: there is no more.
const END: u32 = u32::MAX;
/// No store takes keys or values of this length, in bytes.
const PIECE_BYTES_MAX: u32 = 64 << 20;

/// Writes a snapshot.
pub(super) struct Writer<W> {
    into: W,
    checksum: Hasher,
    entries: u64,
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    pub(super) async fn begin(into: W, revision: Revision) -> Result<Self, SnapshotError> {
        let mut writer = Self { into, checksum: Hasher::new(), entries: 0 };
        writer.bytes(LETTERS).await?;
        writer.bytes(&FORMAT_VERSION.to_le_bytes()).await?;
        writer.bytes(&revision.0.to_le_bytes()).await?;
        writer.sign().await?;
        Ok(writer)
    }

    pub(super) async fn entry(&mut self, key: &Key, value: &Bytes) -> Result<(), SnapshotError> {
        let key = key.as_str().as_bytes();
        self.length(key.len()).await?;
        self.length(value.len()).await?;
        self.bytes(key).await?;
        self.bytes(value).await?;
        self.entries += 1;
        self.sign().await
    }

    /// Gives how many entries were written.
    pub(super) async fn end(mut self) -> Result<u64, SnapshotError> {
        self.bytes(&END.to_le_bytes()).await?;
        self.bytes(&self.entries.to_le_bytes()).await?;
        self.sign().await?;
        self.into.flush().await?;
        Ok(self.entries)
    }

    async fn length(&mut self, length: usize) -> Result<(), SnapshotError> {
        let length = u32::try_from(length).ok().filter(|length| *length <= PIECE_BYTES_MAX);
        let length = length.ok_or_else(|| std::io::Error::other("an entry is too large for a snapshot"))?;
        self.bytes(&length.to_le_bytes()).await
    }

    async fn bytes(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        self.checksum.update(bytes);
        Ok(self.into.write_all(bytes).await?)
    }

    async fn sign(&mut self) -> Result<(), SnapshotError> {
        let checksum = self.checksum.clone().finalize();
        Ok(self.into.write_all(&checksum.to_le_bytes()).await?)
    }
}

/// Reads a snapshot.
pub(super) struct Reader<R> {
    from: R,
    checksum: Hasher,
    /// Bytes that were read.
    position: u64,
    /// Where the present piece begins.
    piece: u64,
    revision: Revision,
    entries: u64,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub(super) async fn begin(from: R) -> Result<Self, SnapshotError> {
        let mut reader =
            Self { from, checksum: Hasher::new(), position: 0, piece: 0, revision: Revision(0), entries: 0 };
        match reader.array::<8>().await {
            Ok(letters) if letters == *LETTERS => {}
            Ok(_) | Err(SnapshotError::Truncated) => return Err(SnapshotError::Foreign),
            Err(error) => return Err(error),
        }
        let version = reader.number().await?;
        if version != FORMAT_VERSION {
            return Err(SnapshotError::Version(version));
        }
        reader.revision = Revision(u64::from_le_bytes(reader.array().await?));
        reader.check().await?;
        Ok(reader)
    }

    /// What the snapshot has; of use at its end.
    pub(super) fn summary(&self) -> Summary {
        Summary { revision: self.revision, entries: self.entries }
    }

    /// The next entry; `None` at the end of a snapshot that is whole.
    pub(super) async fn next(&mut self) -> Result<Option<(Key, Bytes)>, SnapshotError> {
        self.piece = self.position;
        let length = self.number().await?;
        if length == END {
            let entries = u64::from_le_bytes(self.array().await?);
            self.check().await?;
            let more = self.from.read(&mut [0]).await? > 0;
            return if more || entries != self.entries { Err(self.damaged()) } else { Ok(None) };
        }
        let value_length = self.number().await?;
        let (key, value) = (self.bytes(length).await?, self.bytes(value_length).await?);
        self.check().await?;
        let key = String::from_utf8(key).map_err(|_| self.damaged())?;
        self.entries += 1;
        Ok(Some((Key::new(key), value.into())))
    }

    fn damaged(&self) -> SnapshotError {
        SnapshotError::Damaged { at: self.piece }
    }

    async fn number(&mut self) -> Result<u32, SnapshotError> {
        Ok(u32::from_le_bytes(self.array().await?))
    }

    async fn array<const LENGTH: usize>(&mut self) -> Result<[u8; LENGTH], SnapshotError> {
        let array = self.raw().await?;
        self.checksum.update(&array);
        Ok(array)
    }

    async fn raw<const LENGTH: usize>(&mut self) -> Result<[u8; LENGTH], SnapshotError> {
        let mut array = [0; LENGTH];
        self.from.read_exact(&mut array).await.map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => SnapshotError::Truncated,
            _ => error.into(),
        })?;
        self.position += LENGTH as u64;
        Ok(array)
    }

    /// Memory is taken as bytes arrive, whatever length was announced.
    async fn bytes(&mut self, length: u32) -> Result<Vec<u8>, SnapshotError> {
        if length > PIECE_BYTES_MAX {
            return Err(self.damaged());
        }
        let mut bytes = Vec::new();
        (&mut self.from).take(u64::from(length)).read_to_end(&mut bytes).await?;
        if bytes.len() < length as usize {
            return Err(SnapshotError::Truncated);
        }
        self.checksum.update(&bytes);
        self.position += u64::from(length);
        Ok(bytes)
    }

    async fn check(&mut self) -> Result<(), SnapshotError> {
        let expected = self.checksum.clone().finalize();
        if u32::from_le_bytes(self.raw().await?) == expected { Ok(()) } else { Err(self.damaged()) }
    }
}
