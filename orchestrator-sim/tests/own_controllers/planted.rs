//! Where bugs are planted: between a controller and what it reads, writes, and is told.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use futures::{StreamExt, stream};
use orchestrator_core::{
    client::{Backend, Call, Client, Reply, Request, WatchEvent, WatchRequest, WatchStream},
    controller::{Action, Caches, Context, Reconciler},
    object::ObjectKey,
    scheduler::{PodInfo, Scheduler, Snapshot, Verdict},
    status::{ApiError, ApiResult},
};
use orchestrator_scheduler::framework::Profile;
use orchestrator_sim::explore::Process;

/// Where a bug is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Plant {
    /// In what is asked for. None: it is not sent, and taken for done.
    Ask(fn(&Memory, Request) -> Option<Request>),
    /// In what is made of an answer.
    Answer(fn(&Request, ApiResult<Reply>) -> ApiResult<Reply>),
    /// In what a watch tells: the event's number, the event, and one that may be held back.
    Event(fn(usize, WatchEvent, &mut Option<WatchEvent>) -> Vec<WatchEvent>),
    /// A watch that ended is not begun anew.
    Deaf,
    /// In whether a reconciler runs for a key.
    Run(fn(&Memory, &ObjectKey, &Context) -> bool),
    /// In what is made of a run's end.
    End(fn(&Memory, &ObjectKey, ApiResult<Action>) -> ApiResult<Action>),
    /// In where a pod goes.
    Verdict(fn(&Snapshot, Verdict) -> Verdict),
}

/// What a bug remembers of one life of a process.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    counts: Mutex<BTreeMap<String, usize>>,
}

impl Memory {
    /// How often this was counted, with this time.
    pub(crate) fn count(&self, what: impl fmt::Display) -> usize {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(what.to_string()).or_default();
        *count += 1;
        *count
    }
}

/// The caches of a process with a bug, or without one.
pub(crate) fn caches(process: &Process, plant: Option<Plant>) -> Caches {
    let Some(plant) = plant else { return process.caches() };
    let backend = process.client().backend().clone();
    let buggy = Buggy { backend, plant, memory: Memory::default(), heard: Mutex::default() };
    Caches::new(&Client::new(Arc::new(buggy)), process.env())
}

#[derive(Debug)]
struct Buggy {
    backend: Arc<dyn Backend>,
    plant: Plant,
    memory: Memory,
    /// The collections that were watched.
    heard: Mutex<BTreeSet<String>>,
}

impl Buggy {
    /// What the server would answer, were it as the process believes.
    async fn as_if_done(&self, request: Request) -> ApiResult<Reply> {
        let done = |object| Ok(Reply::Object { object, created: false, warnings: Vec::new() });
        match request.call {
            Call::Create { object, .. } | Call::Replace { object, .. } => done(object),
            _ => {
                let call = Call::Get { resource_version: None };
                self.backend.request(Request { call, subresource: None, ..request }).await
            }
        }
    }
}

#[async_trait]
impl Backend for Buggy {
    async fn request(&self, request: Request) -> Result<Reply, ApiError> {
        match self.plant {
            Plant::Ask(change) => match change(&self.memory, request.clone()) {
                Some(changed) => self.backend.request(changed).await,
                None => self.as_if_done(request).await,
            },
            Plant::Answer(change) => change(&request, self.backend.request(request.clone()).await),
            _ => self.backend.request(request).await,
        }
    }

    async fn watch(&self, request: WatchRequest) -> Result<WatchStream, ApiError> {
        match self.plant {
            Plant::Deaf => {
                let first =
                    self.heard.lock().unwrap_or_else(PoisonError::into_inner).insert(request.resource.to_string());
                if first { self.backend.watch(request).await } else { Ok(stream::pending().boxed()) }
            }
            Plant::Event(change) => {
                let (mut number, mut held) = (0, None);
                let events = self.backend.watch(request).await?.flat_map(move |event| {
                    number += 1;
                    stream::iter(match event {
                        Ok(event) => change(number, event, &mut held).into_iter().map(Ok).collect(),
                        Err(error) => vec![Err(error)],
                    })
                });
                Ok(events.boxed())
            }
            _ => self.backend.watch(request).await,
        }
    }
}

/// A reconciler in a loop with a bug.
#[derive(Debug)]
pub(crate) struct Looped<R> {
    pub(crate) reconciler: R,
    pub(crate) plant: Option<Plant>,
    pub(crate) memory: Memory,
}

#[async_trait]
impl<R: Reconciler<Error = ApiError>> Reconciler for Looped<R> {
    type Object = R::Object;
    type Error = ApiError;

    async fn reconcile(&self, key: &ObjectKey, context: &Context) -> ApiResult<Action> {
        if let Some(Plant::Run(runs)) = self.plant
            && !runs(&self.memory, key, context)
        {
            return Ok(Action::Done);
        }
        let end = self.reconciler.reconcile(key, context).await;
        match self.plant {
            Some(Plant::End(change)) => change(&self.memory, key, end),
            _ => end,
        }
    }
}

/// The default scheduler, changing its mind.
#[derive(Debug)]
pub(crate) struct Wavering(pub(crate) Profile, pub(crate) fn(&Snapshot, Verdict) -> Verdict);

impl Scheduler for Wavering {
    fn schedule(&self, pod: &PodInfo, cluster: &Snapshot, tie: u64) -> Verdict {
        (self.1)(cluster, self.0.schedule(pod, cluster, tie))
    }
}
