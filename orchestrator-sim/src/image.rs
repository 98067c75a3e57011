//! The state of a world, from which others begin.

use std::{collections::BTreeMap, time::Duration};

use orchestrator_core::env::Simulation;
use orchestrator_runtime_sim::SimMachine;
use orchestrator_store_mem::MemStore;

use crate::{
    builder::{BuildError, SimClusterBuilder},
    cluster::SimCluster,
};

/// What a world leaves behind when all its processes die at once: its store and its machines, with everything on them.
/// Boot once, then begin any number of worlds with [`Self::start`].
#[derive(Debug)]
pub struct Image {
    pub(crate) elapsed: Duration,
    pub(crate) store: MemStore,
    pub(crate) machines: BTreeMap<String, SimMachine>,
    pub(crate) builder: SimClusterBuilder,
    /// Where store and machines are kept. Time stands still in it.
    _still: Simulation,
}

impl Image {
    /// The state before anything was.
    pub(crate) fn empty() -> Self {
        let still = Simulation::new(0);
        Self {
            elapsed: Duration::ZERO,
            store: MemStore::new(&still.env()),
            machines: BTreeMap::new(),
            builder: SimClusterBuilder::new(0),
            _still: still,
        }
    }

    pub(crate) fn of(
        builder: &SimClusterBuilder,
        elapsed: Duration,
        store: &MemStore,
        machines: BTreeMap<String, SimMachine>,
    ) -> Self {
        let still = Simulation::starting_at(0, elapsed);
        let env = still.env();
        Self {
            elapsed,
            store: store.fork(&env),
            machines: machines.into_iter().map(|(name, machine)| (name, machine.fork(&env))).collect(),
            builder: builder.clone(),
            _still: still,
        }
    }

    /// A new world that begins with this state. From here on everything follows from the seed.
    pub fn start(&self, seed: u64) -> Result<SimCluster, BuildError> {
        SimCluster::start(SimClusterBuilder { seed, ..self.builder.clone() }, self)
    }
}
