//! Who runs and who waits in one priority level: seats, queues, and whose turn it is.
//!
//! Each flow waits in the emptiest queue of its hand. A seat that becomes free goes to the queue that holds the fewest seats,
//! and among equals to the one that waited longest for its turn: so seats are shared evenly, however long requests take and
//! however many a flow sends.

use std::collections::VecDeque;

use super::hand::Hand;

/// How much a level may do at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// Requests that run at once.
    pub(super) seats: usize,
    /// Queues to wait in; with none, nobody waits.
    pub(super) queues: usize,
    /// Queues of one flow.
    pub(super) hand: usize,
    /// Requests that wait in one queue.
    pub(super) length: usize,
}

/// The state of a level. `W` is whoever waits.
#[derive(Debug)]
pub(super) struct Queues<W> {
    shape: Shape,
    /// At least one, so that there is something to count by; never fewer than before, so that requests find theirs.
    queues: Vec<Queue<W>>,
    running: usize,
    waiting: usize,
    /// Counts all that happens, for tickets and turns.
    clock: u64,
}

#[derive(Debug)]
struct Queue<W> {
    waiting: VecDeque<(Ticket, W)>,
    running: usize,
    last_turn: u64,
}

/// A place in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket(u64);

/// What becomes of a request that arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It has a seat, counted for this queue.
    Runs(usize),
    /// It may wait in this queue.
    Waits(usize),
    /// There is no room.
    Refused,
}

impl<W> Queues<W> {
    pub(super) fn new(shape: Shape) -> Self {
        let mut new = Self { shape, queues: Vec::new(), running: 0, waiting: 0, clock: 0 };
        new.reshape(shape);
        new
    }

    /// Behaves like this from now on. Whoever waits keeps the place.
    pub(super) fn reshape(&mut self, shape: Shape) {
        self.shape = shape;
        let queues = shape.queues.max(self.queues.len()).max(1);
        self.queues.resize_with(queues, || Queue { waiting: VecDeque::new(), running: 0, last_turn: 0 });
    }

    /// Whether anybody can wait.
    pub(super) fn has_queues(&self) -> bool {
        self.shape.queues > 0
    }

    /// Has so many seats from now on.
    pub(super) fn seat_so_many(&mut self, seats: usize) {
        self.shape.seats = seats;
    }

    /// Seats that would be taken now, were there enough.
    pub(super) fn asked_for(&self) -> usize {
        self.running + self.waiting
    }

    /// A request arrives, of the flow with this hash.
    pub(super) fn arrive(&mut self, flow: u64) -> Arrival {
        let at = self.shortest(flow);
        let Some(queue) = self.queues.get_mut(at) else { return Arrival::Refused };
        if self.running < self.shape.seats {
            self.clock += 1;
            queue.last_turn = self.clock;
            queue.running += 1;
            self.running += 1;
            Arrival::Runs(at)
        } else if self.shape.queues > 0 && queue.waiting.len() < self.shape.length {
            Arrival::Waits(at)
        } else {
            Arrival::Refused
        }
    }

    /// The queue of a flow's hand that has the least to do.
    fn shortest(&self, flow: u64) -> usize {
        let hand = Hand::deal(flow, self.shape.queues, self.shape.hand);
        let load = |at: &&usize| self.queues.get(**at).map_or(0, |queue| queue.waiting.len() + queue.running);
        hand.queues().iter().min_by_key(load).copied().unwrap_or(0)
    }

    /// Waits in a queue.
    pub(super) fn wait(&mut self, at: usize, waiter: W) -> Ticket {
        self.clock += 1;
        let ticket = Ticket(self.clock);
        if let Some(queue) = self.queues.get_mut(at) {
            queue.waiting.push_back((ticket, waiter));
            self.waiting += 1;
        }
        ticket
    }

    /// Waits no more. `None` for those whose turn has come.
    pub(super) fn withdraw(&mut self, at: usize, ticket: Ticket) -> Option<W> {
        let queue = self.queues.get_mut(at)?;
        let place = queue.waiting.iter().position(|(other, _)| *other == ticket)?;
        let (_, waiter) = queue.waiting.remove(place)?;
        self.waiting -= 1;
        Some(waiter)
    }

    /// A request gives back the seat that was counted for this queue.
    pub(super) fn leave(&mut self, at: usize) {
        if let Some(queue) = self.queues.get_mut(at) {
            queue.running -= 1;
            self.running -= 1;
        }
    }

    /// Gives a free seat to whoever is next.
    pub(super) fn next(&mut self) -> Option<(usize, W)> {
        if self.waiting == 0 || self.running >= self.shape.seats {
            return None;
        }
        let waiting = self.queues.iter_mut().enumerate().filter(|(_, queue)| !queue.waiting.is_empty());
        let (at, queue) = waiting.min_by_key(|(_, queue)| (queue.running, queue.last_turn))?;
        let (_, waiter) = queue.waiting.pop_front()?;
        self.clock += 1;
        queue.last_turn = self.clock;
        queue.running += 1;
        self.running += 1;
        self.waiting -= 1;
        Some((at, waiter))
    }
}

#[cfg(test)]
mod tests;
