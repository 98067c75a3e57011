//! The legacy service account token cleaner: takes tokens that nobody uses out of use, and deletes them a year later.

mod decide;
mod used;

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, ServiceAccount};
use kube_core::params::{DeleteParams, Patch, PatchParams, Preconditions};
use orchestrator_core::{client::Api, controller::Cache, meta, object::ObjectKey, status::ApiResult};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use self::decide::{Decision, INVALID_SINCE, TRACKING};
use crate::{context::ControllerContext, limits::LEGACY_TOKEN_PERIOD};

/// Runs the controller until the shutdown.
pub(crate) async fn run(context: ControllerContext, shutdown: CancellationToken) {
    let caches = &context.caches;
    let cleaner = Cleaner { secrets: caches.cache(), accounts: caches.cache(), pods: caches.cache() };
    let clean = async {
        cleaner.secrets.synced().await;
        cleaner.accounts.synced().await;
        cleaner.pods.synced().await;
        loop {
            if let Err(error) = cleaner.clean(&context).await {
                tracing::warn!(%error, "cannot clean up tokens of service accounts");
            }
            context.env().sleep(LEGACY_TOKEN_PERIOD).await;
        }
    };
    shutdown.run_until_cancelled(Box::pin(clean)).await;
}

struct Cleaner {
    secrets: Cache<Secret>,
    accounts: Cache<ServiceAccount>,
    pods: Cache<Pod>,
}

impl Cleaner {
    async fn clean(&self, context: &ControllerContext) -> ApiResult<()> {
        let (namespace, name, key) = TRACKING;
        let tracking = Api::<ConfigMap>::namespaced(context.client(), namespace).get_opt(name).await?;
        let since = tracking.as_ref().and_then(|map| map.data.as_ref()?.get(key));
        let now = context.env().now();
        if !since.is_some_and(|since| decide::knows_enough(since, now)) {
            return Ok(());
        }
        let mut used = BTreeMap::new();
        for secret in self.secrets.list() {
            let Some(account) = decide::account_of(&secret) else { continue };
            let namespace = meta::namespace(&secret.metadata);
            let account = self.accounts.get(&ObjectKey::new(namespace, account));
            let used = used.entry(namespace.to_owned()).or_insert_with(|| self.used(namespace));
            let decision = decide::decide(&secret, account.as_deref(), used, now);
            if let Err(error) = carry_out(context, &secret, decision).await {
                let name = meta::name(&secret.metadata);
                tracing::warn!(namespace, name, %error, "cannot clean up a token of a service account");
            }
        }
        Ok(())
    }

    fn used(&self, namespace: &str) -> BTreeSet<String> {
        self.pods.list_namespace(namespace).iter().flat_map(|pod| used::secrets(pod)).collect()
    }
}

async fn carry_out(context: &ControllerContext, secret: &Secret, decision: Decision) -> ApiResult<()> {
    let metadata = &secret.metadata;
    let api = Api::<Secret>::namespaced(context.client(), meta::namespace(metadata));
    let result = match decision {
        Decision::Keep => return Ok(()),
        Decision::Invalidate(day) => {
            let body = Patch::Merge(json!({"metadata": {"uid": metadata.uid, "labels": {INVALID_SINCE: day}}}));
            api.patch(meta::name(metadata), &PatchParams::default(), &body).await.map(drop)
        }
        Decision::Delete => {
            // Whoever has used it meanwhile has changed it.
            let preconditions = Preconditions { uid: None, resource_version: metadata.resource_version.clone() };
            let params = DeleteParams { preconditions: Some(preconditions), ..Default::default() };
            api.delete(meta::name(metadata), &params).await
        }
    };
    match result {
        Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
        _ => Ok(()),
    }
}
