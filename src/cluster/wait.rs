//! Waiting for the cluster to be as one wants it.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use kube::{
    api::{ListParams, WatchParams},
    core::Resource,
};
use orchestrator_core::{client::Api, env::Elapsed, status::ApiError};
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
                if condition(&list.items) {
                    return Ok(list.items);
                }
                let mut changes = api.watch(&WatchParams::default(), &list.resource_version).await?;
                changes.next().await;
            }
        };
        self.env().timeout(timeout, wait).await?
    }
}
