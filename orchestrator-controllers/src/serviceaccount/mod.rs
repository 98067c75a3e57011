//! The ServiceAccount controller: every active namespace has a service account named `default`.

pub(crate) mod decide;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube_core::params::PostParams;
use orchestrator_core::{
    client::Api,
    controller::{Action, Cache, Context, Controller, Reconciler},
    object::ObjectKey,
    status::ApiError,
};
use tokio_util::sync::CancellationToken;

use self::decide::{DEFAULT, decide};
use crate::context::ControllerContext;

pub(crate) async fn run(context: ControllerContext, shutdown: CancellationToken) {
    let caches = &context.caches;
    let (namespaces, accounts) = (caches.cache::<Namespace>(), caches.cache::<ServiceAccount>());
    let controller = Controller::new("serviceaccount-controller", caches).reconciles::<Namespace>().watches(|change| {
        let lost = |account: &ServiceAccount| account.metadata.name.as_deref() == Some(DEFAULT);
        let lost = change.new.is_none() && change.old.as_deref().is_some_and(lost);
        lost.then(|| ObjectKey::new("", &*change.key.namespace)).into_iter().collect()
    });
    controller.run(DefaultAccount { namespaces, accounts }, shutdown).await;
}

struct DefaultAccount {
    namespaces: Cache<Namespace>,
    accounts: Cache<ServiceAccount>,
}

#[async_trait]
impl Reconciler for DefaultAccount {
    type Object = Namespace;
    type Error = ApiError;

    async fn reconcile(&self, key: &ObjectKey, context: &Context) -> Result<Action, ApiError> {
        let Some(namespace) = self.namespaces.get(key) else { return Ok(Action::Done) };
        let account = self.accounts.get(&ObjectKey::new(&*key.name, DEFAULT));
        if let Some(missing) = decide(&namespace, account.as_deref()) {
            let api = Api::<ServiceAccount>::namespaced(context.client(), &key.name);
            match api.create(&PostParams::default(), &missing).await {
                Err(error) if error.is_already_exists() || is_terminating(&error) => {}
                result => drop(result?),
            }
        }
        Ok(Action::Done)
    }
}

/// The namespace began to go away in the meantime.
pub(crate) fn is_terminating(error: &ApiError) -> bool {
    let causes = error.status().details.as_ref().and_then(|details| details.causes.as_deref());
    causes.unwrap_or_default().iter().any(|cause| cause.reason.as_deref() == Some("NamespaceTerminating"))
}
