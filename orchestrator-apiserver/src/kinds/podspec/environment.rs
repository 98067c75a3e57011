//! Environment variables and where their values come from.

use crate::{
    field::{Errors, Field},
    kinds::check,
    names,
};

/// Fields that have a name and cannot be had in either way.
const OTHER_FIELDS: [&str; 4] = ["spec.host", "spec.restartPolicy", "spec.schedulerName", "status.phase"];
const ENVIRONMENT_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
const VOLUME_FIELDS: [&str; 5] =
    ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
const RESOURCES: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
/// What amounts of bytes can be divided by.
const SIZES: [&str; 13] = ["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];
const MANY: &str = "may not have more than one field specified at a time";

/// The rules of a container's variables.
pub(super) fn validate(container: &Field<'_>, errors: &mut Errors) {
    for variable in container.get("env").items() {
        check::needed(&variable.get("name"), check::variable_name, errors);
        value_from(&variable, errors);
    }
    let list = container.get("envFrom");
    for source in list.items() {
        check::given(&source.get("prefix"), check::variable_name, errors);
        let sources: Vec<_> =
            ["configMapRef", "secretRef"].iter().map(|name| source.get(name)).filter(Field::exists).collect();
        for reference in &sources {
            check::needed(&reference.get("name"), names::subdomain, errors);
        }
        match sources.len() {
            0 => list.wrong(errors, "\"\"", "must specify one of: `configMapRef` or `secretRef`"),
            1 => {}
            _ => list.wrong(errors, "\"\"", MANY),
        }
    }
}

fn value_from(variable: &Field<'_>, errors: &mut Errors) {
    let from = variable.get("valueFrom");
    if !from.exists() {
        return;
    }
    let mut sources = 0;
    let mut source = |name: &'static str| Some(from.get(name)).filter(Field::exists).inspect(|_| sources += 1);
    if let Some(field) = source("fieldRef") {
        object_field(&field, &ENVIRONMENT_FIELDS, errors);
    }
    if let Some(resource) = source("resourceFieldRef") {
        resource_field(&resource, false, errors);
    }
    for name in ["configMapKeyRef", "secretKeyRef"] {
        if let Some(reference) = source(name) {
            check::problems(&reference.get("name"), &names::subdomain(reference.get("name").text()), errors);
            check::needed(&reference.get("key"), check::config_key, errors);
        }
    }
    if let Some(file) = source("fileKeyRef") {
        check::needed(&file.get("key"), check::variable_name, errors);
        check::required(&file.get("volumeName"), errors);
        check::required(&file.get("path"), errors);
        check::descending_path(&file.get("path"), errors);
    }
    match sources {
        0 => from.wrong(
            errors,
            "\"\"",
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        ),
        _ if !variable.get("value").text().is_empty() => {
            from.wrong(errors, "\"\"", "may not be specified when `value` is not empty");
        }
        1 => {}
        _ => from.wrong(errors, "\"\"", MANY),
    }
}

/// A field of the pod, as a volume shows it.
pub(super) fn volume_field(field: &Field<'_>, errors: &mut Errors) {
    object_field(field, &VOLUME_FIELDS, errors);
}

fn object_field(field: &Field<'_>, allowed: &[&str], errors: &mut Errors) {
    let (version, path) = (field.get("apiVersion"), field.get("fieldPath"));
    if version.text().is_empty() {
        return version.required(errors, "");
    }
    if version.text() != "v1" {
        return path
            .invalid(errors, &format!("error converting fieldPath: unsupported pod version: {}", version.text()));
    }
    if path.text().is_empty() {
        return path.required(errors, "");
    }
    if let Some((base, key)) = subscript(path.text()) {
        match base {
            "metadata.annotations" => check::label_key_at(field, &key.to_lowercase(), errors),
            "metadata.labels" => check::label_key_at(field, key, errors),
            _ => {
                let detail =
                    format!("error converting fieldPath: field label does not support subscript: {}", path.text());
                path.invalid(errors, &detail);
            }
        }
        return;
    }
    let known = OTHER_FIELDS.contains(&path.text())
        || ENVIRONMENT_FIELDS.contains(&path.text())
        || VOLUME_FIELDS.contains(&path.text());
    if !known {
        path.invalid(errors, &format!("error converting fieldPath: field label not supported: {}", path.text()));
    } else if !allowed.contains(&path.text()) {
        path.not_supported(errors, allowed);
    }
}

/// `metadata.labels['key']` taken apart.
fn subscript(path: &str) -> Option<(&str, &str)> {
    path.strip_suffix("']")?.split_once("['")
}

/// An amount of a container's resources.
pub(super) fn resource_field(field: &Field<'_>, in_volume: bool, errors: &mut Errors) {
    let resource = field.get("resource");
    if in_volume && field.get("containerName").text().is_empty() {
        field.get("containerName").required(errors, "");
    } else if resource.text().is_empty() {
        resource.required(errors, "");
    } else if !RESOURCES.contains(&resource.text()) && !resource.text().contains(".hugepages-") {
        resource.not_supported(errors, &RESOURCES);
    }
    let divisor = field.get("divisor");
    let what = match resource.text() {
        "limits.cpu" | "requests.cpu" => {
            if !matches!(divisor.text(), "" | "0" | "1" | "1m") {
                let detail = "only divisor's values 1m and 1 are supported with the cpu resource";
                divisor.wrong(errors, resource.shown(), detail);
            }
            return;
        }
        "limits.memory" | "requests.memory" => "memory",
        "limits.ephemeral-storage" | "requests.ephemeral-storage" => "local ephemeral storage",
        name if name.contains(".hugepages-") => "hugepages",
        _ => return,
    };
    if !matches!(divisor.text(), "" | "0") && !SIZES.contains(&divisor.text()) {
        let detail = format!("only divisor's values {} are supported with the {what} resource", SIZES.join(", "));
        divisor.wrong(errors, resource.shown(), &detail);
    }
}
