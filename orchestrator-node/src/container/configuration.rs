//! Assembles what the runtime is asked for.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod};
use orchestrator_core::runtime::{
    ContainerConfig, ContainerKey, DnsConfig, Image, Labels, Mount, NamespaceOptions, Resources, SandboxConfig,
    SandboxKey,
};

use super::{expand::expand, security};
use crate::pod;

/// The label with a container's name, as upstream's kubelet sets it.
const CONTAINER_NAME_LABEL: &str = "io.kubernetes.container.name";
const POD_NAME_LABEL: &str = "io.kubernetes.pod.name";
const POD_NAMESPACE_LABEL: &str = "io.kubernetes.pod.namespace";
const POD_UID_LABEL: &str = "io.kubernetes.pod.uid";

/// The host name that the pod's containers see.
pub(crate) fn hostname(pod: &Pod, node: &str) -> String {
    let spec = pod::spec(pod);
    if let Some(name) = spec.hostname_override.as_deref().filter(|name| !name.is_empty()) {
        return name.to_owned();
    }
    if spec.host_network == Some(true) {
        return node.to_owned();
    }
    let name = spec.hostname.as_deref().filter(|name| !name.is_empty()).unwrap_or_else(|| pod::name(pod));
    name.chars().take(63).collect::<String>().trim_end_matches(['-', '.']).to_owned()
}

/// Name resolution of a pod.
///
/// Upstream: <https://kubernetes.io/docs/concepts/services-networking/dns-pod-service/#pod-s-dns-policy>.
pub(crate) fn dns(pod: &Pod, cluster_servers: &[String], cluster_domain: &str) -> DnsConfig {
    let spec = pod::spec(pod);
    let host_network = spec.host_network == Some(true);
    let cluster = match spec.dns_policy.as_deref().unwrap_or("ClusterFirst") {
        "ClusterFirst" => !host_network,
        "ClusterFirstWithHostNet" => true,
        _ => false,
    };
    let mut dns = DnsConfig::default();
    if cluster && !cluster_servers.is_empty() {
        let namespace = pod::namespace(pod);
        dns.servers = cluster_servers.to_vec();
        dns.searches = vec![
            format!("{namespace}.svc.{cluster_domain}"),
            format!("svc.{cluster_domain}"),
            cluster_domain.to_owned(),
        ];
        dns.options = vec!["ndots:5".to_owned()];
    }
    if let Some(own) = &spec.dns_config {
        let add = |list: &mut Vec<String>, more: &Option<Vec<String>>| {
            for item in more.iter().flatten() {
                if !list.contains(item) {
                    list.push(item.clone());
                }
            }
        };
        add(&mut dns.servers, &own.nameservers);
        add(&mut dns.searches, &own.searches);
        for option in own.options.iter().flatten() {
            let name = option.name.clone().unwrap_or_default();
            dns.options.retain(|present| present.split(':').next() != Some(&name));
            dns.options.push(option.value.as_ref().map_or(name.clone(), |value| format!("{name}:{value}")));
        }
    }
    dns
}

/// The pod's sandbox.
pub(crate) fn sandbox(pod: &Pod, attempt: u32, node: &str, dns: DnsConfig) -> SandboxConfig {
    let spec = pod::spec(pod);
    let sysctls = spec.security_context.iter().flat_map(|context| context.sysctls.iter().flatten());
    SandboxConfig {
        key: SandboxKey { pod_uid: pod::uid(pod).to_owned(), attempt },
        namespace: pod::namespace(pod).to_owned(),
        name: pod::name(pod).to_owned(),
        hostname: hostname(pod, node),
        dns,
        namespaces: NamespaceOptions {
            host_network: spec.host_network == Some(true),
            host_pid: spec.host_pid == Some(true),
            host_ipc: spec.host_ipc == Some(true),
            share_process_namespace: spec.share_process_namespace == Some(true),
            user_namespace: spec.host_users == Some(false),
        },
        resources: Resources::default(),
        sysctls: sysctls.map(|sysctl| (sysctl.name.clone(), sysctl.value.clone())).collect(),
        labels: labels(pod, None),
        annotations: pod.metadata.annotations.clone().unwrap_or_default().into(),
    }
}

fn labels(pod: &Pod, container: Option<&str>) -> Labels {
    let mut labels =
        if container.is_none() { pod.metadata.labels.clone().unwrap_or_default() } else { BTreeMap::new() };
    labels.insert(POD_NAME_LABEL.to_owned(), pod::name(pod).to_owned());
    labels.insert(POD_NAMESPACE_LABEL.to_owned(), pod::namespace(pod).to_owned());
    labels.insert(POD_UID_LABEL.to_owned(), pod::uid(pod).to_owned());
    labels.extend(container.map(|name| (CONTAINER_NAME_LABEL.to_owned(), name.to_owned())));
    labels.into()
}

/// Everything about a container that has to be looked up first.
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    pub(crate) attempt: u32,
    pub(crate) image: Image,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) mounts: Vec<Mount>,
    /// The node's memory, in bytes.
    pub(crate) memory_capacity: i64,
}

/// One container. Errors are upstream's, for `CreateContainerConfigError`.
pub(crate) fn container(pod: &Pod, container: &Container, parts: Parts) -> Result<ContainerConfig, String> {
    let lookup =
        |name: &str| parts.environment.iter().find(|(present, _)| present == name).map(|(_, value)| value.clone());
    let expanded = |list: &Option<Vec<String>>| -> Vec<String> {
        list.iter().flatten().map(|text| expand(text, lookup)).collect()
    };
    let qos_class = pod::status_of(pod).qos_class.clone().unwrap_or_else(|| "Burstable".to_owned());
    Ok(ContainerConfig {
        key: ContainerKey { name: container.name.clone(), attempt: parts.attempt },
        image: container.image.clone().unwrap_or_default(),
        command: expanded(&container.command),
        args: expanded(&container.args),
        working_directory: container.working_dir.clone().filter(|directory| !directory.is_empty()),
        mounts: parts.mounts.clone(),
        resources: security::resources(container, &qos_class, parts.memory_capacity),
        security: security::security(pod, container, &parts.image)?,
        tty: container.tty == Some(true),
        stdin: container.stdin == Some(true),
        stdin_once: container.stdin_once == Some(true),
        stop_signal: container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.stop_signal.clone()),
        labels: labels(pod, Some(&container.name)),
        annotations: Labels::default(),
        environment: parts.environment,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": spec})).unwrap()
    }

    #[test]
    fn names() {
        let plain = pod(json!({"containers": [], "dnsConfig": {"options": [{"name": "ndots", "value": "2"}]}}));
        assert_eq!(hostname(&plain, "node"), "p");
        assert_eq!(hostname(&pod(json!({"containers": [], "hostNetwork": true})), "node"), "node");
        let dns = dns(&plain, &["10.0.0.10".into()], "cluster.local");
        assert_eq!(dns.searches, ["n.svc.cluster.local", "svc.cluster.local", "cluster.local"]);
        assert_eq!(dns.options, ["ndots:2"]);
    }

    #[test]
    fn commands_see_the_environment() {
        let pod =
            pod(json!({"containers": [{"name": "c", "image": "i", "command": ["run", "$(A)"], "args": ["$$(A)"]}]}));
        let parts = Parts {
            attempt: 2,
            image: Image { name: "i".into(), id: "i".into(), size_bytes: 0, user: None, pinned: false },
            environment: vec![("A".into(), "1".into())],
            mounts: vec![],
            memory_capacity: 1,
        };
        let config = container(&pod, &pod::spec(&pod).containers[0], parts).unwrap();
        assert_eq!((config.command, config.args), (vec!["run".into(), "1".into()], vec!["$(A)".to_owned()]));
        assert_eq!(config.key.attempt, 2);
    }
}
