//! Kinds that come and go: a defined kind is followed as soon as the server has it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use orchestrator_core::controller::{Cache, Change};
use tokio::sync::Notify;

use super::Collector;
use crate::limits;

impl Collector {
    /// Picks up kinds when their definition is established or goes, and else, for kinds that are not defined by an object,
    /// now and then.
    pub(super) async fn follow_kinds(&self) {
        let (changed, gone) = (Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
        let definitions = self.context.caches.cache::<CustomResourceDefinition>();
        let _subscription = definitions.on_change({
            let (changed, gone) = (changed.clone(), gone.clone());
            move |change| {
                let news = News::of(change);
                if news == News::Gone {
                    gone.store(true, Ordering::Relaxed);
                }
                if news != News::Nothing {
                    changed.notify_one();
                }
            }
        });
        loop {
            let _ = self.context.env().timeout(limits::DISCOVERY_PERIOD, Box::pin(changed.notified())).await;
            self.catch_up(&definitions, gone.swap(false, Ordering::Relaxed)).await;
        }
    }

    /// Asks for the kinds until all that are established are served: a server may take a moment. It may also serve for a
    /// moment what is gone.
    async fn catch_up(&self, definitions: &Cache<CustomResourceDefinition>, gone: bool) {
        for pause in limits::DISCOVERY_PAUSES {
            self.context.env().sleep(pause).await;
            let refreshed = self.refresh().await;
            let served = |definition: &Arc<CustomResourceDefinition>| {
                !is_established(definition)
                    || self.graph.kind(&definition.spec.group, &definition.spec.names.kind).is_some()
            };
            if refreshed && !gone && definitions.list().iter().all(served) {
                return;
            }
        }
    }

    /// Asks for the kinds, and looks again at everything whose owner was of an unknown one.
    async fn refresh(&self) -> bool {
        if let Err(error) = self.graph.refresh().await {
            tracing::warn!(%error, "cannot discover what there is to collect");
            return false;
        }
        let unresolved = std::mem::take(&mut *self.lock_unresolved());
        unresolved.into_iter().for_each(|work| self.queue.add(work));
        true
    }
}

/// What a change of a definition means for what the server has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum News {
    Nothing,
    /// Something is served that was not.
    Established,
    Gone,
}

impl News {
    fn of(change: &Change<CustomResourceDefinition>) -> Self {
        match (&change.old, &change.new) {
            (_, None) => Self::Gone,
            (Some(old), Some(new)) if is_established(old) && old.spec == new.spec => Self::Nothing,
            (_, Some(new)) if is_established(new) => Self::Established,
            (_, Some(_)) => Self::Nothing,
        }
    }
}

fn is_established(definition: &CustomResourceDefinition) -> bool {
    let conditions = definition.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Established" && condition.status == "True")
}

#[cfg(test)]
mod tests {
    use orchestrator_core::object::ObjectKey;
    use serde_json::json;

    use super::*;

    fn definition(established: &str, scope: &str) -> Option<Arc<CustomResourceDefinition>> {
        let tree = json!({
            "metadata": {"name": "sites.example.com"},
            "spec": {
                "group": "example.com", "names": {"kind": "Site", "plural": "sites"}, "scope": scope, "versions": [],
            },
            "status": {"conditions": [{"type": "Established", "status": established}]},
        });
        serde_json::from_value(tree).ok()
    }

    #[test]
    fn what_is_served_changes_with_establishment_and_specification() {
        let news = |old, new| News::of(&Change { key: ObjectKey::default(), old, new });
        let (waiting, done) = (|| definition("False", "Cluster"), || definition("True", "Cluster"));
        assert_eq!(news(None, waiting()), News::Nothing);
        assert_eq!(news(waiting(), done()), News::Established);
        assert_eq!(news(None, done()), News::Established);
        assert_eq!(news(done(), done()), News::Nothing);
        assert_eq!(news(done(), definition("True", "Namespaced")), News::Established);
        assert_eq!(news(done(), None), News::Gone);
    }
}
