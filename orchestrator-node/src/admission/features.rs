//! What a pod may not ask for here. It is refused, never ignored.

use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod, Probe, Volume, VolumeProjection};

use crate::pod;

/// The first feature that is not supported, by its path in the specification.
pub(crate) fn unsupported(pod: &Pod) -> Option<String> {
    let spec = pod::spec(pod);
    let flags = [
        (spec.runtime_class_name.is_some(), "spec.runtimeClassName"),
        (spec.resource_claims.as_ref().is_some_and(|claims| !claims.is_empty()), "spec.resourceClaims"),
        (spec.set_hostname_as_fqdn == Some(true), "spec.setHostnameAsFQDN"),
    ];
    let flag = flags.iter().find(|(set, _)| *set).map(|(_, path)| (*path).to_owned());
    let volume = || spec.volumes.iter().flatten().find_map(volume);
    let context = || {
        let context = spec.security_context.as_ref()?;
        let set = context.se_linux_options.is_some() || context.windows_options.is_some();
        set.then(|| "spec.securityContext (SELinux and Windows options)".to_owned())
    };
    let containers = || {
        pod::containers(pod).find_map(|(_, container)| {
            self::container(&container).map(|what| format!("container \"{}\": {what}", container.name))
        })
    };
    flag.or_else(volume).or_else(context).or_else(containers)
}

fn volume(volume: &Volume) -> Option<String> {
    let name = &volume.name;
    let supported = volume.empty_dir.is_some()
        || volume.host_path.is_some()
        || volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.downward_api.is_some()
        || volume.persistent_volume_claim.is_some();
    if supported {
        return None;
    }
    let Some(projected) = &volume.projected else {
        return Some(format!("the source of volume \"{name}\""));
    };
    let other = |source: &VolumeProjection| source.cluster_trust_bundle.is_some() || source.pod_certificate.is_some();
    let found = projected.sources.iter().flatten().any(other);
    found.then(|| format!("clusterTrustBundle or podCertificate in volume \"{name}\""))
}

fn container(container: &Container) -> Option<String> {
    if container.volume_devices.as_ref().is_some_and(|devices| !devices.is_empty()) {
        return Some("volumeDevices".to_owned());
    }
    if container.restart_policy_rules.iter().flatten().any(|rule| rule.action != "Restart") {
        return Some("restartPolicyRules with an action other than Restart".to_owned());
    }
    let sources = container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref());
    if sources.clone().any(|source| source.file_key_ref.is_some()) {
        return Some("env.valueFrom.fileKeyRef".to_owned());
    }
    if let Some(security) = &container.security_context
        && (security.se_linux_options.is_some()
            || security.windows_options.is_some()
            || security.proc_mount.as_deref().is_some_and(|mount| mount != "Default"))
    {
        return Some("securityContext (SELinux, Windows options, procMount)".to_owned());
    }
    let probes = [&container.liveness_probe, &container.readiness_probe, &container.startup_probe];
    let lifecycle = container.lifecycle.as_ref();
    let hooks = [lifecycle.and_then(|it| it.post_start.as_ref()), lifecycle.and_then(|it| it.pre_stop.as_ref())];
    probes.into_iter().flatten().find_map(probe).or_else(|| hooks.into_iter().flatten().find_map(hook))
}

fn probe(probe: &Probe) -> Option<String> {
    let elsewhere =
        probe.tcp_socket.as_ref().is_some_and(|tcp| tcp.host.as_deref().is_some_and(|host| !host.is_empty()));
    if probe.grpc.is_some() {
        Some("a gRPC probe".to_owned())
    } else if elsewhere {
        Some("a probe of another host".to_owned())
    } else {
        probe.http_get.as_ref().and_then(http)
    }
}

fn hook(hook: &LifecycleHandler) -> Option<String> {
    if hook.tcp_socket.is_some() {
        return Some("a tcpSocket hook".to_owned());
    }
    hook.http_get.as_ref().and_then(http)
}

fn http(action: &k8s_openapi::api::core::v1::HTTPGetAction) -> Option<String> {
    if action.scheme.as_deref() == Some("HTTPS") {
        Some("httpGet over HTTPS".to_owned())
    } else if action.host.as_deref().is_some_and(|host| !host.is_empty()) {
        Some("httpGet from another host".to_owned())
    } else {
        None
    }
}
