//! What a container uses, from the engine's measurement: pure.

use bollard::models::ContainerStatsResponse;
use jiff::Timestamp;
use orchestrator_core::runtime::ContainerStats;

/// Reads a measurement; `None` when there was nothing to measure.
pub(crate) fn stats(measured: &ContainerStatsResponse, now: Timestamp) -> Option<ContainerStats> {
    let pids = measured.pids_stats.as_ref()?.current.filter(|pids| *pids > 0)?;
    let cpu = measured.cpu_stats.as_ref()?.cpu_usage.as_ref()?.total_usage?;
    let memory = measured.memory_stats.as_ref()?;
    // Cgroups of version 1 count those below as well, under another name.
    let reclaimable = memory
        .stats
        .as_ref()
        .and_then(|stats| stats.get("total_inactive_file").or_else(|| stats.get("inactive_file")))
        .copied()
        .unwrap_or(0);
    Some(ContainerStats {
        timestamp: measured.read.as_ref().and_then(|time| time.parse().ok()).unwrap_or(now),
        cpu_nanoseconds: cpu,
        memory_working_set_bytes: memory.usage?.saturating_sub(reclaimable),
        pids,
    })
}

#[cfg(test)]
mod tests {
    use bollard::models::{ContainerCpuStats, ContainerCpuUsage, ContainerMemoryStats, ContainerPidsStats};

    use super::*;

    #[test]
    fn what_can_be_reclaimed_is_not_counted() {
        let measured = |name: &str, pids| ContainerStatsResponse {
            read: Some("2026-01-01T00:00:00Z".to_owned()),
            pids_stats: Some(ContainerPidsStats { current: Some(pids), limit: None }),
            cpu_stats: Some(ContainerCpuStats {
                cpu_usage: Some(ContainerCpuUsage { total_usage: Some(7), ..ContainerCpuUsage::default() }),
                ..ContainerCpuStats::default()
            }),
            memory_stats: Some(ContainerMemoryStats {
                usage: Some(100),
                stats: Some([(name.to_owned(), 30)].into()),
                ..ContainerMemoryStats::default()
            }),
            ..ContainerStatsResponse::default()
        };
        for name in ["total_inactive_file", "inactive_file"] {
            let read = stats(&measured(name, 2), Timestamp::UNIX_EPOCH).unwrap();
            assert_eq!((read.memory_working_set_bytes, read.cpu_nanoseconds, read.pids), (70, 7, 2));
        }
        assert_eq!(stats(&measured("x", 0), Timestamp::UNIX_EPOCH), None);
    }
}
