//! Virtual time on one thread: tasks run in an order drawn from a seed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Env, Environment};

/// Where simulated time starts: 2026-01-01T00:00:00Z.
const START_SECONDS: i64 = 1_767_225_600;

/// The task that [`Simulation::run`] was called with.
const ROOT: u64 = 0;

/// A simulated world: an executor and a clock, both driven by a seed.
///
/// ```
/// use std::time::Duration;
/// use orchestrator_core::env::Simulation;
///
/// let simulation = Simulation::new(7);
/// let env = simulation.env();
/// let waited = simulation.run(async move {
///     let before = env.now();
///     env.sleep(Duration::from_secs(3600)).await;
///     env.now().duration_since(before)
/// });
/// assert_eq!(waited.unwrap().as_hours(), 1);
/// ```
#[derive(Debug)]
pub struct Simulation {
    world: Arc<World>,
    timers: Option<Box<dyn Timers>>,
}

/// Timers that tasks of a world use besides those of its environment, such as those of a library that knows but one runtime.
pub trait Timers: fmt::Debug + Send + Sync {
    /// Calls a function that may make such timers.
    fn within(&self, call: &mut dyn FnMut());

    /// Lets time pass from `now` until `woken` resolves, or until a time at the latest. Gives the time when it stopped;
    /// `None` when there is nothing to wait for.
    ///
    /// Times are those that have passed in the world.
    fn pass(
        &self,
        now: Duration,
        until: Option<Duration>,
        woken: &mut (dyn Future<Output = ()> + Unpin),
    ) -> Option<Duration>;
}

/// Nothing can happen any more: no task is ready and none waits for time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the simulation is stuck: every task waits for another")]
pub struct Stuck;

impl Simulation {
    /// A world whose every choice follows from the seed.
    pub fn new(seed: u64) -> Self {
        Self::starting_at(seed, Duration::ZERO)
    }

    /// A world that begins this long after the start of simulated time: one that carries on with what an earlier world
    /// has left, such as the content of its store. It draws other numbers than a world of the same seed did before: names
    /// and UIDs that are there already must not come again.
    pub fn starting_at(seed: u64, elapsed: Duration) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX));
        let state = State {
            elapsed,
            random,
            next_id: ROOT + 1,
            tasks: BTreeMap::new(),
            ready: Vec::new(),
            queued: BTreeSet::new(),
            timers: BTreeMap::new(),
            next_timer: 0,
            passing: None,
        };
        Self { world: Arc::new(World { state: Mutex::new(state) }), timers: None }
    }

    /// The same world, whose tasks use these timers, too.
    #[must_use]
    pub fn with_timers(mut self, timers: impl Timers + 'static) -> Self {
        self.timers = Some(Box::new(timers));
        self
    }

    /// The environment to give to the components of this world.
    pub fn env(&self) -> Env {
        Env::new(SimEnvironment(self.world.clone()))
    }

    /// Runs the world until this future ends. Other tasks stay as they are, ready for the next call.
    pub fn run<F: Future>(&self, future: F) -> Result<F::Output, Stuck> {
        let mut root = std::pin::pin!(future);
        self.world.wake(ROOT);
        loop {
            let Some(id) = self.world.next_ready() else {
                self.pass_time()?;
                continue;
            };
            let waker = Waker::from(Arc::new(TaskWaker { id, world: self.world.clone() }));
            let mut context = Context::from_waker(&waker);
            let mut output = None;
            let mut poll = || {
                if id == ROOT {
                    if let Poll::Ready(ready) = root.as_mut().poll(&mut context) {
                        output = Some(ready);
                    }
                } else if let Some(mut task) = self.world.take_task(id)
                    && task.as_mut().poll(&mut context).is_pending()
                {
                    self.world.lock().tasks.insert(id, task);
                }
            };
            match &self.timers {
                Some(timers) => timers.within(&mut poll),
                None => poll(),
            }
            if let Some(output) = output {
                return Ok(output);
            }
        }
    }

    /// Moves the clock to where something can happen again.
    fn pass_time(&self) -> Result<(), Stuck> {
        let Some(timers) = &self.timers else { return self.world.fire_next() };
        let (now, next) = self.world.times();
        let time = timers.pass(now, next, &mut Woken { world: self.world.clone(), next }).ok_or(Stuck)?;
        let time = next.map_or(time, |next| time.min(next));
        self.world.move_to(time);
        if next == Some(time) { self.world.fire_next() } else { Ok(()) }
    }

    /// How many tasks exist.
    pub fn tasks(&self) -> usize {
        self.world.lock().tasks.len()
    }
}

impl Drop for Simulation {
    fn drop(&mut self) {
        // Tasks hold environments, which hold the world that holds the tasks.
        let tasks = std::mem::take(&mut self.world.lock().tasks);
        drop(tasks);
    }
}

#[derive(Debug)]
struct World {
    state: Mutex<State>,
}

struct State {
    elapsed: Duration,
    random: ChaCha8Rng,
    next_id: u64,
    tasks: BTreeMap<u64, Pin<Box<dyn Future<Output = ()> + Send>>>,
    ready: Vec<u64>,
    queued: BTreeSet<u64>,
    timers: BTreeMap<(Duration, u64), Option<Waker>>,
    next_timer: u64,
    /// Whoever lets time pass: looks again when a task is ready or a timer is set.
    passing: Option<Waker>,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("elapsed", &self.elapsed).field("tasks", &self.tasks.len()).finish()
    }
}

impl State {
    /// When the next timer fires.
    fn next_deadline(&self) -> Option<Duration> {
        self.timers.first_key_value().map(|((deadline, _), _)| *deadline)
    }
}

impl World {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self, id: u64) {
        let mut state = self.lock();
        if state.queued.insert(id) {
            state.ready.push(id);
        }
        look_again(state);
    }

    /// The present time, and that of the next timer.
    fn times(&self) -> (Duration, Option<Duration>) {
        let state = self.lock();
        (state.elapsed, state.next_deadline())
    }

    fn move_to(&self, time: Duration) {
        let mut state = self.lock();
        state.elapsed = state.elapsed.max(time);
    }

    fn next_ready(&self) -> Option<u64> {
        let mut state = self.lock();
        if state.ready.is_empty() {
            return None;
        }
        let index = ((u128::from(state.random.next_u64()) * state.ready.len() as u128) >> 64) as usize;
        let id = state.ready.swap_remove(index);
        state.queued.remove(&id);
        Some(id)
    }

    fn take_task(&self, id: u64) -> Option<Pin<Box<dyn Future<Output = ()> + Send>>> {
        self.lock().tasks.remove(&id)
    }

    /// Moves the clock to the next timer and wakes who waits for it.
    fn fire_next(&self) -> Result<(), Stuck> {
        let mut state = self.lock();
        let ((deadline, _), waker) = state.timers.pop_first().ok_or(Stuck)?;
        state.elapsed = state.elapsed.max(deadline);
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }
}

/// Resolves when a task is ready, or a timer is set that fires before the one that was the next.
struct Woken {
    world: Arc<World>,
    next: Option<Duration>,
}

impl Future for Woken {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.world.lock();
        let is_earlier = state.next_deadline().is_some_and(|next| self.next.is_none_or(|known| next < known));
        if !state.ready.is_empty() || is_earlier {
            return Poll::Ready(());
        }
        state.passing = Some(context.waker().clone());
        Poll::Pending
    }
}

/// Tells whoever lets time pass that there is something new to look at.
fn look_again(mut state: MutexGuard<'_, State>) {
    let passing = state.passing.take();
    drop(state);
    if let Some(passing) = passing {
        passing.wake();
    }
}

struct TaskWaker {
    id: u64,
    world: Arc<World>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.world.wake(self.id);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.world.wake(self.id);
    }
}

struct SimEnvironment(Arc<World>);

impl Environment for SimEnvironment {
    fn now(&self) -> Timestamp {
        let elapsed = SignedDuration::try_from(self.monotonic()).unwrap_or(SignedDuration::MAX);
        Timestamp::constant(START_SECONDS, 0).saturating_add(elapsed).unwrap_or(Timestamp::MAX)
    }

    fn monotonic(&self) -> Duration {
        self.0.lock().elapsed
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let deadline = self.monotonic().saturating_add(duration);
        Box::pin(Timer { world: self.0.clone(), deadline, key: None })
    }

    fn run(&self, _name: &'static str, future: BoxFuture<'static, ()>) {
        let mut state = self.0.lock();
        let id = state.next_id;
        state.next_id += 1;
        state.tasks.insert(id, future);
        drop(state);
        self.0.wake(id);
    }

    fn run_blocking(&self, function: Box<dyn FnOnce() + Send>) {
        function();
    }

    fn random(&self) -> u64 {
        self.0.lock().random.next_u64()
    }
}

struct Timer {
    world: Arc<World>,
    deadline: Duration,
    key: Option<(Duration, u64)>,
}

impl Future for Timer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let world = self.world.clone();
        let mut state = world.lock();
        if state.elapsed >= self.deadline {
            return Poll::Ready(());
        }
        let deadline = self.deadline;
        let key = *self.key.get_or_insert_with(|| {
            state.next_timer += 1;
            (deadline, state.next_timer)
        });
        state.timers.insert(key, Some(context.waker().clone()));
        look_again(state);
        Poll::Pending
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.world.lock().timers.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_world_that_carries_on_draws_numbers_of_its_own() {
        let draw = |simulation: &Simulation| -> Vec<u64> {
            let env = simulation.env();
            (0..100).map(|_| env.random()).collect()
        };
        let first = draw(&Simulation::new(7));
        assert_eq!(first, draw(&Simulation::new(7)), "a seed repeats");
        let later = draw(&Simulation::starting_at(7, Duration::from_secs(20)));
        assert!(later.iter().all(|number| !first.contains(number)), "what was drawn does not come again");
        assert_eq!(later, draw(&Simulation::starting_at(7, Duration::from_secs(20))), "and that repeats, too");
    }
}
