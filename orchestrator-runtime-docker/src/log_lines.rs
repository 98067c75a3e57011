//! Lines of the engine's logs: pure. Each begins with its time, and a long line comes in parts.

use bollard::container::LogOutput;
use bytes::{Buf, Bytes};
use jiff::Timestamp;
use orchestrator_core::runtime::{LogLine, LogStream};

use crate::limits::LOG_PART_BYTES;

/// The lines in a piece of output: one, unless it is a terminal's, where parts of a line stick together. What has no line break
/// and is as long as this is a part.
pub(crate) fn lines(output: LogOutput, part_bytes: usize) -> Vec<LogLine> {
    match output {
        LogOutput::StdOut { message } => line(LogStream::Stdout, message, part_bytes).into_iter().collect(),
        LogOutput::StdErr { message } => line(LogStream::Stderr, message, part_bytes).into_iter().collect(),
        LogOutput::Console { message } => parts(message, part_bytes),
        LogOutput::StdIn { .. } => Vec::new(),
    }
}

fn parts(mut message: Bytes, part_bytes: usize) -> Vec<LogLine> {
    let mut lines = Vec::new();
    while let Some((timestamp, length)) = time(&message) {
        let (start, end) = (length, length + LOG_PART_BYTES);
        // Where the engine has cut, the next part begins with its own time.
        if message.len() > end && time(&message[end..]).is_some() {
            let content = message.slice(start..end);
            lines.push(LogLine { timestamp, stream: LogStream::Stdout, content, partial: true });
            message.advance(end);
        } else {
            lines.extend(line(LogStream::Stdout, message, part_bytes));
            break;
        }
    }
    lines
}

fn line(stream: LogStream, message: Bytes, part_bytes: usize) -> Option<LogLine> {
    let (timestamp, start) = time(&message)?;
    let content = message.slice(start..);
    let ends = content.last() == Some(&b'\n');
    // What ends without a line break is a part that fills up, or the last that a container said.
    let partial = !ends && content.len() >= part_bytes;
    let content = if ends { content.slice(..content.len() - 1) } else { content };
    Some(LogLine { timestamp, stream, content, partial })
}

/// The time that the bytes begin with, and where what comes after it begins.
fn time(bytes: &[u8]) -> Option<(Timestamp, usize)> {
    let end = bytes.iter().take(64).position(|byte| *byte == b' ')?;
    let time = std::str::from_utf8(&bytes[..end]).ok()?.parse().ok()?;
    Some((time, end + 1))
}

/// Which lines were passed on already, for whoever reads a log again from somewhere before.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    stdout: Last,
    stderr: Last,
}

/// The last line of a stream. Its own lines come in order of their times, those of both together need not.
#[derive(Clone, Copy, Debug, Default)]
struct Last {
    time: Option<Timestamp>,
    /// Lines of this very time.
    count: usize,
}

impl Seen {
    /// Notes a line; whether it is new to `before`, which was noted when this reading began.
    pub(crate) fn note(&mut self, line: &LogLine, before: &mut Self) -> bool {
        let is_new = before.last(line.stream).passes(line.timestamp);
        if is_new {
            let last = self.last(line.stream);
            match last.time {
                Some(time) if time == line.timestamp => last.count += 1,
                _ => *last = Last { time: Some(line.timestamp), count: 1 },
            }
        }
        is_new
    }

    /// From where to read again so that nothing is missed; `None` from the beginning.
    pub(crate) fn since(&self) -> Option<Timestamp> {
        Some(self.stdout.time?.min(self.stderr.time?))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.stdout.time.is_none() && self.stderr.time.is_none()
    }

    fn last(&mut self, stream: LogStream) -> &mut Last {
        match stream {
            LogStream::Stdout => &mut self.stdout,
            LogStream::Stderr => &mut self.stderr,
        }
    }
}

impl Last {
    fn passes(&mut self, time: Timestamp) -> bool {
        match self.time {
            Some(last) if time < last => false,
            Some(last) if time == last && self.count > 0 => {
                self.count -= 1;
                false
            }
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: &str = "2026-01-02T03:04:05.000000006Z";

    fn stdout(text: String) -> LogOutput {
        LogOutput::StdOut { message: text.into() }
    }

    #[test]
    fn lines_have_their_time_and_their_end() {
        let [line] = &lines(stdout(format!("{TIME} a b  c\n")), LOG_PART_BYTES)[..] else { panic!() };
        assert_eq!((line.timestamp, line.partial, &line.content[..]), (TIME.parse().unwrap(), false, &b"a b  c"[..]));
        let [line] = &lines(stdout(format!("{TIME} \n")), LOG_PART_BYTES)[..] else { panic!() };
        assert!(line.content.is_empty() && !line.partial);
        let [line] = &lines(stdout(format!("{TIME} unfinished")), LOG_PART_BYTES)[..] else { panic!() };
        assert_eq!((&line.content[..], line.partial), (&b"unfinished"[..], false));
        let [line] = &lines(stdout(format!("{TIME} unfinished")), 0)[..] else { panic!() };
        assert!(line.partial);
        let [line] = &lines(stdout(format!("{TIME} {}", "x".repeat(LOG_PART_BYTES))), LOG_PART_BYTES)[..] else {
            panic!()
        };
        assert!(line.partial);
        assert!(lines(stdout("nonsense".to_owned()), 0).is_empty());
    }

    #[test]
    fn parts_of_a_terminals_line_are_taken_apart() {
        let long = "x".repeat(LOG_PART_BYTES);
        let message = format!("{TIME} {long}{TIME} {long}{TIME} rest\r\n").into();
        let shapes: Vec<_> = lines(LogOutput::Console { message }, LOG_PART_BYTES)
            .iter()
            .map(|line| (line.content.len(), line.partial))
            .collect();
        assert_eq!(shapes, [(LOG_PART_BYTES, true), (LOG_PART_BYTES, true), (5, false)]);
    }

    #[test]
    fn what_was_seen_is_not_seen_again() {
        let at = |second: i64, stream, text: &str| LogLine {
            timestamp: Timestamp::from_second(second).unwrap(),
            stream,
            content: Bytes::copy_from_slice(text.as_bytes()),
            partial: false,
        };
        let log = [
            at(1, LogStream::Stdout, "a"),
            at(2, LogStream::Stdout, "b"),
            at(2, LogStream::Stdout, "c"),
            at(1, LogStream::Stderr, "d"),
            at(2, LogStream::Stdout, "e"),
            at(3, LogStream::Stderr, "f"),
        ];
        // Read up to each place, and then again from the beginning: each line comes once.
        for cut in 0..=log.len() {
            let (mut seen, mut told) = (Seen::default(), Vec::new());
            for part in [&log[..cut], &log[..]] {
                let mut before = seen;
                told.extend(part.iter().filter(|line| seen.note(line, &mut before)).map(|line| line.content.clone()));
            }
            told.sort();
            assert_eq!(told, ["a", "b", "c", "d", "e", "f"], "cut at {cut}");
        }
    }
}
