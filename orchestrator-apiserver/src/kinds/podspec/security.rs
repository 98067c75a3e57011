//! Security contexts of pods and containers.

use serde_json::Value;

use crate::{
    field::{Errors, Field},
    kinds::{check, go},
};

const LARGEST_ID: i64 = i32::MAX as i64;
/// What kernel settings of a namespace begin with.
const NET_SYSCTLS: &[&str] = &["net."];
const IPC_SYSCTLS: &[&str] = &["kernel.msg", "kernel.sem", "kernel.shm", "fs.mqueue."];

/// The rules of the security of a whole pod.
pub(super) fn validate_pod(spec: &Field<'_>, errors: &mut Errors) {
    let context = spec.get("securityContext");
    for name in ["fsGroup", "runAsUser", "runAsGroup"] {
        check::in_range(&context.get(name), 0, LARGEST_ID, errors);
    }
    for group in context.get("supplementalGroups").items() {
        check::in_range(&group, 0, LARGEST_ID, errors);
    }
    if spec.get("shareProcessNamespace").bool() == Some(true) && spec.get("hostPID").bool() == Some(true) {
        let share = context.get("shareProcessNamespace");
        share.wrong(errors, true, "ShareProcessNamespace and HostPID cannot both be enabled");
    }
    sysctls(spec, &context.get("sysctls"), errors);
    context.get("fsGroupChangePolicy").one_of(errors, &["Always", "OnRootMismatch"]);
    profiles(&context, errors);
    context.get("supplementalGroupsPolicy").one_of(errors, &["Merge", "Strict"]);
    context.get("seLinuxChangePolicy").one_of(errors, &["MountOption", "Recursive"]);
}

/// On the host's network a port is the host's port.
pub(super) fn host_ports(spec: &Field<'_>, errors: &mut Errors) {
    if spec.get("hostNetwork").bool() != Some(true) {
        return;
    }
    for port in spec.get("containers").items().iter().flat_map(|container| container.get("ports").items()) {
        let (host, number) = (port.get("hostPort"), port.get("containerPort"));
        if host.int().is_some_and(|host| host != 0 && Some(host) != number.int()) {
            host.invalid(errors, "must match `containerPort` when `hostNetwork` is true");
        }
    }
}

/// With users of its own a pod shares no other namespace with the host.
pub(super) fn host_users(spec: &Field<'_>, errors: &mut Errors) {
    if spec.get("hostUsers").bool() != Some(false) {
        return;
    }
    for (name, place) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
        if spec.get(name).bool() == Some(true) {
            spec.get(place).forbidden(errors, "when `pod.Spec.HostUsers` is false");
        }
    }
}

fn sysctls(spec: &Field<'_>, sysctls: &Field<'_>, errors: &mut Errors) {
    let mut seen = Vec::new();
    for sysctl in sysctls.items() {
        let name = sysctl.get("name");
        let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-/".contains(&byte);
        if name.text().is_empty() {
            name.required(errors, "");
        } else if !name.text().bytes().all(known) || name.text().len() > 253 {
            let format = "([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?";
            name.invalid(errors, &format!("must have at most 253 characters and match regex ^{format}$"));
        } else if seen.contains(&name.text()) {
            name.duplicate(errors);
        }
        for (shared, parts) in [("hostNetwork", NET_SYSCTLS), ("hostIPC", IPC_SYSCTLS)] {
            let plain = name.text().replace('/', ".");
            if spec.get(shared).bool() == Some(true) && parts.iter().any(|part| plain.starts_with(part)) {
                name.invalid(errors, &format!("may not be specified when '{shared}' is true"));
            }
        }
        seen.push(name.text());
    }
}

/// Profiles of seccomp and AppArmor: only a local one has a path.
fn profiles(context: &Field<'_>, errors: &mut Errors) {
    for (profile, words) in [("seccompProfile", "seccomp"), ("appArmorProfile", "AppArmor")] {
        let profile = context.get(profile);
        if !profile.exists() {
            continue;
        }
        let (of, path) = (profile.get("type"), profile.get("localhostProfile"));
        match of.text() {
            "" => of.required(
                errors,
                &format!(
                    "type is required when {} is set",
                    if words == "seccomp" { "seccompProfile" } else { "appArmorProfile" }
                ),
            ),
            "Localhost" if path.text().is_empty() => {
                path.required(errors, &format!("must be set when {words} type is Localhost"));
            }
            "Localhost" => check::descending_path(&path, errors),
            "RuntimeDefault" | "Unconfined" if path.exists() => {
                path.invalid(errors, &format!("can only be set when {words} type is Localhost"));
            }
            "RuntimeDefault" | "Unconfined" => {}
            _ => of.not_supported(errors, &["Localhost", "RuntimeDefault", "Unconfined"]),
        }
    }
}

/// The rules of the security of a container.
pub(super) fn validate_container(container: &Field<'_>, errors: &mut Errors) {
    let context = container.get("securityContext");
    check::in_range(&context.get("runAsUser"), 0, LARGEST_ID, errors);
    check::in_range(&context.get("runAsGroup"), 0, LARGEST_ID, errors);
    context.get("procMount").one_of(errors, &["Default", "Unmasked"]);
    profiles(&context, errors);
    if context.get("allowPrivilegeEscalation").bool() != Some(false) {
        return;
    }
    let shown = || go::show("SecurityContext", context.value().unwrap_or(&Value::Null));
    if context.get("privileged").bool() == Some(true) {
        context.wrong(errors, shown(), "cannot set `allowPrivilegeEscalation` to false and `privileged` to true");
    }
    let added = context.at("capabilities.add").items();
    if added.iter().any(|capability| capability.text() == "CAP_SYS_ADMIN") {
        let detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
        context.wrong(errors, shown(), detail);
    }
}
