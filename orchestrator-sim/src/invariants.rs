//! What has to hold, always or once a world has settled: pure functions over a [`Snapshot`].

mod objects;
mod placement;
mod silence;
#[cfg(test)]
mod tests;
mod workloads;

use std::fmt;

pub use silence::noise;
pub(crate) use silence::{Silence, is_sign_of_life};

use crate::snapshot::Snapshot;

/// One thing that has to hold.
#[derive(Clone, Copy)]
pub struct Invariant {
    /// What it says.
    pub name: &'static str,
    /// Gives what breaks it, one line each.
    pub check: fn(&Snapshot) -> Vec<String>,
}

impl fmt::Debug for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Something that has to hold does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which invariant.
    pub invariant: &'static str,
    /// What breaks it.
    pub detail: String,
}

impl Violation {
    /// A part of the control plane is missing.
    pub(crate) fn incomplete() -> Self {
        Self { invariant: "the control plane runs", detail: "a part of it was killed".to_owned() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.detail)
    }
}

/// What holds at every moment, whatever happens.
pub const ALWAYS: &[Invariant] = &[
    Invariant { name: "no pod runs on two nodes", check: placement::pods_on_two_nodes },
    Invariant { name: "no identity runs twice", check: placement::doubled_identities },
    Invariant { name: "no node is overcommitted", check: placement::overcommitted_nodes },
    Invariant { name: "no pod runs on a node that it is not bound to", check: placement::misplaced_pods },
];

/// What holds besides once nothing happens any more.
pub const SETTLED: &[Invariant] = &[
    Invariant { name: "every node is ready", check: placement::unready_nodes },
    Invariant { name: "every pod is ready where it is bound", check: placement::unready_pods },
    Invariant { name: "machines run what is bound to them, and nothing else", check: placement::strays },
    Invariant { name: "deployments are as they ask", check: workloads::deployments },
    Invariant { name: "replica sets are as they ask", check: workloads::replica_sets },
    Invariant { name: "stateful sets are as they ask", check: workloads::stateful_sets },
    Invariant { name: "services list their pods", check: workloads::services },
    Invariant { name: "nothing is orphaned", check: objects::orphans },
    Invariant { name: "nothing waits for its end", check: objects::deletions },
];

/// What of these does not hold.
pub fn violations(invariants: &[Invariant], snapshot: &Snapshot) -> Vec<Violation> {
    let of = |invariant: &Invariant| {
        let name = invariant.name;
        (invariant.check)(snapshot).into_iter().map(move |detail| Violation { invariant: name, detail })
    };
    invariants.iter().flat_map(of).collect()
}
