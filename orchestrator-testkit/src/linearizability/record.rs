//! Callers that write down what they did and what they were answered.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use orchestrator_core::{
    env::{Env, TaskEnd},
    store::{Batch, Entry, Key, KeyRange, ListOptions, Operation, Precondition, Revision, Store, StoreError},
};

use super::{
    model::{Answer, Call, State, StoreModel},
    search::{Recorded, linearize},
};
use crate::wrap::{FaultRates, FaultyStore, SlowStore};

/// How histories are made.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How many, one after the other.
    pub histories: usize,
    /// Callers at once.
    pub callers: usize,
    /// Calls of each caller; in all at most [`CALLS_MAX`](super::CALLS_MAX).
    pub calls: usize,
    /// Each way of a call takes up to this long; no time when it is zero.
    pub delay: Duration,
    /// What goes wrong.
    pub faults: FaultRates,
    /// Calls, in thousandths, that their caller gives up at some time within twice the delay.
    pub given_up_per_mille: u32,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            histories: 12,
            callers: 4,
            calls: 9,
            delay: Duration::from_micros(300),
            faults: FaultRates { refused_per_mille: 30, answer_lost_per_mille: 60, ..FaultRates::default() },
            given_up_per_mille: 40,
        }
    }
}

/// A call that was given up has happened or failed within this time.
const SETTLING: Duration = Duration::from_millis(20);
const SETTLING_LOOKS_MAX: usize = 1_000;

/// Makes histories on a store that nobody else writes to, each below a prefix of its own, and gives how many calls had no answer.
///
/// # Panics
/// When a history is not linearizable, or a call fails in a way that none of the faults explains.
pub async fn check_histories(store: &Arc<dyn Store>, env: &Env, plan: Plan) -> usize {
    let mut unanswered = 0;
    for number in 0..plan.histories {
        let begin = store.status().await.expect("a status").revision;
        let history = record(store, env, plan, &format!("/history/{number}/")).await;
        let open = history.iter().filter(|recorded| recorded.returned.is_none()).count();
        if let Err(error) = linearize(&StoreModel::of(&history), State::empty(begin), &history) {
            let calls: Vec<_> = history.iter().enumerate().map(|(at, call)| format!("{at}: {call:?}")).collect();
            panic!("history {number} from {begin}: {error}\n{}", calls.join("\n"));
        }
        if open > 0 {
            settle(store, env).await;
        }
        unanswered += open;
    }
    unanswered
}

/// A call that was given up may still happen: the next history begins when the store has come to rest.
async fn settle(store: &Arc<dyn Store>, env: &Env) {
    let mut newest = None;
    for _ in 0..SETTLING_LOOKS_MAX {
        let before = newest.replace(store.status().await.expect("a status").revision);
        if before == newest {
            return;
        }
        env.sleep(SETTLING).await;
    }
    panic!("nobody writes, and the store does not come to rest");
}

async fn record(store: &Arc<dyn Store>, env: &Env, plan: Plan, prefix: &str) -> Vec<Recorded<Call>> {
    let mut between: Arc<dyn Store> = store.clone();
    if !plan.delay.is_zero() {
        between = Arc::new(SlowStore::new(between, env, plan.delay));
    }
    let store: Arc<dyn Store> = Arc::new(FaultyStore::new(between, env, plan.faults));
    let (clock, history) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(Vec::new())));
    let caller = |number: usize| Caller {
        store: store.clone(),
        env: env.clone(),
        plan,
        prefix: prefix.to_owned(),
        number,
        seen: BTreeMap::new(),
        newest: None,
        clock: clock.clone(),
        history: history.clone(),
    };
    let callers: Vec<_> = (0..plan.callers).map(|number| env.spawn("caller", caller(number).run())).collect();
    for caller in callers {
        assert_eq!(caller.join().await, TaskEnd::Completed, "a caller of {prefix}");
    }
    std::mem::take(&mut *history.lock().unwrap_or_else(PoisonError::into_inner))
}

struct Caller {
    store: Arc<dyn Store>,
    env: Env,
    plan: Plan,
    prefix: String,
    number: usize,
    /// The revision at which it last saw each key.
    seen: BTreeMap<Key, Revision>,
    /// A revision that the store has reached.
    newest: Option<Revision>,
    clock: Arc<AtomicU64>,
    history: Arc<Mutex<Vec<Recorded<Call>>>>,
}

impl Caller {
    async fn run(mut self) {
        for round in 0..self.plan.calls {
            let called = self.clock.fetch_add(1, Ordering::SeqCst);
            let answered = match self.env.random_below(10) {
                0 | 1 => self.get().await,
                2 | 3 => self.list().await,
                _ => Some(self.commit(round).await),
            };
            let Some(call) = answered else { continue };
            let returned = self.clock.fetch_add(1, Ordering::SeqCst);
            let unknown = matches!(call, Call::Commit { answer: Answer::Unknown, .. });
            let recorded = Recorded { call, called, returned: (!unknown).then_some(returned) };
            self.history.lock().unwrap_or_else(PoisonError::into_inner).push(recorded);
        }
    }

    fn key(&self) -> Key {
        Key::new(format!("{}{}", self.prefix, ["a", "b", "b/c"][self.env.random_below(3) as usize]))
    }

    /// The call's answer; `None` when it failed without one, or was given up.
    async fn ask<T>(&self, call: impl Future<Output = Result<T, StoreError>>) -> Option<Result<T, StoreError>> {
        let given_up = self.env.random_below(1000) < u64::from(self.plan.given_up_per_mille);
        let answer = if given_up {
            let longest = u64::try_from(2 * self.plan.delay.as_nanos()).unwrap_or(u64::MAX).max(1);
            self.env.timeout(Duration::from_nanos(self.env.random_below(longest)), call).await.ok()?
        } else {
            call.await
        };
        match answer {
            Err(StoreError::Unavailable { .. }) => None,
            answered => Some(answered),
        }
    }

    fn see(&mut self, entries: &[Entry]) {
        self.seen.extend(entries.iter().map(|entry| (entry.key.clone(), entry.modified)));
    }

    async fn get(&mut self) -> Option<Call> {
        let key = self.key();
        let found = self.ask(self.store.get(&key)).await?.expect("a key can be read");
        self.see(found.as_slice());
        Some(Call::Get { key, found })
    }

    async fn list(&mut self) -> Option<Call> {
        let past = self.store.capabilities().snapshots && self.env.random_below(2) == 0;
        let limit = (self.env.random_below(3) == 0).then_some(1);
        let after = (self.env.random_below(4) == 0).then(|| self.key());
        let options = ListOptions { revision: self.newest.filter(|_| past), limit, after };
        let range = KeyRange::prefix(self.prefix.as_str());
        let found = self.ask(self.store.list(&range, options.clone())).await?.expect("a range can be listed");
        self.newest = self.newest.max(Some(found.revision));
        if options.revision.is_none() {
            self.see(&found.entries);
        }
        Some(Call::List { range, options, found })
    }

    async fn commit(&mut self, round: usize) -> Call {
        let batch = self.batch(round);
        let answer = match self.ask(self.store.commit(batch.clone())).await {
            None => Answer::Unknown,
            Some(Ok(revision)) => {
                self.newest = self.newest.max(Some(revision));
                for operation in &batch.operations {
                    self.seen.insert(operation.key().clone(), revision);
                }
                Answer::Committed(revision)
            }
            Some(Err(StoreError::Conflict { key, current })) => {
                self.see(current.as_slice());
                Answer::Conflict { key, current }
            }
            Some(Err(error)) => panic!("{batch:?}: {error}"),
        };
        Call::Commit { batch, answer }
    }

    /// One key or two, under a precondition or none.
    fn batch(&self, round: usize) -> Batch {
        let value = Bytes::from(format!("{}.{round}", self.number));
        let put = |key: Key| Operation::Put { key, value: value.clone(), time_to_live: None };
        let (key, other) = (self.key(), self.key());
        let precondition = match (self.env.random_below(5), self.seen.get(&key)) {
            (0, _) => Some(Precondition::Absent { key: key.clone() }),
            (1..=3, Some(revision)) => Some(Precondition::AtRevision { key: key.clone(), revision: *revision }),
            _ => None,
        };
        let mut operations = vec![match self.env.random_below(4) {
            0 => Operation::Delete { key: key.clone() },
            _ => put(key.clone()),
        }];
        if other != key && self.env.random_below(3) == 0 {
            operations.push(put(other));
        }
        Batch { preconditions: Vec::from_iter(precondition), operations }
    }
}
