//! What a pod's worker can do, one thing at a time in each slot.

use jiff::Timestamp;
use orchestrator_core::runtime::{ContainerId, SandboxId};

/// Something to do. Operations in different slots run side by side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Makes the directories that containers mount.
    SetUpVolumes,
    /// Brings projected files up to date.
    RefreshVolumes,
    /// Removes everything of the pod on disk.
    TearDownVolumes,
    /// Makes the sandbox.
    RunSandbox { attempt: u32 },
    /// Ends a sandbox and all in it.
    StopSandbox { id: SandboxId },
    /// Removes a sandbox, its containers and logs.
    RemoveSandbox { id: SandboxId },
    /// Makes a container's image present.
    Pull { container: String, attempt: u32 },
    /// Creates and starts a container.
    Start { container: String, attempt: u32, sandbox: SandboxId },
    /// Runs a container's `postStart` hook.
    PostStart { container: String, attempt: u32, id: ContainerId },
    /// Ends a container: `preStop` hook, signal, kill at the deadline.
    Stop { container: String, id: ContainerId, deadline: Timestamp, message: String },
    /// Removes an ended container and its log.
    Remove { container: String, id: ContainerId },
    /// Asks a container how it is.
    Probe { container: String, attempt: u32, id: ContainerId, kind: ProbeKind },
    /// Removes the pod from the API: its end on this node is complete.
    DeletePod,
}

/// Which probe of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ProbeKind {
    Startup,
    Liveness,
    Readiness,
}

impl ProbeKind {
    pub(crate) const ALL: [Self; 3] = [Self::Startup, Self::Liveness, Self::Readiness];

    /// As events name it.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }
}

/// Operations in the same slot exclude each other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Slot {
    Volumes,
    Sandbox,
    Container(String),
    Hook(String),
    Probe(String, ProbeKind),
    Pod,
}

impl Operation {
    pub(crate) fn slot(&self) -> Slot {
        match self {
            Self::SetUpVolumes | Self::RefreshVolumes | Self::TearDownVolumes => Slot::Volumes,
            Self::RunSandbox { .. } | Self::StopSandbox { .. } | Self::RemoveSandbox { .. } => Slot::Sandbox,
            Self::Pull { container, .. }
            | Self::Start { container, .. }
            | Self::Stop { container, .. }
            | Self::Remove { container, .. } => Slot::Container(container.clone()),
            Self::PostStart { container, .. } => Slot::Hook(container.clone()),
            Self::Probe { container, kind, .. } => Slot::Probe(container.clone(), *kind),
            Self::DeletePod => Slot::Pod,
        }
    }

    /// Whether it may be dropped half-way when the pod ends.
    pub(crate) fn is_cancellable(&self) -> bool {
        matches!(self, Self::Pull { .. } | Self::PostStart { .. } | Self::Probe { .. })
    }
}
