//! The volumes of a pod.

use crate::{
    field::{Errors, Field},
    kinds::{check, storage},
    names,
};

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

/// The rules of all volumes of a pod.
pub(super) fn validate(volumes: &Field<'_>, errors: &mut Errors) {
    let mut seen = Vec::new();
    for volume in volumes.items() {
        let name = volume.get("name");
        source(&volume, errors);
        if name.text().is_empty() {
            name.required(errors, "");
        } else {
            check::problems(&name, &names::label(name.text()), errors);
        }
        if seen.contains(&name.text()) {
            name.duplicate(errors);
        }
        seen.push(name.text());
    }
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
        "csi" => check::required(&source.get("driver"), errors),
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
        "rbd" => &["image"],
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
        check::required(&source.get(name), errors);
    }
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
    if path.text().is_empty() {
        path.required(errors, "");
    } else if !path.text().starts_with('/') {
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
        for kind in
            ["secret", "configMap", "downwardAPI", "serviceAccountToken", "clusterTrustBundle", "podCertificate"]
        {
            let projection = part.get(kind);
            if !projection.exists() {
                continue;
            }
            found += 1;
            if found > 1 {
                projection.forbidden(errors, "may not specify more than 1 volume type");
                continue;
            }
            one_projection(kind, &projection, errors);
            for path in
                projection.get("items").items().iter().map(|item| item.get("path")).chain([projection.get("path")])
            {
                if !path.text().is_empty() && paths.contains(&path.text()) {
                    source.wrong(errors, path.shown(), "conflicting duplicate paths");
                }
                paths.push(path.text());
            }
        }
        if found == 0 {
            part.required(errors, "must specify a volume type");
        }
    }
}

fn one_projection(kind: &str, projection: &Field<'_>, errors: &mut Errors) {
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
            check::required(&projection.get("path"), errors);
        }
        _ => {}
    }
}
