//! The scale of what an autoscaler scales, of whatever kind.

use std::sync::Arc;

use k8s_openapi::api::autoscaling::{
    v1::Scale,
    v2::{CrossVersionObjectReference, HorizontalPodAutoscaler},
};
use kube_core::DynamicObject;
use orchestrator_core::{
    client::{Api, Call, Client, ResourceDiscovery, WriteOptions},
    meta,
    object::Object,
    status::ApiResult,
};

/// A target whose scale was found.
pub(super) struct Target {
    api: Api<DynamicObject>,
    name: String,
    scale: Arc<Scale>,
}

/// The target of an autoscaler, or why there is none.
pub(super) async fn find(
    autoscaler: &HorizontalPodAutoscaler,
    client: &Client,
    discovery: &dyn ResourceDiscovery,
) -> Result<Target, String> {
    let reference = autoscaler.spec.scale_target_ref.clone();
    let CrossVersionObjectReference { api_version, kind, name } = reference;
    let api_version = api_version.unwrap_or_default();
    if api_version.matches('/').count() > 1 {
        return Err(format!("unexpected GroupVersion string: {api_version}"));
    }
    let group = meta::group_of(&api_version);
    let namespace = meta::namespace(&autoscaler.metadata);
    let resources = discovery.resources().await.map_err(|error| error.message().to_owned())?;
    let mut failure = None;
    for known in resources.into_iter().filter(|known| known.resource.group == group && known.kind == kind) {
        let api = Api::of_resource(client, known.resource, Some(namespace.to_owned()));
        match api.get_subresource::<Scale>("scale", &name).await {
            Ok(scale) => return Ok(Target { api, name, scale }),
            Err(error) => failure = failure.or(Some(error.message().to_owned())),
        }
    }
    Err(failure.unwrap_or_else(|| format!("no matches for kind {kind:?} in group {group:?}")))
}

impl Target {
    /// The replicas that it wants to have.
    pub(super) fn wanted(&self) -> i32 {
        self.scale.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0)
    }

    /// The replicas that it has.
    pub(super) fn present(&self) -> i32 {
        self.scale.status.as_ref().map_or(0, |status| status.replicas)
    }

    /// Which pods are its replicas.
    pub(super) fn selector(&self) -> &str {
        self.scale.status.as_ref().and_then(|status| status.selector.as_deref()).unwrap_or_default()
    }

    /// Asks for a number of replicas, unless somebody has asked for another one meanwhile.
    pub(super) async fn rescale(&self, replicas: i32) -> ApiResult<()> {
        let mut scale = Scale::clone(&self.scale);
        scale.spec.get_or_insert_default().replicas = Some(replicas);
        let object = Object::from_typed(Arc::new(scale));
        let call = Call::Replace { object, options: WriteOptions::default() };
        self.api.send(Some(&self.name), Some("scale"), call).await.map(drop)
    }
}
