//! `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf` of a pod.

use std::{fmt::Write, fs, io, net::IpAddr};

use orchestrator_core::runtime::DnsConfig;

use super::users::Users;
use crate::{files::make_private_directory, layout::SandboxDirectory, records::SandboxRecord};

/// The files that every container of the pod sees in `/etc`, unless something else is mounted there.
pub(super) const NAMES: [&str; 3] = ["hosts", "hostname", "resolv.conf"];

/// Writes the files.
pub(super) fn write(
    record: &SandboxRecord,
    directory: &SandboxDirectory,
    addresses: &[IpAddr],
    users: Option<&Users>,
) -> io::Result<()> {
    make_private_directory(&directory.pod_files())?;
    let resolver = if record.config.dns == DnsConfig::default() {
        fs::read_to_string("/etc/resolv.conf").unwrap_or_default()
    } else {
        resolver(&record.config.dns)
    };
    for (name, content) in NAMES.into_iter().zip([
        hosts(&record.config.hostname, addresses),
        format!("{}\n", record.config.hostname),
        resolver,
    ]) {
        fs::write(directory.pod_file(name), content)?;
        users.map_or(Ok(()), |users| users.give_path(&directory.pod_file(name)))?;
    }
    Ok(())
}

fn hosts(hostname: &str, addresses: &[IpAddr]) -> String {
    let mut text = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n".to_owned();
    for address in addresses {
        let _ = writeln!(text, "{address}\t{hostname}");
    }
    text
}

fn resolver(dns: &DnsConfig) -> String {
    let mut text = String::new();
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
