//! What is served: a row for each kind. Built-in rows are made of tables, custom ones of definitions at run time.

mod builtin;
mod custom;
mod object_type;
mod support;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use orchestrator_core::{
    client::Resource,
    object::Object,
    status::{ApiResult, Subject},
    store::{Key, KeyRange, Revision},
};

use serde_json::Value;

pub(crate) use custom::custom_kinds;
pub(crate) use object_type::ObjectType;
pub use support::support_matrix;

use crate::{decode::Message, kinds, strategy::Strategy};

/// A served kind.
#[derive(Debug)]
pub(crate) struct Kind {
    pub(crate) resource: Resource,
    pub(crate) kind: String,
    pub(crate) singular: String,
    pub(crate) short_names: Vec<String>,
    pub(crate) categories: Vec<String>,
    pub(crate) namespaced: bool,
    pub(crate) verbs: Vec<String>,
    pub(crate) subresources: Vec<Subresource>,
    /// Where its objects lie in the store, up to and without the last slash.
    pub(crate) prefix: String,
    /// The version that objects are stored in, as `apiVersion`.
    pub(crate) stored_as: String,
    /// `None` for custom kinds.
    pub(crate) schema: Option<&'static Message>,
    pub(crate) strategy: Arc<dyn Strategy>,
    /// Columns of a custom kind's table.
    pub(crate) columns: Vec<CustomColumn>,
    /// The `openAPIV3Schema` of a custom kind.
    pub(crate) open_api: Option<Value>,
    /// Fields that its objects can be selected by, beside name and namespace.
    pub(crate) selectable: Arc<[String]>,
    /// Paths of the scale of a custom kind.
    pub(crate) scale: Option<ScalePaths>,
    /// The type of its objects, for server-side apply.
    pub(crate) object_type: ObjectType,
}

/// A subresource, as discovery shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Subresource {
    pub(crate) name: String,
    /// Group, version and kind of its body, where it is not the parent's.
    pub(crate) group_version: Option<(String, String)>,
    pub(crate) kind: String,
    pub(crate) verbs: Vec<String>,
}

/// A column of a custom kind's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CustomColumn {
    pub(crate) name: String,
    pub(crate) of: String,
    pub(crate) format: String,
    pub(crate) description: String,
    pub(crate) priority: i64,
    pub(crate) json_path: String,
}

/// Where a custom kind keeps what `scale` shows. Dotted paths, without the leading dot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ScalePaths {
    pub(crate) spec_replicas: String,
    pub(crate) status_replicas: String,
    pub(crate) label_selector: String,
}

impl Kind {
    /// `v1` or `apps/v1`.
    pub(crate) fn api_version(&self) -> String {
        self.resource.api_version()
    }

    pub(crate) fn key(&self, namespace: &str, name: &str) -> Key {
        if self.namespaced {
            Key::new(format!("{}/{namespace}/{name}", self.prefix))
        } else {
            Key::new(format!("{}/{name}", self.prefix))
        }
    }

    pub(crate) fn range(&self, namespace: Option<&str>) -> KeyRange {
        match namespace {
            Some(namespace) if self.namespaced => KeyRange::prefix(format!("{}/{namespace}/", self.prefix)),
            _ => KeyRange::prefix(format!("{}/", self.prefix)),
        }
    }

    /// For errors about an object: the resource.
    pub(crate) fn subject<'a>(&'a self, name: &'a str) -> Subject<'a> {
        Subject { group: self.error_group(), resource: &self.resource.plural, name }
    }

    /// For errors of validation: the kind.
    pub(crate) fn kind_subject<'a>(&'a self, name: &'a str) -> Subject<'a> {
        Subject { group: self.error_group(), resource: &self.kind, name }
    }

    /// Events of both groups are one kind, that of the core group.
    fn error_group(&self) -> &str {
        if self.is("events.k8s.io", "events") { "" } else { &self.resource.group }
    }

    pub(crate) fn is_custom(&self) -> bool {
        self.schema.is_none()
    }

    pub(crate) fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|subresource| subresource.name == name)
    }

    /// Whether its objects are stored in another form than they are served in. Versions of other kinds differ by name only.
    fn is_converted(&self) -> bool {
        let converted = self.is("autoscaling", "horizontalpodautoscalers") || self.is("events.k8s.io", "events");
        converted && self.stored_as != self.api_version()
    }

    /// An object of the store in this version.
    pub(crate) fn served(&self, stored: Object) -> ApiResult<Object> {
        if !self.is_converted() {
            return Ok(stored);
        }
        let (group, plural) = (&self.resource.group, &self.resource.plural);
        let tree = stored.to_tree()?;
        let converted = kinds::convert(group, plural, &tree, &self.api_version());
        Ok(match stored.revision() {
            Some(revision) => Object::from_stored(&Object::encode_for_store(&converted)?, revision),
            None => Object::from_tree(converted.into_owned()),
        })
    }

    /// An object of this version as it is stored.
    pub(crate) fn stored<'v>(&self, served: &'v Value) -> Cow<'v, Value> {
        if !self.is_converted() {
            return Cow::Borrowed(served);
        }
        kinds::convert(&self.resource.group, &self.resource.plural, served, &self.stored_as)
    }

    /// Whether this is that built-in resource.
    pub(crate) fn is(&self, group: &str, plural: &str) -> bool {
        self.resource.group == group && self.resource.plural == plural
    }
}

/// Where the definitions of custom kinds are kept: what their keys begin with.
pub(crate) const DEFINITIONS: &str = "/registry/apiextensions.k8s.io/customresourcedefinitions/";

/// All served kinds.
#[derive(Debug)]
pub(crate) struct Registry {
    builtin: Table,
    custom: RwLock<Custom>,
}

/// Kinds that every request looks for.
#[derive(Debug, Default)]
struct Table {
    /// By the plural name, which few have in common.
    kinds: BTreeMap<Cow<'static, str>, Vec<Arc<Kind>>>,
    groups: BTreeSet<Cow<'static, str>>,
}

/// The kinds of definitions, and all of them as a table.
#[derive(Debug, Default)]
struct Custom {
    /// By the definition's name.
    definitions: BTreeMap<String, Defined>,
    table: Table,
}

/// What is served of a definition.
#[derive(Debug)]
struct Defined {
    /// The version of the definition.
    at: Revision,
    kinds: Vec<Arc<Kind>>,
}

impl Table {
    fn of(kinds: impl IntoIterator<Item = Arc<Kind>>) -> Self {
        let mut table = Self::default();
        for kind in kinds {
            table.groups.insert(kind.resource.group.clone());
            table.kinds.entry(kind.resource.plural.clone()).or_default().push(kind);
        }
        table
    }

    fn find(&self, resource: &Resource) -> Option<Arc<Kind>> {
        self.kinds.get(&resource.plural)?.iter().find(|kind| kind.resource == *resource).cloned()
    }
}

impl Custom {
    fn kinds(&self) -> impl Iterator<Item = &Arc<Kind>> {
        self.definitions.values().flat_map(|defined| &defined.kinds)
    }

    fn tabulate(&mut self) {
        self.table = Table::of(self.kinds().cloned());
    }
}

impl Registry {
    pub(crate) fn new() -> Self {
        Self { builtin: Table::of(builtin::kinds().into_iter().map(Arc::new)), custom: RwLock::default() }
    }

    pub(crate) fn find(&self, resource: &Resource) -> Option<Arc<Kind>> {
        self.builtin.find(resource).or_else(|| self.custom().table.find(resource))
    }

    /// Whether anything of a group is served.
    pub(crate) fn has_group(&self, group: &str) -> bool {
        self.builtin.groups.contains(group) || self.custom().table.groups.contains(group)
    }

    /// All kinds, the core group first, then by group, version and name.
    pub(crate) fn kinds(&self) -> Vec<Arc<Kind>> {
        let mut kinds: Vec<_> = self.builtin.kinds.values().flatten().cloned().collect();
        kinds.sort_by(|left, right| left.resource.cmp(&right.resource));
        kinds.extend(self.custom().kinds().cloned());
        kinds
    }

    /// Serves the kinds of a version of a definition, unless those of a newer one are served.
    pub(crate) fn define(&self, definition: &str, at: Revision, kinds: Vec<Kind>) {
        let kinds = kinds.into_iter().map(Arc::new).collect();
        let mut custom = self.custom_mut();
        if custom.definitions.get(definition).is_none_or(|known| known.at <= at) {
            custom.definitions.insert(definition.to_owned(), Defined { at, kinds });
            custom.tabulate();
        }
    }

    /// Serves the kinds of a definition no more.
    pub(crate) fn undefine(&self, definition: &str) {
        let mut custom = self.custom_mut();
        if custom.definitions.remove(definition).is_some() {
            custom.tabulate();
        }
    }

    /// Whether this version of a definition, or a newer one, is served.
    pub(crate) fn has_definition(&self, definition: &str, at: Revision) -> bool {
        self.custom().definitions.get(definition).is_some_and(|known| known.at >= at)
    }

    /// The names of the definitions that are served.
    pub(crate) fn definitions(&self) -> Vec<String> {
        self.custom().definitions.keys().cloned().collect()
    }

    fn custom(&self) -> RwLockReadGuard<'_, Custom> {
        self.custom.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn custom_mut(&self) -> RwLockWriteGuard<'_, Custom> {
        self.custom.write().unwrap_or_else(PoisonError::into_inner)
    }
}
