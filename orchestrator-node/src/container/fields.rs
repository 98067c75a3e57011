//! What a pod can tell its own containers: `fieldRef` and `resourceFieldRef`.
//!
//! Upstream: <https://kubernetes.io/docs/concepts/workloads/pods/downward-api/>.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Container, Pod, PodStatus, ResourceFieldSelector},
    apimachinery::pkg::api::resource::Quantity as Written,
};
use orchestrator_core::quantity::Quantity;

use crate::pod;

/// What fields may refer to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) pod: &'a Pod,
    /// The status with the addresses of the present sandbox.
    pub(crate) status: &'a PodStatus,
    /// Limits that hold where a container has none.
    pub(crate) allocatable: &'a BTreeMap<String, Written>,
}

/// The value of a field of the pod. Messages are upstream's.
pub(crate) fn field(facts: &Facts<'_>, path: &str) -> Result<String, String> {
    let metadata = &facts.pod.metadata;
    let spec = pod::spec(facts.pod);
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    if let Some((kind, key)) = path.strip_suffix("']").and_then(|path| path.split_once("['")) {
        return match kind {
            "metadata.labels" => Ok(entry(metadata.labels.as_ref(), key)),
            "metadata.annotations" => Ok(entry(metadata.annotations.as_ref(), key)),
            _ => Err(format!("invalid fieldPath with subscript: {path}")),
        };
    }
    Ok(match path {
        "metadata.name" => text(&metadata.name),
        "metadata.namespace" => text(&metadata.namespace),
        "metadata.uid" => text(&metadata.uid),
        "metadata.labels" => lines(metadata.labels.as_ref()),
        "metadata.annotations" => lines(metadata.annotations.as_ref()),
        "spec.nodeName" => text(&spec.node_name),
        "spec.serviceAccountName" => text(&spec.service_account_name),
        "status.hostIP" => text(&facts.status.host_ip),
        "status.hostIPs" => {
            let list: Vec<&str> = facts.status.host_ips.iter().flatten().map(|it| it.ip.as_str()).collect();
            list.join(",")
        }
        "status.podIP" => text(&facts.status.pod_ip),
        "status.podIPs" => {
            let list: Vec<&str> = facts.status.pod_ips.iter().flatten().map(|it| it.ip.as_str()).collect();
            list.join(",")
        }
        _ => return Err(format!("unsupported fieldPath: {path}")),
    })
}

fn entry(map: Option<&BTreeMap<String, String>>, key: &str) -> String {
    map.and_then(|map| map.get(key)).cloned().unwrap_or_default()
}

/// Labels or annotations, one per line, values quoted as Go quotes them.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<String> = map.into_iter().flatten().map(|(key, value)| format!("{key}={}", quote(value))).collect();
    lines.join("\n")
}

fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            letter if letter.is_control() => quoted.push_str(&format!("\\x{:02x}", u32::from(letter))),
            letter => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}

/// The value of a container's request or limit, in units of the divisor, rounded up.
pub(crate) fn resource(facts: &Facts<'_>, own: &Container, selector: &ResourceFieldSelector) -> Result<String, String> {
    let named = selector.container_name.as_deref().filter(|name| !name.is_empty());
    let found;
    let container = match named {
        None => own,
        Some(name) => {
            found = pod::container(facts.pod, name).ok_or_else(|| format!("container {name} not found"))?.1;
            &found
        }
    };
    let (list, name) = selector.resource.split_once('.').ok_or_else(|| unsupported(&selector.resource))?;
    let resources = container.resources.as_ref();
    let written = match list {
        "limits" => resources
            .and_then(|resources| resources.limits.as_ref())
            .and_then(|limits| limits.get(name))
            .or_else(|| facts.allocatable.get(name)),
        "requests" => resources.and_then(|resources| resources.requests.as_ref()).and_then(|list| list.get(name)),
        _ => return Err(unsupported(&selector.resource)),
    };
    let Some(written) = written else { return Ok("0".to_owned()) };
    let quantity = Quantity::try_from(written).map_err(|error| error.to_string())?;
    let divisor = match &selector.divisor {
        Some(divisor) => Quantity::try_from(divisor).map_err(|error| error.to_string())?,
        None => Quantity::ZERO,
    };
    let (amount, unit) = if name == "cpu" {
        (quantity.milli_value(), divisor.milli_value())
    } else {
        (quantity.value(), divisor.value())
    };
    let unit = match unit {
        0 if name == "cpu" => 1000,
        0 => 1,
        unit => unit,
    };
    Ok((i128::from(amount).div_euclid(unit.into()) + i128::from(i128::from(amount).rem_euclid(unit.into()) != 0))
        .to_string())
}

fn unsupported(resource: &str) -> String {
    format!("unsupported container resource : {resource}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn example() -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "labels": {"a": "x \"y\"", "b": "2"}},
            "spec": {"containers": [{"name": "c", "resources": {
                "limits": {"cpu": "1500m"}, "requests": {"memory": "100Mi"}}}]},
        }))
        .unwrap()
    }

    #[test]
    fn values() {
        let pod = example();
        let allocatable = BTreeMap::from([("memory".to_owned(), Written("1Gi".into()))]);
        let facts = Facts { pod: &pod, status: &PodStatus::default(), allocatable: &allocatable };
        assert_eq!(field(&facts, "metadata.labels['b']").unwrap(), "2");
        assert_eq!(field(&facts, "metadata.labels").unwrap(), "a=\"x \\\"y\\\"\"\nb=\"2\"");
        assert!(field(&facts, "spec.containers").is_err());
        let container = &pod::spec(&pod).containers[0];
        let ask = |resource: &str, divisor: Option<&str>| {
            let selector = ResourceFieldSelector {
                resource: resource.into(),
                divisor: divisor.map(|text| Written(text.into())),
                container_name: None,
            };
            super::resource(&facts, container, &selector).unwrap()
        };
        assert_eq!(ask("limits.cpu", None), "2");
        assert_eq!(ask("limits.cpu", Some("1m")), "1500");
        assert_eq!(ask("requests.memory", Some("1Mi")), "100");
        assert_eq!(ask("limits.memory", Some("1Mi")), "1024");
    }
}
