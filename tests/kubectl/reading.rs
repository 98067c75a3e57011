//! Reading what `kubectl` prints: tables, and lines that come one after the other.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use crate::support::Kubectl;

/// The rows of a table that `kubectl get` printed, by column.
pub(crate) type Rows = Vec<BTreeMap<String, String>>;

impl Kubectl {
    /// A table that a command prints.
    #[track_caller]
    pub(crate) fn table(&self, arguments: &str) -> Rows {
        let text = self.ok(arguments);
        assert!(text.lines().next().is_some_and(|header| header.contains("NAME")), "kubectl {arguments}: {text}");
        rows(&text)
    }

    /// Starts a command that goes on, and reads its lines until one is the right one. Then it is ended.
    #[track_caller]
    pub(crate) fn follow(&self, arguments: &str, mut right: impl FnMut(&str) -> bool) -> Vec<String> {
        let mut command = self.command(arguments);
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut child = Ended(child);
        let mut seen = Vec::new();
        for line in BufReader::new(child.0.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            let found = right(&line);
            seen.push(line);
            if found {
                return seen;
            }
        }
        panic!("`kubectl {arguments}` ended after {seen:#?}");
    }
}

/// A command that is ended with this value.
pub(crate) struct Ended(pub(crate) Child);

impl Drop for Ended {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(Some(_))) {
            return;
        }
        // `timeout` hands this signal on to `kubectl`.
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

/// Takes a table apart at the places where its columns begin.
fn rows(text: &str) -> Rows {
    let mut lines = text.lines();
    let header = lines.next().unwrap_or_default();
    let gaps = header.as_bytes().windows(3).enumerate();
    let begins = gaps.filter(|(_, bytes)| bytes.starts_with(b"  ") && bytes[2] != b' ').map(|(at, _)| at + 2);
    let starts: Vec<usize> = [0].into_iter().chain(begins).collect();
    let cell = |line: &str, index: usize| {
        let end = starts.get(index + 1).copied().unwrap_or(line.len()).min(line.len());
        line.get(starts[index].min(end)..end).unwrap_or_default().trim().to_owned()
    };
    lines.map(|line| (0..starts.len()).map(|index| (cell(header, index), cell(line, index))).collect()).collect()
}
