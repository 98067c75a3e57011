//! Writes what a container says into its log file, line by line and within bounds.

use std::{
    fs::{self, File},
    io::{self, Write},
};

use orchestrator_core::runtime::LogStream;

use crate::{
    layout::ContainerDirectory,
    limits::{LOG_FILE_BYTES, LOG_PART_BYTES},
    log_format::write_line,
};

/// A container's log file.
pub(super) struct LogWriter {
    directory: ContainerDirectory,
    file: File,
    size: u64,
    entry: Vec<u8>,
}

/// The unfinished line of one stream.
pub(super) struct PendingLine {
    stream: LogStream,
    bytes: Vec<u8>,
}

impl LogWriter {
    pub(super) fn open(directory: ContainerDirectory) -> io::Result<Self> {
        let file = File::options().append(true).create(true).open(directory.log())?;
        let size = file.metadata()?.len();
        Ok(Self { directory, file, size, entry: Vec::new() })
    }

    /// Writes what a stream said. Whole lines are written; the rest waits for its end, or until it is too long.
    pub(super) fn write(&mut self, line: &mut PendingLine, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let room = LOG_PART_BYTES - line.bytes.len();
            let part = &bytes[..bytes.len().min(room)];
            if let Some(end) = part.iter().position(|byte| *byte == b'\n') {
                line.bytes.extend_from_slice(&part[..end]);
                bytes = &bytes[end + 1..];
                self.finish(line, false)?;
            } else {
                line.bytes.extend_from_slice(part);
                bytes = &bytes[part.len()..];
                // A line that is exactly this long is no partial one if its end follows.
                if line.bytes.len() == LOG_PART_BYTES && bytes.first() != Some(&b'\n') {
                    self.finish(line, true)?;
                } else if line.bytes.len() == LOG_PART_BYTES {
                    bytes = &bytes[1..];
                    self.finish(line, false)?;
                }
            }
        }
        Ok(())
    }

    /// Writes what is left of a stream that has ended.
    pub(super) fn end(&mut self, line: &mut PendingLine) -> io::Result<()> {
        if line.bytes.is_empty() { Ok(()) } else { self.finish(line, false) }
    }

    fn finish(&mut self, line: &mut PendingLine, partial: bool) -> io::Result<()> {
        self.entry.clear();
        write_line(&mut self.entry, super::now(), line.stream, partial, &line.bytes);
        line.bytes.clear();
        if self.size > 0 && self.size + self.entry.len() as u64 > LOG_FILE_BYTES {
            fs::rename(self.directory.log(), self.directory.older_log())?;
            self.file = File::options().append(true).create(true).open(self.directory.log())?;
            self.size = 0;
        }
        self.file.write_all(&self.entry)?;
        self.size += self.entry.len() as u64;
        Ok(())
    }
}

impl PendingLine {
    pub(super) fn new(stream: LogStream) -> Self {
        Self { stream, bytes: Vec::new() }
    }
}
