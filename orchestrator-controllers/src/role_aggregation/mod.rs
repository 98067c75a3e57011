//! The cluster role aggregation controller: gives cluster roles the rules of those that they select.

mod decide;

use async_trait::async_trait;
use k8s_openapi::api::rbac::v1::ClusterRole;
use kube_core::params::{Patch, PatchParams};
use orchestrator_core::{
    client::Api,
    controller::{Action, Cache, Context, Controller, Reconciler},
    object::ObjectKey,
    status::ApiError,
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::context::ControllerContext;

/// Who manages the rules; upstream's name.
const FIELD_MANAGER: &str = "clusterrole-aggregation-controller";

/// Runs the controller until the shutdown.
pub(crate) async fn run(context: ControllerContext, shutdown: CancellationToken) {
    let roles = context.caches.cache::<ClusterRole>();
    let aggregating = roles.clone();
    Controller::new("clusterrole-aggregation", &context.caches)
        .reconciles::<ClusterRole>()
        .filter(|_| false)
        .watches::<ClusterRole>(move |_| {
            let all = aggregating.list().into_iter().filter(|role| role.aggregation_rule.is_some());
            all.map(|role| ObjectKey::of(&role.metadata)).collect()
        })
        .run(Aggregation { roles }, shutdown)
        .await;
}

struct Aggregation {
    roles: Cache<ClusterRole>,
}

#[async_trait]
impl Reconciler for Aggregation {
    type Object = ClusterRole;
    type Error = ApiError;

    async fn reconcile(&self, key: &ObjectKey, context: &Context) -> Result<Action, ApiError> {
        let Some(role) = self.roles.get(key) else { return Ok(Action::Done) };
        let decision = decide::decide(&role, &self.roles.list()).map_err(ApiError::internal)?;
        let Some(rules) = decision else { return Ok(Action::Done) };
        let body = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": key.name},
            "rules": rules,
        });
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let api = Api::<ClusterRole>::all(context.client());
        api.patch(&key.name, &params, &Patch::Apply(body)).await?;
        Ok(Action::Done)
    }
}
