//! What a server made for itself stays: its namespaces, its service with where to find it, the range of its addresses.
//!
//! Upstream: the controllers that run within `kube-apiserver` (`pkg/controlplane/controller`).

use std::{
    collections::BTreeSet,
    sync::{Arc, Weak},
};

use orchestrator_core::{client::Resource, env::Env, store::Key};
use tokio::sync::Notify;

use crate::{announce, bootstrap, limits, pipeline::Server, registry::Registry};

/// The objects that come back when somebody deletes them.
#[derive(Debug)]
pub(crate) struct Own {
    keys: BTreeSet<Key>,
    lost: Notify,
}

impl Own {
    pub(crate) fn new(registry: &Registry) -> Self {
        let places = bootstrap::own_objects().into_iter().chain(announce::own_objects());
        let key =
            |(resource, namespace, name): (Resource, &str, &str)| Some(registry.find(&resource)?.key(namespace, name));
        Self { keys: places.filter_map(key).collect(), lost: Notify::new() }
    }

    /// Takes note of a key that is gone.
    pub(crate) fn deleted(&self, key: &Key) {
        if self.keys.contains(key) {
            self.look();
        }
    }

    /// Something may be gone.
    pub(crate) fn look(&self) {
        self.lost.notify_one();
    }
}

/// Makes again what is gone, after a while, for as long as the server lives.
pub(crate) async fn keep(server: Weak<Server>, own: Arc<Own>, env: Env) {
    loop {
        own.lost.notified().await;
        env.sleep(limits::OWN_AGAIN).await;
        let Some(server) = server.upgrade().filter(|server| !server.closed.is_cancelled()) else { return };
        if let Err(error) = server.bootstrap().await {
            tracing::warn!(%error, "cannot make again what the server needs");
            own.look();
        }
    }
}
