//! Properties that most controllers have to have, ready to be asked for, and Kubernetes' own controllers beside them.

use std::collections::BTreeSet;

use orchestrator_controllers::UnknownController;
use serde_json::Value;

use super::Explorer;
use crate::{objects::Objects, process};

impl Explorer {
    /// Some of Kubernetes' own controllers, to which nothing happens, by their names in upstream's `--controllers`.
    ///
    /// # Errors
    /// There is no controller of a name.
    pub fn beside_controllers(mut self, names: &[&'static str]) -> Result<Self, UnknownController> {
        self.setup.beside.push(process::begin_controllers(names)?);
        Ok(self)
    }

    /// At the end nothing belongs to what is not there any more. What people delete leaves its children to the garbage
    /// collector, which therefore has to be there ([`Self::beside_controllers`]).
    pub fn leaves_no_orphans(self) -> Self {
        self.eventually("nothing belongs to what is gone", has_no_orphans)
    }

    /// At the end nothing waits to be deleted: every finalizer was taken off.
    pub fn completes_deletions(self) -> Self {
        self.eventually("what was deleted is gone", |objects| {
            objects.trees().all(|tree| tree.pointer("/metadata/deletionTimestamp").is_none())
        })
    }

    /// When all goes well, the process writes at most so many times for each thing that people do.
    pub fn writes_at_most(mut self, writes: usize) -> Self {
        self.writes_per_action = Some(writes);
        self
    }
}

fn has_no_orphans(objects: &Objects) -> bool {
    let there: BTreeSet<&str> = objects.trees().filter_map(uid).collect();
    let owners = objects.trees().filter_map(|tree| tree.pointer("/metadata/ownerReferences")?.as_array()).flatten();
    owners.filter_map(|owner| owner["uid"].as_str()).all(|uid| there.contains(uid))
}

fn uid(tree: &Value) -> Option<&str> {
    tree.pointer("/metadata/uid")?.as_str()
}
