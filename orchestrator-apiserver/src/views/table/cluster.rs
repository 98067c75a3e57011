//! The cells of nodes, namespaces, events, and what configures a cluster.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    duration,
    row::{Row, Tree, cells},
};

const ROLE_PREFIX: &str = "node-role.kubernetes.io/";
const ROLE: &str = "kubernetes.io/role";

pub(super) fn node(row: &Row<'_>) -> Vec<Value> {
    let info = row.at("status.nodeInfo");
    let address = |of: &str| {
        let mut addresses = row.at("status.addresses").items();
        addresses.find(|address| address.get("type").text() == of).map_or("<none>", |found| found.get("address").text())
    };
    cells![
        row.name(),
        node_status(row),
        node_roles(row),
        row.age(),
        info.get("kubeletVersion").text(),
        address("InternalIP"),
        address("ExternalIP"),
        info.get("osImage").text_or("<unknown>"),
        info.get("kernelVersion").text_or("<unknown>"),
        info.get("containerRuntimeVersion").text_or("<unknown>"),
    ]
}

fn node_status(row: &Row<'_>) -> String {
    let mut conditions = row.at("status.conditions").items();
    let ready = conditions.rfind(|condition| condition.get("type").text() == "Ready");
    let status = match ready.map(|ready| ready.get("status").text()) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    };
    let disabled = row.at("spec.unschedulable").bool() == Some(true);
    format!("{status}{}", if disabled { ",SchedulingDisabled" } else { "" })
}

fn node_roles(row: &Row<'_>) -> String {
    let labels = row.at("metadata.labels").entries();
    let role = |(key, value): &(&str, Tree<'_>)| match key.strip_prefix(ROLE_PREFIX) {
        Some(role) => role.to_owned(),
        None if *key == ROLE => value.text().to_owned(),
        None => String::new(),
    };
    let roles: BTreeSet<String> = labels.iter().map(role).filter(|role| !role.is_empty()).collect();
    if roles.is_empty() { "<none>".to_owned() } else { roles.into_iter().collect::<Vec<_>>().join(",") }
}

pub(super) fn namespace(row: &Row<'_>) -> Vec<Value> {
    cells![row.name(), row.at("status.phase").text(), row.age()]
}

/// Events of both groups: the newer one renamed most members.
pub(super) fn event(row: &Row<'_>) -> Vec<Value> {
    let either = |one: &str, other: &str| if row.at(one).exists() { row.at(one) } else { row.at(other) };
    let first_time = either("firstTimestamp", "deprecatedFirstTimestamp");
    let first = row.since(if first_time.exists() { first_time } else { row.at("eventTime") });
    let last_time = either("lastTimestamp", "deprecatedLastTimestamp");
    let (series, count) = (row.at("series"), either("count", "deprecatedCount").int());
    let (last, count) = if series.exists() {
        (row.since(series.get("lastObservedTime")), series.get("count").int())
    } else {
        (if last_time.exists() { row.since(last_time) } else { first.clone() }, count.max(1))
    };
    let about = either("involvedObject", "regarding");
    let (kind, name) = (about.get("kind").text().to_lowercase(), about.get("name").text());
    cells![
        last,
        row.at("type").text(),
        row.at("reason").text(),
        if name.is_empty() { kind } else { format!("{kind}/{name}") },
        about.get("fieldPath").text(),
        event_source(row, either("source", "deprecatedSource")),
        either("message", "note").text().trim(),
        first,
        count,
        row.name(),
    ]
}

fn event_source(row: &Row<'_>, source: Tree<'_>) -> String {
    let reporter = row.at("reportingComponent").text_or(row.at("reportingController").text());
    let component = source.get("component").text_or(reporter);
    match source.get("host").text_or(row.at("reportingInstance").text()) {
        "" => component.to_owned(),
        host => format!("{component}, {host}"),
    }
}

pub(super) fn component_status(row: &Row<'_>) -> Vec<Value> {
    let Some(healthy) = row.at("conditions").condition("Healthy") else {
        return cells![row.name(), "Unknown", "", ""];
    };
    let status = if healthy.get("status").text() == "True" { "Healthy" } else { "Unhealthy" };
    cells![row.name(), status, healthy.get("message").text(), healthy.get("error").text()]
}

pub(super) fn config_map(row: &Row<'_>) -> Vec<Value> {
    cells![row.name(), row.at("data").len() + row.at("binaryData").len(), row.age()]
}

pub(super) fn secret(row: &Row<'_>) -> Vec<Value> {
    cells![row.name(), row.at("type").text(), row.at("data").len(), row.age()]
}

pub(super) fn resource_quota(row: &Row<'_>) -> Vec<Value> {
    let used = row.at("status.used");
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    for (resource, hard) in row.at("status.hard").entries() {
        let shown = format!("{resource}: {}/{}", used.get(resource).text_or("0"), hard.text_or("0"));
        if resource.starts_with("limits.") { limits.push(shown) } else { requests.push(shown) }
    }
    cells![row.name(), requests.join(", "), limits.join(", "), row.age()]
}

pub(super) fn lease(row: &Row<'_>) -> Vec<Value> {
    cells![row.name(), row.at("spec.holderIdentity").text(), row.age()]
}

pub(super) fn priority_class(row: &Row<'_>) -> Vec<Value> {
    cells![
        row.name(),
        row.at("value").int(),
        row.at("globalDefault").bool().unwrap_or(false),
        row.age(),
        row.at("preemptionPolicy").text(),
    ]
}

pub(super) fn runtime_class(row: &Row<'_>) -> Vec<Value> {
    cells![row.name(), row.at("handler").text(), row.age()]
}

pub(super) fn flow_schema(row: &Row<'_>) -> Vec<Value> {
    let dangling = row.at("status.conditions").condition("Dangling");
    cells![
        row.name(),
        row.at("spec.priorityLevelConfiguration.name").text(),
        row.at("spec.matchingPrecedence").int(),
        row.at("spec.distinguisherMethod.type").text_or("<none>"),
        row.age(),
        dangling.map_or("?", |dangling| dangling.get("status").text()),
    ]
}

pub(super) fn priority_level(row: &Row<'_>) -> Vec<Value> {
    let limited = row.at("spec.limited");
    let number = |path: &str| limited.at(path).value().cloned().unwrap_or_else(|| "<none>".into());
    cells![
        row.name(),
        row.at("spec.type").text(),
        number("nominalConcurrencyShares"),
        number("limitResponse.queuing.queues"),
        number("limitResponse.queuing.handSize"),
        number("limitResponse.queuing.queueLengthLimit"),
        row.age(),
    ]
}

pub(super) fn webhooks(row: &Row<'_>) -> Vec<Value> {
    cells![row.name(), row.at("webhooks").len(), row.age()]
}

pub(super) fn validating_policy(row: &Row<'_>) -> Vec<Value> {
    policy(row, row.at("spec.validations"))
}

pub(super) fn mutating_policy(row: &Row<'_>) -> Vec<Value> {
    policy(row, row.at("spec.mutations"))
}

fn policy(row: &Row<'_>, rules: Tree<'_>) -> Vec<Value> {
    let kind = row.at("spec.paramKind");
    let shown = format!("{}/{}", kind.get("apiVersion").text(), kind.get("kind").text());
    cells![row.name(), rules.len(), if kind.exists() { shown } else { "<unset>".to_owned() }, row.age()]
}

pub(super) fn policy_binding(row: &Row<'_>) -> Vec<Value> {
    let parameter = row.at("spec.paramRef");
    let (namespace, name) = (parameter.get("namespace").text_or("*"), parameter.get("name").text());
    let shown = match name {
        "" if parameter.get("selector").exists() => selector_debug(parameter.get("selector")),
        "" => "<unset>".to_owned(),
        name => format!("{namespace}/{name}"),
    };
    cells![row.name(), row.at("spec.policyName").text(), shown, row.age()]
}

/// A selector in the form that the generated code upstream prints.
fn selector_debug(selector: Tree<'_>) -> String {
    let labels = selector.get("matchLabels").entries();
    let labels: String = labels.iter().map(|(key, value)| format!("{key}: {},", value.text())).collect();
    let expression = |item: Tree<'_>| {
        let (key, operator) = (item.get("key").text(), item.get("operator").text());
        format!(
            "LabelSelectorRequirement{{Key:{key},Operator:{operator},Values:[{}],}},",
            item.get("values").joined(" ")
        )
    };
    let expressions: String = selector.get("matchExpressions").items().map(expression).collect();
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{labels}}},\
         MatchExpressions:[]LabelSelectorRequirement{{{expressions}}},}}"
    )
}

pub(super) fn api_service(row: &Row<'_>) -> Vec<Value> {
    let service = row.at("spec.service");
    let behind = format!("{}/{}", service.get("namespace").text(), service.get("name").text());
    let available =
        row.at("status.conditions").condition("Available").map_or("Unknown".to_owned(), |condition| {
            match (condition.get("status").text(), condition.get("reason").text()) {
                ("True", _) => "True".to_owned(),
                (status, "") => status.to_owned(),
                (status, reason) => format!("{status} ({reason})"),
            }
        });
    cells![row.name(), if service.exists() { behind } else { "Local".to_owned() }, available, row.age()]
}

pub(super) fn signing_request(row: &Row<'_>) -> Vec<Value> {
    let seconds = row.at("spec.expirationSeconds");
    let requested = duration::human(jiff::SignedDuration::from_secs(seconds.int()));
    cells![
        row.name(),
        row.age(),
        row.at("spec.signerName").text_or("<none>"),
        row.at("spec.username").text(),
        if seconds.exists() { requested } else { "<none>".to_owned() },
        signing_status(row),
    ]
}

fn signing_status(row: &Row<'_>) -> String {
    let conditions = row.at("status.conditions");
    let told = |of| conditions.condition(of).is_some();
    let decision = match (told("Denied"), told("Approved")) {
        (true, _) => "Denied",
        (false, true) => "Approved",
        (false, false) => "Pending",
    };
    let failed = if told("Failed") { ",Failed" } else { "" };
    let issued = if row.at("status.certificate").text().is_empty() { "" } else { ",Issued" };
    format!("{decision}{failed}{issued}")
}

pub(super) fn role_binding(row: &Row<'_>) -> Vec<Value> {
    let role = row.at("roleRef");
    let subjects = |kind: &str| {
        let subjects = row.at("subjects").items().filter(|subject| subject.get("kind").text() == kind);
        let shown = subjects.map(|subject| match kind {
            "ServiceAccount" => format!("{}/{}", subject.get("namespace").text(), subject.get("name").text()),
            _ => subject.get("name").text().to_owned(),
        });
        shown.collect::<Vec<_>>().join(", ")
    };
    cells![
        row.name(),
        format!("{}/{}", role.get("kind").text(), role.get("name").text()),
        row.age(),
        subjects("User"),
        subjects("Group"),
        subjects("ServiceAccount"),
    ]
}

pub(super) fn resource_claim(row: &Row<'_>) -> Vec<Value> {
    let allocated = row.at("status.allocation").exists();
    let reserved = allocated && row.at("status.reservedFor").len() > 0;
    let states = [
        (row.is_terminating(), "deleted"),
        (!allocated && !row.is_terminating(), "pending"),
        (allocated, "allocated"),
        (reserved, "reserved"),
    ];
    let states: Vec<&str> = states.into_iter().filter(|(holds, _)| *holds).map(|(_, state)| state).collect();
    cells![row.name(), states.join(","), row.age()]
}

pub(super) fn resource_slice(row: &Row<'_>) -> Vec<Value> {
    let spec = row.at("spec");
    cells![row.name(), spec.get("nodeName").text(), spec.get("driver").text(), spec.at("pool.name").text(), row.age(),]
}
