//! What a cloud tells of the machine of a node, written down on the node.
//!
//! Upstream: `k8s.io/cloud-provider/controllers/node`.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Node, NodeAddress};
use orchestrator_core::meta;

use crate::cloud::{InstanceMetadata, UNINITIALIZED};

/// The address that a kubelet was told to have.
const PROVIDED_ADDRESS: &str = "alpha.kubernetes.io/provided-node-ip";

/// Labels by two names: the present one and the one before it. What the first says the second has to say.
const RENAMED: [(&str, &str); 4] = [
    ("topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"),
    ("topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region"),
    ("node.kubernetes.io/instance-type", "beta.kubernetes.io/instance-type"),
    ("kubernetes.io/arch", "beta.kubernetes.io/arch"),
];

/// The node, as it is to be once the cloud has said what it knows.
pub(super) fn initialized(node: &Node, machine: &InstanceMetadata) -> Result<Node, String> {
    addresses(node, &machine.addresses)?;
    let mut node = node.clone();
    let spec = node.spec.get_or_insert_default();
    if spec.provider_id.as_ref().is_none_or(String::is_empty) {
        spec.provider_id = Some(machine.provider_id.clone()).filter(|id| !id.is_empty());
    }
    if spec.provider_id.is_none() {
        let name = meta::name(&node.metadata);
        return Err(format!("cloud provider does not set node provider ID for node {name}"));
    }
    if let Some(taints) = &mut spec.taints {
        taints.retain(|taint| taint.key != UNINITIALIZED);
    }
    spec.taints.take_if(|taints| taints.is_empty());
    let labels = node.metadata.labels.get_or_insert_default();
    for (names, value) in RENAMED.iter().zip([&machine.zone, &machine.region, &machine.instance_type]) {
        if !value.is_empty() {
            labels.insert(names.0.to_owned(), value.clone());
            labels.insert(names.1.to_owned(), value.clone());
        }
    }
    for (key, value) in machine.labels.iter().filter(|(key, _)| !is_of_kubernetes(key)) {
        labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
    Ok(node)
}

/// Whether a label is Kubernetes' own, which no cloud may set.
fn is_of_kubernetes(key: &str) -> bool {
    let domain = key.split_once('/').map_or("", |(domain, _)| domain);
    ["kubernetes.io", "k8s.io"]
        .iter()
        .any(|own| domain.strip_suffix(own).is_some_and(|before| before.is_empty() || before.ends_with('.')))
}

/// Labels whose second name does not say what the first one says, with what they should say.
pub(super) fn outdated_labels(node: &Node) -> Vec<(&'static str, String)> {
    let label = |name| meta::label(&node.metadata, name);
    let outdated = |(new, old): &(&'static str, &'static str)| {
        let value = label(new)?;
        (label(old) != Some(value)).then(|| (*old, value.to_owned()))
    };
    RENAMED.iter().filter_map(outdated).collect()
}

/// The addresses of a node by those of its machine. The one that its kubelet was told to have is the only one of its types.
pub(super) fn addresses(node: &Node, machine: &[NodeAddress]) -> Result<Vec<NodeAddress>, String> {
    let mut addresses = machine.to_vec();
    let known = node.status.as_ref().and_then(|status| status.addresses.as_deref()).unwrap_or_default();
    if !addresses.iter().any(|address| address.type_ == "Hostname") {
        addresses.extend(known.iter().filter(|address| address.type_ == "Hostname").cloned());
    }
    let Some(provided) = meta::annotation(&node.metadata, PROVIDED_ADDRESS) else { return Ok(addresses) };
    let mut preferred = Vec::new();
    for wanted in provided.split(',') {
        let found: Vec<_> = addresses.iter().filter(|address| address.address == wanted).cloned().collect();
        if found.is_empty() {
            return Err(format!("failed to get node address from cloud provider that matches ip: {wanted}"));
        }
        preferred.extend(found);
    }
    let types: BTreeSet<String> = preferred.iter().map(|address| address.type_.clone()).collect();
    preferred.extend(addresses.into_iter().filter(|address| !types.contains(&address.type_)));
    Ok(preferred)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn node(annotation: Option<&str>) -> Node {
        let taints = json!([{"key": UNINITIALIZED, "effect": "NoSchedule"}, {"key": "other", "effect": "NoSchedule"}]);
        let annotations = annotation.map(|address| json!({PROVIDED_ADDRESS: address}));
        let metadata =
            json!({"name": "n", "annotations": annotations, "labels": {"kubernetes.io/arch": "arm64", "team": "a"}});
        let status = json!({"addresses": [{"type": "Hostname", "address": "n"}]});
        serde_json::from_value(json!({"metadata": metadata, "spec": {"taints": taints}, "status": status})).unwrap()
    }

    fn address(type_: &str, address: &str) -> NodeAddress {
        NodeAddress { type_: type_.to_owned(), address: address.to_owned() }
    }

    fn machine() -> InstanceMetadata {
        let label = |key: &str| (key.to_owned(), "b".to_owned());
        InstanceMetadata {
            provider_id: "cloud://n".to_owned(),
            instance_type: "large".to_owned(),
            addresses: vec![address("InternalIP", "10.0.0.1"), address("InternalIP", "10.0.0.2")],
            zone: "z".to_owned(),
            region: String::new(),
            labels: vec![label("team"), label("rack"), label("node.kubernetes.io/x"), label("k8s.io/y")],
        }
    }

    #[test]
    fn a_node_gets_what_its_machine_is() {
        let new = initialized(&node(None), &machine()).unwrap();
        let spec = new.spec.as_ref().unwrap();
        assert_eq!(spec.provider_id.as_deref(), Some("cloud://n"));
        assert_eq!(spec.taints.as_ref().unwrap().iter().map(|taint| &*taint.key).collect::<Vec<_>>(), ["other"]);
        let labels = new.metadata.labels.as_ref().unwrap();
        let expected = [
            ("beta.kubernetes.io/instance-type", "large"),
            ("failure-domain.beta.kubernetes.io/zone", "z"),
            ("kubernetes.io/arch", "arm64"),
            ("node.kubernetes.io/instance-type", "large"),
            ("rack", "b"),
            ("team", "a"),
            ("topology.kubernetes.io/zone", "z"),
        ];
        assert_eq!(labels.iter().map(|(key, value)| (&**key, &**value)).collect::<Vec<_>>(), expected);
        assert_eq!(outdated_labels(&new), [("beta.kubernetes.io/arch", "arm64".to_owned())]);
        let nameless = InstanceMetadata { provider_id: String::new(), ..machine() };
        assert!(initialized(&node(None), &nameless).unwrap_err().ends_with("for node n"));
    }

    #[test]
    fn the_address_of_the_kubelet_is_the_only_one_of_its_type() {
        let machine = machine().addresses;
        let all = addresses(&node(None), &machine).unwrap();
        assert_eq!(all.len(), 3, "with the host name that the node had");
        let own = addresses(&node(Some("10.0.0.2")), &machine).unwrap();
        assert_eq!(own, [address("InternalIP", "10.0.0.2"), address("Hostname", "n")]);
        let error = addresses(&node(Some("10.9.9.9")), &machine).unwrap_err();
        assert_eq!(error, "failed to get node address from cloud provider that matches ip: 10.9.9.9");
    }

    proptest! {
        #[test]
        fn initialization_happens_once(zone in "[a-z]{0,3}", region in "[a-z]{0,3}") {
            let machine = InstanceMetadata { zone, region, ..machine() };
            let once = initialized(&node(None), &machine).unwrap();
            prop_assert_eq!(initialized(&once, &machine).unwrap(), once);
        }
    }
}
