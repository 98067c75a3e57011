//! The same controller on kube-rs's own loop.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams, PostParams},
    runtime::{Controller, controller::Action, watcher},
};
use orchestrator::k8s_openapi::api::apps::v1::Deployment;
use tokio_util::sync::CancellationToken;

use crate::plan::{Step, Website, decide};

async fn reconcile(site: Arc<Website>, client: Arc<Client>) -> Result<Action, kube::Error> {
    let (name, namespace) = (site.name_any(), site.namespace().unwrap_or_default());
    let deployments: Api<Deployment> = Api::namespaced(client.as_ref().clone(), &namespace);
    let sites: Api<Website> = Api::namespaced(client.as_ref().clone(), &namespace);
    let deployment = deployments.get_opt(&name).await?;
    for step in decide(&site, deployment.as_ref()) {
        match step {
            Step::Create(deployment) => drop(deployments.create(&PostParams::default(), &deployment).await?),
            Step::Change(patch) => {
                deployments.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await?;
            }
            Step::Report(patch) => {
                sites.patch_status(&name, &PatchParams::default(), &Patch::Merge(patch)).await?;
            }
        }
    }
    Ok(Action::await_change())
}

/// Runs the controller through a `kube::Client`, until it is told to stop.
pub(crate) async fn run(client: Client, stop: CancellationToken) {
    let sites: Api<Website> = Api::all(client.clone());
    let deployments: Api<Deployment> = Api::all(client.clone());
    Controller::new(sites, watcher::Config::default())
        .owns(deployments, watcher::Config::default())
        .graceful_shutdown_on(async move { stop.cancelled().await })
        .run(reconcile, |_, _, _| Action::requeue(Duration::from_millis(200)), Arc::new(client))
        .for_each(|_| async {})
        .await;
}
