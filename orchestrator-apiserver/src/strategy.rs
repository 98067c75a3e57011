//! What is particular to a kind: its defaults, its rules, and what each kind of write may touch.

use orchestrator_core::store::Key;
use serde_json::Value;

use crate::{
    field::{Errors, Field},
    names::NameRule,
};

/// The rules of a kind. Every method has the answer of a kind without rules of its own.
///
/// All of it is pure: trees in, trees and errors out.
pub(crate) trait Strategy: Send + Sync + std::fmt::Debug {
    /// How objects may be named.
    fn names(&self) -> NameRule {
        NameRule::Subdomain
    }

    /// What `metadata.generation` counts.
    fn generation(&self) -> Generation {
        Generation::None
    }

    /// Whether the status is written through its own endpoint only.
    fn has_status(&self) -> bool {
        false
    }

    /// Whether an update must carry the version that it is based on.
    fn needs_version(&self) -> bool {
        false
    }

    /// Writes the defaults of fields that are absent. Runs on every object that comes in.
    fn default(&self, _object: &mut Value) {}

    /// What the server decides about a new object, after defaults and before validation.
    fn prepare_create(&self, object: &mut Value) {
        if self.has_status()
            && let Some(members) = object.as_object_mut()
        {
            members.remove("status");
        }
    }

    /// The rules of an object by itself.
    fn validate(&self, _object: &Field<'_>, _errors: &mut Errors) {}

    /// The rules of a new object, in addition to [`Self::validate`].
    fn validate_create(&self, _object: &Field<'_>, _errors: &mut Errors) {}

    /// What the server decides about a changed object.
    fn prepare_update(&self, _new: &mut Value, _old: &Value) {}

    /// The rules of a change, in addition to [`Self::validate`].
    fn validate_update(&self, _new: &Field<'_>, _old: &Field<'_>, _errors: &mut Errors) {}

    /// What callers are told of an object that is taken, new or changed.
    fn warn(&self, _new: &Field<'_>, _old: Option<&Field<'_>>, _warnings: &mut Vec<String>) {}

    /// Whether owners and finalizers are what they were, whoever writes the status.
    fn keeps_metadata_of_status(&self) -> bool {
        true
    }

    /// What the server decides about a changed status.
    fn prepare_status(&self, _new: &mut Value, _old: &Value) {}

    /// The rules of a change of the status.
    fn validate_status(&self, _new: &Field<'_>, _old: &Field<'_>, _errors: &mut Errors) {}

    /// Seconds that a deletion waits, given what the caller asked for. 0 deletes at once.
    fn grace_seconds(&self, _object: &Value, _asked: Option<i64>) -> i64 {
        0
    }

    /// Keys that no other object may hold at the same time, such as addresses.
    fn reservations(&self, _object: &Value) -> Vec<Reservation> {
        Vec::new()
    }

    /// Whether [`Self::allocations`] may ask for anything.
    fn allocates(&self) -> bool {
        false
    }

    /// Values that the server has to draw before the object, which may be a new one, can be stored.
    fn allocations(&self, _object: &Value, _is_new: bool) -> Vec<Allocation> {
        Vec::new()
    }

    /// Whether a deletion answers with the object, where others answer with a `Status`.
    fn returns_deleted(&self) -> bool {
        false
    }
}

/// What `metadata.generation` counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Generation {
    /// Nothing: objects have none.
    None,
    /// It is 1, whatever becomes of the object.
    Fixed,
    /// Changes of the object's intent: of all but metadata and status.
    Intent,
    /// Changes of the object's intent and of its annotations.
    Annotated,
}

/// A key that an object holds for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reservation {
    pub(crate) key: Key,
    /// Where in the object the value stands.
    pub(crate) field: String,
    /// The value, as errors show it.
    pub(crate) shown: String,
    /// What stands at the key for all to see, where it is an object of its own; UID and time are the server's to add.
    pub(crate) object: Option<Value>,
}

/// A value that the server draws.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Allocation {
    /// An address for a service, at `spec.clusterIP`.
    ClusterIp,
    /// A port on every node, at `spec.ports[index].nodePort`.
    NodePort {
        /// Which ports of the service are to have it.
        indexes: Vec<usize>,
    },
    /// A port on every node, at `spec.healthCheckNodePort`.
    HealthCheckPort,
}

/// A kind that is stored and served by the rules of metadata alone.
#[derive(Debug)]
pub(crate) struct Plain {
    pub(crate) generation: Generation,
    pub(crate) status: bool,
    pub(crate) names: NameRule,
}

impl Strategy for Plain {
    fn names(&self) -> NameRule {
        self.names
    }

    fn generation(&self) -> Generation {
        self.generation
    }

    fn has_status(&self) -> bool {
        self.status
    }
}
