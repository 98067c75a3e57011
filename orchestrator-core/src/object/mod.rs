//! Objects as they travel: one shared object with three forms, each made at most once.

#[cfg(shares_generics)]
mod instances;
mod shared;
mod trim;

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

pub use shared::{DecodeError, Object};

/// Namespace and name of an object; the namespace is empty for objects of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Empty for objects of the cluster.
    pub namespace: String,
    /// Unique within kind and namespace.
    pub name: String,
}

impl ObjectKey {
    /// The key of an object in a namespace.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// The key that an object's metadata gives.
    pub fn of(metadata: &ObjectMeta) -> Self {
        Self {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
        }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() { f.write_str(&self.name) } else { write!(f, "{}/{}", self.namespace, self.name) }
    }
}

/// A time as objects carry it: whole seconds, as upstream's `metav1.Time`.
pub fn time(timestamp: jiff::Timestamp) -> Time {
    Time(jiff::Timestamp::from_second(timestamp.as_second()).unwrap_or(timestamp))
}
