//! What a site goes through, seen from outside: it comes, changes, is repaired, and goes.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use kube::{
    CustomResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchParams},
};
use orchestrator::{
    client::{Api, Client},
    controller::Kind,
    env::Env,
    k8s_openapi::{
        api::apps::v1::Deployment, apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    },
    kube,
};
use serde_json::json;

use crate::plan::{Website, WebsiteSpec};

type Failure = Box<dyn std::error::Error>;

/// How long anything may take that is bound to happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// An image that does nothing, for clusters where images are real.
const IMAGE: &str = "registry.k8s.io/pause:3.9";
const NEXT_IMAGE: &str = "registry.k8s.io/pause:3.10";

/// Makes the cluster know websites.
pub(crate) async fn define(client: &Client, env: &Env) -> Result<(), Failure> {
    let definitions: Api<CustomResourceDefinition> = Api::all(client);
    match definitions.create(&PostParams::default(), &Website::crd()).await {
        Err(error) if !error.is_already_exists() => return Err(error.into()),
        _ => {}
    }
    let established = |definition: Option<&CustomResourceDefinition>| {
        let conditions = definition.and_then(|it| it.status.as_ref()?.conditions.as_ref());
        conditions.is_some_and(|all| all.iter().any(|it| it.type_ == "Established" && it.status == "True"))
    };
    until(&definitions, env, Website::crd_name(), established).await?;
    Ok(())
}

/// Takes one site through its life, while a controller runs.
pub(crate) async fn walk(client: &Client, env: &Env, name: &str) -> Result<(), Failure> {
    let sites: Api<Website> = Api::namespaced(client, "default");
    let deployments: Api<Deployment> = Api::namespaced(client, "default");
    let site = Website::new(name, WebsiteSpec { image: IMAGE.to_owned(), copies: 2 });
    let site = sites.create(&PostParams::default(), &site).await?;
    println!("  created {name} with 2 copies");
    ready(&sites, env, name, 2).await?;

    let change = json!({"spec": {"copies": 3, "image": NEXT_IMAGE}});
    sites.patch(name, &PatchParams::default(), &Patch::Merge(change)).await?;
    println!("  asked for 3 copies of the next image");
    ready(&sites, env, name, 3).await?;
    let deployment = deployments.get(name).await?;
    let image = deployment.spec.as_ref().and_then(|spec| spec.template.spec.as_ref()?.containers[0].image.as_deref());
    assert_eq!(image, Some(NEXT_IMAGE));
    assert_eq!(deployment.metadata.owner_references.as_ref().map(|all| &all[0].uid), site.metadata.uid.as_ref());

    let spoilt = json!({"spec": {"replicas": 1}});
    deployments.patch(name, &PatchParams::default(), &Patch::Merge(spoilt)).await?;
    println!("  somebody scaled the deployment behind the controller's back");
    let repaired = |found: Option<&Deployment>| found.is_some_and(|it| it.spec.as_ref().unwrap().replicas == Some(3));
    until(&deployments, env, name, repaired).await?;
    println!("  repaired: 3 copies are asked for again");

    sites.delete(name, &DeleteParams::default()).await?;
    until(&deployments, env, name, |found| found.is_none()).await?;
    println!("  deleted, and its deployment is gone with it");
    Ok(())
}

/// Waits for the controller's report on the newest specification.
async fn ready(sites: &Api<Website>, env: &Env, name: &str, copies: i32) -> Result<(), Failure> {
    let reported = |site: Option<&Website>| {
        let status = site.and_then(|site| Some((site.metadata.generation?, site.status.as_ref()?)));
        status.is_some_and(|(generation, it)| it.observed_generation == generation && it.ready == copies)
    };
    until(sites, env, name, reported).await?;
    println!("  reported: {copies} copies are ready");
    Ok(())
}

/// Waits until the object of a name (or its absence) is as wanted, looking whenever it changes.
async fn until<K: Kind>(
    api: &Api<K>,
    env: &Env,
    name: &str,
    wanted: impl Fn(Option<&K>) -> bool,
) -> Result<(), Failure> {
    let fields = format!("metadata.name={name}");
    let wait = async {
        loop {
            let list = api.list(&ListParams::default().fields(&fields)).await?;
            if wanted(list.items.first().map(Arc::as_ref)) {
                return Ok(());
            }
            api.watch(&WatchParams::default().fields(&fields), &list.resource_version).await?.next().await;
        }
    };
    env.timeout(PATIENCE, wait).await.map_err(|elapsed| format!("{name} is not as wanted, {elapsed}"))?
}
