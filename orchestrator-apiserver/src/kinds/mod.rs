//! The rules of the built-in kinds, one file for each family.
//!
//! Start with [`rules::Rules`]: what can differ between kinds. `podspec` is shared by all that make pods; `check` by all.

mod admission;
mod api_services;
mod apps;
mod autoscaler_versions;
mod autoscaling;
mod certificates;
pub(crate) mod check;
mod classes;
mod conditions;
mod config;
mod coordination;
mod cron_jobs;
mod custom;
mod custom_schema;
mod definitions;
mod devices;
mod difference;
mod drivers;
mod endpoints;
pub(crate) mod event_versions;
mod flow_control;
mod go;
mod job_policies;
mod job_status;
mod jobs;
mod load_balancers;
mod namespace;
mod networking;
mod nodes;
mod pods;
mod podspec;
mod policy;
mod quotas;
mod rbac;
pub(crate) mod reserved;
mod rules;
mod services;
mod storage;
mod templates;
#[cfg(test)]
mod testing;
mod warnings;
mod webhook_client;

use std::{borrow::Cow, sync::Arc};

pub(crate) use certificates::{forbidden_subject, keep_approvals, name_requestor, time_conditions};
pub(crate) use custom::Custom;
pub(crate) use podspec::MIRROR;
use rules::Rules;
use serde_json::Value;

use crate::{
    field::member,
    names::NameRule,
    strategy::{Generation, Plain, Strategy},
};

/// The strategy of a kind.
pub(crate) fn strategy(group: &str, plural: &str, has_status: bool) -> Arc<dyn Strategy> {
    let plain = || Arc::new(Plain { generation: Generation::None, status: has_status, names: NameRule::Subdomain });
    deep(group, plural).unwrap_or_else(|| plain())
}

/// Whether a kind has defaults and rules of its own.
pub(crate) fn is_deep(group: &str, plural: &str) -> bool {
    deep(group, plural).is_some()
}

/// What every caller of an outdated resource is told.
pub(crate) fn deprecation(group: &str, plural: &str) -> Option<&'static str> {
    match (group, plural) {
        ("", "componentstatuses") => Some("v1 ComponentStatus is deprecated in v1.19+"),
        ("", "endpoints") => Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"),
        _ => None,
    }
}

/// What a caller is told who deletes without saying what is to become of the dependents.
pub(crate) fn deletion_notice(group: &str, plural: &str) -> Option<&'static str> {
    ((group, plural) == ("batch", "jobs")).then_some(
        "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or \
         set propagationPolicy=Orphan to suppress this warning",
    )
}

/// Whether the dependents of an object stay when nobody says what is to become of them. Upstream keeps this for the kinds
/// that were there before garbage collection.
pub(crate) fn orphans_dependents(group: &str, plural: &str) -> bool {
    matches!((group, plural), ("", "replicationcontrollers") | ("batch", "jobs"))
}

/// Whether an update of an object that is not there makes one. Upstream keeps this for old kinds.
pub(crate) fn creates_on_update(group: &str, plural: &str) -> bool {
    match group {
        "" => matches!(plural, "endpoints" | "events" | "limitranges" | "podtemplates" | "services"),
        "coordination.k8s.io" => plural == "leases",
        "events.k8s.io" | "rbac.authorization.k8s.io" => true,
        _ => false,
    }
}

/// The strategy of writes to a subresource, where it is not that of the object.
pub(crate) fn of_subresource(group: &str, plural: &str, subresource: &str) -> Option<Arc<dyn Strategy>> {
    match (group, plural, subresource) {
        ("", "pods", "resize") => Some(Arc::new(pods::RESIZE)),
        ("", "pods", "ephemeralcontainers") => Some(Arc::new(pods::EPHEMERAL)),
        ("certificates.k8s.io", "certificatesigningrequests", "approval") => Some(Arc::new(certificates::APPROVALS)),
        _ => None,
    }
}

fn deep(group: &str, plural: &str) -> Option<Arc<dyn Strategy>> {
    if (group, plural) == ("", "namespaces") {
        return Some(Arc::new(namespace::Namespaces));
    }
    let rules = match group {
        "" => core(plural),
        "apps" => apps(plural),
        "networking.k8s.io" | "discovery.k8s.io" => network(plural),
        "storage.k8s.io" => storage_kind(plural),
        "rbac.authorization.k8s.io" => roles(plural),
        "admissionregistration.k8s.io" => admission_kind(plural),
        _ => other(group, plural),
    };
    rules.map(|rules| Arc::new(rules) as Arc<dyn Strategy>)
}

fn core(plural: &str) -> Option<Rules> {
    Some(match plural {
        "configmaps" => config::CONFIG_MAPS,
        "endpoints" => endpoints::ENDPOINTS,
        "events" => coordination::EVENTS,
        "limitranges" => quotas::LIMIT_RANGES,
        "nodes" => nodes::NODES,
        "persistentvolumeclaims" => storage::CLAIMS,
        "persistentvolumes" => storage::VOLUMES,
        "pods" => pods::PODS,
        "podtemplates" => templates::POD_TEMPLATES,
        "replicationcontrollers" => apps::REPLICATION_CONTROLLERS,
        "resourcequotas" => quotas::RESOURCE_QUOTAS,
        "secrets" => config::SECRETS,
        "serviceaccounts" => config::SERVICE_ACCOUNTS,
        "services" => services::SERVICES,
        _ => return None,
    })
}

fn apps(plural: &str) -> Option<Rules> {
    Some(match plural {
        "controllerrevisions" => apps::CONTROLLER_REVISIONS,
        "daemonsets" => apps::DAEMON_SETS,
        "deployments" => apps::DEPLOYMENTS,
        "replicasets" => apps::REPLICA_SETS,
        "statefulsets" => apps::STATEFUL_SETS,
        _ => return None,
    })
}

fn network(plural: &str) -> Option<Rules> {
    Some(match plural {
        "endpointslices" => endpoints::ENDPOINT_SLICES,
        "ingresses" => networking::INGRESSES,
        "ingressclasses" => networking::INGRESS_CLASSES,
        "ipaddresses" => networking::ADDRESSES,
        "networkpolicies" => networking::NETWORK_POLICIES,
        "servicecidrs" => networking::SERVICE_RANGES,
        _ => return None,
    })
}

fn storage_kind(plural: &str) -> Option<Rules> {
    Some(match plural {
        "csidrivers" => drivers::DRIVERS,
        "csinodes" => drivers::NODE_DRIVERS,
        "csistoragecapacities" => storage::CAPACITIES,
        "storageclasses" => storage::STORAGE_CLASSES,
        "volumeattachments" => drivers::ATTACHMENTS,
        "volumeattributesclasses" => storage::ATTRIBUTE_CLASSES,
        _ => return None,
    })
}

fn roles(plural: &str) -> Option<Rules> {
    Some(match plural {
        "roles" => rbac::ROLES,
        "clusterroles" => rbac::CLUSTER_ROLES,
        "rolebindings" => rbac::ROLE_BINDINGS,
        "clusterrolebindings" => rbac::CLUSTER_ROLE_BINDINGS,
        _ => return None,
    })
}

fn admission_kind(plural: &str) -> Option<Rules> {
    Some(match plural {
        "mutatingadmissionpolicies" => admission::MUTATING_POLICIES,
        "mutatingadmissionpolicybindings" => admission::MUTATING_BINDINGS,
        "mutatingwebhookconfigurations" => admission::MUTATING_WEBHOOKS,
        "validatingadmissionpolicies" => admission::VALIDATING_POLICIES,
        "validatingadmissionpolicybindings" => admission::VALIDATING_BINDINGS,
        "validatingwebhookconfigurations" => admission::VALIDATING_WEBHOOKS,
        _ => return None,
    })
}

fn other(group: &str, plural: &str) -> Option<Rules> {
    Some(match (group, plural) {
        ("apiextensions.k8s.io", "customresourcedefinitions") => definitions::DEFINITIONS,
        ("apiregistration.k8s.io", "apiservices") => api_services::API_SERVICES,
        ("autoscaling", "horizontalpodautoscalers") => autoscaling::AUTOSCALERS,
        ("batch", "cronjobs") => cron_jobs::CRON_JOBS,
        ("batch", "jobs") => jobs::JOBS,
        ("certificates.k8s.io", "certificatesigningrequests") => certificates::REQUESTS,
        ("coordination.k8s.io", "leases") => coordination::LEASES,
        ("events.k8s.io", "events") => coordination::NEW_EVENTS,
        ("flowcontrol.apiserver.k8s.io", "flowschemas") => flow_control::FLOW_SCHEMAS,
        ("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations") => flow_control::PRIORITY_LEVELS,
        ("node.k8s.io", "runtimeclasses") => classes::RUNTIME_CLASSES,
        ("policy", "poddisruptionbudgets") => policy::DISRUPTION_BUDGETS,
        ("resource.k8s.io", "deviceclasses") => devices::DEVICE_CLASSES,
        ("resource.k8s.io", "resourceclaims") => devices::RESOURCE_CLAIMS,
        ("resource.k8s.io", "resourceclaimtemplates") => devices::RESOURCE_CLAIM_TEMPLATES,
        ("resource.k8s.io", "resourceslices") => devices::RESOURCE_SLICES,
        ("scheduling.k8s.io", "priorityclasses") => classes::PRIORITY_CLASSES,
        _ => return None,
    })
}

/// An object of a kind in another of its versions. Most kinds are the same in all of them but for the name.
pub(crate) fn convert<'v>(group: &str, plural: &str, object: &'v Value, api_version: &str) -> Cow<'v, Value> {
    if object.get("apiVersion").is_some_and(|given| given == api_version) {
        return Cow::Borrowed(object);
    }
    Cow::Owned(match (group, plural) {
        ("autoscaling", "horizontalpodautoscalers") => autoscaler_versions::convert(object, api_version),
        ("" | "events.k8s.io", "events") => event_versions::convert(object, api_version),
        _ => {
            let mut converted = object.clone();
            *member(&mut converted, "apiVersion") = api_version.into();
            converted
        }
    })
}

#[cfg(test)]
mod tests;
