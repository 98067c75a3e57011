//! The token cleaner: deletes bootstrap tokens that have expired.

mod decide;

use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Secret;
use orchestrator_core::{
    client::Api,
    controller::{Action, Cache, Change, Context, Controller, Reconciler},
    object::ObjectKey,
    status::ApiError,
};
use tokio_util::sync::CancellationToken;

use crate::{context::ControllerContext, pods::only, writes::settled};

pub(crate) use decide::{NAMESPACE, is_token, until_expired};

/// Runs the controller until the shutdown.
pub(crate) async fn run(context: ControllerContext, shutdown: CancellationToken) {
    Controller::new("token_cleaner", &context.caches)
        .reconciles::<Secret>()
        .filter(|change: &Change<Secret>| change.new.as_ref().is_some_and(|secret| is_token(secret)))
        .run(Tokens { secrets: context.caches.cache() }, shutdown)
        .await;
}

struct Tokens {
    secrets: Cache<Secret>,
}

#[async_trait]
impl Reconciler for Tokens {
    type Object = Secret;
    type Error = ApiError;

    async fn reconcile(&self, key: &ObjectKey, context: &Context) -> Result<Action, ApiError> {
        let token = self.secrets.get(key).filter(|secret| is_token(secret));
        let Some(token) = token else { return Ok(Action::Done) };
        match until_expired(&token, context.env().now()) {
            None => Ok(Action::Done),
            Some(Duration::ZERO) => {
                let api = Api::<Secret>::namespaced(context.client(), &key.namespace);
                settled(api.delete(&key.name, &only(&token.metadata)).await).map(|()| Action::Done)
            }
            Some(left) => Ok(Action::RequeueAfter(left)),
        }
    }
}
