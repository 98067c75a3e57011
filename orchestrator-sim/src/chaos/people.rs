//! People who change things at a bad time.

use orchestrator_core::{
    client::{Call, DeleteOptions, ListOptions, PatchBody, Propagation, Reply, Request, Resource, WriteOptions},
    object::Object,
    status::{ApiError, ApiResult},
};
use serde_json::{Value, json};

use super::Repair;
use crate::cluster::SimCluster;

const PODS: (&str, &str) = ("", "pods");
const WORKLOADS: [(&str, &str); 2] = [("apps", "deployments"), ("apps", "statefulsets")];

/// Does something to a workload or a pod, drawn from the seed. While the API server is down nothing comes of it.
pub(super) async fn act(cluster: &SimCluster) -> Option<Repair> {
    match try_to_act(cluster).await {
        Ok(repair) => repair,
        Err(error) => {
            cluster.note(format_args!("somebody tries something: {error}"));
            None
        }
    }
}

async fn try_to_act(cluster: &SimCluster) -> ApiResult<Option<Repair>> {
    let below = |bound: usize| cluster.env().random_below(bound as u64) as usize;
    let deed = below(5);
    let (group, plural) = if deed == 0 { PODS } else { WORKLOADS[below(WORKLOADS.len())] };
    let resource = Resource::new(group, "v1", plural);
    let objects = list(cluster, &resource).await?;
    let Some(object) = objects.get(below(objects.len())) else { return Ok(None) };
    let name = object.metadata()?.name.clone().unwrap_or_default();
    match deed {
        0 => {
            cluster.note(format_args!("somebody deletes pod {name}"));
            delete(cluster, &resource, object).await?;
        }
        1 | 2 => {
            // Never more than there were in the beginning, so that there is room for all.
            let replicas = object.tree()?["spec"]["replicas"].as_u64().unwrap_or(1);
            let replicas = 1 + cluster.env().random_below(replicas.max(10));
            cluster.note(format_args!("somebody scales {plural} {name} to {replicas}"));
            patch(cluster, &resource, object, json!({"spec": {"replicas": replicas}})).await?;
        }
        3 => {
            let image = format!("app:{}", 2 + below(100));
            cluster.note(format_args!("somebody lets {plural} {name} run {image}"));
            let containers = json!([{"name": "main", "image": image}]);
            let change = json!({"spec": {"template": {"spec": {"containers": containers}}}});
            patch(cluster, &resource, object, change).await?;
        }
        _ => {
            cluster.note(format_args!("somebody removes {plural} {name}"));
            let again = anew(object)?;
            delete(cluster, &resource, object).await?;
            return Ok(Some(Repair::Workload(resource, Box::new(again))));
        }
    }
    Ok(None)
}

/// Makes a removed workload again. Nothing comes of it while the server is down or the old one is not gone yet.
pub(super) async fn create(cluster: &SimCluster, resource: Resource, object: Object) {
    let call = Call::Create { object, options: WriteOptions::default() };
    if let Err(error) = request(cluster, &resource, None, call).await {
        cluster.note(format_args!("nothing comes of it: {error}"));
    }
}

/// The object as somebody would write it.
fn anew(object: &Object) -> Result<Object, ApiError> {
    let tree = object.tree()?;
    let (name, namespace) = (&tree["metadata"]["name"], &tree["metadata"]["namespace"]);
    Ok(Object::from_tree(json!({
        "apiVersion": tree["apiVersion"], "kind": tree["kind"], "metadata": {"name": name, "namespace": namespace},
        "spec": tree["spec"],
    })))
}

async fn list(cluster: &SimCluster, resource: &Resource) -> ApiResult<Vec<Object>> {
    match request(cluster, resource, None, Call::List(ListOptions::default())).await? {
        Reply::List { items, .. } => Ok(items),
        Reply::Object { .. } => Err(ApiError::internal("a list was expected")),
    }
}

async fn patch(cluster: &SimCluster, resource: &Resource, object: &Object, change: Value) -> ApiResult<()> {
    let call = Call::Patch { patch: PatchBody::Strategic(change), options: WriteOptions::default() };
    request(cluster, resource, Some(object), call).await.map(drop)
}

async fn delete(cluster: &SimCluster, resource: &Resource, object: &Object) -> ApiResult<()> {
    let propagation = if cluster.env().random() & 1 == 0 { Propagation::Background } else { Propagation::Foreground };
    let options = DeleteOptions { propagation: Some(propagation), ..DeleteOptions::default() };
    request(cluster, resource, Some(object), Call::Delete(options)).await.map(drop)
}

async fn request(cluster: &SimCluster, resource: &Resource, object: Option<&Object>, call: Call) -> ApiResult<Reply> {
    let metadata = object.map(Object::metadata).transpose()?.cloned().unwrap_or_default();
    let namespace = match (&call, metadata.namespace) {
        (Call::List(_), _) => None,
        (_, None) => Some("default".to_owned()),
        (_, namespace) => namespace,
    };
    let request =
        Request { user: None, resource: resource.clone(), namespace, name: metadata.name, subresource: None, call };
    cluster.client().request(request).await
}
