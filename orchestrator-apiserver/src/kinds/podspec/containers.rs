//! Containers of all three sorts: those of the application, those that prepare it, those for debugging.

use std::collections::BTreeSet;

use orchestrator_core::status::FieldErrorKind;

use super::{Context, environment, probes, resources, security};
use crate::{
    field::{Errors, Field},
    kinds::check,
    names,
};

const NO_POLICY: &str = "must specify restartPolicy when restart rules are used";
const RESTART_RULES: usize = 20;
const EXIT_CODES: usize = 255;

/// The rules of all containers of a pod.
pub(super) fn validate(spec: &Field<'_>, context: &Context<'_>, errors: &mut Errors) {
    let containers = spec.get("containers");
    let mut names = BTreeSet::new();
    if containers.len() == 0 {
        containers.required(errors, "");
    }
    for container in containers.items() {
        if errors.is_full() {
            return;
        }
        common(&container, context, errors);
        unique_name(&container, &mut names, errors);
        probes::validate(&container, context, errors);
        restart(&container, errors);
    }
    unique_host_ports(&containers, errors);
    for container in spec.get("initContainers").items() {
        if errors.is_full() {
            return;
        }
        common(&container, context, errors);
        init_restart(&container, errors);
        // Names that are missing are told as such, not as repeated.
        if !container.get("name").text().is_empty() || names.contains("") {
            unique_name(&container, &mut names, errors);
        }
        init_container(&container, context, errors);
    }
    for container in spec.get("ephemeralContainers").items() {
        ephemeral(&container, spec, context, &mut names, errors);
    }
}

fn unique_name<'a>(container: &Field<'a>, names: &mut BTreeSet<&'a str>, errors: &mut Errors) {
    let name = container.get("name");
    if !names.insert(name.text()) {
        name.duplicate(errors);
    }
}

fn common(container: &Field<'_>, context: &Context<'_>, errors: &mut Errors) {
    check::needed(&container.get("name"), names::label, errors);
    let image = container.get("image");
    if image.text().is_empty() {
        image.required(errors, "");
    }
    container.get("terminationMessagePolicy").one_of(errors, &["File", "FallbackToLogsOnError"]);
    ports(container, errors);
    environment::validate(container, errors);
    volume_mounts(container, context, errors);
    volume_devices(container, context, errors);
    container.get("imagePullPolicy").one_of(errors, &["Always", "IfNotPresent", "Never"]);
    resources::of_container(&container.get("resources"), &context.claims, errors);
    resize_policy(container, context, errors);
    security::validate_container(container, context.host_users, errors);
}

/// What a pod runs has a bare name. Templates may have a text that something else replaces later.
pub(super) fn bare_image(container: &Field<'_>, errors: &mut Errors) {
    let image = container.get("image");
    if image.text().trim() != image.text() {
        image.invalid(errors, "must not have leading or trailing whitespace");
    }
}

fn ports(container: &Field<'_>, errors: &mut Errors) {
    let mut names = BTreeSet::new();
    for port in container.get("ports").items() {
        let name = port.get("name");
        if !name.text().is_empty() {
            let problems = check::port_name_problems(name.text());
            for problem in &problems {
                name.invalid(errors, problem);
            }
            if problems.is_empty() && names.contains(&name.text()) {
                name.duplicate(errors);
            }
            names.insert(name.text());
        }
        let number = port.get("containerPort");
        if number.int().unwrap_or(0) == 0 {
            number.required(errors, "");
        } else {
            check::port_number(&number, errors);
        }
        let host = port.get("hostPort");
        if host.int().unwrap_or(0) != 0 {
            check::port_number(&host, errors);
        }
        let protocol = port.get("protocol");
        if protocol.text().is_empty() {
            protocol.required(errors, "");
        } else {
            protocol.one_of(errors, &["SCTP", "TCP", "UDP"]);
        }
    }
}

fn unique_host_ports(containers: &Field<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for port in containers.items().iter().flat_map(|container| container.get("ports").items()) {
        let number = port.get("hostPort").int().unwrap_or(0);
        if number == 0 {
            continue;
        }
        let text = format!("{}/{}/{number}", port.get("protocol").text(), port.get("hostIP").text());
        if !seen.insert(text.clone()) {
            port.get("hostPort").error(errors, FieldErrorKind::Duplicate, format!("{text:?}"));
        }
    }
}

fn volume_mounts(container: &Field<'_>, context: &Context<'_>, errors: &mut Errors) {
    let mut paths = BTreeSet::new();
    let devices = container.get("volumeDevices").items();
    let device_names: BTreeSet<_> = devices.iter().map(|device| device.get("name").text()).collect();
    let device_paths: BTreeSet<_> = devices.iter().map(|device| device.get("devicePath").text()).collect();
    for mount in container.get("volumeMounts").items() {
        let (name, path) = (mount.get("name"), mount.get("mountPath"));
        if name.text().is_empty() {
            name.required(errors, "");
        }
        if !context.volumes.contains_key(name.text()) {
            name.not_found(errors);
        }
        if path.text().is_empty() {
            path.required(errors, "");
        }
        if paths.contains(&path.text()) {
            path.invalid(errors, "must be unique");
        }
        paths.insert(path.text());
        if device_names.contains(name.text()) {
            name.invalid(errors, "must not already exist in volumeDevices");
        }
        if device_paths.contains(path.text()) {
            path.invalid(errors, "must not already exist as a path in volumeDevices");
        }
        // What concerns the part that is mounted is told without the number of the mount.
        let place = |name: &'static str| mount.get(name).shown_at(format!("{}.volumeMounts.{name}", container.path()));
        let expression = mount.get("subPathExpr");
        check::descending_path(&place("subPath"), errors);
        if !expression.text().is_empty() && !mount.get("subPath").text().is_empty() {
            expression.invalid(errors, "subPathExpr and subPath are mutually exclusive");
        }
        check::descending_path(&place("subPathExpr"), errors);
        propagation(container, &place("mountPropagation"), errors);
        recursive(&mount, &place("recursiveReadOnly"), errors);
    }
}

fn propagation(container: &Field<'_>, propagation: &Field<'_>, errors: &mut Errors) {
    propagation.one_of(errors, &["Bidirectional", "HostToContainer", "None"]);
    let privileged = container.at("securityContext.privileged").bool() == Some(true);
    if propagation.text() == "Bidirectional" && !privileged {
        propagation.forbidden(errors, "Bidirectional mount propagation is available only to privileged containers");
    }
}

fn recursive(mount: &Field<'_>, recursive: &Field<'_>, errors: &mut Errors) {
    recursive.one_of(errors, &["Disabled", "Enabled", "IfPossible"]);
    if !matches!(recursive.text(), "Enabled" | "IfPossible") {
        return;
    }
    if mount.get("readOnly").bool() != Some(true) {
        recursive.forbidden(errors, "may only be specified when readOnly is true");
    }
    if !matches!(mount.get("mountPropagation").text(), "" | "None") {
        recursive.forbidden(errors, "may only be specified when mountPropagation is None or not specified");
    }
}

fn volume_devices(container: &Field<'_>, context: &Context<'_>, errors: &mut Errors) {
    let (mut names, mut paths) = (BTreeSet::new(), BTreeSet::new());
    let mounts = container.get("volumeMounts").items();
    let mount_names: BTreeSet<_> = mounts.iter().map(|mount| mount.get("name").text()).collect();
    let mount_paths: BTreeSet<_> = mounts.iter().map(|mount| mount.get("mountPath").text()).collect();
    for device in container.get("volumeDevices").items() {
        let (name, path) = (device.get("name"), device.get("devicePath"));
        if name.text().is_empty() {
            name.required(errors, "");
        }
        if names.contains(&name.text()) {
            name.invalid(errors, "must be unique");
        }
        match context.volumes.get(name.text()) {
            None => name.not_found(errors),
            Some(volume) if volume.get("persistentVolumeClaim").exists() || volume.get("ephemeral").exists() => {}
            Some(_) => name.invalid(
                errors,
                "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode",
            ),
        }
        if path.text().is_empty() {
            path.required(errors, "");
        }
        if paths.contains(&path.text()) {
            path.invalid(errors, "must be unique");
        }
        let steps_back = path.text().split('/').any(|part| part == "..");
        if steps_back {
            path.invalid(errors, "can not contain backsteps ('..')");
        } else {
            paths.insert(path.text());
        }
        if mount_names.contains(name.text()) {
            name.invalid(errors, "must not already exist in volumeMounts");
        }
        if mount_paths.contains(path.text()) {
            path.invalid(errors, "must not already exist as a path in volumeMounts");
        }
        if !name.text().is_empty() {
            names.insert(name.text());
        }
    }
}

fn resize_policy(container: &Field<'_>, context: &Context<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    let policies = container.get("resizePolicy");
    for policy in policies.items() {
        // Errors do not tell which of the policies they mean.
        let resource = policy.get("resourceName").shown_at(policies.path());
        if seen.contains(&resource.text()) {
            policy.error(errors, FieldErrorKind::Duplicate, resource.shown());
        }
        seen.insert(resource.text());
        if resource.text().is_empty() {
            resource.required(errors, "");
        } else {
            resource.one_of(errors, &["cpu", "memory"]);
        }
        let restart = policy.get("restartPolicy").shown_at(policies.path());
        if restart.text().is_empty() {
            restart.required(errors, "");
        } else {
            restart.one_of(errors, &["NotRequired", "RestartContainer"]);
        }
        if context.restart_policy == "Never" && restart.text() != "NotRequired" {
            restart.invalid(errors, "must be 'NotRequired' when pod `restartPolicy` is 'Never'");
        }
    }
}

/// A container may overrule how the pod restarts it.
fn restart(container: &Field<'_>, errors: &mut Errors) {
    let policy = container.get("restartPolicy");
    policy.one_of(errors, &["Always", "Never", "OnFailure"]);
    let rules = container.get("restartPolicyRules");
    if rules.len() > 0 && !policy.exists() {
        policy.required(errors, NO_POLICY);
    }
    at_most(&rules, RESTART_RULES, errors);
    for rule in rules.items() {
        let (action, codes) = (rule.get("action"), rule.get("exitCodes"));
        one_known(&action, &["Restart", "RestartAllContainers"], errors);
        if codes.exists() {
            one_known(&codes.get("operator"), &["In", "NotIn"], errors);
            at_most(&codes.get("values"), EXIT_CODES, errors);
        } else {
            codes.required(errors, "must be specified");
        }
    }
}

/// Refuses a text that is not one of the known ones, be it missing.
fn one_known(field: &Field<'_>, known: &[&str], errors: &mut Errors) {
    if !known.contains(&field.text()) {
        field.not_supported(errors, known);
    }
}

fn at_most(list: &Field<'_>, most: usize, errors: &mut Errors) {
    if list.len() > most {
        list.error(errors, FieldErrorKind::TooMany, format!("{}: must have at most {most} items", list.len()));
    }
}

/// Rules of a container without a policy are not looked at any further, where the container prepares others.
fn init_restart(container: &Field<'_>, errors: &mut Errors) {
    let policy = container.get("restartPolicy");
    if policy.exists() {
        restart(container, errors);
    } else if container.get("restartPolicyRules").len() > 0 {
        policy.required(errors, NO_POLICY);
    }
}

fn init_container(container: &Field<'_>, context: &Context<'_>, errors: &mut Errors) {
    const OF_SIDECARS: &str = "may not be set for init containers without restartPolicy=Always";
    unique_host_ports_of(container, context, errors);
    if container.get("restartPolicy").text() == "Always" {
        return probes::validate(container, context, errors);
    }
    for name in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
        let member = container.get(name);
        if member.exists() {
            member.forbidden(errors, OF_SIDECARS);
        }
    }
    for policy in container.get("resizePolicy").items() {
        let restart = policy.get("restartPolicy");
        if restart.text() == "RestartContainer" {
            restart.invalid(errors, "must not be set to 'RestartContainer' for non-sidecar initContainers");
        }
    }
}

/// Those that prepare others run one by one, so that each is looked at alone; errors take it for the first.
fn unique_host_ports_of(container: &Field<'_>, context: &Context<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    let place = format!("{}.initContainers[0].ports", context.place);
    for port in container.get("ports").shown_at(place).items() {
        let number = port.get("hostPort").int().unwrap_or(0);
        let text = format!("{}/{}/{number}", port.get("protocol").text(), port.get("hostIP").text());
        if number != 0 && !seen.insert(text.clone()) {
            port.get("hostPort").error(errors, FieldErrorKind::Duplicate, format!("{text:?}"));
        }
    }
}

fn ephemeral<'a>(
    container: &Field<'a>,
    spec: &Field<'a>,
    context: &Context<'a>,
    names: &mut BTreeSet<&'a str>,
    errors: &mut Errors,
) {
    common(container, context, errors);
    bare_image(container, errors);
    unique_name(container, names, errors);
    let target = container.get("targetContainerName");
    let mut known = spec.get("containers").items().into_iter().chain(spec.get("initContainers").items());
    if !target.text().is_empty() && !known.any(|known| known.get("name").text() == target.text()) {
        target.not_found(errors);
    }
    for name in [
        "ports",
        "resources",
        "resizePolicy",
        "restartPolicy",
        "restartPolicyRules",
        "livenessProbe",
        "readinessProbe",
        "startupProbe",
        "lifecycle",
    ] {
        let member = container.get(name);
        // Resources are always there, with nothing in them.
        if member.exists() && (name != "resources" || member.len() > 0) {
            member.forbidden(errors, "cannot be set for an Ephemeral Container");
        }
    }
    for mount in container.get("volumeMounts").items() {
        for name in ["subPath", "subPathExpr"] {
            if !mount.get(name).text().is_empty() {
                mount.get(name).forbidden(errors, "cannot be set for an Ephemeral Container");
            }
        }
    }
}
