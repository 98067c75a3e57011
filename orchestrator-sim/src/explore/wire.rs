//! What the process under test reaches the server through: a link that counts, and strikes where the plan says so.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use futures::{StreamExt, stream};
use orchestrator_core::{
    client::{Backend, Call, Client, ListOptions, Reply, Request, VersionMatch, WatchEvent, WatchRequest, WatchStream},
    env::{Env, Watched, Watcher},
    status::{ApiError, ApiResult, Reason},
};

use super::{
    limits,
    plan::{DEATH, Extent, Fault, Plan},
    server::Room,
    timeline::Timeline,
};
use crate::{host::Host, lock::lock};

/// Who the lines of a timeline name.
const PROCESS: &str = "process";
const FAULT: &str = "fault";

/// What all lives of a process share: the counters, and the faults that are still to come.
pub(super) struct Fate {
    env: Env,
    host: Host,
    state: Mutex<State>,
    deaths: Watched<u64>,
    timeline: Timeline,
}

#[derive(Debug, Default)]
struct State {
    extent: Extent,
    ahead: BTreeSet<Fault>,
    /// The versions of the events that were delivered.
    versions: Vec<String>,
    /// Until when nothing is heard.
    deaf_until: Duration,
    /// What the next life is told of the past.
    behind: Option<Behind>,
}

/// A server that is behind: as of a version, until it catches up.
#[derive(Clone, Debug)]
struct Behind {
    version: String,
    until: Duration,
}

impl fmt::Debug for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fate").field("state", &lock(&self.state)).finish_non_exhaustive()
    }
}

impl Fate {
    pub(super) fn new(env: &Env, plan: &Plan, timeline: &Timeline) -> Self {
        let ahead = plan.faults.iter().copied().collect();
        let state = Mutex::new(State { ahead, ..State::default() });
        Self { env: env.clone(), host: Host::new(env), state, deaths: Watched::new(0), timeline: timeline.clone() }
    }

    pub(super) fn extent(&self) -> Extent {
        lock(&self.state).extent
    }

    /// What the process runs on, all its lives.
    pub(super) fn host(&self) -> &Host {
        &self.host
    }

    /// How often the process was killed, for whoever starts it again.
    pub(super) fn deaths(&self) -> Watcher<u64> {
        self.deaths.watcher()
    }

    /// From now on nothing strikes.
    pub(super) fn end(&self) {
        let mut state = lock(&self.state);
        state.ahead.clear();
        state.behind = None;
    }

    /// The client of a new life.
    pub(super) fn client(self: &Arc<Self>, link: Client, room: &Arc<Room>) -> Client {
        let behind = lock(&self.state).behind.take();
        Client::new(Arc::new(Wire { fate: self.clone(), link, room: room.clone(), behind }))
    }

    /// Takes a fault whose time has come.
    fn strikes(&self, fault: Fault) -> bool {
        let strikes = lock(&self.state).ahead.remove(&fault);
        if strikes {
            self.timeline.note(FAULT, fault);
        }
        strikes
    }

    /// To which event time goes back at this one, if it does.
    fn goes_back(&self, number: usize) -> Option<usize> {
        let ahead = |fault: &Fault| matches!(fault, Fault::BackInTime(event, _) if *event == number);
        let fault = lock(&self.state).ahead.iter().find(|fault| ahead(fault)).copied()?;
        match fault {
            Fault::BackInTime(_, to) if self.strikes(fault) => Some(to.min(number)),
            _ => None,
        }
    }

    fn count(&self, is_write: bool) -> (usize, usize) {
        let extent = &mut lock(&self.state).extent;
        extent.requests += 1;
        extent.writes += usize::from(is_write);
        (extent.requests, if is_write { extent.writes } else { 0 })
    }

    fn count_event(&self, version: Option<String>) -> usize {
        let mut state = lock(&self.state);
        state.extent.events += 1;
        state.versions.extend(version);
        state.extent.events
    }

    /// The process is killed. Whoever calls this is a part of it, and goes no further.
    async fn die<T>(&self) -> T {
        self.deaths.update(|deaths| {
            *deaths += 1;
            true
        });
        std::future::pending().await
    }

    /// The process is killed, and its next life hears of the past, as of an event.
    async fn die_into_the_past<T>(&self, event: usize) -> T {
        {
            let mut state = lock(&self.state);
            let version = state.versions.get(event - 1).cloned();
            let until = self.env.monotonic() + DEATH + limits::BEHIND;
            state.behind = version.map(|version| Behind { version, until });
        }
        self.die().await
    }

    /// What happens to the host of the process before a request.
    async fn meddles_with_host(&self, number: usize) {
        if self.strikes(Fault::ClockAhead(number)) {
            self.host.jump(limits::CLOCK_JUMP);
        }
        if self.strikes(Fault::ClockBack(number)) {
            self.host.jump(-limits::CLOCK_JUMP);
        }
        if self.strikes(Fault::StandStill(number)) {
            self.host.stand_still(limits::STANDSTILL);
            self.env.sleep(limits::STANDSTILL).await;
        }
    }

    async fn while_deaf(&self) {
        loop {
            let until = lock(&self.state).deaf_until;
            let now = self.env.monotonic();
            if now >= until {
                return;
            }
            self.env.sleep(until - now).await;
        }
    }
}

/// The link of one life.
struct Wire {
    fate: Arc<Fate>,
    link: Client,
    room: Arc<Room>,
    behind: Option<Behind>,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").field("behind", &self.behind).finish_non_exhaustive()
    }
}

impl Wire {
    fn behind(&self) -> Option<&Behind> {
        self.behind.as_ref().filter(|behind| self.fate.env.monotonic() < behind.until)
    }

    async fn write(&self, number: usize, request: Request) -> ApiResult<Reply> {
        let fate = &self.fate;
        if fate.strikes(Fault::CrashBeforeWrite(number)) {
            return fate.die().await;
        }
        if fate.strikes(Fault::Conflict(number)) {
            return Err(ApiError::new(Reason::Conflict, "the object has been modified; please apply your changes"));
        }
        if fate.strikes(Fault::StoreFails(number)) {
            return Err(ApiError::internal("the store failed"));
        }
        if fate.strikes(Fault::WebhookFails(number)) {
            return Err(ApiError::internal("failed calling webhook \"a.webhook\": context deadline exceeded"));
        }
        let result = self.link.request(request.clone()).await;
        fate.timeline.wrote(PROCESS, &request, result.as_ref().err().cloned());
        if fate.strikes(Fault::CrashAfterWrite(number)) {
            return fate.die().await;
        }
        if fate.strikes(Fault::LoseAnswer(number)) {
            return Err(ApiError::new(
                Reason::Timeout,
                "the server was unable to return a response in the time allotted",
            ));
        }
        result
    }
}

#[async_trait]
impl Backend for Wire {
    async fn request(&self, mut request: Request) -> ApiResult<Reply> {
        let is_write = !matches!(request.call, Call::Get { .. } | Call::List(_));
        let (number, write) = self.fate.count(is_write);
        self.fate.meddles_with_host(number).await;
        if self.fate.strikes(Fault::ServerRestart(number)) {
            self.room.restart().await?;
        }
        if self.fate.strikes(Fault::Busy(number)) {
            return Err(ApiError::unavailable("the server is busy"));
        }
        if self.fate.strikes(Fault::Throttled(number)) {
            let why = "Too many requests, please try again later.";
            return Err(ApiError::new(Reason::TooManyRequests, why));
        }
        if is_write {
            return self.write(write, request).await;
        }
        // A list may come from a server's cache, the newest state of one object does not.
        if let (Call::List(options), Some(behind)) = (&mut request.call, self.behind()) {
            *options = ListOptions {
                resource_version: Some(behind.version.clone()),
                version_match: Some(VersionMatch::Exact),
                ..std::mem::take(options)
            };
        }
        self.link.request(request).await
    }

    async fn watch(&self, request: WatchRequest) -> ApiResult<WatchStream> {
        let until = self.behind().map(|behind| behind.until);
        let events = self.link.watch(request).await?;
        Ok(heard(self.fate.clone(), events, until))
    }
}

/// The events as the process hears them.
fn heard(fate: Arc<Fate>, events: WatchStream, behind_until: Option<Duration>) -> WatchStream {
    let begin = (fate, Some(events), behind_until);
    let bundles = stream::unfold(begin, |(fate, events, behind_until)| async move {
        let mut events = events?;
        let event = events.next().await?;
        if let Some(until) = behind_until {
            let now = fate.env.monotonic();
            fate.env.sleep(until.saturating_sub(now)).await;
        }
        let is_change = matches!(event, Ok(WatchEvent::Added(_) | WatchEvent::Modified(_) | WatchEvent::Deleted(_)));
        if !is_change {
            fate.while_deaf().await;
            return Some((vec![event], (fate, Some(events), None)));
        }
        let number = fate.count_event(event.as_ref().ok().and_then(version_of));
        if let Some(event) = fate.goes_back(number) {
            fate.die_into_the_past::<()>(event).await;
        }
        if fate.strikes(Fault::Late(number)) {
            lock(&fate.state).deaf_until = fate.env.monotonic() + limits::LATE;
        }
        if fate.strikes(Fault::Unseen(number)) {
            fate.env.sleep(limits::LATE).await;
            let expired = ApiError::expired("too old resource version");
            return Some((vec![Err(expired)], (fate, None, None)));
        }
        fate.while_deaf().await;
        let again = if fate.strikes(Fault::Twice(number)) { event.as_ref().ok().cloned() } else { None };
        let bundle = std::iter::once(event).chain(again.map(Ok)).collect();
        Some((bundle, (fate, Some(events), None)))
    });
    bundles.map(stream::iter).flatten().boxed()
}

fn version_of(event: &WatchEvent) -> Option<String> {
    match event {
        WatchEvent::Added(object) | WatchEvent::Modified(object) | WatchEvent::Deleted(object) => {
            object.metadata().ok()?.resource_version.clone()
        }
        WatchEvent::Bookmark { resource_version, .. } => Some(resource_version.clone()),
    }
}
