//! One run: a world with a server, the process under test and people, from its start until nothing happens any more.

use std::{sync::Arc, time::Duration};

use orchestrator_core::{
    client::Request,
    env::{Env, Simulation, Stuck},
    status::ApiResult,
    store::{KeyRange, ListOptions, Store, StoreError},
};
use orchestrator_store_mem::MemStore;

use super::{
    Setup,
    action::Action,
    limits,
    plan::{DEATH, Extent, Plan},
    property::Watch,
    server::Room,
    timeline::Timeline,
    wire::Fate,
};
use crate::{
    invariants::{Silence, noise},
    link::Delay,
    objects::Objects,
    process::{Lives, Process},
    recorder::Recorder,
    requests, tokio_timers,
};

/// The state that runs begin with: a server has been here, and what is given is there.
#[derive(Debug)]
pub(super) struct Base {
    pub(super) store: MemStore,
    pub(super) elapsed: Duration,
    /// Time stands still in it.
    _still: Simulation,
}

/// How a run went.
#[derive(Debug)]
pub(super) struct Run {
    /// What does not hold, if anything.
    pub(super) broken: Option<String>,
    /// What there was when it ended.
    pub(super) objects: Objects,
    pub(super) timeline: Timeline,
    /// What the process under test did.
    pub(super) lives: Lives,
    pub(super) extent: Extent,
}

/// A world could not be made.
#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    /// Every task waits for another.
    #[error(transparent)]
    Stuck(#[from] Stuck),
    /// The store failed.
    #[error("the store failed: {0}")]
    Store(#[from] StoreError),
    /// Tokio's runtime cannot be made.
    #[error("tokio's runtime cannot be made: {0}")]
    Tokio(#[from] std::io::Error),
    /// Nothing could be drawn that the server takes.
    #[error("nothing could be drawn: {0}")]
    Undrawn(String),
    /// The server did not start, or refused what was given.
    #[error("{0}")]
    Api(#[from] orchestrator_core::status::ApiError),
}

impl Base {
    pub(super) fn new(given: &[Request]) -> Result<Self, WorldError> {
        let simulation = Simulation::new(0);
        let env = simulation.env();
        let store = MemStore::new(&env);
        let recorder = simulation.run(Recorder::start(&env, Arc::new(store.clone())))??;
        let room = Room::new(&env, &recorder);
        simulation.run(async {
            room.restart().await?;
            let people = room.seat.link(&env, Delay::None).client();
            // As in any cluster that has been there for a moment; pods are refused without it.
            for request in std::iter::once(&requests::default_account()).chain(given) {
                people.request(request.clone()).await?;
            }
            ApiResult::Ok(())
        })??;
        let elapsed = env.monotonic();
        drop(room);
        let still = Simulation::starting_at(0, elapsed);
        Ok(Self { store: store.fork(&still.env()), elapsed, _still: still })
    }

    /// A run in which everything follows from the seed and the plan.
    pub(super) fn run(&self, setup: &Setup, actions: &[Action], seed: u64, plan: &Plan) -> Result<Run, WorldError> {
        let simulation = tokio_timers::simulation(seed, self.elapsed, setup.beside_tokio)?;
        let env = simulation.env();
        let store = self.store.fork(&env);
        let recorder = simulation.run(Recorder::start(&env, Arc::new(store.clone())))??;
        let listing = simulation.run(store.list(&KeyRange::prefix(""), ListOptions::default()))??;
        let timeline = Timeline::new(&env);
        let fate = Arc::new(Fate::new(&env, plan, &timeline));
        let room = Arc::new(Room::new(&env, &recorder));
        simulation.run(room.restart())??;
        let lives = Lives::new(&env);
        let world = World { setup, env, recorder, room, fate, timeline, lives };
        let mut seen =
            Seen { objects: Objects::of(&listing.entries), records: 0, watch: Watch::new(&setup.properties) };
        let broken = simulation.run(world.live(actions, &mut seen))??;
        let (objects, extent) = (seen.objects, world.fate.extent());
        Ok(Run { broken, objects, timeline: world.timeline, lives: world.lives, extent })
    }
}

struct World<'a> {
    setup: &'a Setup,
    env: Env,
    recorder: Recorder,
    room: Arc<Room>,
    fate: Arc<Fate>,
    timeline: Timeline,
    lives: Lives,
}

/// The objects as of a place in the history.
struct Seen<'a> {
    objects: Objects,
    records: usize,
    watch: Watch<'a>,
}

impl World<'_> {
    /// The whole run. Gives the name of what does not hold.
    async fn live(&self, actions: &[Action], seen: &mut Seen<'_>) -> Result<Option<String>, WorldError> {
        let _beside: Vec<_> =
            self.setup.beside.iter().map(|begin| self.env.spawn("beside", begin(self.helper()))).collect();
        let _process = self.env.spawn("process", self.lives());
        let people = self.room.seat.link(&self.env, Delay::None).client();
        for action in actions {
            if let Some(broken) = self.pause(action, seen).await {
                return Ok(Some(broken));
            }
            if let Action::Write(request) = action {
                let result = people.request((**request).clone()).await;
                self.timeline.wrote("people", request, result.err());
            }
        }
        if let Some(broken) = self.settle(seen).await {
            return Ok(Some(broken));
        }
        // Faults that nothing has led to may not come when all is silent.
        self.fate.end();
        self.timeline.note("", "nothing is written any more");
        if let Some(broken) = seen.watch.at_the_end(&seen.objects) {
            return Ok(Some(broken.to_owned()));
        }
        Ok(self.stays_silent(seen).await)
    }

    /// Time before somebody does something.
    async fn pause(&self, action: &Action, seen: &mut Seen<'_>) -> Option<String> {
        match action {
            Action::Write(_) => {
                let pause = self.env.random_below(limits::PAUSE.as_nanos() as u64);
                self.look_for(Duration::from_nanos(pause), seen).await
            }
            Action::Wait(time) => self.look_for(*time, seen).await,
            Action::Settle => self.settle(seen).await,
            // Scripts have none of them any more.
            Action::Drawn(_) => None,
        }
    }

    /// The lives of the process under test, one after the other.
    fn lives(&self) -> impl Future<Output = ()> + Send + 'static {
        let (env, fate, room) = (self.env.clone(), self.fate.clone(), self.room.clone());
        let (begin, lives) = (self.setup.begin.clone(), self.lives.clone());
        let host = fate.host().env();
        async move {
            let deaths = fate.deaths();
            loop {
                let died = deaths.get();
                let link = room.seat.link(&env, Delay::Network);
                let client = fate.client(link.client(), &room);
                let process = Process::new(client, Arc::new(link), &room.seat, &host, &lives);
                let life = host.spawn("life", begin(process));
                if deaths.wait_for(|deaths| *deaths != died).await.is_err() {
                    return;
                }
                drop(life);
                env.sleep(DEATH).await;
            }
        }
    }

    /// A process to which nothing happens.
    fn helper(&self) -> Process {
        let link = self.room.seat.link(&self.env, Delay::Network);
        Process::new(link.client(), Arc::new(link), &self.room.seat, &self.env, &Lives::new(&self.env))
    }

    /// Lets time pass, and looks at everything that is written.
    async fn look_for(&self, time: Duration, seen: &mut Seen<'_>) -> Option<String> {
        let end = self.env.monotonic() + time;
        loop {
            if let Some(broken) = self.look(seen) {
                return Some(broken);
            }
            let now = self.env.monotonic();
            if now >= end {
                return None;
            }
            self.env.sleep((end - now).min(limits::LOOK)).await;
        }
    }

    /// Waits until nothing has been written for a while.
    async fn settle(&self, seen: &mut Seen<'_>) -> Option<String> {
        let start = self.env.monotonic();
        let mut silence = Silence::new(seen.records, start);
        loop {
            if let Some(broken) = self.look(seen) {
                return Some(broken);
            }
            let now = self.env.monotonic();
            let silent_since = self.recorder.history(|history| silence.since(history.records(), now));
            if now >= silent_since + limits::CALM {
                return None;
            }
            if now >= start + limits::SETTLE || seen.records > limits::CHANGES {
                return Some(format!("it settles within {} minutes", limits::SETTLE.as_secs() / 60));
            }
            self.env.sleep(limits::LOOK).await;
        }
    }

    async fn stays_silent(&self, seen: &mut Seen<'_>) -> Option<String> {
        let before = seen.records;
        let broken = self.look_for(limits::SILENCE, seen).await;
        let noise =
            self.recorder.history(|history| noise(&history.records()[before..]).next().map(ToString::to_string));
        broken.or_else(|| noise.map(|write| format!("once settled it writes nothing, but: {write}")))
    }

    /// Takes in what was written, one change after the other.
    fn look(&self, seen: &mut Seen<'_>) -> Option<String> {
        let now = self.env.monotonic();
        self.recorder.history(|history| {
            for record in &history.records()[seen.records..] {
                seen.records += 1;
                seen.objects.follow(record);
                if let Some(broken) = seen.watch.look(&seen.objects, now) {
                    return Some(broken.to_owned());
                }
            }
            seen.watch.look(&seen.objects, now).map(str::to_owned)
        })
    }
}
