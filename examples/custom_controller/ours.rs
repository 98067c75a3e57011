//! The controller as a `Reconciler`: caches, ordered retries and waiting for its own writes come with the loop.

use async_trait::async_trait;
use kube::api::{Patch, PatchParams, PostParams};
use orchestrator::{
    client::{Api, Client},
    controller::{Action, Caches, Context, Controller, Reconciler},
    env::Env,
    k8s_openapi::api::apps::v1::Deployment,
    object::ObjectKey,
};
use tokio_util::sync::CancellationToken;

use crate::plan::{Step, Website, decide};

struct Websites;

#[async_trait]
impl Reconciler for Websites {
    type Object = Website;
    type Error = orchestrator::core::status::ApiError;

    async fn reconcile(&self, key: &ObjectKey, context: &Context) -> Result<Action, Self::Error> {
        let Some(site) = context.caches().cache::<Website>().get(key) else { return Ok(Action::Done) };
        let deployment = context.caches().cache::<Deployment>().get(key);
        let deployments: Api<Deployment> = Api::namespaced(context.client(), &key.namespace);
        let sites: Api<Website> = Api::namespaced(context.client(), &key.namespace);
        for step in decide(&site, deployment.as_deref()) {
            match step {
                Step::Create(deployment) => drop(deployments.create(&PostParams::default(), &deployment).await?),
                Step::Change(patch) => {
                    deployments.patch(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await?;
                }
                Step::Report(patch) => {
                    sites.patch_status(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await?;
                }
            }
        }
        Ok(Action::Done)
    }
}

/// Runs the controller through any client, until it is told to stop.
pub(crate) async fn run(client: Client, env: Env, stop: CancellationToken) {
    let caches = Caches::new(&client, &env);
    Controller::new("website", &caches).reconciles::<Website>().owns::<Deployment>().run(Websites, stop).await;
    caches.shutdown().await;
}
