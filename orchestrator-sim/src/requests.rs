//! What people ask of a server, as requests.

use k8s_openapi::{api::core::v1::ServiceAccount, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use orchestrator_core::{
    client::{Call, DeleteOptions, PatchBody, Request, Resource, WriteOptions},
    controller::Kind,
    object::Object,
};
use serde_json::Value;

/// Creates an object.
pub(crate) fn create<K: Kind>(object: &K) -> Request {
    let mut tree = serde_json::to_value(object).unwrap_or_default();
    // A type need not write down what it is.
    tree["apiVersion"] = Resource::of::<K>(&()).api_version().into();
    tree["kind"] = K::kind(&()).into_owned().into();
    let call = Call::Create { object: Object::from_tree(tree), options: WriteOptions::default() };
    request::<K>(object.meta().namespace.clone(), None, call)
}

/// Creates the account that pods of the namespace `default` run as; without it they are refused.
pub(crate) fn default_account() -> Request {
    let name = || Some("default".to_owned());
    let metadata = ObjectMeta { name: name(), namespace: name(), ..ObjectMeta::default() };
    create(&ServiceAccount { metadata, ..ServiceAccount::default() })
}

/// Changes an object by a JSON merge patch. What belongs to the cluster has an empty namespace.
pub(crate) fn merge_patch<K: Kind>(namespace: &str, name: &str, patch: Value) -> Request {
    let call = Call::Patch { patch: PatchBody::Merge(patch), options: WriteOptions::default() };
    request::<K>(in_namespace(namespace), Some(name.to_owned()), call)
}

/// Deletes an object.
pub(crate) fn delete<K: Kind>(namespace: &str, name: &str) -> Request {
    request::<K>(in_namespace(namespace), Some(name.to_owned()), Call::Delete(DeleteOptions::default()))
}

fn request<K: Kind>(namespace: Option<String>, name: Option<String>, call: Call) -> Request {
    Request { user: None, resource: Resource::of::<K>(&()), namespace, name, subresource: None, call }
}

fn in_namespace(namespace: &str) -> Option<String> {
    Some(namespace.to_owned()).filter(|namespace| !namespace.is_empty())
}
