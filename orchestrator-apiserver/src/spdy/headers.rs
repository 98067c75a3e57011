//! Headers of a stream, and their compression, which goes on from block to block.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::{dictionary::dictionary, frame::FrameError};
use crate::limits;

/// Names and values, in order. Names are in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(pub Vec<(String, String)>);

impl Headers {
    /// The value of a header, whose name is in lower case; the empty text when it is not there.
    pub fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    /// Reads a block. A name that is empty, repeated or not in lower case spoils the stream, not the connection.
    fn read(block: &[u8]) -> Result<Option<Self>, FrameError> {
        let mut rest = block;
        let count = take_length(&mut rest)?;
        // Each takes eight bytes at least: a count that is a lie ends soon.
        let mut headers = Vec::new();
        let mut sound = true;
        for _ in 0..count {
            let name = take_text(&mut rest)?;
            let value = take_text(&mut rest)?;
            let repeated = headers.len() >= limits::SPDY_HEADERS || headers.iter().any(|(other, _)| *other == name);
            sound &= !name.is_empty() && !repeated && !name.bytes().any(|byte| byte.is_ascii_uppercase());
            if sound {
                headers.push((name, value));
            }
        }
        if rest.is_empty() { Ok(sound.then_some(Self(headers))) } else { Err(FrameError::Headers) }
    }

    /// A block, before it is compressed.
    pub(super) fn write(&self) -> Vec<u8> {
        let mut block = Vec::new();
        put_length(&mut block, self.0.len());
        for text in self.0.iter().flat_map(|(name, value)| [name, value]) {
            put_length(&mut block, text.len());
            block.extend_from_slice(text.as_bytes());
        }
        block
    }
}

fn put_length(block: &mut Vec<u8>, length: usize) {
    block.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
}

fn take_length(rest: &mut &[u8]) -> Result<usize, FrameError> {
    let (length, after) = rest.split_first_chunk().ok_or(FrameError::Headers)?;
    *rest = after;
    usize::try_from(u32::from_be_bytes(*length)).map_err(|_| FrameError::Headers)
}

fn take_text(rest: &mut &[u8]) -> Result<String, FrameError> {
    let length = take_length(rest)?;
    let (text, after) = rest.split_at_checked(length).ok_or(FrameError::Headers)?;
    *rest = after;
    Ok(String::from_utf8_lossy(text).into_owned())
}

/// Reads the blocks of one side.
#[derive(Debug)]
pub(super) struct HeaderDecoder(Decompress);

impl HeaderDecoder {
    pub(super) fn new() -> Self {
        Self(Decompress::new(true))
    }

    /// Reads the next block; `None` when it makes no sense. After an error nothing can be read any more.
    pub(super) fn read(&mut self, compressed: &[u8]) -> Result<Option<Headers>, FrameError> {
        Headers::read(&self.inflate(compressed)?)
    }

    fn inflate(&mut self, mut compressed: &[u8]) -> Result<Vec<u8>, FrameError> {
        let mut block = Vec::new();
        let mut piece = [0; 1024];
        let mut introduced = false;
        loop {
            let before = (self.0.total_in(), self.0.total_out());
            let result = self.0.decompress(compressed, &mut piece, FlushDecompress::Sync);
            let progress = |from: u64, to: u64| usize::try_from(to - from).unwrap_or_default();
            let (read, made) = (progress(before.0, self.0.total_in()), progress(before.1, self.0.total_out()));
            compressed = compressed.get(read..).unwrap_or_default();
            block.extend_from_slice(piece.get(..made).unwrap_or_default());
            if block.len() > limits::SPDY_HEADER_BYTES {
                return Err(FrameError::TooLarge);
            }
            match result {
                Err(error) if error.needs_dictionary().is_some() && !introduced => {
                    introduced = true;
                    self.0.set_dictionary(&dictionary()).map_err(|_| FrameError::Headers)?;
                }
                Ok(Status::Ok | Status::BufError) if compressed.is_empty() && made < piece.len() => return Ok(block),
                Ok(Status::Ok | Status::BufError) if read > 0 || made > 0 => {}
                _ => return Err(FrameError::Headers),
            }
        }
    }
}

/// Writes the blocks of one side.
#[derive(Debug)]
pub(super) struct HeaderEncoder(Compress);

impl HeaderEncoder {
    pub(super) fn new() -> Self {
        let mut compress = Compress::new(Compression::fast(), true);
        // It is refused for raw deflate and in the middle of a stream only.
        let _ = compress.set_dictionary(&dictionary());
        Self(compress)
    }

    /// Writes the next block. It always ends with a flush, so that the other side can read all of it.
    pub(super) fn write(&mut self, headers: &Headers) -> Vec<u8> {
        let block = headers.write();
        let start = self.0.total_in();
        let mut compressed = Vec::with_capacity(block.len() + 64);
        loop {
            let read = usize::try_from(self.0.total_in() - start).unwrap_or_default();
            let rest = block.get(read..).unwrap_or_default();
            let result = self.0.compress_vec(rest, &mut compressed, FlushCompress::Sync);
            // With room to spare all is written.
            if !matches!(result, Ok(Status::Ok)) || compressed.len() < compressed.capacity() {
                return compressed;
            }
            compressed.reserve(compressed.capacity());
        }
    }
}
