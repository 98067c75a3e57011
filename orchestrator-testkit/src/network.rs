//! A bad network between a client and a server: requests and events are lost, repeated, late and out of order.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use futures::StreamExt;
use orchestrator_core::{
    client::{Backend, Client, Reply, Request, WatchEvent, WatchRequest, WatchStream},
    env::{Env, TaskGroup, Watched},
    status::{ApiError, ApiResult},
};

/// How late what is late comes, at most.
const LATE: Duration = Duration::from_secs(3);

/// Events of a watch that may come once more.
const REPEATABLE_EVENTS: usize = 8;

/// How often what goes wrong, in thousandths of requests and of events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetworkFaults {
    /// Requests that never arrive; the client is told so.
    pub requests_lost: u32,
    /// Requests that arrive late, also when the client waits no longer.
    pub requests_late: u32,
    /// Requests that are served, and whose reply is lost: the client cannot know.
    pub replies_lost: u32,
    /// Replies that arrive late.
    pub replies_late: u32,
    /// Events that never come; the watch expires soon afterwards, as it does for clients that fall behind.
    pub events_lost: u32,
    /// Events after which an earlier one, or the same, comes once more.
    pub events_repeated: u32,
    /// Events that come late, with all that follow.
    pub events_late: u32,
    /// Events that come after the one that follows.
    pub events_swapped: u32,
    /// Watches that end without a word, counted by event.
    pub watches_closed: u32,
}

/// A network between a client and a server. Clones are the same network.
#[derive(Clone)]
pub struct Network {
    client: Client,
    env: Env,
    shared: Arc<Shared>,
}

struct Shared {
    line: Watched<Line>,
    /// Requests that are on their way.
    tasks: Mutex<TaskGroup>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Line {
    faults: NetworkFaults,
    cut: bool,
    cuts: u64,
}

impl NetworkFaults {
    /// Everything goes wrong this often.
    pub fn all(per_mille: u32) -> Self {
        Self {
            requests_lost: per_mille,
            requests_late: per_mille,
            replies_lost: per_mille,
            replies_late: per_mille,
            events_lost: per_mille,
            events_repeated: per_mille,
            events_late: per_mille,
            events_swapped: per_mille,
            watches_closed: per_mille,
        }
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network").field("line", &self.shared.line.get()).finish_non_exhaustive()
    }
}

impl Network {
    /// A network in front of a server, without faults so far.
    pub fn new(client: &Client, env: &Env) -> Self {
        let shared = Shared { line: Watched::new(Line::default()), tasks: Mutex::new(TaskGroup::new(env)) };
        Self { client: client.clone(), env: env.clone(), shared: Arc::new(shared) }
    }

    /// A client on the far side.
    pub fn client(&self) -> Client {
        Client::new(Arc::new(self.clone()))
    }

    /// What goes wrong from now on.
    pub fn set_faults(&self, faults: NetworkFaults) {
        self.shared.line.update(|line| {
            line.faults = faults;
            false
        });
    }

    /// Nothing gets through until [`Self::mend`]; whoever waits is left waiting.
    pub fn cut(&self) {
        self.shared.line.update(|line| {
            *line = Line { cut: true, cuts: line.cuts + 1, ..*line };
            true
        });
    }

    /// Lets requests through again. What was under way at the cut fails now.
    pub fn mend(&self) {
        self.shared.line.update(|line| {
            line.cut = false;
            true
        });
    }

    fn strikes(&self, rate: fn(&NetworkFaults) -> u32) -> bool {
        let rate = rate(&self.shared.line.get().faults);
        rate > 0 && self.env.random_below(1000) < rate.into()
    }

    async fn be_late(&self) {
        self.env.sleep(self.random_time(LATE)).await;
    }

    fn random_time(&self, below: Duration) -> Duration {
        Duration::from_nanos(self.env.random_below(u64::try_from(below.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// Waits until the line is whole; an error when it was cut since.
    async fn passes(&self, cuts: u64) -> ApiResult<()> {
        let line = self.shared.line.watcher().wait_for(|line| !line.cut).await;
        if line.is_ok_and(|line| line.cuts == cuts) { Ok(()) } else { Err(on_purpose()) }
    }

    async fn carry(self, request: Request, cuts: u64) -> ApiResult<Reply> {
        if self.strikes(|faults| faults.requests_late) {
            self.be_late().await;
        }
        let reply = self.client.request(request).await;
        if self.strikes(|faults| faults.replies_late) {
            self.be_late().await;
        }
        self.passes(cuts).await?;
        if self.strikes(|faults| faults.replies_lost) { Err(on_purpose()) } else { reply }
    }

    fn lock(&self) -> MutexGuard<'_, TaskGroup> {
        self.shared.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Backend for Network {
    async fn request(&self, request: Request) -> ApiResult<Reply> {
        let cuts = self.shared.line.get().cuts;
        self.passes(cuts).await?;
        if self.strikes(|faults| faults.requests_lost) {
            return Err(on_purpose());
        }
        // A task of its own: what was sent arrives, also when nobody waits for the answer any more.
        let (answer, answered) = tokio::sync::oneshot::channel();
        let carried = self.clone().carry(request, cuts);
        self.lock().spawn("request", async move {
            let _ = answer.send(carried.await);
        });
        answered.await.unwrap_or_else(|_| Err(on_purpose()))
    }

    async fn watch(&self, request: WatchRequest) -> ApiResult<WatchStream> {
        let cuts = self.shared.line.get().cuts;
        self.passes(cuts).await?;
        let changes = self.client.watch(request).await?;
        let watch = Watch::new(self, changes, cuts);
        Ok(futures::stream::unfold(watch, Watch::next).boxed())
    }
}

/// A watch through the network.
struct Watch {
    network: Network,
    changes: WatchStream,
    cuts: u64,
    /// To be given next.
    ready: VecDeque<WatchEvent>,
    /// Waits for the next one to pass.
    held: Option<WatchEvent>,
    given: VecDeque<WatchEvent>,
    /// Something was lost: when the watch expires, in monotonic time.
    expires: Option<Duration>,
    /// What was given is not all that there was: the watch may not end as if it could be resumed.
    incomplete: bool,
    ended: bool,
}

impl Watch {
    fn new(network: &Network, changes: WatchStream, cuts: u64) -> Self {
        Self {
            network: network.clone(),
            changes,
            cuts,
            ready: VecDeque::new(),
            held: None,
            given: VecDeque::new(),
            expires: None,
            incomplete: false,
            ended: false,
        }
    }

    async fn next(mut self) -> Option<(ApiResult<WatchEvent>, Self)> {
        loop {
            if self.network.passes(self.cuts).await.is_err() {
                self.ready.clear();
                self.ended = true;
            }
            if let Some(event) = self.ready.pop_front() {
                return Some((Ok(event), self));
            }
            if self.ended {
                let incomplete = std::mem::take(&mut self.incomplete);
                return incomplete.then(|| (Err(expired()), self));
            }
            match self.arrival().await {
                Some(Ok(event)) => self.take(event).await,
                Some(Err(error)) => {
                    (self.ended, self.incomplete) = (true, false);
                    return Some((Err(error), self));
                }
                None => self.ended = true,
            }
        }
    }

    /// The next event, or the end; the one that is held when nothing comes for a while.
    async fn arrival(&mut self) -> Option<ApiResult<WatchEvent>> {
        let env = self.network.env.clone();
        let wait = match (&self.held, self.expires) {
            (Some(_), _) => self.network.random_time(LATE),
            (None, Some(expires)) => expires.saturating_sub(env.monotonic()),
            (None, None) => return self.changes.next().await,
        };
        match env.timeout(wait, self.changes.next()).await {
            Ok(arrived) => arrived,
            Err(_) => Some(self.held.take().ok_or_else(expired)),
        }
    }

    async fn take(&mut self, event: WatchEvent) {
        let network = self.network.clone();
        if network.strikes(|faults| faults.events_late) {
            network.be_late().await;
        }
        if network.strikes(|faults| faults.watches_closed) {
            self.ended = true;
        } else if network.strikes(|faults| faults.events_lost) {
            self.expires.get_or_insert(network.env.monotonic() + network.random_time(LATE));
            self.incomplete = true;
        } else if self.held.is_none() && network.strikes(|faults| faults.events_swapped) {
            self.held = Some(event);
            self.incomplete = true;
        } else {
            self.give(event);
            if let Some(held) = self.held.take() {
                self.give(held);
            }
        }
    }

    fn give(&mut self, event: WatchEvent) {
        self.given.push_back(event.clone());
        if self.given.len() > REPEATABLE_EVENTS {
            self.given.pop_front();
        }
        self.ready.push_back(event);
        if self.network.strikes(|faults| faults.events_repeated) {
            let index = self.network.env.random_below(self.given.len() as u64) as usize;
            self.ready.extend(self.given.get(index).cloned());
        }
    }
}

fn expired() -> ApiError {
    ApiError::expired("events were lost on purpose")
}

fn on_purpose() -> ApiError {
    ApiError::unavailable("the network fails on purpose")
}
