//! The bootstrap signer: signs the cluster's public description with each bootstrap token.

mod decide;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube_core::params::PostParams;
use orchestrator_core::{
    client::Api,
    controller::{Action, Cache, Change, Context, Controller, Reconciler},
    object::ObjectKey,
    status::ApiError,
};
use tokio_util::sync::CancellationToken;

use self::decide::DESCRIPTION;
use crate::{
    context::ControllerContext,
    token_cleaner::{NAMESPACE, is_token},
    writes::settled,
};

/// Runs the controller until the shutdown.
pub(crate) async fn run(context: ControllerContext, shutdown: CancellationToken) {
    let caches = &context.caches;
    let (namespace, name) = DESCRIPTION;
    Controller::new("bootstrap_signer_queue", caches)
        .reconciles::<ConfigMap>()
        .filter(move |change: &Change<ConfigMap>| change.key.namespace == namespace && change.key.name == name)
        .watches::<Secret>(move |change| {
            let concerns = change.objects().any(|secret| is_token(secret));
            concerns.then(|| ObjectKey::new(namespace, name)).into_iter().collect()
        })
        .run(Signer { descriptions: caches.cache(), secrets: caches.cache() }, shutdown)
        .await;
}

struct Signer {
    descriptions: Cache<ConfigMap>,
    secrets: Cache<Secret>,
}

#[async_trait]
impl Reconciler for Signer {
    type Object = ConfigMap;
    type Error = ApiError;

    async fn reconcile(&self, key: &ObjectKey, context: &Context) -> Result<Action, ApiError> {
        let Some(description) = self.descriptions.get(key) else { return Ok(Action::Done) };
        let tokens = self.secrets.list_namespace(NAMESPACE);
        let (signed, next) = decide::decide(&description, &tokens, context.env().now());
        if let Some(signed) = signed {
            let api = Api::<ConfigMap>::namespaced(context.client(), &key.namespace);
            settled(api.replace(&key.name, &PostParams::default(), &signed).await)?;
        }
        Ok(next.map_or(Action::Done, Action::RequeueAfter))
    }
}
