//! Who manages which fields after a write, and what an applied configuration makes of an object.
//!
//! Upstream: `sigs.k8s.io/structured-merge-diff`, `merge/update.go`.

use std::{
    borrow::Cow,
    collections::{BTreeMap, btree_map::Entry},
};

use serde_json::Value;

use super::{
    compare::{Comparison, compare},
    conflict::{Conflict, Conflicts},
    field_set::{field_set, with_named_fields},
    managers::{Managed, ManagerId, Managers},
    merge::merge,
    path::same,
    reconcile::reconciled,
    remove::remove,
    set::FieldSet,
    types::TypeRef,
};

/// The versions that a kind is served in.
pub(crate) trait Versions {
    /// The type of the objects of a version; `None` when the version is not served.
    fn type_of(&self, api_version: &str) -> Option<TypeRef<'_>>;

    /// An object as it is in another version.
    fn convert<'v>(&self, object: &'v Value, api_version: &str) -> Cow<'v, Value>;
}

/// A write of an object in one version.
pub(crate) struct Updater<'a> {
    pub(crate) versions: &'a dyn Versions,
    pub(crate) api_version: &'a str,
    pub(crate) of: TypeRef<'a>,
    /// Fields that this way of writing does not take, with all below them.
    pub(crate) ignored: &'a FieldSet,
}

/// Why a configuration was not applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    Conflicts(Conflicts),
    /// The objects cannot be compared; the path and the reason.
    Invalid(String),
}

impl Updater<'_> {
    /// The difference that a write makes, as far as it counts.
    pub(crate) fn compare(&self, live: &Value, new: &Value) -> Result<Comparison, String> {
        compare(live, new, self.of).map(|comparison| comparison.without(self.ignored))
    }

    /// Moves what was written to its writer. The time of an entry changes only when something was written.
    pub(crate) fn update(
        &self,
        live: &Value,
        new: &Value,
        comparison: &Comparison,
        managers: &mut Managers,
        (writer, now): (ManagerId, Option<&str>),
    ) -> Result<(), Failure> {
        self.reconcile(live, managers);
        self.settle(live, new, comparison, managers, None, true)?;
        let mut set = comparison.set();
        if set.is_empty() {
            return Ok(());
        }
        if let Some(before) = managers.remove(&writer) {
            set.extend(before.set);
        }
        let managed = Managed { api_version: self.api_version.to_owned(), time: now.map(str::to_owned), set };
        managers.insert(writer, managed);
        Ok(())
    }

    /// The object after a configuration was applied; `None` when it is as it was.
    pub(crate) fn apply(
        &self,
        live: &Value,
        configuration: &Value,
        managers: &mut Managers,
        applier: &ManagerId,
        force: bool,
    ) -> Result<Option<Value>, Failure> {
        self.reconcile(live, managers);
        let merged = merge(live, configuration, self.of);
        let mut set = field_set(configuration, self.of);
        set.subtract_with_all_below(self.ignored);
        // Who applies again what he applied before has nothing to take away.
        let last = managers.remove(applier);
        let gave_up =
            last.as_ref().is_some_and(|last| last.api_version != self.api_version || !set.contains_all(&last.set));
        let time = last.as_ref().and_then(|last| last.time.clone());
        managers.insert(applier.clone(), Managed { api_version: self.api_version.to_owned(), time, set });
        let new = match last {
            // What is pruned until nothing is left is as the configuration has it.
            Some(last) if gave_up => merge(&self.prune(merged, &last, managers), configuration, self.of),
            _ => merged,
        };
        let comparison = self.compare(live, &new).map_err(Failure::Invalid)?;
        self.settle(live, &new, &comparison, managers, Some(applier), force)?;
        Ok((!same(live, &new)).then_some(new))
    }

    /// Brings what managers wrote by an older schema in line with the present one.
    fn reconcile(&self, live: &Value, managers: &mut Managers) {
        for managed in managers.values_mut() {
            let Some(of) = self.versions.type_of(&managed.api_version) else { continue };
            let live = self.versions.convert(live, &managed.api_version);
            if let Some(set) = reconciled(&managed.set, &live, of) {
                managed.set = set;
            }
        }
    }

    /// Takes from the other managers what changed and what is gone. After a failure nothing is known of them.
    fn settle(
        &self,
        live: &Value,
        new: &Value,
        comparison: &Comparison,
        managers: &mut Managers,
        writer: Option<&ManagerId>,
        force: bool,
    ) -> Result<(), Failure> {
        let mut elsewhere: BTreeMap<String, Option<Comparison>> = BTreeMap::new();
        let mut conflicts = Vec::new();
        let mut after = Managers::new();
        for (id, mut managed) in std::mem::take(managers) {
            if Some(&id) == writer {
                after.insert(id, managed);
                continue;
            }
            let comparison = if managed.api_version == self.api_version {
                comparison
            } else {
                let found = match elsewhere.entry(managed.api_version.clone()) {
                    Entry::Occupied(place) => place.into_mut(),
                    Entry::Vacant(place) => {
                        place.insert(self.compare_in(live, new, &managed.api_version).map_err(Failure::Invalid)?)
                    }
                };
                // Who wrote in a version that is no more manages nothing.
                let Some(comparison) = found else { continue };
                comparison
            };
            let mut taken = managed.set.intersection(&comparison.modified);
            taken.extend(managed.set.intersection(&comparison.added));
            conflicts.extend(taken.paths().into_iter().map(|path| Conflict { manager: id.clone(), path }));
            managed.set.subtract(&taken);
            managed.set.subtract(&comparison.removed);
            after.insert(id, managed);
        }
        if !force && !conflicts.is_empty() {
            return Err(Failure::Conflicts(Conflicts(conflicts)));
        }
        after.retain(|_, managed| !managed.set.is_empty());
        *managers = after;
        Ok(())
    }

    /// The difference in another version; `None` when the version is not served.
    fn compare_in(&self, live: &Value, new: &Value, api_version: &str) -> Result<Option<Comparison>, String> {
        let Some(of) = self.versions.type_of(api_version) else { return Ok(None) };
        let live = self.versions.convert(live, api_version);
        let new = self.versions.convert(new, api_version);
        compare(&live, &new, of).map(|comparison| Some(comparison.without(self.ignored)))
    }

    /// Takes away what the applier applied before and does not apply now, unless somebody else manages it.
    fn prune(&self, merged: Value, last: &Managed, managers: &Managers) -> Value {
        let Some(of) = self.versions.type_of(&last.api_version) else { return merged };
        let merged = self.versions.convert(&merged, &last.api_version);
        let last_set = with_named_fields(&last.set, Some(of));
        let pruned = remove(&merged, &last_set, of).unwrap_or_default();
        let pruned = self.add_back_managed(&merged, pruned, &last.api_version, managers);
        // What nobody manages stays, too: only what this applier managed may go.
        let kept = with_named_fields(&field_set(&pruned, of), Some(of));
        let all = with_named_fields(&field_set(&merged, of), Some(of));
        let gone = all.difference(&kept).intersection(&last_set);
        let pruned = remove(&merged, &gone, of).unwrap_or_default();
        match self.versions.convert(&pruned, self.api_version) {
            Cow::Owned(converted) => converted,
            Cow::Borrowed(_) => pruned,
        }
    }

    /// Puts back what was pruned although it is managed, version by version, beginning with the one that was pruned in.
    fn add_back_managed(&self, merged: &Value, pruned: Value, first: &str, managers: &Managers) -> Value {
        let mut by_version: BTreeMap<&str, FieldSet> = BTreeMap::new();
        for managed in managers.values() {
            by_version.entry(&managed.api_version).or_default().extend(managed.set.clone());
        }
        let mut order: Vec<(&str, FieldSet)> = by_version.into_iter().collect();
        order.sort_by_key(|(version, _)| *version != first);
        let mut pruned = pruned;
        for (version, managed) in order {
            let Some(of) = self.versions.type_of(version) else { continue };
            let there = self.versions.convert(merged, version);
            let left = self.versions.convert(&pruned, version);
            let named = |set: &FieldSet| with_named_fields(set, Some(of));
            let mut kept = named(&field_set(&left, of));
            kept.extend(named(&managed));
            let gone = named(&field_set(&there, of)).difference(&kept);
            let next = remove(&there, &gone, of).unwrap_or_default();
            pruned = self.versions.convert(&next, first).into_owned();
        }
        pruned
    }
}
