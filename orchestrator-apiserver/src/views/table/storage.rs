//! The cells of volumes and what provides them.

use serde_json::Value;

use super::row::{Row, Tree, cells};

const MODES: [(&str, &str); 4] =
    [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
const CLASS: &str = "volume.beta.kubernetes.io/storage-class";
const DEFAULT_CLASS: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
const DEFAULT_ATTRIBUTES_CLASS: [&str; 1] = ["volumeattributesclass.alpha.kubernetes.io/is-default-class"];

fn access_modes(modes: Tree<'_>) -> String {
    let given = |mode: &str| modes.items().any(|item| item.text() == mode);
    MODES.iter().filter(|(mode, _)| given(mode)).map(|(_, short)| *short).collect::<Vec<_>>().join(",")
}

fn annotation<'a>(row: &Row<'a>, name: &str) -> Tree<'a> {
    row.at("metadata.annotations").get(name)
}

fn class<'a>(row: &Row<'a>) -> &'a str {
    let annotated = annotation(row, CLASS);
    if annotated.exists() { annotated.text() } else { row.at("spec.storageClassName").text() }
}

fn phase<'a>(row: &Row<'a>) -> &'a str {
    if row.is_terminating() { "Terminating" } else { row.at("status.phase").text() }
}

/// The amount of storage; `0` where none is told, as an empty quantity reads.
fn amount<'a>(resources: Tree<'a>) -> &'a str {
    resources.get("storage").text_or("0")
}

pub(super) fn volume(row: &Row<'_>) -> Vec<Value> {
    let (spec, claim) = (row.at("spec"), row.at("spec.claimRef"));
    let claimed = format!("{}/{}", claim.get("namespace").text(), claim.get("name").text());
    cells![
        row.name(),
        amount(spec.get("capacity")),
        access_modes(spec.get("accessModes")),
        spec.get("persistentVolumeReclaimPolicy").text(),
        phase(row),
        if claim.exists() { claimed } else { String::new() },
        class(row),
        spec.get("volumeAttributesClassName").text_or("<unset>"),
        row.at("status.reason").text(),
        row.age(),
        spec.get("volumeMode").text_or("<unset>"),
    ]
}

pub(super) fn claim(row: &Row<'_>) -> Vec<Value> {
    let (spec, status) = (row.at("spec"), row.at("status"));
    let volume = spec.get("volumeName").text();
    let (capacity, modes) = if volume.is_empty() {
        ("", String::new())
    } else {
        (amount(status.get("capacity")), access_modes(status.get("accessModes")))
    };
    cells![
        row.name(),
        phase(row),
        volume,
        capacity,
        modes,
        class(row),
        spec.get("volumeAttributesClassName").text_or("<unset>"),
        row.age(),
        spec.get("volumeMode").text_or("<unset>"),
    ]
}

/// The name, marked when an annotation makes it the default.
fn marked_name(row: &Row<'_>, annotations: &[&str]) -> String {
    let default = annotations.iter().any(|name| annotation(row, name).text() == "true");
    format!("{}{}", row.name(), if default { " (default)" } else { "" })
}

pub(super) fn storage_class(row: &Row<'_>) -> Vec<Value> {
    cells![
        marked_name(row, &DEFAULT_CLASS),
        row.at("provisioner").text(),
        row.at("reclaimPolicy").text_or("Delete"),
        row.at("volumeBindingMode").text_or("Immediate"),
        row.at("allowVolumeExpansion").bool().unwrap_or(false),
        row.age(),
    ]
}

pub(super) fn attributes_class(row: &Row<'_>) -> Vec<Value> {
    cells![marked_name(row, &DEFAULT_ATTRIBUTES_CLASS), row.at("driverName").text(), row.age()]
}

pub(super) fn attachment(row: &Row<'_>) -> Vec<Value> {
    let spec = row.at("spec");
    cells![
        row.name(),
        spec.get("attacher").text(),
        spec.at("source.persistentVolumeName").text(),
        spec.get("nodeName").text(),
        row.at("status.attached").bool().unwrap_or(false),
        row.age(),
    ]
}

pub(super) fn driver(row: &Row<'_>) -> Vec<Value> {
    let spec = row.at("spec");
    let tokens = spec.get("tokenRequests");
    let audiences = tokens.items().map(|token| token.get("audience").text()).collect::<Vec<_>>().join(",");
    let modes = spec.get("volumeLifecycleModes").joined(",");
    let holds = |name: &str, otherwise| spec.get(name).bool().unwrap_or(otherwise);
    cells![
        row.name(),
        holds("attachRequired", true),
        holds("podInfoOnMount", false),
        holds("storageCapacity", false),
        if tokens.exists() { audiences } else { "<unset>".to_owned() },
        holds("requiresRepublish", false),
        if modes.is_empty() { "<none>".to_owned() } else { modes },
        row.age(),
    ]
}

pub(super) fn driver_node(row: &Row<'_>) -> Vec<Value> {
    cells![row.name(), row.at("spec.drivers").len(), row.age()]
}
