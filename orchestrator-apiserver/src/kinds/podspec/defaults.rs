//! The defaults of a pod's spec.

use serde_json::{Value, json};

use super::{aggregate, can_overcommit, default_volume, resources};
use crate::field::{Field, items_mut, member, set_default};

const CONTAINER_LISTS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

/// Writes the defaults of a spec, in a pod or in a template.
pub(crate) fn default_spec(spec: &mut Value) {
    if spec.is_null() {
        *spec = json!({});
    }
    for volume in items_mut(spec, "volumes") {
        default_volume(volume);
    }
    for list in CONTAINER_LISTS {
        for container in items_mut(spec, list) {
            default_container(container);
        }
    }
    set_default(spec, "restartPolicy", "Always");
    set_default(spec, "terminationGracePeriodSeconds", 30);
    set_default(spec, "dnsPolicy", "ClusterFirst");
    set_default(spec, "schedulerName", "default-scheduler");
    set_default(spec, "securityContext", json!({}));
    service_account(spec);
}

/// The account has an old and a new name; both are kept.
fn service_account(spec: &mut Value) {
    let text = |name: &str| spec[name].as_str().unwrap_or_default().to_owned();
    let (name, old) = (text("serviceAccountName"), text("serviceAccount"));
    let account = if name.is_empty() { old } else { name };
    if !account.is_empty() {
        *member(spec, "serviceAccountName") = account.clone().into();
        *member(spec, "serviceAccount") = account.into();
    }
}

fn default_container(container: &mut Value) {
    let pull_policy = pull_policy(container["image"].as_str().unwrap_or_default());
    set_default(container, "imagePullPolicy", pull_policy);
    set_default(container, "terminationMessagePath", "/dev/termination-log");
    set_default(container, "terminationMessagePolicy", "File");
    set_default(container, "resources", json!({}));
    for port in items_mut(container, "ports") {
        set_default(port, "protocol", "TCP");
    }
    for variable in items_mut(container, "env") {
        if let Some(field) = variable.get_mut("valueFrom").and_then(|from| from.get_mut("fieldRef")) {
            set_default(field, "apiVersion", "v1");
        }
        let resource = variable.get_mut("valueFrom").and_then(|from| from.get_mut("resourceFieldRef"));
        if let Some(resource) = resource {
            set_default(resource, "divisor", "0");
        }
        if let Some(file) = variable.get_mut("valueFrom").and_then(|from| from.get_mut("fileKeyRef")) {
            set_default(file, "optional", false);
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get_mut(probe) {
            default_probe(probe);
        }
    }
    for hook in ["postStart", "preStop"] {
        if let Some(hook) = container.get_mut("lifecycle").and_then(|lifecycle| lifecycle.get_mut(hook)) {
            default_handler(hook);
        }
    }
}

fn default_probe(probe: &mut Value) {
    set_default_number(probe, "timeoutSeconds", 1);
    set_default_number(probe, "periodSeconds", 10);
    set_default_number(probe, "successThreshold", 1);
    set_default_number(probe, "failureThreshold", 3);
    default_handler(probe);
}

/// Numbers that have no way to be absent: zero counts as absent.
fn set_default_number(tree: &mut Value, name: &str, default: i64) {
    if tree[name].as_i64().unwrap_or(0) == 0 {
        *member(tree, name) = default.into();
    }
}

fn default_handler(handler: &mut Value) {
    if let Some(http) = handler.get_mut("httpGet") {
        set_default(http, "path", "/");
        set_default(http, "scheme", "HTTP");
        set_default(http, "port", 0);
    }
    if let Some(tcp) = handler.get_mut("tcpSocket") {
        set_default(tcp, "port", 0);
    }
    if let Some(grpc) = handler.get_mut("grpc") {
        set_default(grpc, "service", "");
    }
}

/// `Always` for images without a tag or with the tag `latest`, unless they are pinned by digest.
pub(super) fn pull_policy(image: &str) -> &'static str {
    let (name, digest) = image.split_once('@').map_or((image, false), |(name, _)| (name, true));
    let last = name.rsplit('/').next().unwrap_or(name);
    let tag = last.split_once(':').map(|(_, tag)| tag);
    match tag {
        Some("latest") => "Always",
        None if !digest => "Always",
        _ => "IfNotPresent",
    }
}

/// What only pods get: where a limit is given and no request, the request is the limit.
pub(crate) fn default_requests(spec: &mut Value) {
    for list in ["containers", "initContainers"] {
        for container in items_mut(spec, list) {
            if let Some(resources) = container.get_mut("resources") {
                requests_from_limits(resources, |_| true);
            }
        }
    }
    // Hardly any pod asks for resources as a whole.
    if spec.get("resources").is_some() {
        default_whole(spec);
    }
}

/// What a whole pod asks for where it does not say so: as much as its containers do, or else as much as it may have.
fn default_whole(spec: &mut Value) {
    let of_containers = |spec: &Value, list| aggregate(&Field::root(spec), list);
    let (limits, requests) = (of_containers(spec, "limits"), of_containers(spec, "requests"));
    let whole = member(spec, "resources");
    for (name, sum) in limits.iter().filter(|(name, _)| resources::is_huge_pages(name)) {
        set_default(member(whole, "limits"), name, sum.to_string());
    }
    if Field::root(whole).get("limits").len() == 0 {
        return;
    }
    for (name, sum) in requests.iter().filter(|(name, _)| resources::is_of_pods(name) && can_overcommit(name)) {
        set_default(member(whole, "requests"), name, sum.to_string());
    }
    requests_from_limits(whole, resources::is_of_pods);
}

/// Fills in the requests that are missing, of some resources.
fn requests_from_limits(resources: &mut Value, of: fn(&str) -> bool) {
    let Some(limits) = resources.get("limits").and_then(Value::as_object).cloned() else { return };
    for (name, limit) in limits.into_iter().filter(|(name, _)| of(name)) {
        set_default(member(resources, "requests"), &name, limit);
    }
}

/// In a pod on the host's network every port is a port of the host.
pub(crate) fn host_ports(spec: &mut Value) {
    if spec["hostNetwork"] != true {
        return;
    }
    for list in ["containers", "initContainers"] {
        for container in items_mut(spec, list) {
            for port in items_mut(container, "ports") {
                let number = port["containerPort"].clone();
                set_default_number(port, "hostPort", number.as_i64().unwrap_or(0));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_pulled_always_only_where_they_may_change() {
        for (image, policy) in [
            ("busybox", "Always"),
            ("busybox:latest", "Always"),
            ("busybox:1.36", "IfNotPresent"),
            ("registry:5000/busybox", "Always"),
            ("registry:5000/busybox:1", "IfNotPresent"),
            ("busybox@sha256:00", "IfNotPresent"),
        ] {
            assert_eq!(pull_policy(image), policy, "{image}");
        }
    }

    #[test]
    fn requests_default_to_limits() {
        let mut spec = json!({"containers": [{"resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}}]});
        default_requests(&mut spec);
        assert_eq!(spec["containers"][0]["resources"]["requests"], json!({"cpu": "500m", "memory": "1Gi"}));
        let mut whole = json!({
            "containers": [{"resources": {"limits": {"hugepages-2Mi": "4Mi"}, "requests": {"cpu": "500m", "memory": "1Gi"}}}],
            "resources": {"limits": {"cpu": "2"}},
        });
        default_requests(&mut whole);
        let requests = json!({"cpu": "500m", "memory": "1Gi", "hugepages-2Mi": "4Mi"});
        assert_eq!(whole["resources"], json!({"limits": {"cpu": "2", "hugepages-2Mi": "4Mi"}, "requests": requests}));
    }
}
