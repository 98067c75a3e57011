//! Sees by its first bytes how a layer is compressed, and reads it.

use std::io::{self, BufRead, Read};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::{
    BlockDecodingStrategy, FrameDecoder,
    errors::{FrameDecoderError, ReadFrameHeaderError},
};

use super::{Stored, broken};
use crate::{ImageError, limits::ZSTD_WINDOW_BYTES};

const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Frames without content; any low half byte.
const ZSTD_SKIPPABLE: [u8; 4] = [0x50, 0x2a, 0x4d, 0x18];

/// Reads a layer without its compression.
pub(super) fn reader(mut stored: Stored) -> Result<Box<dyn Read>, ImageError> {
    let first = stored.fill_buf().map_err(broken)?;
    let is_zstd = first.starts_with(&ZSTD) || is_skippable(first);
    Ok(if first.starts_with(&GZIP) {
        Box::new(MultiGzDecoder::new(stored))
    } else if is_zstd {
        Box::new(Frames::new(stored))
    } else {
        Box::new(stored)
    })
}

fn is_skippable(bytes: &[u8]) -> bool {
    bytes.len() >= 4 && bytes[0] & 0xf0 == ZSTD_SKIPPABLE[0] && bytes[1..4] == ZSTD_SKIPPABLE[1..]
}

/// All frames of Zstandard in a file, one after the other.
struct Frames {
    stored: Stored,
    decoder: FrameDecoder,
    is_in_frame: bool,
}

impl Frames {
    fn new(stored: Stored) -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(ZSTD_WINDOW_BYTES);
        Self { stored, decoder, is_in_frame: false }
    }

    /// Begins the next frame, or passes over one without content.
    fn begin(&mut self) -> io::Result<()> {
        match self.decoder.init(&mut self.stored) {
            Ok(()) => {
                self.is_in_frame = true;
                Ok(())
            }
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                io::copy(&mut (&mut self.stored).take(u64::from(length)), &mut io::sink()).map(drop)
            }
            Err(error) => Err(io::Error::other(error)),
        }
    }
}

impl Read for Frames {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.decoder.can_collect() > 0 {
                return self.decoder.read(buffer);
            }
            if self.is_in_frame && !self.decoder.is_finished() {
                let step = BlockDecodingStrategy::UptoBlocks(1);
                self.decoder.decode_blocks(&mut self.stored, step).map_err(io::Error::other)?;
                continue;
            }
            self.is_in_frame = false;
            if self.stored.fill_buf()?.is_empty() {
                return Ok(0);
            }
            self.begin()?;
        }
    }
}
