//! What people do to a world.

use std::{fmt, time::Duration};

use orchestrator_core::{
    client::{Call, DeleteOptions, PatchBody, Request, Resource, WriteOptions},
    controller::Kind,
    object::Object,
};
use serde_json::Value;

use super::timeline::words;

/// One thing that somebody does.
#[derive(Clone, Debug)]
pub(super) enum Action {
    /// A write.
    Write(Box<Request>),
    /// A pause.
    Wait(Duration),
    /// As long a pause as it takes until nothing is written any more.
    Settle,
}

impl Action {
    pub(super) fn create<K: Kind>(object: &K) -> Self {
        let tree = serde_json::to_value(object).unwrap_or_default();
        let namespace = object.meta().namespace.clone();
        let mut tree = tree;
        // A type need not write down what it is.
        tree["apiVersion"] = Resource::of::<K>(&()).api_version().into();
        tree["kind"] = K::kind(&()).into_owned().into();
        let call = Call::Create { object: Object::from_tree(tree), options: WriteOptions::default() };
        Self::request::<K>(namespace, None, call)
    }

    pub(super) fn patch<K: Kind>(namespace: &str, name: &str, patch: Value) -> Self {
        let call = Call::Patch { patch: PatchBody::Merge(patch), options: WriteOptions::default() };
        Self::request::<K>(in_namespace(namespace), Some(name.to_owned()), call)
    }

    pub(super) fn delete<K: Kind>(namespace: &str, name: &str) -> Self {
        Self::request::<K>(in_namespace(namespace), Some(name.to_owned()), Call::Delete(DeleteOptions::default()))
    }

    fn request<K: Kind>(namespace: Option<String>, name: Option<String>, call: Call) -> Self {
        let resource = Resource::of::<K>(&());
        Self::Write(Box::new(Request { user: None, resource, namespace, name, subresource: None, call }))
    }
}

fn in_namespace(namespace: &str) -> Option<String> {
    Some(namespace.to_owned()).filter(|namespace| !namespace.is_empty())
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write(request) => f.write_str(&words(request)),
            Self::Wait(time) => write!(f, "wait {} s", time.as_secs_f64()),
            Self::Settle => f.write_str("wait until nothing is written"),
        }
    }
}
