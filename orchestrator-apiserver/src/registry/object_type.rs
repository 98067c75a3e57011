//! The type of a kind's objects for server-side apply, made when it is first asked for.

use std::sync::OnceLock;

use serde_json::Value;

use super::Kind;
use crate::apply::{self, TypeId, TypeRef, Types};

/// A place for a type that is made once.
#[derive(Debug, Default)]
pub(crate) struct ObjectType(OnceLock<Made>);

#[derive(Debug)]
struct Made {
    of: Of,
    empty: Value,
}

#[derive(Debug)]
enum Of {
    Builtin(TypeRef<'static>),
    Custom(Types, TypeId),
}

impl Kind {
    /// The type of its objects.
    pub(crate) fn type_of_objects(&self) -> TypeRef<'_> {
        match &self.made().of {
            Of::Builtin(of) => *of,
            Of::Custom(types, root) => types.get(*root),
        }
    }

    /// What an object of the kind is before anything is written into it.
    pub(crate) fn empty_object(&self) -> &Value {
        &self.made().empty
    }

    fn made(&self) -> &Made {
        self.object_type.0.get_or_init(|| {
            let resource = &self.resource;
            let of = match apply::builtin(&resource.group, &resource.version, &self.kind) {
                Some(of) if !self.is_custom() => Of::Builtin(of),
                _ => {
                    let (types, root) = apply::custom(self.open_api.as_ref());
                    Of::Custom(types, root)
                }
            };
            Made { of, empty: apply::empty(&self.api_version(), &self.kind, self.schema) }
        })
    }
}
