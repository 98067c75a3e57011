//! A priority level at work: requests take seats, wait for them, and give them back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use orchestrator_core::env::Env;
use tokio::sync::oneshot;

use super::queues::{Arrival, Queues, Shape, Ticket};
use crate::{limits, metrics::Refusal};

/// The seats and queues of a level.
#[derive(Debug)]
pub(super) struct Room(Mutex<Queues<oneshot::Sender<Seat>>>);

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
        drop(self.room.lock().withdraw(self.queue, self.ticket));
    }
}

impl Room {
    pub(super) fn new(shape: Shape) -> Self {
        Self(Mutex::new(Queues::new(shape)))
    }

    pub(super) fn reshape(self: &Arc<Self>, shape: Shape) {
        self.change(|queues| queues.reshape(shape));
    }

    /// A seat for a request of the flow with this hash, perhaps after a while, or why there is none.
    pub(super) async fn seat(self: &Arc<Self>, env: &Env, flow: u64) -> Result<Seat, Refusal> {
        let mut place = {
            let mut queues = self.lock();
            match queues.arrive(flow) {
                Arrival::Runs(queue) => return Ok(Seat { room: self.clone(), queue }),
                Arrival::Refused if queues.has_queues() => return Err(Refusal::QueueFull),
                Arrival::Refused => return Err(Refusal::ConcurrencyLimit),
                Arrival::Waits(queue) => {
                    let (sender, seat) = oneshot::channel();
                    Place { room: self, queue, ticket: queues.wait(queue, sender), seat }
                }
            }
        };
        let seat = env.timeout(limits::QUEUE_TIME, &mut place.seat).await;
        seat.ok().and_then(Result::ok).ok_or(Refusal::TimeOut)
    }

    /// Changes the state, and wakes those who have a seat now.
    fn change(self: &Arc<Self>, change: impl FnOnce(&mut Queues<oneshot::Sender<Seat>>)) {
        let woken: Vec<_> = {
            let mut queues = self.lock();
            change(&mut queues);
            std::iter::from_fn(|| queues.next()).collect()
        };
        for (queue, waiter) in woken {
            // A waiter that has just left sends the seat back, and so to the next one.
            drop(waiter.send(Seat { room: self.clone(), queue }));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queues<oneshot::Sender<Seat>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
            let room = Arc::new(Room::new(SHAPE));
            let first = room.seat(&env, 0).await.unwrap();
            let mut gone = Box::pin(room.seat(&env, 0));
            let mut next = Box::pin(room.seat(&env, 0));
            assert!(gone.as_mut().now_or_never().is_none() && next.as_mut().now_or_never().is_none());
            drop(gone);
            drop(first);
            let second = next.await.unwrap();
            // The seat was given, and nobody took it.
            let mut late = Box::pin(room.seat(&env, 0));
            assert!(late.as_mut().now_or_never().is_none());
            drop(second);
            drop(late);
            assert!(room.seat(&env, 0).await.is_ok());
        });
        run.unwrap();
    }

    #[test]
    fn nobody_waits_for_ever() {
        let simulation = Simulation::new(1);
        let env = simulation.env();
        let run = simulation.run(async {
            let room = Arc::new(Room::new(SHAPE));
            let _first = room.seat(&env, 0).await.unwrap();
            let waiting = future::join_all((0..5).map(|_| room.seat(&env, 0)));
            let before = env.monotonic();
            assert!(waiting.await.iter().all(Result::is_err));
            assert_eq!(env.monotonic() - before, limits::QUEUE_TIME);
            // Those who gave up hold no place.
            let patient = future::join(room.seat(&env, 0), async {
                env.sleep(Duration::from_secs(1)).await;
                room.reshape(Shape { seats: 2, ..SHAPE });
            });
            assert!(patient.await.0.is_ok());
        });
        run.unwrap();
    }
}
