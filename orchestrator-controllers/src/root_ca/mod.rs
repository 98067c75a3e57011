//! The root certificate publisher: every active namespace has a ConfigMap `kube-root-ca.crt`.

mod decide;

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube_core::params::PostParams;
use orchestrator_core::{
    client::Api,
    controller::{Action, Cache, Context, Controller, Reconciler},
    object::ObjectKey,
    status::ApiError,
};
use tokio_util::sync::CancellationToken;

use self::decide::{Decision, NAME, decide};
use crate::{context::ControllerContext, serviceaccount::is_terminating};

pub(crate) async fn run(context: ControllerContext, shutdown: CancellationToken) {
    let Some(certificates) = context.options.root_certificates.clone() else {
        return shutdown.cancelled().await;
    };
    let caches = &context.caches;
    let controller = Controller::new("root-ca-certificate-publisher-controller", caches)
        .reconciles::<Namespace>()
        .watches::<ConfigMap>(|change| {
        let changed = change.key.name == NAME;
        changed.then(|| ObjectKey::new("", &*change.key.namespace)).into_iter().collect()
    });
    let publisher = Publisher { namespaces: caches.cache(), maps: caches.cache(), certificates: certificates.into() };
    controller.run(publisher, shutdown).await;
}

struct Publisher {
    namespaces: Cache<Namespace>,
    maps: Cache<ConfigMap>,
    certificates: Arc<str>,
}

#[async_trait]
impl Reconciler for Publisher {
    type Object = Namespace;
    type Error = ApiError;

    async fn reconcile(&self, key: &ObjectKey, context: &Context) -> Result<Action, ApiError> {
        let Some(namespace) = self.namespaces.get(key) else { return Ok(Action::Done) };
        let map = self.maps.get(&ObjectKey::new(&*key.name, NAME));
        let api = Api::<ConfigMap>::namespaced(context.client(), &key.name);
        let result = match decide(&namespace, map.as_deref(), &self.certificates) {
            Decision::Nothing => return Ok(Action::Done),
            Decision::Create(map) => api.create(&PostParams::default(), &map).await,
            Decision::Replace(map) => api.replace(NAME, &PostParams::default(), &map).await,
        };
        match result {
            Err(error) if error.is_already_exists() || is_terminating(&error) => Ok(Action::Done),
            result => result.map(|_| Action::Done),
        }
    }
}
