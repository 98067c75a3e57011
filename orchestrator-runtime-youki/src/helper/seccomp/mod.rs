//! Which system calls a container's processes may make: programs for the kernel, installed right before the container's own
//! program is executed.
//!
//! `seccompiler` makes the programs. It does not install them here, because it forbids new privileges first, which is the pod's
//! to say.

mod default;
mod profile;

use std::collections::BTreeMap;

use orchestrator_core::runtime::SeccompProfile;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, SeccompRule, TargetArch};

use crate::{
    protocol::{Failure, FailureKind},
    records::ContainerRecord,
    sys,
};

pub(crate) use profile::Profile;

/// Rules by the number of the system call; a call without rules is meant whatever its arguments are.
type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// The programs of one container, all of which the kernel asks.
#[derive(Clone, Debug, Default)]
pub(super) struct Filters(Vec<BpfProgram>);

impl Filters {
    /// The programs of a container that has these capabilities, named with `CAP_`.
    pub(super) fn of(record: &ContainerRecord, capabilities: &[String]) -> Result<Self, Failure> {
        let failed = |message: String| Failure::new(FailureKind::StartFailed, format!("seccomp: {message}"));
        match (record.config.security.seccomp(), &record.seccomp) {
            (SeccompProfile::Unconfined, _) => Ok(Self::default()),
            (SeccompProfile::RuntimeDefault, _) => default::filters(capabilities).map_err(failed),
            (SeccompProfile::Localhost(_), Some(text)) => {
                Profile::read(text).and_then(|profile| profile.filters()).map_err(failed)
            }
            (SeccompProfile::Localhost(path), None) => Err(failed(format!("the profile {} is gone", path.display()))),
        }
    }

    /// Confines this process, and all that it becomes.
    pub(super) fn install(&self) -> std::io::Result<()> {
        self.0.iter().try_for_each(|program| sys::install_filter(program))
    }

    /// Adds a program: calls that the rules mean get one action, all others another.
    fn add(&mut self, rules: Rules, matching: SeccompAction, others: SeccompAction) -> Result<(), String> {
        let architecture = TargetArch::try_from(std::env::consts::ARCH).map_err(|error| error.to_string())?;
        let filter = SeccompFilter::new(rules, others, matching, architecture).map_err(|error| error.to_string())?;
        self.0.push(filter.try_into().map_err(|error: seccompiler::BackendError| error.to_string())?);
        Ok(())
    }
}

/// The number of a system call on this machine; `None` for one that it does not have.
fn number(name: &str) -> Option<i64> {
    name.parse::<syscalls::Sysno>().ok().map(|number| i64::from(number.id()))
}
