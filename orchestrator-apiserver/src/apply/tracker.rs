//! The managers of an object through its writes: what is not tracked, who came before, how many are kept.
//!
//! Upstream: `k8s.io/apimachinery/pkg/util/managedfields`.

use std::{collections::BTreeMap, sync::LazyLock};

use serde_json::{Map, Value};
use thiserror::Error;

use super::{
    ancient,
    compare::Comparison,
    conflict::Conflicts,
    fast, last_applied,
    managers::{self, ManagerId, Managers, Operation},
    set::FieldSet,
    updater::{Failure, Updater},
    validate::{Duplicates, validate},
};

/// What an object is called by whom nobody tracked it, when it is first applied to.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// What a writer is called who has no name.
const NOBODY: &str = "unknown";

/// Fields that nobody manages.
static UNTRACKED: LazyLock<FieldSet> = LazyLock::new(|| {
    FieldSet::of_fields(&[
        "apiVersion",
        "kind",
        "metadata",
        "metadata.name",
        "metadata.namespace",
        "metadata.creationTimestamp",
        "metadata.selfLink",
        "metadata.uid",
        "metadata.clusterName",
        "metadata.generation",
        "metadata.managedFields",
        "metadata.resourceVersion",
    ])
});

/// One write, by whom and through which endpoint.
pub(crate) struct Tracker<'a> {
    pub(crate) updater: Updater<'a>,
    /// The kind, as errors name it: `apps/v1, Kind=Deployment`.
    pub(crate) kind: &'a str,
    /// Empty for the object itself.
    pub(crate) subresource: &'a str,
    /// The time of the write, as RFC 3339 writes it; `None` for endpoints whose writes have none.
    pub(crate) now: Option<&'a str>,
    /// Whether the kind has always had the schema that it has. By one that has changed, entries may have to change that the write
    /// does not touch.
    pub(crate) schema_is_fixed: bool,
    /// The object before it is created: its kind, and what an empty object of the kind shows.
    pub(crate) empty: &'a Value,
}

/// Why a configuration was not applied.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum ApplyError {
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    Conflicts(Conflicts),
    /// Upstream answers so, with an error of the server, to what does not fit the type.
    #[error("{0}")]
    Failed(String),
}

impl Tracker<'_> {
    /// Writes the managers into an object that somebody wrote in any way but apply, or created where there was none.
    ///
    /// The caller's own `managedFields` count where they can be read, except through a subresource; an empty list, or
    /// one with an empty entry, makes the object forget its managers. Objects without managers stay without.
    pub(crate) fn update(&self, live: Option<&Value>, new: &mut Value, manager: &str) {
        let given = take_entries(new);
        let stored = live.and_then(entries);
        let Some(base) = self.base(stored, given.as_ref(), live.is_some()) else { return };
        let before = live.unwrap_or(self.empty);
        let Ok(comparison) = self.updater.compare(before, new).map(untrack) else {
            return put_entries(new, stored.cloned());
        };
        if comparison.is_same() && base == stored {
            return put_entries(new, stored.cloned());
        }
        let manager = self.id(manager, Operation::Update);
        // What a caller gives may be written in other ways than ours.
        let own_writing =
            base.filter(|base| self.schema_is_fixed && stored.is_some_and(|stored| std::ptr::eq(*base, stored)));
        if let Some(entries) = own_writing.and_then(|base| fast::update(base, &comparison, &manager, self.now)) {
            return put_entries(new, Some(entries));
        }
        let mut managers = managers::parse(base).unwrap_or_default();
        match self.updater.update(before, new, &comparison, &mut managers, (manager, self.now)) {
            Ok(()) => {
                ancient::join(&mut managers);
                put_entries(new, managers::print(&managers));
            }
            Err(_) => put_entries(new, stored.cloned()),
        }
    }

    /// The entries that a write goes on from; `None` when nobody is tracked.
    fn base<'v>(&self, stored: Option<&'v Value>, given: Option<&'v Value>, exists: bool) -> Option<Option<&'v Value>> {
        let base = match given {
            _ if !self.subresource.is_empty() || given == stored => stored,
            _ if managers::is_reset(given) => None,
            _ => {
                let readable = managers::parse(given).is_ok_and(|managers| !managers.is_empty());
                if readable { given } else { stored }
            }
        };
        let none = base.and_then(Value::as_array).is_none_or(Vec::is_empty);
        if exists && none { None } else { Some(base) }
    }

    /// The object after somebody applied a configuration to it, with its managers.
    ///
    /// # Errors
    /// The configuration does not fit, or somebody else manages what it changes.
    pub(crate) fn apply(
        &self,
        live: Option<&Value>,
        configuration: &Value,
        manager: &str,
        force: bool,
    ) -> Result<Value, ApplyError> {
        if entries(configuration).is_some_and(Value::is_array) {
            return Err(ApplyError::Refused("metadata.managedFields must be nil".to_owned()));
        }
        self.check("patch", configuration, Duplicates::Refuse)?;
        let mut before = live.unwrap_or(self.empty).clone();
        let stored = take_entries(&mut before);
        self.check("live", &before, Duplicates::Allow)?;
        let failed = |error| ApplyError::Failed(format!("failed to decode managed fields: {error}"));
        let mut managers = managers::parse(stored.as_ref()).map_err(failed)?;
        if managers.is_empty() && live.is_some() {
            self.track_before_first_apply(&before, &mut managers)?;
        }
        let mut object = match self.try_apply(&before, configuration, &managers, manager, force) {
            Err(Failure::Conflicts(conflicts)) if manager == last_applied::MANAGER => {
                match last_applied::remaining(conflicts, &before, &self.updater) {
                    Some(conflicts) => Err(Failure::Conflicts(conflicts)),
                    None => self.try_apply(&before, configuration, &managers, manager, true),
                }
            }
            result => result,
        }
        .map_err(failure)?;
        if manager == last_applied::MANAGER {
            last_applied::renew(&mut object, configuration);
        }
        Ok(object)
    }

    fn try_apply(
        &self,
        live: &Value,
        configuration: &Value,
        managers: &Managers,
        manager: &str,
        force: bool,
    ) -> Result<Value, Failure> {
        let mut managers = managers.clone();
        let applier = self.id(manager, Operation::Apply);
        let changed = self.updater.apply(live, configuration, &mut managers, &applier, force)?;
        if let Some(mut managed) = managers.remove(&applier) {
            managed.set.subtract(&UNTRACKED);
            if let (Some(_), Some(now)) = (&changed, self.now) {
                managed.time = Some(now.to_owned());
            }
            if !managed.set.is_empty() {
                managers.insert(applier, managed);
            }
        }
        let mut object = changed.unwrap_or_else(|| live.clone());
        put_entries(&mut object, managers::print(&managers));
        Ok(object)
    }

    fn track_before_first_apply(&self, live: &Value, managers: &mut Managers) -> Result<(), ApplyError> {
        let comparison = self.updater.compare(self.empty, live).map(untrack).map_err(ApplyError::Failed)?;
        let writer = self.id(BEFORE_FIRST_APPLY, Operation::Update);
        self.updater.update(self.empty, live, &comparison, managers, (writer, self.now)).map_err(failure)
    }

    fn id(&self, manager: &str, operation: Operation) -> ManagerId {
        let name = if manager.is_empty() { NOBODY } else { manager };
        ManagerId::new(name, operation, self.updater.api_version, self.subresource)
    }

    fn check(&self, which: &str, object: &Value, duplicates: Duplicates) -> Result<(), ApplyError> {
        validate(object, self.updater.of, duplicates).map_err(|why| {
            let text = |name: &str| object["metadata"][name].as_str().unwrap_or_default();
            let (namespace, name) = (text("namespace"), text("name"));
            ApplyError::Failed(format!(
                "failed to create typed {which} object ({namespace}/{name}; {}): {why}",
                self.kind
            ))
        })
    }
}

fn failure(failure: Failure) -> ApplyError {
    match failure {
        Failure::Conflicts(conflicts) => ApplyError::Conflicts(conflicts),
        Failure::Invalid(why) => ApplyError::Failed(why),
    }
}

fn untrack(comparison: Comparison) -> Comparison {
    comparison.without_only(&UNTRACKED)
}

fn entries(object: &Value) -> Option<&Value> {
    object.get("metadata")?.get("managedFields").filter(|entries| !entries.is_null())
}

fn take_entries(object: &mut Value) -> Option<Value> {
    let entries = object.get_mut("metadata")?.as_object_mut()?.remove("managedFields")?;
    (!entries.is_null()).then_some(entries)
}

/// Where a write changed nothing but times of entries, it changed nothing: the entries are as they were.
pub(crate) fn ignore_times(live: &Value, new: &mut Value) {
    let (Some(before), Some(after)) = (entries(live), entries(new)) else { return };
    if before == after || !same_but_entries(live, new) || !same_but_times(before, after) {
        return;
    }
    put_entries(new, Some(before.clone()));
}

fn same_but_entries(left: &Value, right: &Value) -> bool {
    let (Value::Object(left), Value::Object(right)) = (left, right) else { return left == right };
    let same = |(name, value): (&String, &Value)| match right.get(name) {
        Some(other) if name == "metadata" => same_metadata(value, other),
        other => other == Some(value),
    };
    left.len() == right.len() && left.iter().all(same)
}

fn same_metadata(left: &Value, right: &Value) -> bool {
    let (Value::Object(left), Value::Object(right)) = (left, right) else { return left == right };
    left.len() == right.len()
        && left.iter().all(|(name, value)| name == "managedFields" || right.get(name) == Some(value))
}

fn same_but_times(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Array(left), Value::Array(right)) => {
            let timeless = |entry: &Value| {
                let members = entry.as_object().into_iter().flatten();
                members.filter(|(name, _)| *name != "time").map(|(name, value)| (name.clone(), value.clone())).collect()
            };
            let sorted = |entries: &[Value]| {
                let mut entries: Vec<BTreeMap<String, Value>> = entries.iter().map(timeless).collect();
                entries.sort_by_cached_key(|entry| format!("{entry:?}"));
                entries
            };
            left.len() == right.len() && sorted(left) == sorted(right)
        }
        _ => false,
    }
}

fn put_entries(object: &mut Value, entries: Option<Value>) {
    if let (Some(members), Some(entries)) = (object.as_object_mut(), entries) {
        let metadata = members.entry("metadata").or_insert_with(|| Map::new().into());
        if let Some(metadata) = metadata.as_object_mut() {
            metadata.insert("managedFields".to_owned(), entries);
        }
    }
}
