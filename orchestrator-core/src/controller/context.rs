//! What a run of a reconciler works with.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;

use super::{
    Caches, limits,
    trace::{Noted, Read, Scope},
    writes::{Writes, Writing},
};
use crate::{
    client::{Backend, Call, Client, Reply, Request, Resource, WatchRequest, WatchStream},
    env::Env,
    object::ObjectKey,
    status::{ApiError, ApiResult},
    store::Revision,
};

/// What a run works with.
///
/// Everything written through [`Self::client`] is remembered, and the next run of the key waits until the caches
/// contain it. So a reconciler never acts on a state older than its own last write. (Deletions of whole collections are
/// not waited for.)
///
/// What the run reads through [`Self::client`] and from any cache stands in its trace; what tasks read that it spawns does
/// not.
#[derive(Clone, Debug)]
pub struct Context {
    client: Client,
    caches: Caches,
    writes: Arc<Writes>,
}

impl Context {
    pub(super) fn new(caches: &Caches, writes: Arc<Writes>) -> Self {
        let client = caches.client().clone();
        let backend = Remembering { client, caches: caches.clone(), writes: writes.clone() };
        Self { client: Client::new(Arc::new(backend)), caches: caches.clone(), writes }
    }

    /// A context outside of a controller, whose writes nobody waits for: for tests, and for loops of their own.
    pub fn detached(caches: &Caches) -> Self {
        Self::new(caches, Arc::default())
    }

    /// The client to read and write through.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The shared caches.
    pub fn caches(&self) -> &Caches {
        &self.caches
    }

    /// Clock, chance and tasks.
    pub fn env(&self) -> &Env {
        self.caches.env()
    }

    /// Remembers a write that did not go through [`Self::client`].
    pub fn wrote(&self, resource: &Resource, revision: Revision) {
        self.writes.wrote(resource, revision);
    }
}

tokio::task_local! {
    /// What the present run has read.
    static READS: Arc<Reads>;
}

/// What a run read.
#[derive(Debug, Default)]
pub(super) struct Reads(Mutex<Noted<Read>>);

impl Reads {
    /// Lets a run happen, and gives what it read as well.
    pub(super) async fn of<F: Future>(run: F) -> (F::Output, Noted<Read>) {
        let reads = Arc::new(Self::default());
        let output = READS.scope(reads.clone(), run).await;
        let noted = reads.lock().clone();
        (output, noted)
    }

    /// Notes something about the present run, if this is within one.
    pub(super) fn within_run(note: impl FnOnce(&Self)) {
        // Others read as well, and their reads are nobody's.
        let _ = READS.try_with(|reads| note(reads));
    }

    pub(super) fn note(&self, resource: &Arc<Resource>, from_server: bool, scope: Scope) {
        let read = Read { resource: resource.clone(), from_server, scope };
        self.lock().note_once(read, limits::READS_PER_RUN);
    }

    fn lock(&self) -> MutexGuard<'_, Noted<Read>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn requested(&self, resource: &Resource, namespace: Option<&String>, name: Option<&String>) {
        let scope = match (namespace, name) {
            (namespace, Some(name)) => Scope::Object(ObjectKey::new(namespace.cloned().unwrap_or_default(), name)),
            (Some(namespace), None) => Scope::Namespace(namespace.clone()),
            (None, None) => Scope::All,
        };
        self.note(&Arc::new(resource.clone()), true, scope);
    }
}

/// A client that notes what was read and written.
struct Remembering {
    client: Client,
    caches: Caches,
    writes: Arc<Writes>,
}

impl fmt::Debug for Remembering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Remembering").field(&self.client).finish()
    }
}

#[async_trait]
impl Backend for Remembering {
    async fn request(&self, request: Request) -> ApiResult<Reply> {
        if let Call::Get { .. } | Call::List(_) = &request.call {
            Reads::within_run(|it| it.requested(&request.resource, request.namespace.as_ref(), request.name.as_ref()));
        }
        let writing = Writing::of(&request, &self.caches);
        let result = self.client.request(request).await;
        if let Some(writing) = writing {
            writing.note(&self.writes, &result);
        }
        result
    }

    async fn watch(&self, request: WatchRequest) -> Result<WatchStream, ApiError> {
        Reads::within_run(|it| it.requested(&request.resource, request.namespace.as_ref(), None));
        self.client.watch(request).await
    }
}
