//! Waiting for the cluster to be as one wants it.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use kube::{
    api::{ListParams, WatchParams},
    core::Resource,
};
use orchestrator_core::{
    client::{Api, WatchEvent},
    env::Elapsed,
    object::ObjectKey,
    status::ApiError,
};
use serde::{Serialize, de::DeserializeOwned};

use super::Cluster;

/// What was waited for did not come.
#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    /// The time was over.
    #[error("not within {0:?}")]
    TimedOut(Duration),
    /// The server failed.
    #[error(transparent)]
    Api(#[from] ApiError),
}

impl From<Elapsed> for WaitError {
    fn from(elapsed: Elapsed) -> Self {
        Self::TimedOut(elapsed.0)
    }
}

impl Cluster {
    /// Waits until the objects of a namespace (of all, when it is empty) are as the condition says, and gives them.
    /// Looks again whenever one of them changes.
    pub async fn wait_until<K>(
        &self,
        namespace: &str,
        timeout: Duration,
        condition: impl Fn(&[Arc<K>]) -> bool,
    ) -> Result<Vec<Arc<K>>, WaitError>
    where
        K: Resource<DynamicType = ()> + Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
    {
        let client = self.client();
        let api: Api<K> = if namespace.is_empty() { Api::all(&client) } else { Api::namespaced(&client, namespace) };
        let wait = async {
            loop {
                let list = api.list(&ListParams::default()).await?;
                let mut found = list.items;
                found.sort_by_cached_key(|object| ObjectKey::of(object.meta()));
                let mut changes = api.watch(&WatchParams::default(), &list.resource_version).await?;
                loop {
                    if condition(&found) {
                        return Ok(found);
                    }
                    // Where the watch cannot go on, the next list can.
                    let Some(Ok(change)) = changes.next().await else { break };
                    follow(&mut found, &change)?;
                }
            }
        };
        self.env().timeout(timeout, wait).await?
    }
}

/// Takes a change into objects that are in the order of their keys.
fn follow<K>(found: &mut Vec<Arc<K>>, change: &WatchEvent) -> Result<(), ApiError>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Send + Sync + 'static,
{
    let (object, is_there) = match change {
        WatchEvent::Added(object) | WatchEvent::Modified(object) => (object, true),
        WatchEvent::Deleted(object) => (object, false),
        WatchEvent::Bookmark { .. } => return Ok(()),
    };
    let key = ObjectKey::of(object.metadata()?);
    let place = found.binary_search_by(|known| ObjectKey::of(known.meta()).cmp(&key));
    match (place, is_there) {
        (Ok(place), true) => found[place] = object.typed()?,
        (Ok(place), false) => drop(found.remove(place)),
        (Err(place), true) => found.insert(place, object.typed()?),
        (Err(_), false) => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use orchestrator_core::object::Object;
    use serde_json::json;

    use super::*;

    #[test]
    fn changes_are_followed_in_the_order_of_keys() {
        let mut found: Vec<Arc<ConfigMap>> = Vec::new();
        let map = |namespace: &str, name: &str, text: &str| {
            let metadata = json!({"namespace": namespace, "name": name});
            Object::from_tree(json!({"metadata": metadata, "data": {"text": text}}))
        };
        let changes = [
            WatchEvent::Added(map("b", "a", "1")),
            WatchEvent::Added(map("a", "z", "1")),
            WatchEvent::Deleted(map("a", "never", "1")),
            WatchEvent::Modified(map("b", "a", "2")),
            WatchEvent::Added(map("a", "b", "1")),
            WatchEvent::Deleted(map("a", "z", "1")),
            WatchEvent::Bookmark { resource_version: "9".to_owned(), initial_events_end: false },
        ];
        changes.iter().for_each(|change| follow(&mut found, change).unwrap());
        let shown: Vec<String> = found
            .iter()
            .map(|map| format!("{} {}", ObjectKey::of(&map.metadata), map.data.as_ref().unwrap()["text"]))
            .collect();
        assert_eq!(shown, ["a/b 1", "b/a 2"]);
    }
}
