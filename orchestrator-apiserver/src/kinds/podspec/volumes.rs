//! The volumes of a pod.

use orchestrator_core::status::FieldErrorKind;

use crate::{
    field::{Errors, Field},
    kinds::{check, storage},
    names,
};

const DRIVER_NAME_BYTES: usize = 63;

/// What a projected volume is made of.
const PROJECTIONS: [&str; 6] =
    ["secret", "configMap", "downwardAPI", "serviceAccountToken", "clusterTrustBundle", "podCertificate"];

/// The sources of a volume, in upstream's order.
const SOURCES: [&str; 31] = [
    "emptyDir",
    "hostPath",
    "gitRepo",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "flocker",
    "persistentVolumeClaim",
    "rbd",
    "cinder",
    "cephfs",
    "quobyte",
    "downwardAPI",
    "fc",
    "configMap",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "storageos",
    "projected",
    "scaleIO",
    "csi",
    "ephemeral",
    "image",
    "podCertificate",
    "local",
];

/// The rules of all volumes of a pod. Gives those that keep them, which containers can mount.
pub(super) fn validate<'a>(volumes: &Field<'a>, errors: &mut Errors) -> Vec<Field<'a>> {
    let mut good: Vec<Field<'a>> = Vec::new();
    for volume in volumes.items() {
        let name = volume.get("name");
        let mut own = Errors::default();
        source(&volume, &mut own);
        check::needed(&name, names::label, &mut own);
        if good.iter().any(|other| other.get("name").text() == name.text()) {
            name.duplicate(&mut own);
        }
        if own.is_empty() {
            good.push(volume);
        } else {
            errors.extend(own);
        }
    }
    good
}

fn source(volume: &Field<'_>, errors: &mut Errors) {
    let mut found = 0;
    for kind in SOURCES {
        let source = volume.get(kind);
        if !source.exists() {
            continue;
        }
        found += 1;
        if found > 1 {
            source.forbidden(errors, "may not specify more than 1 volume type");
        } else {
            one_source(kind, &source, errors);
        }
    }
    if found == 0 {
        volume.required(errors, "must specify a volume type");
    }
}

fn one_source(kind: &str, source: &Field<'_>, errors: &mut Errors) {
    match kind {
        "emptyDir" => {
            if check::quantity(&source.get("sizeLimit")).is_some_and(|size| size.sign() < 0) {
                source.get("sizeLimit").forbidden(errors, "SizeLimit field must be a valid resource quantity");
            }
        }
        "secret" => files_of(source, "secretName", errors),
        "configMap" => files_of(source, "name", errors),
        "persistentVolumeClaim" => check::required(&source.get("claimName"), errors),
        "downwardAPI" => {
            check::file_mode(&source.get("defaultMode"), errors);
            downward_items(source, errors);
        }
        "projected" => projected(source, errors),
        "csi" => driver_name(&source.get("driver"), errors),
        "ephemeral" => {
            let template = source.get("volumeClaimTemplate");
            if template.exists() {
                storage::validate_claim_spec(&template.get("spec"), errors);
            } else {
                template.required(errors, "");
            }
        }
        _ => plain_source(kind, source, errors),
    }
}

/// The rules of sources that pods and persistent volumes share.
pub(crate) fn plain_source(kind: &str, source: &Field<'_>, errors: &mut Errors) {
    let required: &[&str] = match kind {
        "hostPath" => return host_path(source, errors),
        "nfs" => return nfs(source, errors),
        "gcePersistentDisk" => &["pdName"],
        "awsElasticBlockStore" | "cinder" => &["volumeID"],
        "iscsi" => &["targetPortal", "iqn"],
        "glusterfs" => &["endpoints", "path"],
        "rbd" => &["monitors", "image"],
        "cephfs" => &["monitors"],
        "azureFile" => &["secretName", "shareName"],
        "vsphereVolume" => &["volumePath"],
        "photonPersistentDisk" => &["pdID"],
        "portworxVolume" => &["volumeID"],
        "azureDisk" => &["diskName", "diskURI"],
        "gitRepo" => &["repository"],
        "quobyte" => &["registry", "volume"],
        "scaleIO" => &["gateway", "system", "volumeName"],
        _ => &[],
    };
    for name in required {
        if source.get(name).len() == 0 {
            source.get(name).required(errors, "");
        }
    }
}

/// The name of a driver: a domain in any case.
pub(crate) fn driver_name(name: &Field<'_>, errors: &mut Errors) {
    if name.text().is_empty() {
        name.required(errors, "");
    }
    if name.text().len() > DRIVER_NAME_BYTES {
        let detail = format!("may not be more than {DRIVER_NAME_BYTES} bytes");
        name.error(errors, FieldErrorKind::TooLong, detail);
    }
    check::problems(name, &names::subdomain(&name.text().to_lowercase()), errors);
}

fn host_path(source: &Field<'_>, errors: &mut Errors) {
    let path = source.get("path");
    if path.text().is_empty() {
        return path.required(errors, "");
    }
    check::no_backsteps(&path, errors);
    let known = ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
    source.get("type").one_of(errors, &known);
}

fn nfs(source: &Field<'_>, errors: &mut Errors) {
    check::required(&source.get("server"), errors);
    let path = source.get("path");
    check::required(&path, errors);
    if !path.text().starts_with('/') {
        path.invalid(errors, "must be an absolute path");
    }
}

fn files_of(source: &Field<'_>, name: &str, errors: &mut Errors) {
    check::required(&source.get(name), errors);
    check::file_mode(&source.get("defaultMode"), errors);
    file_items(source, errors);
}

/// The rules of files that are made of the keys of an object.
fn file_items(source: &Field<'_>, errors: &mut Errors) {
    for item in source.get("items").items() {
        check::required(&item.get("key"), errors);
        local_path(&item.get("path"), errors);
        check::file_mode(&item.get("mode"), errors);
    }
}

/// The rules of a path below a volume. Names with two dots in front belong to the volume.
fn local_path(path: &Field<'_>, errors: &mut Errors) {
    if path.text().is_empty() {
        return path.required(errors, "");
    }
    check::descending_path(path, errors);
    if path.text().starts_with("..") && !path.text().starts_with("../") {
        path.invalid(errors, "must not start with '..'");
    }
}

fn downward_items(source: &Field<'_>, errors: &mut Errors) {
    for item in source.get("items").items() {
        // Errors do not tell which of the files they mean.
        let item = item.shown_at(source.path());
        local_path(&item.get("path"), errors);
        let (field, resource) = (item.get("fieldRef"), item.get("resourceFieldRef"));
        match (field.exists(), resource.exists()) {
            (true, both) => {
                super::environment::volume_field(&field, errors);
                if both {
                    item.wrong(
                        errors,
                        "\"resource\"",
                        "fieldRef and resourceFieldRef can not be specified simultaneously",
                    );
                }
            }
            (false, true) => super::environment::resource_field(&resource, true, errors),
            (false, false) => item.required(errors, "one of fieldRef and resourceFieldRef is required"),
        }
        check::file_mode(&item.get("mode"), errors);
    }
}

fn projected(source: &Field<'_>, errors: &mut Errors) {
    check::file_mode(&source.get("defaultMode"), errors);
    let mut paths = Vec::new();
    for part in source.get("sources").items() {
        let mut found = 0;
        for kind in PROJECTIONS {
            let projection = part.get(kind);
            if !projection.exists() {
                continue;
            }
            found += 1;
            one_projection(kind, source, &projection, errors);
            // Each path is taken once, by whatever source.
            let items = projection.get("items").items();
            let own = items.iter().map(|item| item.get("path")).chain([projection.get("path")]);
            for path in own.filter(|path| !path.text().is_empty() && kind != "serviceAccountToken") {
                if paths.contains(&path.text()) {
                    let named = matches!(kind, "secret" | "configMap");
                    let shown = if named { projection.get("name").shown() } else { path.shown() };
                    source.wrong(errors, shown, "conflicting duplicate paths");
                }
                paths.push(path.text());
            }
        }
        if found > 1 {
            part.forbidden(errors, "may not specify more than 1 volume type");
        }
    }
}

fn one_projection(kind: &str, source: &Field<'_>, projection: &Field<'_>, errors: &mut Errors) {
    match kind {
        "secret" | "configMap" => {
            check::required(&projection.get("name"), errors);
            file_items(projection, errors);
        }
        "downwardAPI" => downward_items(projection, errors),
        "serviceAccountToken" => {
            let seconds = projection.get("expirationSeconds");
            if seconds.int().is_some_and(|number| number < 600) {
                seconds.invalid(errors, "may not specify a duration less than 10 minutes");
            }
            if seconds.int().is_some_and(|number| number > 1 << 32) {
                seconds.invalid(errors, "may not specify a duration larger than 2^32 seconds");
            }
            local_path(&projection.get("path").shown_at(source.get("path").path()), errors);
        }
        _ => {}
    }
}
