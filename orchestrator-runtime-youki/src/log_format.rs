//! The lines of a container's log file, as CRI has them: `<time> <stdout|stderr> <F|P> <text>`.

use std::io::Write;

use bytes::Bytes;
use jiff::Timestamp;
use orchestrator_core::runtime::{LogLine, LogStream};

/// Appends a line to a buffer.
pub(crate) fn write_line(buffer: &mut Vec<u8>, time: Timestamp, stream: LogStream, partial: bool, content: &[u8]) {
    let stream = match stream {
        LogStream::Stdout => "stdout",
        LogStream::Stderr => "stderr",
    };
    let tag = if partial { 'P' } else { 'F' };
    let _ = write!(buffer, "{time:.9} {stream} {tag} ");
    buffer.extend_from_slice(content);
    buffer.push(b'\n');
}

/// Reads a line, given without its line break; `None` when it is not one.
pub(crate) fn parse_line(line: &[u8]) -> Option<LogLine> {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let timestamp = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
    let stream = match parts.next()? {
        b"stdout" => LogStream::Stdout,
        b"stderr" => LogStream::Stderr,
        _ => return None,
    };
    let partial = match parts.next()? {
        b"F" => false,
        b"P" => true,
        _ => return None,
    };
    let content = Bytes::copy_from_slice(parts.next().unwrap_or_default());
    Some(LogLine { timestamp, stream, content, partial })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_back() {
        let mut buffer = Vec::new();
        let time: Timestamp = "2026-01-02T03:04:05.000000006Z".parse().unwrap();
        write_line(&mut buffer, time, LogStream::Stderr, true, b"a b  c");
        assert_eq!(buffer, b"2026-01-02T03:04:05.000000006Z stderr P a b  c\n");
        let line = parse_line(buffer.strip_suffix(b"\n").unwrap()).unwrap();
        assert_eq!((line.timestamp, line.partial, &line.content[..]), (time, true, &b"a b  c"[..]));
        assert!(parse_line(b"nonsense").is_none());
    }
}
