//! Reading a container's log while it is written: by the kernel's notices of changes, without polling.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::Path,
};

use futures::stream::{BoxStream, StreamExt, unfold};
use jiff::Timestamp;
use orchestrator_core::runtime::{ContainerState, LogLine, LogOptions, RuntimeError};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::{Interest, unix::AsyncFd};

use crate::{
    files::read_json, layout::ContainerDirectory, limits::LOG_PART_BYTES, log_format::parse_line,
    records::ContainerProgress, sys,
};

/// The longest line of a log file: time, stream and tag, and a part of a line.
const LINE_BYTES: u64 = LOG_PART_BYTES as u64 + 128;

/// The part of the log that was asked for, oldest line first.
pub(crate) fn lines(
    directory: ContainerDirectory,
    options: LogOptions,
) -> Result<BoxStream<'static, Result<LogLine, RuntimeError>>, RuntimeError> {
    let internal = |error: io::Error| RuntimeError::internal("reading a container's log", error);
    let notices = options.follow.then(|| Notices::new(directory.path())).transpose().map_err(internal)?;
    let reader = Reader::new(directory, options.tail_lines).map_err(internal)?;
    let state = Some(Log { reader, notices, since: options.since });
    Ok(unfold(state, move |state| async move {
        let mut log = state?;
        match log.next().await {
            Ok(Some(line)) => Some((Ok(line), Some(log))),
            Ok(None) => None,
            Err(error) => Some((Err(internal(error)), None)),
        }
    })
    .boxed())
}

struct Log {
    reader: Reader,
    /// Only when following.
    notices: Option<Notices>,
    since: Option<Timestamp>,
}

impl Log {
    async fn next(&mut self) -> io::Result<Option<LogLine>> {
        loop {
            // Asked before reading: an end that comes later is found the next time round.
            let over = self.notices.is_none() || self.reader.is_over();
            if let Some(line) = self.reader.next()? {
                if self.since.is_none_or(|since| line.timestamp >= since) {
                    return Ok(Some(line));
                }
                continue;
            }
            match &self.notices {
                Some(notices) if !over => notices.wait().await?,
                _ => return Ok(None),
            }
        }
    }
}

/// Reads the older part of a log, then the newer, and goes on with whatever comes after it.
struct Reader {
    directory: ContainerDirectory,
    file: Option<BufReader<File>>,
    /// The older part is being read, or the file was set aside meanwhile.
    superseded: bool,
    line: Vec<u8>,
}

impl Reader {
    fn new(directory: ContainerDirectory, tail_lines: Option<usize>) -> io::Result<Self> {
        let older = open(&directory.older_log())?;
        let newer = open(&directory.log())?;
        let mut reader = Self { directory, file: None, superseded: false, line: Vec::new() };
        let Some(wanted) = tail_lines else {
            reader.superseded = older.is_some();
            reader.file = older.or(newer).map(BufReader::new);
            return Ok(reader);
        };
        let mut wanted = wanted as u64;
        let mut newer = newer;
        if let Some(file) = &mut newer {
            wanted -= seek_to_last_lines(file, wanted)?;
        }
        match older {
            Some(mut older) if wanted > 0 => {
                seek_to_last_lines(&mut older, wanted)?;
                reader.superseded = true;
                reader.file = Some(BufReader::new(older));
            }
            _ => reader.file = newer.map(BufReader::new),
        }
        Ok(reader)
    }

    /// The next whole line; `None` at the end, for now.
    fn next(&mut self) -> io::Result<Option<LogLine>> {
        loop {
            let Some(file) = &mut self.file else {
                self.file = open(&self.directory.log())?.map(BufReader::new);
                if self.file.is_none() {
                    return Ok(None);
                }
                continue;
            };
            let room = LINE_BYTES.saturating_sub(self.line.len() as u64);
            file.take(room).read_until(b'\n', &mut self.line)?;
            if let Some(line) = self.line.strip_suffix(b"\n") {
                let line = parse_line(line);
                self.line.clear();
                if line.is_some() {
                    return Ok(line);
                }
            } else if self.line.len() as u64 >= LINE_BYTES {
                self.line.clear();
            } else if self.superseded {
                self.file = None;
                self.line.clear();
                self.superseded = false;
            } else if self.was_set_aside()? {
                // One more turn: it may have grown before it was set aside.
                self.superseded = true;
            } else {
                return Ok(None);
            }
        }
    }

    fn was_set_aside(&self) -> io::Result<bool> {
        let Some(file) = &self.file else { return Ok(false) };
        let here = file.get_ref().metadata()?.ino();
        match std::fs::metadata(self.directory.log()) {
            Ok(there) => Ok(there.ino() != here),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether nothing will be added: the container has ended, or is gone.
    fn is_over(&self) -> bool {
        match read_json::<ContainerProgress>(&self.directory.progress()) {
            Ok(Some(progress)) => matches!(progress.state, ContainerState::Exited { .. }),
            _ => !self.directory.record().exists(),
        }
    }
}

fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Goes to the beginning of the last lines, and returns how many there are, up to those wanted.
fn seek_to_last_lines(file: &mut File, wanted: u64) -> io::Result<u64> {
    let mut chunk = [0; 8192];
    let mut position = file.seek(SeekFrom::End(0))?;
    let mut found = 0;
    if wanted == 0 {
        return Ok(0);
    }
    let mut is_last_byte = true;
    while position > 0 {
        let length = position.min(chunk.len() as u64);
        position -= length;
        file.seek(SeekFrom::Start(position))?;
        let chunk = &mut chunk[..length as usize];
        file.read_exact(chunk)?;
        for (offset, byte) in chunk.iter().enumerate().rev() {
            if *byte == b'\n' && !is_last_byte {
                found += 1;
                if found == wanted {
                    file.seek(SeekFrom::Start(position + offset as u64 + 1))?;
                    return Ok(found);
                }
            }
            is_last_byte = false;
        }
    }
    file.seek(SeekFrom::Start(0))?;
    // The first line has no line break before it.
    Ok(if is_last_byte { 0 } else { found + 1 })
}

/// The kernel's notices about a directory and the files in it.
struct Notices(AsyncFd<OwnedFd>);

impl Notices {
    fn new(directory: &Path) -> io::Result<Self> {
        let descriptor = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let kinds = WatchFlags::MODIFY
            | WatchFlags::CREATE
            | WatchFlags::MOVED_TO
            | WatchFlags::DELETE
            | WatchFlags::DELETE_SELF;
        inotify::add_watch(&descriptor, directory, kinds)?;
        Ok(Self(sys::watch(descriptor, Interest::READABLE)?))
    }

    /// Waits for something to happen since the last time. What it was does not matter.
    async fn wait(&self) -> io::Result<()> {
        let mut notices = [0; 4096];
        loop {
            let mut guard = self.0.readable().await?;
            match guard.try_io(|descriptor| Ok(rustix::io::read(descriptor.get_ref(), &mut notices[..])?)) {
                Ok(result) => return result.map(drop),
                Err(_would_block) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn last_lines() {
        let path = std::env::temp_dir().join(format!("orchestrator-youki-tail-{}", std::process::id()));
        let mut file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(seek_to_last_lines(&mut file, 3).unwrap(), 0);
        for number in 0..5000 {
            writeln!(file, "line {number}").unwrap();
        }
        for (wanted, first) in [(1, "line 4999\n"), (2, "line 4998\n"), (5000, "line 0\n"), (9999, "line 0\n")] {
            assert_eq!(seek_to_last_lines(&mut file, wanted).unwrap(), wanted.min(5000));
            let mut line = String::new();
            BufReader::new(&mut file).read_line(&mut line).unwrap();
            assert_eq!(line, first);
        }
        assert_eq!(seek_to_last_lines(&mut file, 0).unwrap(), 0);
        assert_eq!(file.read(&mut [0]).unwrap(), 0);
    }
}
