//! Which groups, versions and resources are served: the classic documents and the aggregated ones.
//!
//! Upstream: <https://kubernetes.io/docs/concepts/overview/kubernetes-api/#discovery-api>.

use std::{cmp::Ordering, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use crate::registry::{Kind, Registry, Subresource};

/// Upstream's `groupPriorityMinimum` of the built-in groups: higher ones come first.
const PRIORITIES: [(&str, u32); 20] = [
    ("apiregistration.k8s.io", 20_000),
    ("apps", 17_800),
    ("events.k8s.io", 17_750),
    ("authentication.k8s.io", 17_700),
    ("authorization.k8s.io", 17_600),
    ("autoscaling", 17_500),
    ("batch", 17_400),
    ("certificates.k8s.io", 17_300),
    ("networking.k8s.io", 17_200),
    ("policy", 17_100),
    ("rbac.authorization.k8s.io", 17_000),
    ("storage.k8s.io", 16_800),
    ("admissionregistration.k8s.io", 16_700),
    ("apiextensions.k8s.io", 16_700),
    ("scheduling.k8s.io", 16_600),
    ("coordination.k8s.io", 16_500),
    ("node.k8s.io", 16_300),
    ("discovery.k8s.io", 16_200),
    ("resource.k8s.io", 16_200),
    ("flowcontrol.apiserver.k8s.io", 16_100),
];
const CUSTOM_PRIORITY: u32 = 1_000;

/// A served group with its versions, the preferred one first.
struct Group {
    name: String,
    versions: Vec<Version>,
}

/// A version of a group with its kinds, in their order in the registry.
struct Version {
    name: String,
    kinds: Vec<Arc<Kind>>,
}

/// All groups but the core one, in the order in which they are shown.
fn groups(registry: &Registry) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for kind in registry.kinds().into_iter().filter(|kind| !kind.resource.group.is_empty()) {
        add(&mut groups, kind);
    }
    for group in &mut groups {
        group.versions.sort_by(|one, other| compare_versions(&other.name, &one.name));
    }
    groups
        .sort_by(|one, other| priority(&other.name).cmp(&priority(&one.name)).then_with(|| one.name.cmp(&other.name)));
    groups
}

fn core_group(registry: &Registry) -> Group {
    let kinds = registry.kinds().into_iter().filter(|kind| kind.resource.group.is_empty()).collect();
    Group { name: String::new(), versions: vec![Version { name: "v1".to_owned(), kinds }] }
}

fn add(groups: &mut Vec<Group>, kind: Arc<Kind>) {
    let at = groups.iter().position(|group| group.name == kind.resource.group).unwrap_or_else(|| {
        groups.push(Group { name: kind.resource.group.to_string(), versions: Vec::new() });
        groups.len() - 1
    });
    let Some(group) = groups.get_mut(at) else { return };
    match group.versions.iter_mut().find(|version| version.name == kind.resource.version) {
        Some(version) => version.kinds.push(kind),
        None => group.versions.push(Version { name: kind.resource.version.to_string(), kinds: vec![kind] }),
    }
}

fn priority(group: &str) -> u32 {
    let known = PRIORITIES.iter().find(|(name, _)| *name == group);
    known.map_or(CUSTOM_PRIORITY, |(_, priority)| *priority)
}

/// By stability, then by number: `v1beta1 < v1beta2 < v1 < v2`; other names are lowest, in reverse order.
fn compare_versions(one: &str, other: &str) -> Ordering {
    match (parse_version(one), parse_version(other)) {
        (Some(one), Some(other)) => one.cmp(&other),
        (Some(_), None) => Ordering::Greater,
        (None, Some(_)) => Ordering::Less,
        (None, None) => other.cmp(one),
    }
}

/// Stability, major and minor number.
fn parse_version(version: &str) -> Option<(u8, u64, u64)> {
    let version = version.strip_prefix('v')?;
    let digits = version.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(version.len());
    let (major, rest) = version.split_at_checked(digits)?;
    let major = major.parse().ok()?;
    if rest.is_empty() {
        return Some((2, major, 0));
    }
    match (rest.strip_prefix("beta"), rest.strip_prefix("alpha")) {
        (Some(minor), _) => Some((1, major, minor.parse().ok()?)),
        (_, Some(minor)) => Some((0, major, minor.parse().ok()?)),
        (None, None) => None,
    }
}

/// `/api`. `address` is where clients reach the server, as host and port.
pub(crate) fn api_versions(address: &str) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    })
}

/// `/apis`.
pub(crate) fn api_groups(registry: &Registry) -> Value {
    let groups: Vec<Value> = groups(registry).iter().map(|group| Value::Object(group_document(group))).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/<group>`. `None` when the group is not served.
pub(crate) fn api_group(registry: &Registry, group: &str) -> Option<Value> {
    let group = groups(registry).into_iter().find(|served| served.name == group)?;
    let mut document = group_document(&group);
    document.insert("kind".to_owned(), "APIGroup".into());
    document.insert("apiVersion".to_owned(), "v1".into());
    Some(Value::Object(document))
}

fn group_document(group: &Group) -> Map<String, Value> {
    let version = |version: &Version| json!({"groupVersion": format!("{}/{}", group.name, version.name), "version": version.name});
    let versions: Vec<Value> = group.versions.iter().map(version).collect();
    let mut document = Map::new();
    document.insert("name".to_owned(), group.name.as_str().into());
    document.insert("preferredVersion".to_owned(), versions.first().cloned().unwrap_or_default());
    document.insert("versions".to_owned(), versions.into());
    document
}

/// `/api/v1` (with the empty group) and `/apis/<group>/<version>`. `None` when the version is not served.
pub(crate) fn api_resources(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let kinds = registry.kinds().into_iter();
    let of_version = |kind: &Arc<Kind>| kind.resource.group == group && kind.resource.version == version;
    let kinds: Vec<_> = kinds.filter(of_version).collect();
    let first = kinds.first()?;
    let mut document = Map::new();
    document.insert("kind".to_owned(), "APIResourceList".into());
    document.insert("groupVersion".to_owned(), first.api_version().into());
    if !group.is_empty() {
        // The core group's document is older than this member.
        document.insert("apiVersion".to_owned(), "v1".into());
    }
    let resources: Vec<Value> = kinds.iter().flat_map(|kind| resource_documents(kind)).collect();
    document.insert("resources".to_owned(), resources.into());
    Some(Value::Object(document))
}

/// A resource and its subresources.
fn resource_documents(kind: &Kind) -> Vec<Value> {
    let mut document = json!({
        "name": kind.resource.plural,
        "singularName": kind.singular,
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": kind.verbs,
    });
    add_names(&mut document, kind);
    if let (Some(document), Some(hash)) = (document.as_object_mut(), storage_version_hash(kind)) {
        document.insert("storageVersionHash".to_owned(), hash.into());
    }
    let subresource = |subresource: &Subresource| {
        let mut document = json!({
            "name": format!("{}/{}", kind.resource.plural, subresource.name),
            "singularName": "",
            "namespaced": kind.namespaced,
            "kind": subresource.kind,
            "verbs": subresource.verbs,
        });
        if let (Some(document), Some((group, version))) = (document.as_object_mut(), &subresource.group_version) {
            document.insert("group".to_owned(), group.as_str().into());
            document.insert("version".to_owned(), version.as_str().into());
        }
        document
    };
    std::iter::once(document).chain(kind.subresources.iter().map(subresource)).collect()
}

fn add_names(document: &mut Value, kind: &Kind) {
    let Some(document) = document.as_object_mut() else { return };
    for (member, names) in [("shortNames", &kind.short_names), ("categories", &kind.categories)] {
        if !names.is_empty() {
            document.insert(member.to_owned(), names.as_slice().into());
        }
    }
}

/// What tells clients whether the stored form changed: upstream's, the start of a digest of the stored version.
fn storage_version_hash(kind: &Kind) -> Option<String> {
    if !kind.verbs.iter().any(|verb| verb == "watch") {
        return None;
    }
    let (group, version) = kind.stored_as.split_once('/').unwrap_or(("", &kind.stored_as));
    // A cipher suite of the TLS library brings the digest along.
    let suite = rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256.tls13()?;
    let digest = suite.common.hash_provider.hash(format!("{group}/{version}/{}", kind.kind).as_bytes());
    digest.as_ref().get(..8).map(|start| STANDARD.encode(start))
}

/// `/api` as an `apidiscovery.k8s.io/v2` document.
pub(crate) fn aggregated_core(registry: &Registry) -> Value {
    aggregated(&[core_group(registry)])
}

/// `/apis` as an `apidiscovery.k8s.io/v2` document.
pub(crate) fn aggregated_groups(registry: &Registry) -> Value {
    aggregated(&groups(registry))
}

fn aggregated(groups: &[Group]) -> Value {
    let items: Vec<Value> = groups.iter().map(aggregated_group).collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}

fn aggregated_group(group: &Group) -> Value {
    let version = |version: &Version| {
        let resources: Vec<Value> = version.kinds.iter().map(|kind| aggregated_resource(kind)).collect();
        json!({"version": version.name, "resources": resources, "freshness": "Current"})
    };
    let versions: Vec<Value> = group.versions.iter().map(version).collect();
    let metadata = if group.name.is_empty() { json!({}) } else { json!({"name": group.name}) };
    json!({"metadata": metadata, "versions": versions})
}

fn aggregated_resource(kind: &Kind) -> Value {
    let (group, version) = (&*kind.resource.group, &*kind.resource.version);
    let mut document = json!({
        "resource": kind.resource.plural,
        "responseKind": {"group": group, "version": version, "kind": kind.kind},
        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular,
        "verbs": kind.verbs,
    });
    add_names(&mut document, kind);
    let subresource = |subresource: &Subresource| {
        let own = subresource.group_version.as_ref().map(|(group, version)| (group.as_str(), version.as_str()));
        let (group, version) = own.unwrap_or((group, version));
        json!({
            "subresource": subresource.name,
            "responseKind": {"group": group, "version": version, "kind": subresource.kind},
            "verbs": subresource.verbs,
        })
    };
    let subresources: Vec<Value> = kind.subresources.iter().map(subresource).collect();
    if let Some(document) = document.as_object_mut().filter(|_| !subresources.is_empty()) {
        document.insert("subresources".to_owned(), subresources.into());
    }
    document
}

#[cfg(test)]
mod tests {
    use orchestrator_core::store::Revision;

    use super::*;
    use crate::registry::custom_kinds;

    const RECORDED: &str = include_str!("fixtures/discovery.json");

    #[test]
    fn resources_are_those_recorded() {
        let recorded: Value = serde_json::from_str(RECORDED).unwrap();
        let registry = Registry::new();
        for (group_version, document) in recorded.as_object().unwrap() {
            let (group, version) = group_version.split_once('/').unwrap_or(("", group_version));
            assert_eq!(api_resources(&registry, group, version).as_ref(), Some(document), "{group_version}");
        }
    }

    #[test]
    fn groups_come_by_priority_and_versions_by_age() {
        let registry = Registry::new();
        registry.define("widgets.a.example.com", Revision(1), custom_kinds(&widgets()));
        let groups = api_groups(&registry);
        let names: Vec<&str> = groups["groups"].as_array().unwrap().iter().filter_map(|g| g["name"].as_str()).collect();
        assert_eq!(names.first(), Some(&"apiregistration.k8s.io"));
        assert_eq!(names.get(1), Some(&"apps"));
        assert_eq!(names.last(), Some(&"a.example.com"));
        assert_eq!(names.len(), 21);
        let scaling = api_group(&registry, "autoscaling").unwrap();
        assert_eq!(scaling["preferredVersion"], json!({"groupVersion": "autoscaling/v2", "version": "v2"}));
        assert_eq!(scaling["versions"][1]["version"], "v1");
        assert_eq!(api_group(&registry, "a.example.com").unwrap()["preferredVersion"]["version"], "v1");
        assert_eq!(api_group(&registry, "nosuch"), None);
        assert_eq!(api_resources(&registry, "apps", "v2"), None);
    }

    #[test]
    fn aggregated_documents_hold_subresources() {
        let registry = Registry::new();
        let core = aggregated_core(&registry);
        let resources = core["items"][0]["versions"][0]["resources"].as_array().unwrap();
        let pods = resources.iter().find(|resource| resource["resource"] == "pods").unwrap();
        assert_eq!(pods["scope"], "Namespaced");
        assert_eq!(pods["responseKind"], json!({"group": "", "version": "v1", "kind": "Pod"}));
        let eviction =
            pods["subresources"].as_array().unwrap().iter().find(|sub| sub["subresource"] == "eviction").unwrap();
        assert_eq!(eviction["responseKind"], json!({"group": "policy", "version": "v1", "kind": "Eviction"}));
        assert_eq!(aggregated_groups(&registry)["items"][1]["metadata"]["name"], "apps");
    }

    #[test]
    fn versions_have_an_order() {
        let sorted = ["foo10", "foo1", "v1alpha1", "v1beta1", "v1beta2", "v2beta1", "v1", "v2", "v10"];
        for pair in sorted.windows(2) {
            assert_eq!(compare_versions(pair[0], pair[1]), Ordering::Less, "{pair:?}");
        }
    }

    fn widgets() -> Value {
        json!({"spec": {
            "group": "a.example.com",
            "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [
                {"name": "v1beta1", "served": true, "storage": false},
                {"name": "v1", "served": true, "storage": true},
            ],
        }})
    }
}
