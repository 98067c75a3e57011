//! Typed access to one resource.

use std::{fmt::Debug, marker::PhantomData, sync::Arc};

use futures::{StreamExt, stream::BoxStream};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Preconditions;
use kube_core::params::{
    DeleteParams, ListParams, Patch, PatchParams, PostParams, PropagationPolicy, ValidationDirective,
    VersionMatch as Match, WatchParams,
};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    Call, Client, DeleteOptions, FieldValidation, ListOptions, PatchBody, Propagation, Reply, Request, Resource,
    VersionMatch, WatchEvent, WatchRequest, WriteOptions,
};
use crate::{
    object::{DecodeError, Object},
    status::{ApiError, ApiResult},
};

/// The objects of one resource, in one namespace or in all.
///
/// Its parameters are those of kube-rs, so that code moves between the two without change. Reads give shared
/// objects: in process, everyone who reads a version of an object holds the same `Arc`.
pub struct Api<K> {
    client: Client,
    resource: Resource,
    namespace: Option<String>,
    kind: PhantomData<fn() -> K>,
}

impl<K> Clone for Api<K> {
    fn clone(&self) -> Self {
        Self {
            client: self.client.clone(),
            resource: self.resource.clone(),
            namespace: self.namespace.clone(),
            kind: PhantomData,
        }
    }
}

impl<K> Debug for Api<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").field("resource", &self.resource).field("namespace", &self.namespace).finish()
    }
}

/// A collection as it was at one state.
#[derive(Clone, Debug)]
pub struct ObjectList<K> {
    /// The objects, in order of their keys.
    pub items: Vec<Arc<K>>,
    /// The state that this is a snapshot of.
    pub resource_version: String,
    /// Where the next answer begins, if there is more.
    pub continue_token: Option<String>,
}

impl From<DecodeError> for ApiError {
    fn from(error: DecodeError) -> Self {
        Self::internal(error)
    }
}

impl<K: kube_core::Resource> Api<K>
where
    K::DynamicType: Default,
{
    /// The objects of the cluster, or of all namespaces.
    pub fn all(client: &Client) -> Self {
        Self::all_with(client, &K::DynamicType::default())
    }

    /// The objects of one namespace.
    pub fn namespaced(client: &Client, namespace: &str) -> Self {
        Self::namespaced_with(client, namespace, &K::DynamicType::default())
    }
}

impl<K: kube_core::Resource> Api<K> {
    /// As [`Self::all`], for types that do not know their resource by themselves.
    pub fn all_with(client: &Client, dynamic_type: &K::DynamicType) -> Self {
        Self::of_resource(client, Resource::of::<K>(dynamic_type), None)
    }

    /// As [`Self::namespaced`], for types that do not know their resource by themselves.
    pub fn namespaced_with(client: &Client, namespace: &str, dynamic_type: &K::DynamicType) -> Self {
        Self::of_resource(client, Resource::of::<K>(dynamic_type), Some(namespace.to_owned()))
    }
}

impl<K> Api<K> {
    /// The objects of any resource.
    pub fn of_resource(client: &Client, resource: Resource, namespace: Option<String>) -> Self {
        Self { client: client.clone(), resource, namespace, kind: PhantomData }
    }

    /// Which resource.
    pub fn resource(&self) -> &Resource {
        &self.resource
    }

    fn request(&self, name: Option<&str>, subresource: Option<&str>, call: Call) -> Request {
        Request {
            user: None,
            resource: self.resource.clone(),
            namespace: self.namespace.clone(),
            name: name.map(str::to_owned),
            subresource: subresource.map(str::to_owned),
            call,
        }
    }

    /// Sends a call that one object answers, and leaves the answer as it came: for those who read little of it, or read it
    /// as caches hold it ([`Object::shared`]).
    pub async fn send(&self, name: Option<&str>, subresource: Option<&str>, call: Call) -> ApiResult<Object> {
        match self.client.request(self.request(name, subresource, call)).await? {
            Reply::Object { object, .. } => Ok(object),
            Reply::List { .. } => Err(ApiError::internal("a list came where an object was expected")),
        }
    }
}

impl<K> Api<K>
where
    K: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    /// Reads an object.
    pub async fn get(&self, name: &str) -> ApiResult<Arc<K>> {
        Ok(self.send(Some(name), None, Call::Get { resource_version: None }).await?.typed()?)
    }

    /// Reads an object; `None` when there is none.
    pub async fn get_opt(&self, name: &str) -> ApiResult<Option<Arc<K>>> {
        match self.get(name).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads a subresource, as whatever type it has.
    pub async fn get_subresource<S: DeserializeOwned + Send + Sync + 'static>(
        &self,
        subresource: &str,
        name: &str,
    ) -> ApiResult<Arc<S>> {
        Ok(self.send(Some(name), Some(subresource), Call::Get { resource_version: None }).await?.typed()?)
    }

    /// Reads the collection.
    pub async fn list(&self, params: &ListParams) -> ApiResult<ObjectList<K>> {
        let request = self.request(None, None, Call::List(list_options(params)));
        let Reply::List { items, resource_version, continue_token, .. } = self.client.request(request).await? else {
            return Err(ApiError::internal("an object came where a list was expected"));
        };
        let items = items.iter().map(Object::typed).collect::<Result<_, _>>()?;
        Ok(ObjectList { items, resource_version, continue_token })
    }

    /// Follows the collection after a state; from its present objects on when the version is `0` or empty.
    pub async fn watch(
        &self,
        params: &WatchParams,
        resource_version: &str,
    ) -> ApiResult<BoxStream<'static, ApiResult<WatchEvent>>> {
        let stream = self
            .client
            .watch(WatchRequest {
                user: None,
                resource: self.resource.clone(),
                namespace: self.namespace.clone(),
                label_selector: params.label_selector.clone().unwrap_or_default(),
                field_selector: params.field_selector.clone().unwrap_or_default(),
                resource_version: Some(resource_version.to_owned()),
                bookmarks: params.bookmarks,
                send_initial_events: params.send_initial_events,
                timeout: params.timeout.map(|seconds| std::time::Duration::from_secs(seconds.into())),
            })
            .await?;
        Ok(stream.boxed())
    }

    /// Writes a new object and gives it as it was stored.
    pub async fn create(&self, params: &PostParams, object: &K) -> ApiResult<Arc<K>>
    where
        K: Clone,
    {
        let object = Object::from_typed(Arc::new(object.clone()));
        Ok(self.send(None, None, Call::Create { object, options: write_options(params) }).await?.typed()?)
    }

    /// Writes to a subresource that is created, such as `binding`, `eviction` or `token`.
    pub async fn create_subresource<S>(&self, subresource: &str, name: &str, body: &S) -> ApiResult<Arc<S>>
    where
        S: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
    {
        let object = Object::from_typed(Arc::new(body.clone()));
        let call = Call::Create { object, options: WriteOptions::default() };
        Ok(self.send(Some(name), Some(subresource), call).await?.typed()?)
    }

    /// Writes an object anew. With a `resourceVersion` in it, only if that is still the newest.
    pub async fn replace(&self, name: &str, params: &PostParams, object: &K) -> ApiResult<Arc<K>>
    where
        K: Clone,
    {
        self.replace_part(None, name, params, object).await
    }

    /// Writes an object's status anew, and nothing else of it.
    pub async fn replace_status(&self, name: &str, params: &PostParams, object: &K) -> ApiResult<Arc<K>>
    where
        K: Clone,
    {
        self.replace_part(Some("status"), name, params, object).await
    }

    async fn replace_part(
        &self,
        subresource: Option<&str>,
        name: &str,
        params: &PostParams,
        object: &K,
    ) -> ApiResult<Arc<K>>
    where
        K: Clone,
    {
        let object = Object::from_typed(Arc::new(object.clone()));
        let call = Call::Replace { object, options: write_options(params) };
        Ok(self.send(Some(name), subresource, call).await?.typed()?)
    }

    /// Changes parts of an object.
    pub async fn patch<P: Serialize + Debug>(
        &self,
        name: &str,
        params: &PatchParams,
        patch: &Patch<P>,
    ) -> ApiResult<Arc<K>> {
        self.patch_subresource(None, name, params, patch).await
    }

    /// Changes parts of an object's status, and nothing else of it.
    pub async fn patch_status<P: Serialize + Debug>(
        &self,
        name: &str,
        params: &PatchParams,
        patch: &Patch<P>,
    ) -> ApiResult<Arc<K>> {
        self.patch_subresource(Some("status"), name, params, patch).await
    }

    async fn patch_subresource<P: Serialize + Debug>(
        &self,
        subresource: Option<&str>,
        name: &str,
        params: &PatchParams,
        patch: &Patch<P>,
    ) -> ApiResult<Arc<K>> {
        let options = WriteOptions {
            dry_run: params.dry_run,
            field_manager: params.field_manager.clone(),
            force: params.force,
            field_validation: match params.field_validation {
                None => FieldValidation::default(),
                Some(ValidationDirective::Ignore) => FieldValidation::Ignore,
                Some(ValidationDirective::Warn) => FieldValidation::Warn,
                Some(ValidationDirective::Strict) => FieldValidation::Strict,
            },
            repeated_fields: Vec::new(),
        };
        let call = Call::Patch { patch: patch_body(patch)?, options };
        Ok(self.send(Some(name), subresource, call).await?.typed()?)
    }

    /// Asks for an object's deletion. It is gone when its finalizers and its grace period are.
    pub async fn delete(&self, name: &str, params: &DeleteParams) -> ApiResult<()> {
        self.send(Some(name), None, Call::Delete(delete_options(params))).await.map(drop)
    }

    /// Asks for the deletion of all objects of a collection.
    pub async fn delete_collection(&self, params: &DeleteParams, list: &ListParams) -> ApiResult<()> {
        let call = Call::DeleteCollection(delete_options(params), list_options(list));
        self.client.request(self.request(None, None, call)).await.map(drop)
    }
}

fn list_options(params: &ListParams) -> ListOptions {
    ListOptions {
        label_selector: params.label_selector.clone().unwrap_or_default(),
        field_selector: params.field_selector.clone().unwrap_or_default(),
        limit: params.limit.map(|limit| limit as usize),
        continue_token: params.continue_token.clone(),
        resource_version: params.resource_version.clone(),
        version_match: params.version_match.as_ref().map(|version_match| match version_match {
            Match::Exact => VersionMatch::Exact,
            Match::NotOlderThan => VersionMatch::NotOlderThan,
        }),
    }
}

fn write_options(params: &PostParams) -> WriteOptions {
    WriteOptions { dry_run: params.dry_run, field_manager: params.field_manager.clone(), ..Default::default() }
}

fn patch_body<P: Serialize + Debug>(patch: &Patch<P>) -> ApiResult<PatchBody> {
    let tree = |patch: &P| serde_json::to_value(patch).map_err(ApiError::internal);
    Ok(match patch {
        Patch::Apply(patch) => PatchBody::Apply(tree(patch)?),
        Patch::Json(patch) => PatchBody::Json(serde_json::to_value(patch).map_err(ApiError::internal)?),
        Patch::Merge(patch) => PatchBody::Merge(tree(patch)?),
        Patch::Strategic(patch) => PatchBody::Strategic(tree(patch)?),
        _ => return Err(ApiError::bad_request("this kind of patch is not supported")),
    })
}

fn delete_options(params: &DeleteParams) -> DeleteOptions {
    DeleteOptions {
        dry_run: params.dry_run,
        grace_period_seconds: params.grace_period_seconds.map(i64::from),
        preconditions: params.preconditions.as_ref().map(|preconditions| Preconditions {
            resource_version: preconditions.resource_version.clone(),
            uid: preconditions.uid.clone(),
        }),
        propagation: params.propagation_policy.as_ref().map(|policy| match policy {
            PropagationPolicy::Orphan => Propagation::Orphan,
            PropagationPolicy::Background => Propagation::Background,
            PropagationPolicy::Foreground => Propagation::Foreground,
        }),
    }
}
