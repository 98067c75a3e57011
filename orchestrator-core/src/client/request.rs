//! What travels between a client and a server: requests, replies and watch events.

use std::{borrow::Cow, collections::BTreeMap, fmt, sync::Arc, time::Duration};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Preconditions;
use serde_json::Value;

use crate::object::Object;

/// A resource of an API: group, version and plural name, as in a URL.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Resource {
    /// Empty for the core group.
    pub group: Cow<'static, str>,
    /// Such as `v1`.
    pub version: Cow<'static, str>,
    /// Such as `pods`.
    pub plural: Cow<'static, str>,
}

impl Resource {
    /// A resource by its three names.
    pub fn new(
        group: impl Into<Cow<'static, str>>,
        version: impl Into<Cow<'static, str>>,
        plural: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { group: group.into(), version: version.into(), plural: plural.into() }
    }

    /// The resource that a type belongs to.
    pub fn of<K: kube_core::Resource>(dynamic_type: &K::DynamicType) -> Self {
        Self::new(
            K::group(dynamic_type).into_owned(),
            K::version(dynamic_type).into_owned(),
            K::plural(dynamic_type).into_owned(),
        )
    }

    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_string() } else { format!("{}/{}", self.group, self.version) }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.group.is_empty() { f.write_str(&self.plural) } else { write!(f, "{}.{}", self.plural, self.group) }
    }
}

/// Who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserInfo {
    /// Such as `system:admin`.
    pub name: String,
    /// Unique over time, if the authenticator knows.
    pub uid: String,
    /// Such as `system:masters`.
    pub groups: Vec<String>,
    /// Further facts that authorizers may use.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    /// A user in some groups.
    pub fn new(name: impl Into<String>, groups: &[&str]) -> Self {
        Self { name: name.into(), groups: groups.iter().map(ToString::to_string).collect(), ..Default::default() }
    }

    /// The administrator of a cluster, whom no rule binds.
    pub fn admin() -> Self {
        Self::new("system:admin", &["system:masters", "system:authenticated"])
    }
}

/// One request.
#[derive(Clone, Debug)]
pub struct Request {
    /// Who asks; the backend's own identity when `None`.
    pub user: Option<Arc<UserInfo>>,
    /// Which resource.
    pub resource: Resource,
    /// `None` for resources of the cluster and for lists across namespaces.
    pub namespace: Option<String>,
    /// `None` for collections.
    pub name: Option<String>,
    /// Such as `status` or `scale`.
    pub subresource: Option<String>,
    /// What to do.
    pub call: Call,
}

/// What to do with an object or a collection.
#[derive(Clone, Debug)]
pub enum Call {
    /// Read one object.
    Get {
        /// As [`ListOptions::resource_version`].
        resource_version: Option<String>,
    },
    /// Read a collection.
    List(ListOptions),
    /// Write a new object.
    Create {
        /// What to write.
        object: Object,
        /// How.
        options: WriteOptions,
    },
    /// Write an object anew.
    Replace {
        /// What to write.
        object: Object,
        /// How.
        options: WriteOptions,
    },
    /// Change parts of an object.
    Patch {
        /// What to change.
        patch: PatchBody,
        /// How.
        options: WriteOptions,
    },
    /// Remove one object.
    Delete(DeleteOptions),
    /// Remove the objects of a collection.
    DeleteCollection(DeleteOptions, ListOptions),
}

impl Call {
    /// How to write, for writes that need not say who manages what they write.
    pub(super) fn write_options_mut(&mut self) -> Option<&mut WriteOptions> {
        match self {
            Self::Patch { patch: PatchBody::Apply(_), .. } => None,
            Self::Create { options, .. } | Self::Replace { options, .. } | Self::Patch { options, .. } => Some(options),
            Self::Get { .. } | Self::List(_) | Self::Delete(_) | Self::DeleteCollection(..) => None,
        }
    }
}

/// How to read a collection. Selectors are in the form that URLs have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListOptions {
    /// Such as `app=web,tier in (a,b)`; empty selects all.
    pub label_selector: String,
    /// Such as `spec.nodeName=a`; empty selects all.
    pub field_selector: String,
    /// At most this many objects in one answer.
    pub limit: Option<usize>,
    /// Where the last answer ended.
    pub continue_token: Option<String>,
    /// `None` or empty: the newest state. `0`: any state. Otherwise see [`VersionMatch`].
    pub resource_version: Option<String>,
    /// What `resource_version` means.
    pub version_match: Option<VersionMatch>,
}

/// What the resource version of a list means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionMatch {
    /// Exactly this state.
    Exact,
    /// This state or a newer one.
    NotOlderThan,
}

/// How to write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// Do everything but the write.
    pub dry_run: bool,
    /// Who owns the fields that are set.
    pub field_manager: Option<String>,
    /// Apply only: take fields from other managers.
    pub force: bool,
    /// What to do with unknown and repeated fields.
    pub field_validation: FieldValidation,
    /// Paths of fields that the text of a patch had twice, which its tree cannot tell any more.
    pub repeated_fields: Vec<String>,
}

/// What to do with fields that the schema does not know, or that occur twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// Drop them.
    Ignore,
    /// Drop them and say so in a warning.
    #[default]
    Warn,
    /// Refuse the request.
    Strict,
}

/// A patch, by its media type.
#[derive(Clone, Debug, PartialEq)]
pub enum PatchBody {
    /// JSON Patch (RFC 6902).
    Json(Value),
    /// JSON Merge Patch (RFC 7386).
    Merge(Value),
    /// Strategic Merge Patch.
    Strategic(Value),
    /// Server-Side Apply.
    Apply(Value),
}

/// How to delete.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeleteOptions {
    /// Do everything but the deletion.
    pub dry_run: bool,
    /// Seconds to wait for a graceful end; the kind's default when `None`.
    pub grace_period_seconds: Option<i64>,
    /// What must hold.
    pub preconditions: Option<Preconditions>,
    /// What happens to dependents; the kind's default when `None`.
    pub propagation: Option<Propagation>,
}

/// What happens to the dependents of a deleted object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// They stay, without their owner.
    Orphan,
    /// They are deleted afterwards.
    Background,
    /// They are deleted first.
    Foreground,
}

/// The answer to a request.
#[derive(Clone, Debug)]
pub enum Reply {
    /// One object, as it is now.
    Object {
        /// The object; for a deletion that is done, the object or `Status` that was last.
        object: Object,
        /// The request made it.
        created: bool,
        /// What the caller should know, as `Warning` headers say it.
        warnings: Vec<String>,
    },
    /// A collection.
    List {
        /// The objects, in order of their keys.
        items: Vec<Object>,
        /// The state that this is a snapshot of.
        resource_version: String,
        /// Where the next answer begins, if there is more.
        continue_token: Option<String>,
        /// How many objects are left, when that is known.
        remaining: Option<u64>,
    },
}

/// A request to follow a collection.
#[derive(Clone, Debug)]
pub struct WatchRequest {
    /// Who asks; the backend's own identity when `None`.
    pub user: Option<Arc<UserInfo>>,
    /// Which resource.
    pub resource: Resource,
    /// `None` for all namespaces.
    pub namespace: Option<String>,
    /// Such as `app=web`; empty selects all.
    pub label_selector: String,
    /// Such as `metadata.name=a`; empty selects all.
    pub field_selector: String,
    /// Changes after this state. `None`, empty or `0`: the state as it is comes first, as additions.
    pub resource_version: Option<String>,
    /// Wants [`WatchEvent::Bookmark`]s.
    pub bookmarks: bool,
    /// The state as it is comes first, then a bookmark that says so.
    pub send_initial_events: bool,
    /// Ends the watch.
    pub timeout: Option<Duration>,
}

impl WatchRequest {
    /// Everything of a resource, after a state.
    pub fn new(resource: Resource, resource_version: Option<String>) -> Self {
        Self {
            user: None,
            resource,
            namespace: None,
            label_selector: String::new(),
            field_selector: String::new(),
            resource_version,
            bookmarks: true,
            send_initial_events: false,
            timeout: None,
        }
    }
}

/// A change of a collection.
#[derive(Clone, Debug)]
pub enum WatchEvent {
    /// An object came into being, or into the selection.
    Added(Object),
    /// An object changed.
    Modified(Object),
    /// An object went away, or out of the selection; its last state.
    Deleted(Object),
    /// Everything up to this state has been given.
    Bookmark {
        /// The state.
        resource_version: String,
        /// The initial events are complete.
        initial_events_end: bool,
    },
}
