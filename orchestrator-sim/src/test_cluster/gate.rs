//! A way to the server that can be shut: what goes through it waits.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use futures::StreamExt;
use orchestrator_core::{
    client::{Backend, Client, Reply, Request, ResourceDiscovery, ResourceInfo, WatchRequest, WatchStream},
    env::Watched,
    status::ApiResult,
};

use crate::link::Link;

/// Whether what goes through waits. Clones are the same gate.
#[derive(Clone)]
pub(super) struct Gate {
    shut: Arc<Watched<bool>>,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("shut", &self.shut.get()).finish()
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self { shut: Arc::new(Watched::new(false)) }
    }
}

impl Gate {
    pub(super) fn set_shut(&self, shut: bool) {
        self.shut.set(shut);
    }

    pub(super) fn is_shut(&self) -> bool {
        self.shut.get()
    }

    /// The way of one life of a process.
    pub(super) fn way(&self, link: &Link) -> Arc<Way> {
        Arc::new(Way { gate: self.clone(), client: link.client(), link: link.clone() })
    }

    async fn pass(&self) {
        // A gate that is gone has nothing behind it.
        let _ = self.shut.watcher().wait_for(|shut| !*shut).await;
    }
}

/// A link behind a gate.
#[derive(Debug)]
pub(super) struct Way {
    gate: Gate,
    client: Client,
    link: Link,
}

#[async_trait]
impl Backend for Way {
    async fn request(&self, request: Request) -> ApiResult<Reply> {
        self.gate.pass().await;
        let reply = self.client.request(request).await;
        self.gate.pass().await;
        reply
    }

    async fn watch(&self, request: WatchRequest) -> ApiResult<WatchStream> {
        self.gate.pass().await;
        let events = self.client.watch(request).await?;
        let gate = self.gate.clone();
        let held = events.then(move |event| {
            let gate = gate.clone();
            async move {
                gate.pass().await;
                event
            }
        });
        Ok(held.boxed())
    }
}

#[async_trait]
impl ResourceDiscovery for Way {
    async fn resources(&self) -> ApiResult<Vec<ResourceInfo>> {
        self.gate.pass().await;
        self.link.resources().await
    }
}
