//! The namespace controller: empties a namespace that is being deleted, then lets it go.

mod decide;

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube_core::params::PostParams;
use orchestrator_core::{
    client::{
        Api, Call, Client, DeleteOptions, ListOptions, Propagation, Reply, Request, Resource, ResourceDiscovery,
        ResourceInfo, WriteOptions,
    },
    controller::{Action, Cache, Context, Controller, Reconciler},
    object::{Object, ObjectKey, time},
    status::{ApiError, ApiResult},
};
use tokio_util::sync::CancellationToken;

use self::decide::{Content, finalized, is_due, is_waiting_for, terminating, unexpected, with_status};
use crate::{context::ControllerContext, limits, writes::settled};

pub(crate) async fn run(context: ControllerContext, shutdown: CancellationToken) {
    let caches = &context.caches;
    let namespaces = caches.cache::<Namespace>();
    let deleting = namespaces.clone();
    let controller =
        Controller::new("namespace-controller", caches).reconciles::<Namespace>().watches::<Pod>(move |change| {
            // Pods take their time to go; the others are gone at once or wait for finalizers.
            let key = ObjectKey::new("", &*change.key.namespace);
            let awaited = change.new.is_none() && deleting.get(&key).is_some_and(|namespace| is_due(&namespace));
            awaited.then_some(key).into_iter().collect()
        });
    let emptying = Emptying { namespaces, pods: caches.cache(), discovery: context.discovery.clone() };
    controller.run(emptying, shutdown).await;
}

struct Emptying {
    namespaces: Cache<Namespace>,
    pods: Cache<Pod>,
    discovery: Arc<dyn ResourceDiscovery>,
}

#[async_trait]
impl Reconciler for Emptying {
    type Object = Namespace;
    type Error = ApiError;

    async fn reconcile(&self, key: &ObjectKey, context: &Context) -> Result<Action, ApiError> {
        let Some(mut namespace) = self.namespaces.get(key).filter(|namespace| is_due(namespace)) else {
            return Ok(Action::Done);
        };
        let api = Api::<Namespace>::all(context.client());
        if let Some(changed) = terminating(&namespace) {
            namespace = api.replace_status(&key.name, &PostParams::default(), &changed).await?;
        }
        let waits = is_waiting_for(&self.pods.list_namespace(&key.name), &namespace, context.env().now());
        let content = self.empty(context.client(), &key.name, waits).await;
        if let Some(changed) = with_status(&namespace, &content, &time(context.env().now())) {
            namespace = api.replace_status(&key.name, &PostParams::default(), &changed).await?;
        }
        if content.is_gone() {
            finalize(context.client(), finalized(&namespace)).await?;
            return Ok(Action::Done);
        }
        Ok(Action::RequeueAfter(limits::NAMESPACE_RETRY))
    }
}

impl Emptying {
    /// Deletes what can be deleted: pods first, and the rest once they are gone, so that no pod outlives what it needs.
    /// `waits`: pods may still be there.
    async fn empty(&self, client: &Client, namespace: &str, waits: bool) -> Content {
        let mut content = Content::default();
        let resources = match self.discovery.resources().await {
            Ok(resources) => resources,
            Err(error) => {
                content.undiscovered = Some(error.to_string());
                return content;
            }
        };
        let deletable = |info: &ResourceInfo| info.namespaced && info.supports(&["delete", "list"]);
        let (pods, others): (Vec<ResourceInfo>, Vec<ResourceInfo>) =
            resources.into_iter().filter(deletable).partition(|info| is_pods(&info.resource));
        for group in [pods, others] {
            for info in group {
                match empty_of(client, namespace, &info, &mut content).await {
                    Ok(Left::WithoutReason) if !(waits && is_pods(&info.resource)) => {
                        content.errors.push(unexpected(namespace, &info.resource));
                    }
                    Ok(_) => {}
                    Err(error) => content.errors.push(error.to_string()),
                }
            }
            if !content.remaining.is_empty() {
                break;
            }
        }
        content
    }
}

fn is_pods(resource: &Resource) -> bool {
    resource.group.is_empty() && resource.plural == "pods"
}

/// What is left of a resource after its deletion.
enum Left {
    Nothing,
    WithFinalizers,
    WithoutReason,
}

/// Deletes the objects of one resource, and counts those that stay.
async fn empty_of(client: &Client, namespace: &str, info: &ResourceInfo, content: &mut Content) -> ApiResult<Left> {
    let call = |name: Option<String>, call: Call| Request {
        user: None,
        resource: info.resource.clone(),
        namespace: Some(namespace.to_owned()),
        name,
        subresource: None,
        call,
    };
    let options = DeleteOptions { propagation: Some(Propagation::Background), ..Default::default() };
    let present = list(client, &call).await?;
    if present.is_empty() {
        return Ok(Left::Nothing);
    }
    if info.supports(&["deletecollection"]) {
        client.request(call(None, Call::DeleteCollection(options, ListOptions::default()))).await?;
    } else {
        for object in &present {
            let name = object.metadata()?.name.clone();
            settled(client.request(call(name, Call::Delete(options.clone()))).await)?;
        }
    }
    let mut left = Left::Nothing;
    for object in list(client, &call).await? {
        let name = format!("{}.{}", info.resource.plural, info.resource.group);
        *content.remaining.entry(name).or_default() += 1;
        let finalizers = object.metadata()?.finalizers.clone().unwrap_or_default();
        left = match left {
            Left::WithFinalizers => Left::WithFinalizers,
            _ if !finalizers.is_empty() => Left::WithFinalizers,
            _ => Left::WithoutReason,
        };
        for finalizer in finalizers {
            *content.finalizers.entry(finalizer).or_default() += 1;
        }
    }
    Ok(left)
}

async fn list(client: &Client, call: &impl Fn(Option<String>, Call) -> Request) -> ApiResult<Vec<Object>> {
    let (mut objects, mut token) = (Vec::new(), None);
    loop {
        let limit = Some(limits::NAMESPACE_PAGE_OBJECTS);
        let options = ListOptions { limit, continue_token: token, ..Default::default() };
        match client.request(call(None, Call::List(options))).await {
            Ok(Reply::List { items, continue_token, .. }) => {
                objects.extend(items);
                token = continue_token.filter(|token| !token.is_empty());
            }
            Ok(Reply::Object { .. }) => return Err(ApiError::internal("an object came where a list was expected")),
            // A custom kind that has gone in the meantime.
            Err(error) if error.is_not_found() => return Ok(objects),
            Err(error) => return Err(error),
        }
        if token.is_none() {
            return Ok(objects);
        }
    }
}

async fn finalize(client: &Client, namespace: Namespace) -> ApiResult<()> {
    let request = Request {
        user: None,
        resource: Resource::of::<Namespace>(&()),
        namespace: None,
        name: namespace.metadata.name.clone(),
        subresource: Some("finalize".to_owned()),
        call: Call::Replace { object: Object::from_typed(Arc::new(namespace)), options: WriteOptions::default() },
    };
    settled(client.request(request).await)
}
