//! Whether the engine may make processes harder to kill than it is itself.
//!
//! That takes a capability which an engine in a small virtual machine or in a container may lack, and of which it says nothing
//! until a start fails, with words that do not name it. So one container is started for nothing else.

use bollard::models::{ContainerCreateBody, HostConfig, HostConfigLogConfig};
use orchestrator_core::runtime::RuntimeError;

use crate::runtime::Inner;

/// The lowest score that upstream gives: that of containers in guaranteed pods.
const LOWEST: i64 = -997;

impl Inner {
    /// The score that a container gets: the one that was asked for, or the lowest that there is.
    pub(crate) async fn oom_score(&self, asked: Option<i32>) -> Result<Option<i32>, RuntimeError> {
        if asked.is_none_or(|score| score >= 0) {
            return Ok(asked);
        }
        let lowers = self.lowers_oom_score().get_or_try_init(|| self.try_low_score()).await?;
        Ok(asked.filter(|_| *lowers).or(Some(0)))
    }

    async fn try_low_score(&self) -> Result<bool, RuntimeError> {
        let name = self.owner().probe(self.env().random());
        let body = ContainerCreateBody {
            image: Some(self.pause_image().await?),
            labels: Some(self.owner().owner_labels().into_iter().collect()),
            host_config: Some(HostConfig {
                network_mode: Some("none".to_owned()),
                oom_score_adj: Some(LOWEST),
                log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        let failed = "trying what the engine may do";
        let engine_id = self.create(&name, body).await.map_err(|error| error.during(failed))?;
        let started = self.start(&engine_id).await;
        self.remove(&engine_id).await?;
        match started {
            Ok(()) => Ok(true),
            Err(error) if error.status().is_some() => {
                tracing::info!(%error, "the engine cannot lower scores of the out-of-memory killer");
                Ok(false)
            }
            Err(error) => Err(error.during(failed)),
        }
    }

    /// Removes trials that an agent did not live to see the end of.
    pub(crate) async fn remove_trials(&self) -> Result<(), RuntimeError> {
        for summary in self.engine_list(None).await? {
            let mut names = summary.names.iter().flatten().map(|name| name.trim_start_matches('/'));
            if let Some(engine_id) = &summary.id
                && names.any(|name| self.owner().is_probe(name))
            {
                self.remove(engine_id).await?;
            }
        }
        Ok(())
    }
}
