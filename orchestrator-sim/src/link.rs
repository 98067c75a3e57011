//! Links between components and the API server: slow, and broken when the server dies or the link is cut.

use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures::{
    FutureExt, StreamExt,
    future::{self, Either, select},
    stream,
};
use orchestrator_apiserver::ApiServer;
use orchestrator_core::{
    client::{Backend, Client, Reply, Request, ResourceDiscovery, ResourceInfo, WatchRequest, WatchStream},
    env::{Env, Watched},
    status::{ApiError, ApiResult},
};

use crate::{limits, lock::lock};

/// Where the API server is, while it lives.
#[derive(Debug, Default)]
pub(crate) struct Seat {
    server: Mutex<Option<ApiServer>>,
    /// How many servers have taken it.
    taken: AtomicU64,
    links: Mutex<Vec<Arc<Wire>>>,
}

impl Seat {
    /// A server takes the seat.
    pub(crate) fn take(&self, server: ApiServer) {
        *lock(&self.server) = Some(server);
        self.taken.fetch_add(1, Ordering::Relaxed);
    }

    /// The server dies: every link breaks, with all that is under way.
    pub(crate) fn vacate(&self) {
        // The server is dropped outside of the lock.
        let server = lock(&self.server).take();
        lock(&self.links).iter().for_each(|wire| wire.break_off());
        drop(server);
    }

    pub(crate) fn server(&self) -> Option<ApiServer> {
        lock(&self.server).clone()
    }

    /// The server with its number.
    pub(crate) fn numbered(&self) -> Option<(u64, ApiServer)> {
        self.server().map(|server| (self.taken.load(Ordering::Relaxed), server))
    }

    /// A new link.
    pub(crate) fn link(self: &Arc<Self>, env: &Env, delay: Delay) -> Link {
        let wire = Arc::new(Wire { state: Watched::new(State { cut: false, breaks: 0 }) });
        lock(&self.links).push(wire.clone());
        Link { env: env.clone(), seat: self.clone(), wire, delay }
    }
}

/// How long messages take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delay {
    /// No time at all.
    None,
    /// A few milliseconds, now and then much longer.
    Network,
}

/// A link between a component and the API server. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Link {
    env: Env,
    seat: Arc<Seat>,
    wire: Arc<Wire>,
    delay: Delay,
}

#[derive(Debug)]
struct Wire {
    state: Watched<State>,
}

#[derive(Clone, Copy, Debug)]
struct State {
    cut: bool,
    /// How often it broke.
    breaks: u64,
}

impl Wire {
    fn break_off(&self) {
        self.state.update(|state| {
            state.breaks += 1;
            true
        });
    }

    /// Resolves when the link breaks; not before it has broken once more than now.
    fn broken(&self) -> impl Future<Output = ()> + Send + 'static {
        let watcher = self.state.watcher();
        let breaks = watcher.get().breaks;
        async move {
            if watcher.wait_for(|state| state.breaks != breaks).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("state", &self.wire.state.get()).finish_non_exhaustive()
    }
}

impl Link {
    pub(crate) fn client(&self) -> Client {
        Client::new(Arc::new(self.clone()))
    }

    /// Where it leads.
    pub(crate) fn seat(&self) -> &Arc<Seat> {
        &self.seat
    }

    /// Nothing gets through until it is mended.
    pub(crate) fn cut(&self) {
        self.wire.state.update(|state| {
            *state = State { cut: true, breaks: state.breaks + 1 };
            true
        });
    }

    pub(crate) fn mend(&self) {
        self.wire.state.update(|state| {
            state.cut = false;
            false
        });
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.wire.state.get().cut
    }

    fn server(&self) -> ApiResult<ApiServer> {
        let server = if self.is_cut() { None } else { self.seat.server() };
        server.ok_or_else(unreachable)
    }

    async fn travel(&self) {
        if self.delay == Delay::None {
            return;
        }
        let long = self.env.random_below(limits::LONG_DELAY_ONE_IN) == 0;
        let bound = if long { limits::LONG_DELAY } else { limits::USUAL_DELAY };
        let delay = self.env.random_below(bound.as_nanos() as u64);
        self.env.sleep(Duration::from_nanos(delay)).await;
    }

    /// Does something over the link, unless it breaks meanwhile: then what became of it is not known.
    async fn unless_broken<T>(&self, call: impl Future<Output = ApiResult<T>>) -> ApiResult<T> {
        let broken = std::pin::pin!(self.wire.broken());
        match select(std::pin::pin!(call), broken).await {
            Either::Left((result, _)) => result,
            Either::Right(_) => Err(unreachable()),
        }
    }

    /// What comes over the link, in bundles as they arrive, until it breaks.
    fn carry(&self, events: WatchStream) -> WatchStream {
        let (link, wire, breaks) = (self.clone(), self.wire.clone(), self.wire.state.get().breaks);
        let delayed = events.ready_chunks(limits::BUNDLE_EVENTS).then(move |bundle| {
            let link = link.clone();
            async move {
                link.travel().await;
                stream::iter(bundle)
            }
        });
        // An end in good order is an end without an error.
        let end = future::lazy(move |_| (wire.state.get().breaks != breaks).then(|| Err(unreachable())));
        delayed.flatten().take_until(self.wire.broken()).chain(end.into_stream().filter_map(future::ready)).boxed()
    }
}

#[async_trait]
impl Backend for Link {
    async fn request(&self, request: Request) -> Result<Reply, ApiError> {
        let call = async {
            self.travel().await;
            let reply = self.server()?.request(request).await;
            self.travel().await;
            reply
        };
        self.unless_broken(call).await
    }

    async fn watch(&self, request: WatchRequest) -> Result<WatchStream, ApiError> {
        let call = async {
            self.travel().await;
            let events = self.server()?.watch(request).await?;
            Ok(self.carry(events))
        };
        self.unless_broken(call.boxed()).await
    }
}

#[async_trait]
impl ResourceDiscovery for Link {
    async fn resources(&self) -> ApiResult<Vec<ResourceInfo>> {
        let call = async {
            self.travel().await;
            self.server()?.resources().await
        };
        self.unless_broken(call).await
    }
}

fn unreachable() -> ApiError {
    ApiError::unavailable("the API server cannot be reached")
}
