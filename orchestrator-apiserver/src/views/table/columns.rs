//! Which columns the tables of built-in resources have, and what fills them.

use std::{collections::BTreeMap, sync::LazyLock};

use serde_json::{Value, json};

use super::{
    cluster, network, pods,
    row::{Row, cells},
    storage, workloads,
};
use crate::{
    registry::Kind,
    views::descriptions::{description, unescape},
};

const COLUMNS: &str = include_str!("../../../data/table-columns.tsv");
const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// What makes the cells of an object.
pub(super) type Print = fn(&Row<'_>) -> Vec<Value>;

/// Upstream's columns of kinds without a printer.
static DEFAULT: LazyLock<Vec<Value>> = LazyLock::new(|| vec![name_column(), created_column("Created At")]);

static BY_RESOURCE: LazyLock<BTreeMap<&'static str, Vec<Value>>> = LazyLock::new(|| {
    let mut columns: BTreeMap<&'static str, Vec<Value>> = BTreeMap::new();
    for (resource, definition) in COLUMNS.lines().filter_map(parse) {
        columns.entry(resource).or_default().push(definition);
    }
    columns
});

fn parse(line: &'static str) -> Option<(&'static str, Value)> {
    if line.starts_with('#') {
        return None;
    }
    let columns: Vec<&'static str> = line.split('\t').collect();
    let [resource, name, of, format, priority, text] = columns[..] else { return None };
    let text = match text.strip_prefix('@').and_then(|reference| reference.split_once(' ')) {
        Some((definition, field)) => description(definition, field).unwrap_or_default(),
        None => unescape(text),
    };
    Some((resource, column(name, of, format, &text, priority.parse().ok()?)))
}

/// A column's definition as tables carry it. Priority 0 is shown always, others by `-o wide`.
pub(super) fn column(name: &str, of: &str, format: &str, description: &str, priority: i64) -> Value {
    json!({"name": name, "type": of, "format": format, "description": description, "priority": priority})
}

pub(super) fn name_column() -> Value {
    column("Name", "string", "name", &description(OBJECT_META, "name").unwrap_or_default(), 0)
}

/// A column of the time of creation.
pub(super) fn created_column(name: &str) -> Value {
    column(name, "date", "", &description(OBJECT_META, "creationTimestamp").unwrap_or_default(), 0)
}

/// The columns of a built-in kind, and what fills them.
pub(super) fn of(kind: &Kind) -> (&'static [Value], Print) {
    named(&kind.resource.plural, &kind.resource.group).unwrap_or((&DEFAULT, created))
}

/// The columns of `Scale`, which is a subresource of several kinds.
pub(super) fn of_scale() -> (&'static [Value], Print) {
    (BY_RESOURCE.get("scales.autoscaling").map(Vec::as_slice).unwrap_or_default(), workloads::scale)
}

fn named(plural: &str, group: &str) -> Option<(&'static [Value], Print)> {
    let name = if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") };
    let print = printer(&name)?;
    Some((BY_RESOURCE.get(name.as_str())?, print))
}

fn created(row: &Row<'_>) -> Vec<Value> {
    cells![row.name(), row.at("metadata.creationTimestamp").text()]
}

fn name_and_age(row: &Row<'_>) -> Vec<Value> {
    cells![row.name(), row.age()]
}

fn printer(resource: &str) -> Option<Print> {
    Some(match resource {
        "pods" => pods::pod,
        "podtemplates" => workloads::pod_template,
        "replicationcontrollers" => workloads::replication_controller,
        "replicasets.apps" => workloads::replica_set,
        "deployments.apps" => workloads::deployment,
        "statefulsets.apps" => workloads::stateful_set,
        "daemonsets.apps" => workloads::daemon_set,
        "controllerrevisions.apps" => workloads::controller_revision,
        "jobs.batch" => workloads::job,
        "cronjobs.batch" => workloads::cron_job,
        "poddisruptionbudgets.policy" => workloads::pod_disruption_budget,
        "horizontalpodautoscalers.autoscaling" => workloads::autoscaler,
        "services" => network::service,
        "endpoints" => network::endpoints,
        "endpointslices.discovery.k8s.io" => network::endpoint_slice,
        "ingresses.networking.k8s.io" => network::ingress,
        "ingressclasses.networking.k8s.io" => network::ingress_class,
        "networkpolicies.networking.k8s.io" => network::network_policy,
        "servicecidrs.networking.k8s.io" => network::service_cidr,
        "ipaddresses.networking.k8s.io" => network::ip_address,
        "persistentvolumes" => storage::volume,
        "persistentvolumeclaims" => storage::claim,
        "storageclasses.storage.k8s.io" => storage::storage_class,
        "volumeattributesclasses.storage.k8s.io" => storage::attributes_class,
        "volumeattachments.storage.k8s.io" => storage::attachment,
        "csidrivers.storage.k8s.io" => storage::driver,
        "csinodes.storage.k8s.io" => storage::driver_node,
        "nodes" => cluster::node,
        "namespaces" => cluster::namespace,
        "events" | "events.events.k8s.io" => cluster::event,
        "componentstatuses" => cluster::component_status,
        "configmaps" => cluster::config_map,
        "secrets" => cluster::secret,
        "resourcequotas" => cluster::resource_quota,
        "leases.coordination.k8s.io" => cluster::lease,
        "priorityclasses.scheduling.k8s.io" => cluster::priority_class,
        "runtimeclasses.node.k8s.io" => cluster::runtime_class,
        "flowschemas.flowcontrol.apiserver.k8s.io" => cluster::flow_schema,
        "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io" => cluster::priority_level,
        "mutatingwebhookconfigurations.admissionregistration.k8s.io"
        | "validatingwebhookconfigurations.admissionregistration.k8s.io" => cluster::webhooks,
        "validatingadmissionpolicies.admissionregistration.k8s.io" => cluster::validating_policy,
        "mutatingadmissionpolicies.admissionregistration.k8s.io" => cluster::mutating_policy,
        "validatingadmissionpolicybindings.admissionregistration.k8s.io"
        | "mutatingadmissionpolicybindings.admissionregistration.k8s.io" => cluster::policy_binding,
        "apiservices.apiregistration.k8s.io" => cluster::api_service,
        "certificatesigningrequests.certificates.k8s.io" => cluster::signing_request,
        "rolebindings.rbac.authorization.k8s.io" | "clusterrolebindings.rbac.authorization.k8s.io" => {
            cluster::role_binding
        }
        "resourceclaims.resource.k8s.io" => cluster::resource_claim,
        "resourceslices.resource.k8s.io" => cluster::resource_slice,
        "serviceaccounts" | "deviceclasses.resource.k8s.io" | "resourceclaimtemplates.resource.k8s.io" => name_and_age,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_columns_have_a_printer_and_a_description() {
        for (resource, columns) in BY_RESOURCE.iter() {
            assert!(*resource == "scales.autoscaling" || printer(resource).is_some(), "{resource} is not printed");
            for column in columns {
                // Upstream has no text for this one.
                let exempt = *resource == "runtimeclasses.node.k8s.io" && column["name"] == "Handler";
                assert!(exempt || column["description"] != "", "{resource} {column}");
            }
        }
    }
}
