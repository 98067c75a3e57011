//! What confines a container beside its capabilities.

use super::{SeccompProfile, SecurityContext};

/// Which AppArmor profile confines a container's processes.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum AppArmorProfile {
    /// None.
    Unconfined,
    /// The one that the runtime has for containers.
    RuntimeDefault,
    /// One of this name that the machine's kernel has loaded.
    Localhost(String),
}

impl SecurityContext {
    /// The filter of system calls that is in force. Privileged containers have none, whatever their profile says:
    /// <https://kubernetes.io/docs/tutorials/security/seccomp/>.
    pub fn seccomp(&self) -> &SeccompProfile {
        if self.privileged { &SeccompProfile::Unconfined } else { &self.seccomp_profile }
    }
}
