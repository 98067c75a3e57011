//! Environment variables and where their values come from.

use super::all_containers;
use crate::{
    field::{Errors, Field},
    kinds::check,
    names,
};

/// Fields that have a name and cannot be had in either way.
const OTHER_FIELDS: [&str; 3] = ["spec.restartPolicy", "spec.schedulerName", "status.phase"];
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
            check::needed(&reference.get("name"), |name| names::subdomain(&names::as_name(name)), errors);
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
        check::needed(&file.get("volumeName"), names::label, errors);
        check::required(&file.get("path"), errors);
        check::no_backsteps(&file.get("path"), errors);
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

/// Variables come from files of volumes that are made with the pod, so that nobody else's are read.
pub(super) fn files(spec: &Field<'_>, errors: &mut Errors) {
    let volumes = spec.get("volumes").items();
    for variable in all_containers(spec).iter().flat_map(|container| container.get("env").items()) {
        let file = variable.at("valueFrom.fileKeyRef");
        let name = file.get("volumeName");
        if !file.exists() {
            continue;
        }
        match volumes.iter().rfind(|volume| volume.get("name").text() == name.text()) {
            None => name.not_found(errors),
            Some(volume) if volume.get("emptyDir").exists() => {}
            Some(_) => name.invalid(errors, "referenced volume must be of type emptyDir"),
        }
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
    if path.text().is_empty() {
        return path.required(errors, "");
    }
    if version.text() != "v1" {
        return path
            .invalid(errors, &format!("error converting fieldPath: unsupported pod version: {}", version.text()));
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
    // A name of old.
    let name = if path.text() == "spec.host" { "spec.nodeName" } else { path.text() };
    let known = OTHER_FIELDS.contains(&name) || ENVIRONMENT_FIELDS.contains(&name) || VOLUME_FIELDS.contains(&name);
    if !known {
        path.invalid(errors, &format!("error converting fieldPath: field label not supported: {name}"));
    } else if !allowed.contains(&name) {
        path.not_supported_as(errors, &format!("{name:?}"), allowed);
    }
}

/// `metadata.labels['key']` taken apart.
fn subscript(path: &str) -> Option<(&str, &str)> {
    path.strip_suffix("']")?.split_once("['").filter(|(base, _)| !base.is_empty())
}

/// An amount of a container's resources.
pub(super) fn resource_field(field: &Field<'_>, in_volume: bool, errors: &mut Errors) {
    let resource = field.get("resource");
    if in_volume && field.get("containerName").text().is_empty() {
        field.get("containerName").required(errors, "");
    } else if resource.text().is_empty() {
        resource.required(errors, "");
    } else if !RESOURCES.contains(&resource.text()) && !is_huge_pages(resource.text()) {
        resource.not_supported(errors, &RESOURCES);
    }
    divisor(field, &resource, errors);
}

fn is_huge_pages(resource: &str) -> bool {
    ["requests.hugepages-", "limits.hugepages-"].iter().any(|prefix| resource.starts_with(prefix))
}

fn divisor(field: &Field<'_>, resource: &Field<'_>, errors: &mut Errors) {
    let divisor = field.get("divisor");
    let Some(unit) = check::quantity(&divisor).filter(|unit| !unit.is_zero()).map(|unit| unit.to_string()) else {
        return;
    };
    let what = match resource.text() {
        "limits.cpu" | "requests.cpu" => {
            if !matches!(unit.as_str(), "1" | "1m") {
                let detail = "only divisor's values 1m and 1 are supported with the cpu resource";
                divisor.wrong(errors, resource.shown(), detail);
            }
            return;
        }
        "limits.memory" | "requests.memory" => "memory",
        "limits.ephemeral-storage" | "requests.ephemeral-storage" => "local ephemeral storage",
        name if is_huge_pages(name) => "hugepages",
        _ => return,
    };
    if !SIZES.contains(&unit.as_str()) {
        let detail = format!("only divisor's values {} are supported with the {what} resource", SIZES.join(", "));
        divisor.wrong(errors, resource.shown(), &detail);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn told(rule: fn(&Field<'_>, &mut Errors), tree: Value) -> Vec<String> {
        let mut errors = Errors::default();
        rule(&Field::root(&tree), &mut errors);
        errors.into_vec().into_iter().map(|error| format!("{}: {}", error.field, error.detail)).collect()
    }

    #[test]
    fn fields_are_those_of_upstream() {
        let rule: fn(&Field<'_>, &mut Errors) = |field, errors| object_field(field, &ENVIRONMENT_FIELDS, errors);
        let of = |version: &str, path: &str| told(rule, json!({"apiVersion": version, "fieldPath": path}));
        assert_eq!(of("v1", "spec.host"), [""; 0]);
        assert_eq!(of("v1", "metadata.labels['a']"), [""; 0]);
        assert_eq!(of("v2", ""), ["fieldPath: "]);
        assert_eq!(
            of("v2", "metadata.name"),
            ["fieldPath: \"metadata.name\": error converting fieldPath: unsupported pod version: v2"]
        );
        assert_eq!(
            of("v1", "['a']"),
            ["fieldPath: \"['a']\": error converting fieldPath: field label not supported: ['a']"]
        );
        assert!(of("v1", "status.phase")[0].starts_with("fieldPath: \"status.phase\": supported values: "));
    }

    #[test]
    fn units_are_known_however_they_are_written() {
        let rule: fn(&Field<'_>, &mut Errors) = |field, errors| resource_field(field, false, errors);
        let of = |resource: &str, unit: &str| told(rule, json!({"resource": resource, "divisor": unit})).len();
        assert_eq!((of("limits.cpu", "1000m"), of("limits.cpu", "0m"), of("limits.cpu", "2")), (0, 0, 1));
        assert_eq!((of("requests.memory", "1024"), of("requests.memory", "1Ki")), (1, 0));
        assert_eq!((of("requests.hugepages-2Mi", "1Mi"), of("my.hugepages-2Mi", "1Mi")), (0, 1));
    }

    #[test]
    fn files_are_those_of_empty_directories() {
        let variable = |volume: &str| json!({"name": "a", "valueFrom": {"fileKeyRef": {"volumeName": volume}}});
        let spec = json!({
            "volumes": [{"name": "e", "emptyDir": {}}, {"name": "h", "hostPath": {"path": "/x"}}],
            "containers": [{"env": [variable("e"), variable("h"), variable("n")]}],
        });
        assert_eq!(
            told(files, spec),
            [
                "containers[0].env[1].valueFrom.fileKeyRef.volumeName: \"h\": referenced volume must be of type emptyDir",
                "containers[0].env[2].valueFrom.fileKeyRef.volumeName: \"n\"",
            ]
        );
    }
}
