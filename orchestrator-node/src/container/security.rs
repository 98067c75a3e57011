//! Limits and confinement of a container, merged from pod and container.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{AppArmorProfile, Container, Pod, SeccompProfile},
    apimachinery::pkg::api::resource::Quantity as Written,
};
use orchestrator_core::{
    quantity::Quantity,
    runtime::{self, Image, ImageUser, Resources, SecurityContext, SupplementalGroupsPolicy},
};

use crate::pod;

/// Who the container runs as and what it may do. Errors are upstream's, for `CreateContainerConfigError`.
pub(crate) fn security(pod: &Pod, container: &Container, image: &Image) -> Result<SecurityContext, String> {
    let of_pod = pod::spec(pod).security_context.clone().unwrap_or_default();
    let own = container.security_context.clone().unwrap_or_default();
    let run_as_user = own.run_as_user.or(of_pod.run_as_user);
    if own.run_as_non_root.or(of_pod.run_as_non_root) == Some(true) {
        let place = format!("(pod: \"{}\", container: {})", pod::describe(pod), container.name);
        match (run_as_user, &image.user) {
            (Some(0), _) => return Err(format!("container's runAsUser breaks non-root policy {place}")),
            (Some(_), _) => {}
            (None, Some(ImageUser::Id(user))) if *user != 0 => {}
            (None, Some(ImageUser::Name(name))) => {
                return Err(format!(
                    "container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is non-root {place}"
                ));
            }
            (None, _) => return Err(format!("container has runAsNonRoot and image will run as root {place}")),
        }
    }
    let mut groups = of_pod.supplemental_groups.unwrap_or_default();
    groups.extend(of_pod.fs_group.filter(|group| !groups.contains(group)));
    let privileged = own.privileged == Some(true);
    let capabilities = own.capabilities.unwrap_or_default();
    let profile = own.seccomp_profile.or(of_pod.seccomp_profile).map(seccomp).unwrap_or_default();
    Ok(SecurityContext {
        run_as_user,
        run_as_group: own.run_as_group.or(of_pod.run_as_group),
        supplemental_groups: groups,
        supplemental_groups_policy: match of_pod.supplemental_groups_policy.as_deref() {
            Some("Strict") => SupplementalGroupsPolicy::Strict,
            _ => SupplementalGroupsPolicy::Merge,
        },
        privileged,
        add_capabilities: capabilities.add.unwrap_or_default(),
        drop_capabilities: capabilities.drop.unwrap_or_default(),
        read_only_root: own.read_only_root_filesystem == Some(true),
        no_new_privileges: own.allow_privilege_escalation == Some(false),
        seccomp_profile: profile,
        apparmor_profile: own.app_armor_profile.or(of_pod.app_armor_profile).map(app_armor),
    })
}

fn app_armor(profile: AppArmorProfile) -> runtime::AppArmorProfile {
    match profile.type_.as_str() {
        "Localhost" => runtime::AppArmorProfile::Localhost(profile.localhost_profile.unwrap_or_default()),
        "RuntimeDefault" => runtime::AppArmorProfile::RuntimeDefault,
        _ => runtime::AppArmorProfile::Unconfined,
    }
}

/// What is not said is not confined, as upstream's kubelet has it without `seccompDefault`.
fn seccomp(profile: SeccompProfile) -> runtime::SeccompProfile {
    match profile.type_.as_str() {
        "Localhost" => runtime::SeccompProfile::Localhost(profile.localhost_profile.unwrap_or_default().into()),
        "RuntimeDefault" => runtime::SeccompProfile::RuntimeDefault,
        _ => runtime::SeccompProfile::Unconfined,
    }
}

/// CPU and memory as a cgroup's numbers: upstream's `MilliCPUToShares` and `MilliCPUToQuota`.
pub(crate) fn resources(container: &Container, qos_class: &str, memory_capacity: i64) -> Resources {
    let lists = container.resources.clone().unwrap_or_default();
    let limits = lists.limits.unwrap_or_default();
    let mut requests = lists.requests.unwrap_or_default();
    for (name, limit) in &limits {
        requests.entry(name.clone()).or_insert_with(|| limit.clone());
    }
    let cpu_limit = amount(&limits, "cpu", Quantity::milli_value).filter(|millis| *millis > 0);
    let memory_request = amount(&requests, "memory", Quantity::value).unwrap_or(0);
    let shares = amount(&requests, "cpu", Quantity::milli_value).unwrap_or(0).saturating_mul(1024) / 1000;
    Resources {
        cpu_shares: Some(u64::try_from(shares).unwrap_or(0).clamp(2, 262_144)),
        cpu_quota_microseconds: cpu_limit.map(|millis| millis.saturating_mul(100).max(1000)),
        cpu_period_microseconds: cpu_limit.map(|_| 100_000),
        memory_limit_bytes: amount(&limits, "memory", Quantity::value).filter(|bytes| *bytes > 0),
        pids_limit: None,
        oom_score_adjust: Some(oom_score(qos_class, memory_request, memory_capacity)),
    }
}

/// Who is killed first when memory runs out: upstream's `GetContainerOOMScoreAdjust`.
fn oom_score(qos_class: &str, memory_request: i64, memory_capacity: i64) -> i32 {
    match qos_class {
        "Guaranteed" => -997,
        "BestEffort" => 1000,
        _ => {
            let share = 1000_i64.saturating_mul(memory_request) / memory_capacity.max(1);
            i32::try_from((1000 - share).clamp(3, 999)).unwrap_or(999)
        }
    }
}

fn amount(list: &BTreeMap<String, Written>, name: &str, unit: fn(&Quantity) -> i64) -> Option<i64> {
    Quantity::try_from(list.get(name)?).ok().map(|quantity| unit(&quantity))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn cgroup_numbers() {
        let container: Container = serde_json::from_value(json!({
            "name": "c", "resources": {"limits": {"cpu": "500m", "memory": "64Mi"}, "requests": {"cpu": "250m"}},
        }))
        .unwrap();
        let resources = resources(&container, "Burstable", 1 << 30);
        assert_eq!(resources.cpu_shares, Some(256));
        assert_eq!(resources.cpu_quota_microseconds, Some(50_000));
        assert_eq!(resources.memory_limit_bytes, Some(64 << 20));
        assert_eq!(resources.oom_score_adjust, Some(938));
    }

    #[test]
    fn non_root() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"securityContext": {"runAsNonRoot": true}, "containers": [{"name": "c"}]},
        }))
        .unwrap();
        let container = &pod::spec(&pod).containers[0];
        let image = |user| Image { name: "i".into(), id: "i".into(), size_bytes: 0, user, pinned: false };
        assert!(security(&pod, container, &image(Some(ImageUser::Id(5)))).is_ok());
        let place = "(pod: \"p_n(u)\", container: c)";
        let error = security(&pod, container, &image(None)).unwrap_err();
        assert_eq!(error, format!("container has runAsNonRoot and image will run as root {place}"));
        let error = security(&pod, container, &image(Some(ImageUser::Name("web".to_owned())))).unwrap_err();
        let named = "container has runAsNonRoot and image has non-numeric user (web), cannot verify user is non-root";
        assert_eq!(error, format!("{named} {place}"));
    }
}
