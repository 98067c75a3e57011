//! A kind's rules as data: one function for each question, each with the answer of a kind without rules of its own.

use serde_json::Value;

use crate::{
    field::{Errors, Field},
    names::NameRule,
    strategy::{Allocation, Generation, Reservation, Strategy},
};

/// The rules of a kind. Begin with [`Rules::NONE`] and replace what differs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) names: NameRule,
    pub(crate) generation: Generation,
    pub(crate) status: bool,
    /// Whether a new object may come with its status.
    pub(crate) begins_with_status: bool,
    /// Whether an update must carry the version that it is based on.
    pub(crate) needs_version: bool,
    /// Whether owners and finalizers are what they were, whoever writes the status.
    pub(crate) keeps_metadata_of_status: bool,
    /// Whether a deletion answers with the object.
    pub(crate) returns_deleted: bool,
    pub(crate) default: fn(&mut Value),
    /// Runs after the status that the caller sent is gone, where it goes.
    pub(crate) create: fn(&mut Value),
    pub(crate) update: fn(&mut Value, &Value),
    pub(crate) validate: fn(&Field<'_>, &mut Errors),
    pub(crate) validate_create: fn(&Field<'_>, &mut Errors),
    pub(crate) validate_update: fn(&Field<'_>, &Field<'_>, &mut Errors),
    /// What callers are told of an object that is taken, new or changed.
    pub(crate) warn: fn(&Field<'_>, Option<&Field<'_>>, &mut Vec<String>),
    pub(crate) update_status: fn(&mut Value, &Value),
    pub(crate) validate_status: fn(&Field<'_>, &Field<'_>, &mut Errors),
    pub(crate) grace: fn(&Value, Option<i64>) -> i64,
    pub(crate) reservations: fn(&Value) -> Vec<Reservation>,
    /// `None` where the server draws nothing.
    pub(crate) allocations: Option<fn(&Value, bool) -> Vec<Allocation>>,
}

impl Rules {
    /// A kind that is ruled by its metadata alone.
    pub(crate) const NONE: Self = Self {
        names: NameRule::Subdomain,
        generation: Generation::None,
        status: false,
        begins_with_status: false,
        needs_version: false,
        keeps_metadata_of_status: true,
        returns_deleted: false,
        default: |_| {},
        create: |_| {},
        update: |_, _| {},
        validate: |_, _| {},
        validate_create: |_, _| {},
        validate_update: |_, _, _| {},
        warn: |_, _, _| {},
        update_status: |_, _| {},
        validate_status: |_, _, _| {},
        grace: |_, _| 0,
        reservations: |_| Vec::new(),
        allocations: None,
    };
}

impl Strategy for Rules {
    fn names(&self) -> NameRule {
        self.names
    }

    fn generation(&self) -> Generation {
        self.generation
    }

    fn has_status(&self) -> bool {
        self.status
    }

    fn needs_version(&self) -> bool {
        self.needs_version
    }

    fn default(&self, object: &mut Value) {
        (self.default)(object);
    }

    fn prepare_create(&self, object: &mut Value) {
        if self.status
            && !self.begins_with_status
            && let Some(members) = object.as_object_mut()
        {
            members.remove("status");
        }
        (self.create)(object);
    }

    fn validate(&self, object: &Field<'_>, errors: &mut Errors) {
        (self.validate)(object, errors);
    }

    fn validate_create(&self, object: &Field<'_>, errors: &mut Errors) {
        (self.validate_create)(object, errors);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        (self.update)(new, old);
    }

    fn validate_update(&self, new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
        (self.validate_update)(new, old, errors);
    }

    fn warn(&self, new: &Field<'_>, old: Option<&Field<'_>>, warnings: &mut Vec<String>) {
        (self.warn)(new, old, warnings);
    }

    fn keeps_metadata_of_status(&self) -> bool {
        self.keeps_metadata_of_status
    }

    fn prepare_status(&self, new: &mut Value, old: &Value) {
        (self.update_status)(new, old);
    }

    fn validate_status(&self, new: &Field<'_>, old: &Field<'_>, errors: &mut Errors) {
        (self.validate_status)(new, old, errors);
    }

    fn grace_seconds(&self, object: &Value, asked: Option<i64>) -> i64 {
        (self.grace)(object, asked)
    }

    fn reservations(&self, object: &Value) -> Vec<Reservation> {
        (self.reservations)(object)
    }

    fn allocates(&self) -> bool {
        self.allocations.is_some()
    }

    fn allocations(&self, object: &Value, is_new: bool) -> Vec<Allocation> {
        self.allocations.map_or_else(Vec::new, |allocations| allocations(object, is_new))
    }

    fn returns_deleted(&self) -> bool {
        self.returns_deleted
    }
}
