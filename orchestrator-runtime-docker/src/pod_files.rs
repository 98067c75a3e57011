//! `/etc/resolv.conf` of pods that have one of their own: a file beside the engine, because the engine writes its own there.

use std::{
    collections::BTreeSet,
    fmt::Write,
    fs, io,
    path::{Path, PathBuf},
};

use orchestrator_core::runtime::{DnsConfig, SandboxId};

/// Where the files of one node are.
#[derive(Clone, Debug)]
pub(crate) struct PodFiles(PathBuf);

impl PodFiles {
    pub(crate) fn new(directory: &Path) -> Self {
        Self(directory.join("resolv"))
    }

    /// The file of a sandbox.
    pub(crate) fn path(&self, id: &SandboxId) -> PathBuf {
        self.0.join(&id.0)
    }

    /// Writes the file of a sandbox, whole or not at all.
    pub(crate) fn write(&self, id: &SandboxId, dns: &DnsConfig) -> io::Result<()> {
        fs::create_dir_all(&self.0)?;
        // No sandbox's name begins with a dot.
        let new = self.0.join(format!(".{id}"));
        fs::write(&new, resolver(dns))?;
        fs::rename(&new, self.path(id))
    }

    /// Removes the file of a sandbox. One that is gone is a success.
    pub(crate) fn remove(&self, id: &SandboxId) -> io::Result<()> {
        match fs::remove_file(self.path(id)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Removes what was written for sandboxes that are not there: the agent died before it made them.
    pub(crate) fn sweep(&self, known: &BTreeSet<String>) -> io::Result<()> {
        let entries = match fs::read_dir(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        for entry in entries {
            let entry = entry?;
            if !known.contains(entry.file_name().to_string_lossy().as_ref()) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// Removes the directory, which is empty unless something is amiss.
    pub(crate) fn clear(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

fn resolver(dns: &DnsConfig) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    if !dns.searches.is_empty() {
        let _ = writeln!(text, "search {}", dns.searches.join(" "));
    }
    for server in &dns.servers {
        let _ = writeln!(text, "nameserver {server}");
    }
    if !dns.options.is_empty() {
        let _ = writeln!(text, "options {}", dns.options.join(" "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_and_go() {
        let directory = std::env::temp_dir().join(format!("orchestrator-docker-files-{}", std::process::id()));
        let files = PodFiles::new(&directory);
        let (one, other) = (SandboxId("one".to_owned()), SandboxId("other".to_owned()));
        files.sweep(&BTreeSet::new()).unwrap();
        let dns = DnsConfig {
            servers: vec!["10.0.0.10".to_owned()],
            searches: vec!["a.b".to_owned(), "b".to_owned()],
            options: vec!["ndots:5".to_owned()],
        };
        files.write(&one, &dns).unwrap();
        files.write(&other, &dns).unwrap();
        let text = fs::read_to_string(files.path(&one)).unwrap();
        assert_eq!(text, "search a.b b\nnameserver 10.0.0.10\noptions ndots:5\n");
        files.sweep(&BTreeSet::from([other.0.clone()])).unwrap();
        assert!(!files.path(&one).exists() && files.path(&other).exists());
        files.remove(&other).unwrap();
        files.remove(&other).unwrap();
        files.clear().unwrap();
        fs::remove_dir(&directory).unwrap();
    }
}
