//! What this machine has, read from the kernel.

use std::collections::BTreeMap;

use k8s_openapi::{api::core::v1::NodeSystemInfo, apimachinery::pkg::api::resource::Quantity};

use crate::config::NodeConfig;

/// Finds out what a machine is like. Bring your own for machines that know better.
pub trait Detector {
    /// Fills in what a configuration does not say by itself.
    fn detect(&self, config: NodeConfig) -> NodeConfig;
}

/// Reads `/proc`.
#[derive(Clone, Copy, Debug, Default)]
pub struct ThisMachine;

impl Detector for ThisMachine {
    fn detect(&self, mut config: NodeConfig) -> NodeConfig {
        let read = |path: &str| std::fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        config.capacity.insert("cpu".to_owned(), Quantity(cpus.to_string()));
        if let Some(kibibytes) = memory_kibibytes(&read("/proc/meminfo")) {
            config.capacity.insert("memory".to_owned(), Quantity(format!("{kibibytes}Ki")));
        }
        let release = os_release(&read("/etc/os-release"));
        config.system = NodeSystemInfo {
            architecture: architecture(std::env::consts::ARCH).to_owned(),
            boot_id: read("/proc/sys/kernel/random/boot_id"),
            kernel_version: read("/proc/sys/kernel/osrelease"),
            machine_id: read("/etc/machine-id"),
            operating_system: std::env::consts::OS.to_owned(),
            os_image: release.get("PRETTY_NAME").cloned().unwrap_or_default(),
            ..config.system
        };
        config
    }
}

/// Go's name of an architecture, which labels use.
fn architecture(name: &str) -> &str {
    match name {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn memory_kibibytes(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?.split_whitespace().next()?.parse().ok()
}

fn os_release(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.trim_matches('"').to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_files() {
        assert_eq!(memory_kibibytes("MemTotal:       24608636 kB\nMemFree: 1 kB"), Some(24_608_636));
        assert_eq!(os_release("NAME=x\nPRETTY_NAME=\"Some OS 1\"")["PRETTY_NAME"], "Some OS 1");
    }
}
