//! The search for an order of calls: that of Wing and Gong, which with Lowe remembers where it has been.
//!
//! Wing, Gong: "Testing and Verifying Concurrent Objects" (1993). Lowe: "Testing for Linearizability" (2017).

use std::collections::BTreeSet;

/// What an object does when it is called by one caller at a time.
pub trait Model {
    /// What the object holds.
    type State: Clone + Ord;
    /// A call with its outcome, as it was recorded.
    type Call;

    /// The states that the call may leave behind when it happens now and has the outcome that was recorded; none when it cannot.
    fn after(&self, state: &Self::State, call: &Self::Call) -> Vec<Self::State>;
}

/// A call of a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded<C> {
    /// What was called, and its outcome.
    pub call: C,
    /// When it began, on a clock that all callers share.
    pub called: u64,
    /// When it was answered; `None` for a call whose outcome nobody knows: it happens at any time after it began, or never.
    pub returned: Option<u64>,
}

/// A history has at most this many calls.
pub const CALLS_MAX: usize = 128;

/// Why there is no order.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotLinearizable {
    /// More than [`CALLS_MAX`] calls.
    #[error("a history of {0} calls is too long")]
    TooLong(usize),
    /// However the calls are ordered, one of them has an outcome that it cannot have.
    #[error("no order explains the calls; after {longest:?} nothing fits")]
    NoOrder {
        /// The longest beginning of an order that was found, by the calls' places in the history.
        longest: Vec<usize>,
    },
}

/// An order in which the calls explain each other and none is moved out of its time, as places in the history.
///
/// # Errors
/// There is none, or the history is too long.
pub fn linearize<M: Model>(
    model: &M,
    initial: M::State,
    history: &[Recorded<M::Call>],
) -> Result<Vec<usize>, NotLinearizable> {
    if history.len() > CALLS_MAX {
        return Err(NotLinearizable::TooLong(history.len()));
    }
    let mut search = Search { model, history, visited: BTreeSet::new(), order: Vec::new(), longest: Vec::new() };
    if search.goes_on(0, initial) {
        Ok(search.order)
    } else {
        Err(NotLinearizable::NoOrder { longest: search.longest })
    }
}

struct Search<'a, M: Model> {
    model: &'a M,
    history: &'a [Recorded<M::Call>],
    /// From where the search has failed already: which calls had happened, and what they had left.
    visited: BTreeSet<(u128, M::State)>,
    order: Vec<usize>,
    longest: Vec<usize>,
}

impl<M: Model> Search<'_, M> {
    /// Whether the rest can be ordered after the calls of a set, one bit each.
    fn goes_on(&mut self, done: u128, state: M::State) -> bool {
        if !self.visited.insert((done, state.clone())) {
            return false;
        }
        if self.order.len() > self.longest.len() {
            self.longest.clone_from(&self.order);
        }
        let candidates = self.candidates(done);
        if candidates.iter().all(|&index| self.history[index].returned.is_none()) {
            return true;
        }
        for index in candidates {
            for next in self.model.after(&state, &self.history[index].call) {
                self.order.push(index);
                if self.goes_on(done | 1 << index, next) {
                    return true;
                }
                self.order.pop();
            }
        }
        false
    }

    /// The calls that may come next: those that began before any of the rest was answered. Who was answered first comes first.
    fn candidates(&self, done: u128) -> Vec<usize> {
        let rest = || (0..self.history.len()).filter(|index| done & (1 << index) == 0);
        let first_answer = rest().filter_map(|index| self.history[index].returned).min().unwrap_or(u64::MAX);
        let mut candidates: Vec<usize> = rest().filter(|&index| self.history[index].called < first_answer).collect();
        candidates.sort_by_key(|&index| self.history[index].returned.unwrap_or(u64::MAX));
        candidates
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A register that holds a number.
    struct Register;

    enum Access {
        Write(u32),
        Read(u32),
    }

    use Access::{Read, Write};

    impl Model for Register {
        type State = u32;
        type Call = Access;

        fn after(&self, state: &u32, call: &Access) -> Vec<u32> {
            match call {
                Write(value) => vec![*value],
                Read(value) => Vec::from_iter((value == state).then_some(*state)),
            }
        }
    }

    fn order(calls: impl IntoIterator<Item = (Access, u64, Option<u64>)>) -> Result<Vec<usize>, NotLinearizable> {
        let history: Vec<_> =
            calls.into_iter().map(|(call, called, returned)| Recorded { call, called, returned }).collect();
        linearize(&Register, 0, &history)
    }

    #[test]
    fn calls_at_once_have_any_order() {
        let found = order([(Write(1), 0, Some(10)), (Read(0), 1, Some(3)), (Read(1), 4, Some(6))]);
        assert_eq!(found.unwrap(), [1, 0, 2]);
        assert!(order([(Write(1), 0, Some(10)), (Read(1), 1, Some(3)), (Read(0), 4, Some(6))]).is_err());
    }

    #[test]
    fn calls_one_after_the_other_keep_their_order() {
        let stale = order([(Write(1), 0, Some(1)), (Read(0), 2, Some(3))]);
        assert_eq!(stale, Err(NotLinearizable::NoOrder { longest: vec![0] }));
        assert!(order([(Write(1), 0, Some(1)), (Write(2), 2, Some(3)), (Read(1), 4, Some(5))]).is_err());
    }

    #[test]
    fn calls_without_an_answer_happen_late_or_never() {
        assert!(order([(Write(1), 0, None), (Read(0), 2, Some(3)), (Read(1), 4, Some(5))]).is_ok());
        assert!(order([(Write(1), 0, None), (Read(0), 2, Some(3))]).is_ok());
        assert!(order([(Write(1), 0, None), (Read(1), 2, Some(3)), (Read(0), 4, Some(5))]).is_err());
        assert!(order([(Read(1), 0, Some(1)), (Write(1), 2, None)]).is_err(), "not before it began");
    }

    #[test]
    fn long_histories_are_refused() {
        let calls = (0..129).map(|at| (Write(1), at * 2, Some(at * 2 + 1)));
        assert_eq!(order(calls), Err(NotLinearizable::TooLong(129)));
    }
}
