//! Which requests a flow schema is about.

use k8s_openapi::api::flowcontrol::v1::{NonResourcePolicyRule, PolicyRulesWithSubjects, ResourcePolicyRule, Subject};
use orchestrator_core::client::UserInfo;

/// A request, as far as flow schemas look at it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) user: &'a UserInfo,
    /// Such as `get` or `deletecollection`.
    pub(crate) verb: &'a str,
    pub(crate) place: Place<'a>,
}

/// Where a request goes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place<'a> {
    /// A resource; the namespace is empty for those of the cluster and across namespaces.
    Resource { group: &'a str, resource: &'a str, subresource: &'a str, namespace: &'a str },
    /// Any other path.
    Path(&'a str),
}

/// Whether a rule is about a request.
pub(super) fn matches(rule: &PolicyRulesWithSubjects, asked: &Asked<'_>) -> bool {
    rule.subjects.iter().any(|subject| is_from(subject, asked.user))
        && match asked.place {
            Place::Resource { .. } => {
                rule.resource_rules.iter().flatten().any(|resources| is_about_resource(resources, asked))
            }
            Place::Path(path) => {
                rule.non_resource_rules.iter().flatten().any(|paths| is_about_path(paths, asked.verb, path))
            }
        }
}

fn is_from(subject: &Subject, user: &UserInfo) -> bool {
    let named = |pattern: &str, name: &str| pattern == "*" || pattern == name;
    match subject.kind.as_str() {
        "User" => subject.user.as_ref().is_some_and(|given| named(&given.name, &user.name)),
        "Group" => subject.group.as_ref().is_some_and(|given| given.name == "*" || user.groups.contains(&given.name)),
        "ServiceAccount" => {
            let account = user.name.strip_prefix("system:serviceaccount:").and_then(|account| account.split_once(':'));
            let given = subject.service_account.as_ref();
            given
                .zip(account)
                .is_some_and(|(given, (namespace, name))| given.namespace == namespace && named(&given.name, name))
        }
        _ => false,
    }
}

fn contains(list: &[String], value: &str) -> bool {
    list.iter().any(|item| item == "*" || item == value)
}

fn is_about_resource(rule: &ResourcePolicyRule, asked: &Asked<'_>) -> bool {
    let Place::Resource { group, resource, subresource, namespace } = asked.place else { return false };
    let in_scope = match namespace {
        "" => rule.cluster_scope == Some(true),
        namespace => rule.namespaces.as_deref().is_some_and(|namespaces| contains(namespaces, namespace)),
    };
    let names = |item: &String| match item.split_once('/') {
        Some((parent, part)) => parent == resource && part == subresource,
        None => item == "*" || (item == resource && subresource.is_empty()),
    };
    in_scope
        && contains(&rule.verbs, asked.verb)
        && contains(&rule.api_groups, group)
        && rule.resources.iter().any(names)
}

fn is_about_path(rule: &NonResourcePolicyRule, verb: &str, path: &str) -> bool {
    let covers = |pattern: &String| match pattern.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => pattern == path,
    };
    contains(&rule.verbs, verb) && rule.non_resource_urls.iter().any(covers)
}
