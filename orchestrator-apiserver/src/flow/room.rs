//! A priority level at work: requests take seats, wait for them, and give them back.

use std::{
    ops::ControlFlow,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use orchestrator_core::env::Env;
use tokio::sync::oneshot;

use super::{
    demand::{Demand, Observed},
    queues::{Arrival, Queues, Shape, Ticket},
};
use crate::{limits, metrics::Refusal};

/// The seats and queues of a level.
#[derive(Debug)]
pub(super) struct Room {
    env: Env,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    queues: Queues<oneshot::Sender<Seat>>,
    demand: Demand,
}

/// The right to run. Dropping it gives it to the next one.
#[derive(Debug)]
pub(crate) struct Seat {
    room: Arc<Room>,
    queue: usize,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.room.change(|queues| queues.leave(self.queue));
    }
}

/// A place in a queue. Whoever drops it has left.
struct Place<'a> {
    room: &'a Room,
    queue: usize,
    ticket: Ticket,
    seat: oneshot::Receiver<Seat>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        // A seat that was given at the same moment is dropped with the receiver.
        drop(self.room.locked(|queues| queues.withdraw(self.queue, self.ticket)));
    }
}

impl Room {
    pub(super) fn new(env: &Env, shape: Shape) -> Self {
        let state = State { queues: Queues::new(shape), demand: Demand::default() };
        Self { env: env.clone(), state: Mutex::new(state) }
    }

    pub(super) fn reshape(self: &Arc<Self>, shape: Shape) {
        self.change(|queues| queues.reshape(shape));
    }

    /// Has so many seats from now on.
    pub(super) fn seat_so_many(self: &Arc<Self>, seats: usize) {
        self.change(|queues| queues.seat_so_many(seats));
    }

    /// What was asked for since the last look.
    pub(super) fn observe(&self) -> Observed {
        let now = self.env.monotonic();
        self.lock().demand.observe(now)
    }

    /// Whether anybody is here.
    pub(super) fn is_busy(&self) -> bool {
        self.lock().queues.asked_for() > 0
    }

    /// A seat for a request of the flow with this hash, perhaps after a while, or why there is none.
    pub(super) async fn seat(self: &Arc<Self>, flow: u64) -> Result<Seat, Refusal> {
        let arrived = self.locked(|queues| match queues.arrive(flow) {
            Arrival::Runs(queue) => ControlFlow::Break(Ok(Seat { room: self.clone(), queue })),
            Arrival::Refused if queues.has_queues() => ControlFlow::Break(Err(Refusal::QueueFull)),
            Arrival::Refused => ControlFlow::Break(Err(Refusal::ConcurrencyLimit)),
            Arrival::Waits(queue) => {
                let (sender, seat) = oneshot::channel();
                ControlFlow::Continue(Place { room: self, queue, ticket: queues.wait(queue, sender), seat })
            }
        });
        match arrived {
            ControlFlow::Break(seat) => seat,
            ControlFlow::Continue(mut place) => {
                let seat = self.env.timeout(limits::QUEUE_TIME, &mut place.seat).await;
                seat.ok().and_then(Result::ok).ok_or(Refusal::TimeOut)
            }
        }
    }

    /// Changes the state, and wakes those who have a seat now.
    fn change(self: &Arc<Self>, change: impl FnOnce(&mut Queues<oneshot::Sender<Seat>>)) {
        let woken: Vec<_> = self.locked(|queues| {
            change(queues);
            std::iter::from_fn(|| queues.next()).collect()
        });
        for (queue, waiter) in woken {
            // A waiter that has just left sends the seat back, and so to the next one.
            drop(waiter.send(Seat { room: self.clone(), queue }));
        }
    }

    /// Changes the state, and writes down how many seats are asked for then.
    fn locked<T>(&self, change: impl FnOnce(&mut Queues<oneshot::Sender<Seat>>) -> T) -> T {
        let now = self.env.monotonic();
        let State { queues, demand } = &mut *self.lock();
        let changed = change(queues);
        demand.set(now, queues.asked_for());
        changed
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::{FutureExt, future};
    use orchestrator_core::env::Simulation;

    use super::*;

    const SHAPE: Shape = Shape { seats: 1, queues: 4, hand: 2, length: 2 };

    #[test]
    fn a_seat_goes_to_whoever_still_waits() {
        let simulation = Simulation::new(1);
        let env = simulation.env();
        let run = simulation.run(async {
            let room = Arc::new(Room::new(&env, SHAPE));
            let first = room.seat(0).await.unwrap();
            let mut gone = Box::pin(room.seat(0));
            let mut next = Box::pin(room.seat(0));
            assert!(gone.as_mut().now_or_never().is_none() && next.as_mut().now_or_never().is_none());
            drop(gone);
            drop(first);
            let second = next.await.unwrap();
            // The seat was given, and nobody took it.
            let mut late = Box::pin(room.seat(0));
            assert!(late.as_mut().now_or_never().is_none());
            drop(second);
            drop(late);
            assert!(room.seat(0).await.is_ok());
        });
        run.unwrap();
    }

    #[test]
    fn nobody_waits_for_ever() {
        let simulation = Simulation::new(1);
        let env = simulation.env();
        let run = simulation.run(async {
            let room = Arc::new(Room::new(&env, SHAPE));
            let _first = room.seat(0).await.unwrap();
            let waiting = future::join_all((0..5).map(|_| room.seat(0)));
            let before = env.monotonic();
            assert!(waiting.await.iter().all(Result::is_err));
            assert_eq!(env.monotonic() - before, limits::QUEUE_TIME);
            // Those who gave up hold no place.
            let patient = future::join(room.seat(0), async {
                env.sleep(Duration::from_secs(1)).await;
                room.reshape(Shape { seats: 2, ..SHAPE });
            });
            assert!(patient.await.0.is_ok());
        });
        run.unwrap();
    }
}
