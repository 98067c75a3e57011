//! A custom type, `Website`, and what has to be done for one: decided without I/O, by both controllers.

use kube::{CustomResource, Resource, ResourceExt};
use orchestrator::{
    k8s_openapi::api::apps::v1::Deployment,
    kube::{self, core::ObjectMeta},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A site that is served by some copies of an image.
#[derive(CustomResource, Clone, Debug, Deserialize, PartialEq, Serialize, JsonSchema)]
#[kube(group = "example.com", version = "v1", kind = "Website", namespaced, status = "WebsiteStatus")]
#[kube(printcolumn = r#"{"name": "Ready", "type": "integer", "jsonPath": ".status.ready"}"#)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WebsiteSpec {
    /// The image that serves the site.
    pub image: String,
    /// How many copies run.
    #[schemars(range(min = 0, max = 100))]
    pub copies: i32,
}

/// What became of a site.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WebsiteStatus {
    /// Copies that are ready.
    pub ready: i32,
    /// The generation of the specification that these are of.
    pub observed_generation: i64,
}

/// One thing to do.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Make the site's deployment.
    Create(Box<Deployment>),
    /// Bring the deployment in line, by a merge patch.
    Change(Value),
    /// Tell what became of the site, by a merge patch of its status.
    Report(Value),
}

/// What has to be done, given the site and the deployment of its name.
pub(crate) fn decide(site: &Website, deployment: Option<&Deployment>) -> Vec<Step> {
    if site.metadata.deletion_timestamp.is_some() {
        // Its deployment goes with it, by the garbage collector.
        return Vec::new();
    }
    let wanted = wanted(site);
    let Some(deployment) = deployment else { return vec![Step::Create(Box::new(wanted))] };
    let mut steps = Vec::new();
    if summary(deployment) != summary(&wanted) {
        steps.push(Step::Change(json!({"spec": wanted.spec})));
    }
    let status = status(site, deployment);
    if site.status.as_ref() != Some(&status) {
        steps.push(Step::Report(json!({"status": status})));
    }
    steps
}

/// The deployment as it should be.
fn wanted(site: &Website) -> Deployment {
    let name = site.name_any();
    let labels = json!({"website": name});
    let spec = serde_json::from_value(json!({
        "replicas": site.spec.copies,
        "selector": {"matchLabels": labels},
        "template": {
            "metadata": {"labels": labels},
            "spec": {"containers": [{"name": "site", "image": site.spec.image}]},
        },
    }));
    let metadata = ObjectMeta {
        name: Some(name),
        namespace: site.namespace(),
        owner_references: site.controller_owner_ref(&()).map(|owner| vec![owner]),
        ..ObjectMeta::default()
    };
    Deployment { metadata, spec: Some(spec.expect("a deployment's specification")), status: None }
}

/// What this controller cares for in a deployment.
fn summary(deployment: &Deployment) -> Option<(Option<i32>, Option<&str>)> {
    let spec = deployment.spec.as_ref()?;
    let containers = &spec.template.spec.as_ref()?.containers;
    Some((spec.replicas, containers.first()?.image.as_deref()))
}

/// Copies count as ready when they are of the present specification.
fn status(site: &Website, deployment: &Deployment) -> WebsiteStatus {
    let generation = site.metadata.generation.unwrap_or_default();
    let ready = match &deployment.status {
        Some(status) if status.observed_generation == deployment.metadata.generation => {
            status.updated_replicas.unwrap_or(0).min(status.available_replicas.unwrap_or(0))
        }
        _ => 0,
    };
    WebsiteStatus { ready, observed_generation: generation }
}
