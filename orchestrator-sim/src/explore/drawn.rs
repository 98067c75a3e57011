//! What people do when part of it is drawn: objects that follow from the seed, that the server takes, and that get simpler.

use std::{fmt, sync::Arc};

use orchestrator_core::{
    client::{Call, Request},
    controller::Kind,
    env::Simulation,
    status::ApiResult,
    store::Store,
};
use proptest::{
    strategy::{SBoxedStrategy, Strategy, ValueTree},
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

use super::{
    action::Action,
    limits,
    server::Room,
    world::{Base, WorldError},
};
use crate::{
    link::{Delay, Link},
    recorder::Recorder,
    requests,
};

/// Draws objects that somebody creates.
#[derive(Clone)]
pub(super) struct Draw(SBoxedStrategy<Request>);

impl fmt::Debug for Draw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Draw").finish_non_exhaustive()
    }
}

impl Draw {
    pub(super) fn new<K: Kind, S>(strategy: S) -> Self
    where
        S: Strategy<Value = K> + Send + Sync + 'static,
        S::Tree: 'static,
    {
        Self(strategy.prop_map(|object| requests::create(&object)).sboxed())
    }
}

/// A drawn request that can be made simpler.
type Tree = Box<dyn ValueTree<Value = Request>>;

/// What people do in the runs of a seed.
pub(super) struct Script {
    pub(super) actions: Vec<Action>,
    /// What was drawn, by its place among the actions.
    drawn: Vec<(usize, Tree)>,
}

impl Script {
    /// Draws what is to be drawn, anew where the server refuses it.
    pub(super) fn of(actions: &[Action], seed: u64, base: &Base) -> Result<Self, WorldError> {
        let mut script = Self { actions: actions.to_vec(), drawn: Vec::new() };
        if !actions.iter().any(Action::is_drawn) {
            return Ok(script);
        }
        let judge = Judge::of(base)?;
        let mut runner = runner(seed);
        for (index, action) in script.actions.iter_mut().enumerate() {
            let Action::Drawn(Draw(strategy)) = action else { continue };
            let tree = judge.draw(strategy, &mut runner)?;
            *action = tree.current().into();
            script.drawn.push((index, tree));
        }
        Ok(script)
    }

    /// Makes what was drawn simpler, as long as the server takes it and `fails` says so of all actions.
    pub(super) fn simplify(
        &mut self,
        base: &Base,
        runs: &mut usize,
        mut fails: impl FnMut(&[Action]) -> bool,
    ) -> Result<(), WorldError> {
        if self.drawn.is_empty() {
            return Ok(());
        }
        let judge = Judge::of(base)?;
        for (index, tree) in &mut self.drawn {
            let mut simpler = tree.simplify();
            while simpler && *runs > 0 {
                *runs -= 1;
                let request = tree.current();
                let mut actions = self.actions.clone();
                actions[*index] = request.clone().into();
                simpler = if judge.takes(&request)?.is_ok() && fails(&actions) {
                    self.actions = actions;
                    tree.simplify()
                } else {
                    tree.complicate()
                };
            }
        }
        Ok(())
    }

    /// The objects that were drawn, whole.
    pub(super) fn objects(&self) -> Vec<String> {
        let actions = self.drawn.iter().filter_map(|(index, _)| self.actions.get(*index)?.object());
        actions.map(|object| object.to_string()).collect()
    }
}

/// Whatever it draws follows from the seed.
fn runner(seed: u64) -> TestRunner {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}

/// A server that says what it would take, in the state that runs begin with.
pub(super) struct Judge {
    simulation: Simulation,
    link: Link,
    /// The server ends with it.
    _room: Room,
}

impl Judge {
    pub(super) fn of(base: &Base) -> Result<Self, WorldError> {
        let simulation = Simulation::starting_at(0, base.elapsed);
        let env = simulation.env();
        let store: Arc<dyn Store> = Arc::new(base.store.fork(&env));
        let recorder = simulation.run(Recorder::start(&env, store))??;
        let room = Room::new(&env, &recorder);
        simulation.run(room.restart())??;
        let link = room.seat.link(&env, Delay::None);
        Ok(Self { simulation, link, _room: room })
    }

    fn draw(&self, strategy: &SBoxedStrategy<Request>, runner: &mut TestRunner) -> Result<Tree, WorldError> {
        let mut refusal = None;
        for _ in 0..limits::DRAWS {
            let tree = strategy.new_tree(runner).map_err(|reason| WorldError::Undrawn(reason.to_string()))?;
            match self.takes(&tree.current())? {
                Ok(()) => return Ok(tree),
                Err(error) => refusal = Some(error),
            }
        }
        let last = refusal.map(|error| error.to_string()).unwrap_or_default();
        Err(WorldError::Undrawn(format!("the server refused {} of them, the last one so: {last}", limits::DRAWS)))
    }

    pub(super) fn takes(&self, request: &Request) -> Result<ApiResult<()>, WorldError> {
        let mut request = request.clone();
        if let Call::Create { options, .. } = &mut request.call {
            options.dry_run = true;
        }
        Ok(self.simulation.run(self.link.client().request(request))?.map(drop))
    }

    /// The kinds that it has.
    #[cfg(test)]
    pub(super) fn kinds(&self) -> Result<Vec<orchestrator_core::client::ResourceInfo>, WorldError> {
        use orchestrator_core::client::ResourceDiscovery;
        Ok(self.simulation.run(self.link.resources())??)
    }
}
