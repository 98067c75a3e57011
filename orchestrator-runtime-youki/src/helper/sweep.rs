//! What is left to do for a sandbox whose helper died: end what runs, write down how it ended, remove it.

use std::{io, path::Path};

use orchestrator_core::runtime::{ContainerState, SandboxId, SandboxState};

use super::{
    boot::{helpers_cgroup, pod_cgroup},
    network,
};
use crate::{
    cgroups::Cgroups,
    files::{read_json, remove_tree, write_json},
    layout::SandboxDirectory,
    limits::CGROUP_REMOVAL_TIME,
    records::{ContainerProgress, SandboxProgress, SandboxRecord, read_container, read_record, take_lock},
};

/// Ends everything in the sandbox and says so in its files. The directory stays.
pub(super) fn settle(root: &Path, id: &SandboxId) -> io::Result<()> {
    let (directory, record) = read_record(root, id)?;
    let Some(record) = record else { return Ok(()) };
    let Some(_lock) = take_lock(&directory)? else { return Err(in_use()) };
    end_everything(&directory, &record)
}

/// Ends everything in the sandbox and removes it. One that is gone is a success.
pub(super) fn sweep(root: &Path, id: &SandboxId) -> io::Result<()> {
    let (directory, record) = read_record(root, id)?;
    if !directory.path().exists() {
        return Ok(());
    }
    let lock = take_lock(&directory)?.ok_or_else(in_use)?;
    if let Some(record) = &record {
        end_everything(&directory, record)?;
        let cgroups = Cgroups::find().map_err(io::Error::other)?;
        cgroups.remove(&pod_cgroup(record), CGROUP_REMOVAL_TIME)?;
        cgroups.prune(&helpers_cgroup(record));
    }
    remove_tree(directory.path())?;
    drop(lock);
    Ok(())
}

fn in_use() -> io::Error {
    io::Error::other("the sandbox has a helper that lives")
}

fn end_everything(directory: &SandboxDirectory, record: &SandboxRecord) -> io::Result<()> {
    let cgroups = Cgroups::find().map_err(io::Error::other)?;
    let pod = pod_cgroup(record);
    let mut out_of_memory = Vec::new();
    for id in directory.containers()? {
        let cgroup = format!("{pod}/{}", crate::layout::short_name(&id));
        out_of_memory.push((id, cgroups.oom_kills(&cgroup) > 0));
    }
    if !cgroups.kill(&pod, CGROUP_REMOVAL_TIME)? {
        return Err(io::Error::other("processes of the pod cannot be killed"));
    }
    for (id, out_of_memory) in out_of_memory {
        let container = directory.container(&id);
        let Some((_, status)) = read_container(&record.id, &container, false)? else { continue };
        if let ContainerState::Running { started_at } = status.state {
            let state = ContainerState::Exited {
                started_at: Some(started_at),
                finished_at: super::now(),
                exit_code: 137,
                signal: Some(9),
                reason: if out_of_memory { "OOMKilled" } else { "Error" }.to_owned(),
                message: "the pod's helper process ended; its containers were killed".to_owned(),
            };
            write_json(&container.progress(), &ContainerProgress { state, pid: None })?;
        }
    }
    if !record.config.namespaces.host_network {
        network::release(&record.network, &record.root, &record.id)?;
    }
    let before: Option<SandboxProgress> = read_json(&directory.progress())?;
    let addresses = before.map(|before| before.addresses).unwrap_or_default();
    write_json(&directory.progress(), &SandboxProgress { state: SandboxState::NotReady, addresses })
}
