//! How others reach a pod's worker: what changed, and what the worker last saw.

use std::{
    collections::BTreeSet,
    ops::Deref,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use orchestrator_core::runtime::{ContainerId, SandboxId};
use tokio::sync::Notify;

use super::{decide::Wanted, observed::Observed, status_of};

/// How others reach a worker.
#[derive(Debug)]
pub(crate) struct Mailbox {
    state: Mutex<Mail>,
    notify: Notify,
}

#[derive(Debug)]
pub(super) struct Mail {
    pub(super) pod: Arc<Pod>,
    pub(super) wanted: Wanted,
    pub(super) sandboxes: BTreeSet<SandboxId>,
    pub(super) containers: BTreeSet<ContainerId>,
    pub(super) relisted: Option<Observed>,
    /// What the worker last saw and showed, for readers.
    pub(super) seen: (Arc<Observed>, Shown),
}

/// The status that a worker last showed.
#[derive(Clone, Debug)]
pub(crate) enum Shown {
    /// The API server shows the same; it is not kept twice.
    OfPod(Arc<Pod>),
    Own(Arc<PodStatus>),
}

impl Deref for Shown {
    type Target = PodStatus;

    fn deref(&self) -> &PodStatus {
        match self {
            Self::OfPod(pod) => status_of(pod),
            Self::Own(status) => status,
        }
    }
}

impl Mailbox {
    pub(crate) fn new(pod: Arc<Pod>, wanted: Wanted) -> Self {
        let seen = (Arc::default(), Shown::OfPod(pod.clone()));
        let (sandboxes, containers) = Default::default();
        let mail = Mail { pod, wanted, sandboxes, containers, relisted: None, seen };
        Self { state: Mutex::new(mail), notify: Notify::new() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Mail> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Mail)) {
        change(&mut self.lock());
        self.notify.notify_one();
    }

    pub(crate) fn pod_changed(&self, pod: Arc<Pod>) {
        self.change(|mail| mail.pod = pod);
    }

    pub(crate) fn pod_gone(&self) {
        self.change(|mail| {
            if mail.wanted == Wanted::Yes {
                mail.wanted = Wanted::Gone;
            }
        });
    }

    pub(crate) fn shut_down(&self, grace_seconds: i64) {
        self.change(|mail| {
            if mail.wanted == Wanted::Yes {
                mail.wanted = Wanted::Shutdown(grace_seconds);
            }
        });
    }

    pub(crate) fn sandbox_changed(&self, id: SandboxId) {
        self.change(|mail| {
            mail.sandboxes.insert(id);
        });
    }

    pub(crate) fn container_changed(&self, id: ContainerId) {
        self.change(|mail| {
            mail.containers.insert(id);
        });
    }

    pub(crate) fn relisted(&self, observed: Observed) {
        self.change(|mail| mail.relisted = Some(observed));
    }

    /// Waits until something changes, or changed since the last wait.
    pub(super) async fn changed(&self) {
        self.notify.notified().await;
    }

    pub(crate) fn pod(&self) -> Arc<Pod> {
        self.lock().pod.clone()
    }

    /// What the worker last saw of the runtime, and the status it computed.
    pub(crate) fn seen(&self) -> (Arc<Observed>, Shown) {
        self.lock().seen.clone()
    }
}
