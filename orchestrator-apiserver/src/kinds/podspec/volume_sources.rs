//! The sources that volumes of pods and persistent volumes have in common.
//!
//! Upstream: the `validate…VolumeSource` functions of `pkg/apis/core/validation/validation.go`.

use std::sync::LazyLock;

use orchestrator_core::status::FieldErrorKind;
use regex::Regex;

use crate::{
    field::{Errors, Field},
    kinds::check,
    names,
};

const DRIVER_NAME_BYTES: usize = 63;
const TENANT_BYTES: usize = 64;
const INITIATOR_BYTES: usize = 64;
const PARTITION: &str = "must be between 1 and 255, inclusive";
const UNIT: &str = "must be between 0 and 255, inclusive";
const REGISTRY: &str = "must be a host:port pair or multiple pairs separated by commas";
const NAME_FORMAT: &str = "must be valid format";
const NAME_START: &str = "must be valid format starting with iqn, eui, or naa";
const INITIATOR_TOO_LONG: &str = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if \
                                  iscsi.initiatorName is specified.";
/// Where the disks of Azure are.
const MANAGED_DISK: &str =
    "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}";
const BLOB_DISK: &str = "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd";

/// The forms of iSCSI names, by what they begin with.
static ISCSI_NAMES: LazyLock<Vec<(&str, Option<Regex>)>> = LazyLock::new(|| {
    [
        ("iqn", r"iqn\.\d{4}-\d{2}\.([[:alnum:]\-.]+)(:[^,;*&$|\s]+)$"),
        ("eui", r"^eui.[[:alnum:]]{16}$"),
        ("naa", r"^naa.[[:alnum:]]{32}$"),
    ]
    .map(|(start, form)| (start, Regex::new(form).ok()))
    .into()
});

/// Whose source it is. What belongs to a persistent volume names its secrets with their namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner<'a> {
    /// A pod's volume of this name.
    Pod(&'a str),
    /// A persistent volume of this name.
    PersistentVolume(&'a str),
}

/// A source by its name, at the place where errors name it.
pub(crate) fn source<'a>(volume: &Field<'a>, kind: &'a str) -> Field<'a> {
    let source = volume.get(kind);
    if kind == "gcePersistentDisk" { source.shown_at(format!("{}.persistentDisk", volume.path())) } else { source }
}

/// Refuses a source beside another one.
pub(crate) fn one_too_many(volume: &Field<'_>, kind: &str, errors: &mut Errors) {
    // Upstream spells two of them in ways of its own.
    let name = match kind {
        "cephfs" => "cephFS",
        "downwardAPI" => "downwarAPI",
        other => other,
    };
    let place = format!("{}.{name}", volume.path());
    errors.add(place, FieldErrorKind::Forbidden, "may not specify more than 1 volume type");
}

/// The rules of a source that pods and persistent volumes share.
pub(crate) fn plain_source(kind: &str, source: &Field<'_>, owner: Owner<'_>, errors: &mut Errors) {
    let required: &[&str] = match kind {
        "hostPath" => return host_path(source, errors),
        "nfs" => return nfs(source, errors),
        "iscsi" => return iscsi(source, owner, errors),
        "fc" => return fibre_channel(source, errors),
        "quobyte" => return quobyte(source, errors),
        "flocker" => return flocker(source, errors),
        "flexVolume" => return flex(source, errors),
        "azureDisk" => return azure_disk(source, errors),
        "storageos" => return storage_os(source, owner, errors),
        "gcePersistentDisk" => &["pdName"],
        "awsElasticBlockStore" | "cinder" | "portworxVolume" => &["volumeID"],
        "glusterfs" => &["endpoints", "path"],
        "rbd" => &["monitors", "image"],
        "cephfs" => &["monitors"],
        "azureFile" => &["secretName", "shareName"],
        "vsphereVolume" => &["volumePath"],
        "photonPersistentDisk" => &["pdID"],
        "gitRepo" => &["repository"],
        "scaleIO" => &["gateway", "system", "volumeName"],
        _ => &[],
    };
    for name in required {
        if source.get(name).len() == 0 {
            source.get(name).required(errors, "");
        }
    }
    match kind {
        "gcePersistentDisk" | "awsElasticBlockStore" => numbered(&source.get("partition"), PARTITION, errors),
        "gitRepo" => check::descending_path(&source.get("directory"), errors),
        "cinder" => secret(&source.get("secretRef"), owner, errors),
        "glusterfs" | "azureFile" if matches!(owner, Owner::PersistentVolume(_)) => namespace_of(kind, source, errors),
        _ => {}
    }
}

/// The name of a driver: a domain in any case.
pub(crate) fn driver_name(name: &Field<'_>, errors: &mut Errors) {
    if name.text().is_empty() {
        return name.required(errors, "");
    }
    if name.text().len() > DRIVER_NAME_BYTES {
        let detail = format!("may not be more than {DRIVER_NAME_BYTES} bytes");
        name.error(errors, FieldErrorKind::TooLong, detail);
    }
    check::problems(name, &names::subdomain(&name.text().to_lowercase()), errors);
}

fn numbered(number: &Field<'_>, detail: &str, errors: &mut Errors) {
    if number.int().is_some_and(|number| !(0..=255).contains(&number)) {
        number.invalid(errors, detail);
    }
}

/// A secret that is named where it is given at all.
fn secret(reference: &Field<'_>, owner: Owner<'_>, errors: &mut Errors) {
    if !reference.exists() {
        return;
    }
    check::required(&reference.get("name"), errors);
    if matches!(owner, Owner::PersistentVolume(_)) {
        check::required(&reference.get("namespace"), errors);
    }
}

/// The namespace that a persistent volume finds its partner in, where it names one.
fn namespace_of(kind: &str, source: &Field<'_>, errors: &mut Errors) {
    if kind == "azureFile" {
        let namespace = source.get("secretNamespace");
        if namespace.exists() {
            check::required(&namespace, errors);
        }
        return;
    }
    let namespace = source.get("endpointsNamespace");
    if namespace.exists() && namespace.text().is_empty() {
        namespace.invalid(errors, "if the endpointnamespace is set, it must be a valid namespace name");
    }
    check::given(&namespace, names::label, errors);
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

fn iscsi(source: &Field<'_>, owner: Owner<'_>, errors: &mut Errors) {
    let (portal, name) = (source.get("targetPortal"), source.get("iqn"));
    let initiator = source.get("initiatorName").shown_at(format!("{}.initiatorname", source.path()));
    let wrong_start = if matches!(owner, Owner::Pod(_)) { NAME_START } else { NAME_FORMAT };
    check::required(&portal, errors);
    if let Owner::PersistentVolume(volume) = owner
        && is_long(&initiator, volume, portal.text())
    {
        portal.shown_at(format!("{}.targetportal", source.path())).invalid(errors, INITIATOR_TOO_LONG);
    }
    if name.text().is_empty() {
        name.required(errors, "");
    } else {
        iscsi_name(&name, wrong_start, errors);
    }
    numbered(&source.get("lun"), UNIT, errors);
    let authenticates =
        ["chapAuthDiscovery", "chapAuthSession"].iter().any(|name| source.get(name).bool() == Some(true));
    let reference = source.get("secretRef");
    if authenticates && !reference.exists() {
        reference.required(errors, "");
    }
    if reference.exists() && matches!(owner, Owner::PersistentVolume(_)) {
        check::required(&reference.get("name"), errors);
    }
    if initiator.exists() {
        iscsi_name(&initiator, wrong_start, errors);
    }
    if let Owner::Pod(volume) = owner
        && is_long(&initiator, volume, portal.text())
    {
        let place = source.path();
        let place = place.strip_suffix(".iscsi").unwrap_or(&place);
        errors.add(format!("{place}.name"), FieldErrorKind::Invalid, format!("{volume:?}: {INITIATOR_TOO_LONG}"));
    }
}

fn is_long(initiator: &Field<'_>, volume: &str, portal: &str) -> bool {
    initiator.exists() && volume.len() + 1 + portal.len() > INITIATOR_BYTES
}

fn iscsi_name(name: &Field<'_>, wrong_start: &str, errors: &mut Errors) {
    match ISCSI_NAMES.iter().find(|(start, _)| name.text().starts_with(start)) {
        None => name.invalid(errors, wrong_start),
        Some((_, form)) => {
            if !form.as_ref().is_some_and(|form| form.is_match(name.text())) {
                name.invalid(errors, NAME_FORMAT);
            }
        }
    }
}

fn fibre_channel(source: &Field<'_>, errors: &mut Errors) {
    let (targets, world, unit) = (source.get("targetWWNs"), source.get("wwids"), source.get("lun"));
    match (targets.len(), world.len()) {
        (0, 0) => targets.required(errors, "must specify either targetWWNs or wwids, but not both"),
        (0, _) => return,
        (_, 0) => {}
        _ => targets.invalid(errors, "targetWWNs and wwids can not be specified simultaneously"),
    }
    if targets.len() > 0 && !unit.exists() {
        unit.required(errors, "lun is required if targetWWNs is specified");
    }
    if targets.len() > 0 {
        numbered(&unit, UNIT, errors);
    }
}

fn quobyte(source: &Field<'_>, errors: &mut Errors) {
    let (registry, tenant) = (source.get("registry"), source.get("tenant"));
    if registry.text().is_empty() {
        registry.required(errors, REGISTRY);
    } else if tenant.text().len() > TENANT_BYTES {
        let detail = format!("must be a UUID and may not exceed a length of {TENANT_BYTES} characters");
        tenant.required(errors, &detail);
    } else {
        for _ in registry.text().split(',').filter(|pair| !is_host_and_port(pair)) {
            registry.invalid(errors, REGISTRY);
        }
    }
    check::required(&source.get("volume"), errors);
}

/// Whether a text is a host and a port, with the host in brackets if it has colons itself.
fn is_host_and_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_plain = |text: &str| !text.contains(['[', ']']);
    is_plain(port) && bare.map_or_else(|| is_plain(host) && !host.contains(':'), is_plain)
}

fn flocker(source: &Field<'_>, errors: &mut Errors) {
    let (name, id) = (source.get("datasetName"), source.get("datasetUUID"));
    match (name.len(), id.len()) {
        (0, 0) => source.required(errors, "one of datasetName and datasetUUID is required"),
        (0, _) | (_, 0) => {}
        _ => {
            let detail = "datasetName and datasetUUID can not be specified simultaneously";
            source.wrong(errors, "\"resource\"", detail);
        }
    }
    if name.text().contains('/') {
        name.invalid(errors, "must not contain '/'");
    }
}

fn flex(source: &Field<'_>, errors: &mut Errors) {
    check::required(&source.get("driver"), errors);
    for (key, option) in source.get("options").entries() {
        let domain = key.split_once('/').map_or(key, |(domain, _)| domain);
        let domain = format!(".{}", domain.to_lowercase());
        if domain.ends_with(".kubernetes.io") || domain.ends_with(".k8s.io") {
            option.wrong(errors, format!("{key:?}"), "kubernetes.io and k8s.io namespaces are reserved");
        }
    }
}

fn azure_disk(source: &Field<'_>, errors: &mut Errors) {
    let (place, kind) = (source.get("diskURI"), source.get("kind"));
    check::required(&source.get("diskName"), errors);
    check::required(&place, errors);
    source.get("cachingMode").one_of(errors, &["None", "ReadOnly", "ReadWrite"]);
    kind.one_of(errors, &["Dedicated", "Managed", "Shared"]);
    if !kind.exists() {
        return;
    }
    let (start, known) = match kind.text() {
        "Managed" => ("/subscriptions/", MANAGED_DISK),
        _ => ("https://", BLOB_DISK),
    };
    if !place.text().starts_with(start) {
        place.not_supported(errors, &[known]);
    }
}

fn storage_os(source: &Field<'_>, owner: Owner<'_>, errors: &mut Errors) {
    check::needed(&source.get("volumeName"), names::label, errors);
    check::given(&source.get("volumeNamespace"), names::label, errors);
    secret(&source.get("secretRef"), owner, errors);
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn broken(kind: &str, owner: Owner<'_>, source: Value) -> Vec<String> {
        let volume = json!({ kind: source });
        let place = Field::root(&volume);
        let mut errors = Errors::default();
        plain_source(kind, &super::source(&place, kind), owner, &mut errors);
        errors.into_vec().into_iter().map(|error| format!("{}: {}", error.field, error.detail)).collect()
    }

    #[test]
    fn hosts_have_ports() {
        let right = ["a:1", "a:", "[::1]:80", ":1"].iter().all(|text| is_host_and_port(text));
        let wrong = ["a", "::1:80", "[::1:80", "a:[1]"].iter().any(|text| is_host_and_port(text));
        assert_eq!((right, wrong), (true, false));
    }

    #[test]
    fn targets_are_named_as_iscsi_names_them() {
        let pod = Owner::Pod("v");
        let of = |name: &str| broken("iscsi", pod, json!({"targetPortal": "p", "iqn": name, "lun": 0}));
        for name in ["iqn.2001-04.com.example:storage", "eui.0123456789abcdef", "naa.0123456789abcdef0123456789abcdef"]
        {
            assert_eq!(of(name), [""; 0], "{name}");
        }
        assert_eq!(of("abc"), [format!("iscsi.iqn: \"abc\": {NAME_START}")]);
        assert_eq!(of("iqn.2001.com:x"), [format!("iscsi.iqn: \"iqn.2001.com:x\": {NAME_FORMAT}")]);
        let long = json!({"targetPortal": "p".repeat(70), "iqn": "eui.0123456789abcdef", "initiatorName": "abc"});
        let initiator = broken("iscsi", pod, long.clone());
        assert_eq!(initiator[0], format!("iscsi.initiatorname: \"abc\": {NAME_START}"));
        assert!(initiator[1].ends_with(INITIATOR_TOO_LONG), "{initiator:?}");
        let persistent = broken("iscsi", Owner::PersistentVolume("v"), long);
        assert!(persistent[0].starts_with("iscsi.targetportal: "), "{persistent:?}");
        assert_eq!(persistent[1], format!("iscsi.initiatorname: \"abc\": {NAME_FORMAT}"));
    }

    #[test]
    fn secrets_of_persistent_volumes_have_namespaces() {
        let cinder = json!({"volumeID": "x", "secretRef": {"name": "s"}});
        assert_eq!(broken("cinder", Owner::Pod("v"), cinder.clone()), [""; 0]);
        assert_eq!(broken("cinder", Owner::PersistentVolume("v"), cinder), ["cinder.secretRef.namespace: "]);
    }

    #[test]
    fn each_source_has_its_rules() {
        let pod = Owner::Pod("v");
        let first = |kind: &str, source: Value| broken(kind, pod, source).into_iter().next().unwrap_or_default();
        assert_eq!(first("fc", json!({})), "fc.targetWWNs: must specify either targetWWNs or wwids, but not both");
        assert_eq!(first("fc", json!({"wwids": ["x"]})), "");
        assert_eq!(first("fc", json!({"targetWWNs": ["x"], "lun": 256})), format!("fc.lun: 256: {UNIT}"));
        assert_eq!(
            first("quobyte", json!({"registry": "a", "volume": "v"})),
            format!("quobyte.registry: \"a\": {REGISTRY}")
        );
        assert_eq!(
            first("flocker", json!({"datasetName": "a", "datasetUUID": "b"})),
            "flocker: \"resource\": datasetName and datasetUUID can not be specified simultaneously"
        );
        assert_eq!(
            first("flexVolume", json!({"driver": "d", "options": {"a.k8s.io/b": "c"}})),
            "flexVolume.options[a.k8s.io/b]: \"a.k8s.io/b\": kubernetes.io and k8s.io namespaces are reserved"
        );
        assert_eq!(
            first("azureDisk", json!({"diskName": "d", "diskURI": "x", "kind": "Managed"})),
            format!("azureDisk.diskURI: \"x\": supported values: {MANAGED_DISK:?}")
        );
        assert_eq!(
            first("awsElasticBlockStore", json!({"volumeID": "x", "partition": -1})),
            format!("awsElasticBlockStore.partition: -1: {PARTITION}")
        );
        assert_eq!(
            first("gitRepo", json!({"repository": "r", "directory": "/x"})),
            "gitRepo.directory: \"/x\": must be a relative path"
        );
    }
}
