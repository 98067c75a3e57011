//! Security contexts of pods and containers.

use std::collections::BTreeSet;

use orchestrator_core::status::FieldErrorKind;
use serde_json::Value;

use super::{all_containers, windows};
use crate::{
    field::{Errors, Field},
    kinds::{check, go},
};

const LARGEST_ID: i64 = i32::MAX as i64;
/// Length of the name of a profile, in bytes: that of the longest path.
const PROFILE_BYTES: usize = 4095;
const PROFILES: [&str; 3] = ["Localhost", "RuntimeDefault", "Unconfined"];
/// What kernel settings of a namespace begin with.
const NET_SYSCTLS: &[&str] = &["net."];
const IPC_SYSCTLS: &[&str] = &["kernel.msg", "kernel.shm", "fs.mqueue."];
/// A setting of a namespace that has no others beside it.
const IPC_SYSCTL: &str = "kernel.sem";

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
    seccomp(&context.get("seccompProfile"), errors);
    windows::options(&context.get("windowsOptions"), errors);
    app_armor(&context.get("appArmorProfile"), errors);
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

/// With users of its own a pod shares no other namespace with the host, and no devices, which cannot be given to others.
pub(super) fn host_users(spec: &Field<'_>, errors: &mut Errors) {
    const WHY: &str = "when `hostUsers` is false";
    if spec.get("hostUsers").bool() != Some(false) {
        return;
    }
    for (name, place) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
        if spec.get(name).bool() == Some(true) {
            spec.get(place).forbidden(errors, WHY);
        }
    }
    for devices in all_containers(spec).iter().map(|container| container.get("volumeDevices")) {
        if devices.len() > 0 {
            devices.forbidden(errors, WHY);
        }
    }
}

fn sysctls(spec: &Field<'_>, sysctls: &Field<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for sysctl in sysctls.items() {
        let name = sysctl.get("name");
        if name.text().is_empty() {
            name.required(errors, "");
        } else if !name.text().split(['.', '/']).all(is_sysctl_part) || name.text().len() > 253 {
            let format = "([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?";
            name.invalid(errors, &format!("must have at most 253 characters and match regex ^{format}$"));
        } else if seen.contains(&name.text()) {
            name.duplicate(errors);
        }
        for (shared, parts) in [("hostNetwork", NET_SYSCTLS), ("hostIPC", IPC_SYSCTLS)] {
            let plain = name.text().replace('/', ".");
            let is_of_it =
                parts.iter().any(|part| plain.starts_with(part)) || (shared == "hostIPC" && plain == IPC_SYSCTL);
            if spec.get(shared).bool() == Some(true) && is_of_it {
                name.invalid(errors, &format!("may not be specified when '{shared}' is true"));
            }
        }
        seen.insert(name.text());
    }
}

/// Begins and ends with a letter or digit, hyphens and underscores between.
fn is_sysctl_part(text: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let edge = |byte: Option<&u8>| byte.is_some_and(|byte| known(*byte));
    edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(|byte| known(*byte) || b"-_".contains(byte))
}

/// A filter of system calls: only a local one has a path.
fn seccomp(profile: &Field<'_>, errors: &mut Errors) {
    if !profile.exists() {
        return;
    }
    let (of, path) = (profile.get("type"), profile.get("localhostProfile"));
    match of.text() {
        "" => of.required(errors, "type is required when seccompProfile is set"),
        "Localhost" | "RuntimeDefault" | "Unconfined" => {}
        _ => of.not_supported(errors, &PROFILES),
    }
    if of.text() != "Localhost" {
        if path.exists() {
            let shown = go::show("Profile", profile.value().unwrap_or(&Value::Null));
            path.wrong(errors, shown, "can only be set when seccomp type is Localhost");
        }
    } else if path.exists() {
        check::descending_path(&path, errors);
    } else {
        path.required(errors, "must be set when seccomp type is Localhost");
    }
}

/// A profile of AppArmor: only a local one has a name.
fn app_armor(profile: &Field<'_>, errors: &mut Errors) {
    const MISSING: &str = "must be set when AppArmor type is Localhost";
    if !profile.exists() {
        return;
    }
    let (of, name) = (profile.get("type"), profile.get("localhostProfile"));
    match of.text() {
        "" => of.required(errors, "type is required when appArmorProfile is set"),
        "Localhost" => {
            if name.text().trim() != name.text() {
                name.invalid(errors, "must not be padded with whitespace");
            } else if name.text().is_empty() {
                name.required(errors, MISSING);
            }
            if name.text().len() > PROFILE_BYTES {
                let detail = format!("may not be more than {PROFILE_BYTES} bytes");
                name.error(errors, FieldErrorKind::TooLong, detail);
            }
        }
        "RuntimeDefault" | "Unconfined" if name.exists() => {
            name.invalid(errors, "can only be set when AppArmor type is Localhost");
        }
        "RuntimeDefault" | "Unconfined" => {}
        _ => of.not_supported(errors, &PROFILES),
    }
}

/// The rules of the security of a container.
pub(super) fn validate_container(container: &Field<'_>, host_users: bool, errors: &mut Errors) {
    let context = container.get("securityContext");
    if !context.exists() {
        return;
    }
    check::in_range(&context.get("runAsUser"), 0, LARGEST_ID, errors);
    check::in_range(&context.get("runAsGroup"), 0, LARGEST_ID, errors);
    let processes = context.get("procMount");
    processes.one_of(errors, &["Default", "Unmasked"]);
    if host_users && processes.text() == "Unmasked" {
        processes.invalid(errors, "`hostUsers` must be false to use `Unmasked`");
    }
    seccomp(&context.get("seccompProfile"), errors);
    escalation(&context, errors);
    windows::options(&context.get("windowsOptions"), errors);
    app_armor(&context.get("appArmorProfile"), errors);
}

/// What has all rights cannot be kept from getting more.
fn escalation(context: &Field<'_>, errors: &mut Errors) {
    if context.get("allowPrivilegeEscalation").bool() != Some(false) {
        return;
    }
    let shown = || go::show("SecurityContext", context.value().unwrap_or(&Value::Null));
    if context.get("privileged").bool() == Some(true) {
        context.wrong(errors, shown(), "cannot set `allowPrivilegeEscalation` to false and `privileged` to true");
    }
    let added = context.at("capabilities.add").items();
    for _ in added.iter().filter(|capability| capability.text() == "CAP_SYS_ADMIN") {
        let detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
        context.wrong(errors, shown(), detail);
    }
}
